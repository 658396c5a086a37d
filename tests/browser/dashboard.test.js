// Tests of the dashboard in a real browser, as an operator uses it.
"use strict";

const assert = require("node:assert/strict");
const { after, before, test } = require("node:test");
const { launch, open, shot } = require("./browser.js");
const { redis, serve } = require("./server.js");

const SECRET = "Zanzibar";
let browser;
let server;

before(async () => {
  [browser, server] = await Promise.all([launch(), serve({ sections: "\n[dashboard]\nshow_prompts = true\n" })]);
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

// Returns the exact number behind a text of the page.
const value = (page, id) => page.locator(`#${id}`).getAttribute("data-value").then(Number);

// Waits until the element `id` shows the number `expected`.
async function shows(page, id, expected) {
  const arrived = ([id, expected]) => Math.abs(Number(document.getElementById(id).dataset.value) - expected) < 1e-9;
  await page.waitForFunction(arrived, [id, expected]).catch(async () => assert.equal(await value(page, id), expected, id));
}

async function traffic() {
  const outcomes = [];
  for (const text of [
    "How do I reset my password?", "How do I reset my password?", "How can I reset my password?",
    "How do I enable dark mode?", "How do I disable dark mode?", `Is there a branch in ${SECRET}?`,
  ]) outcomes.push(await server.ask(text));
  return outcomes;
}

test("the page of an idle server says in every panel that there is no data", async () => {
  const page = await open(browser, server.url);
  await page.locator("#live.on").waitFor();
  for (const text of ["No request in this time.", "No miss in this time.", "No request yet.", "No verifier was asked in this time.", "No semantic hit yet.", "No replica or region shares this store."]) {
    assert.ok(await page.getByText(text).isVisible(), text);
  }
  assert.equal(await page.locator(".chart .none:visible").count(), 4);
  await shot(page, "empty");
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test("the page shows the numbers of GetStats and follows the traffic", async () => {
  const page = await open(browser, server.url);
  const outcomes = await traffic();
  assert.deepEqual(outcomes.slice(0, 3), ["upstream", "exact", "semantic"]);
  for (let round = 0; round < 2; round++) {
    const stats = await server.stats();
    const all = Object.values(stats.requests).reduce((a, b) => a + b, 0);
    await shows(page, "total-requests", all);
    await shows(page, "total-hits", stats.hit_ratio);
    await shows(page, "hit-hour", stats.hit_ratio);
    await shows(page, "total-spent", stats.cost_usd);
    await shows(page, "spent", stats.cost_usd);
    await shows(page, "saved", stats.saved_usd);
    assert.ok(stats.cost_usd > 0 && stats.saved_usd > 0);
    for (const row of await page.locator("#latency tbody tr").all()) {
      const outcome = await row.getAttribute("data-outcome");
      assert.equal(Number(await row.getAttribute("data-value")), stats.requests[outcome], outcome);
    }
    const small = page.locator('#models tr[data-model="small"]');
    assert.equal(Number(await small.getAttribute("data-value")), stats.requests.upstream);
    assert.ok(await small.getByText("closed").isVisible());
    await traffic();
  }
  // The small model is ten times cheaper than the large one.
  const hot = await page.locator("#hot").getAttribute("data-value");
  const [spent, saved] = [await value(page, "spent"), await value(page, "saved")];
  assert.ok(Math.abs(hot - 10 * (spent + saved)) < 1e-6, `${hot} is not ten times ${spent} + ${saved}`);
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test("the wrong-hit button reports the hit once, for every open page", async () => {
  const page = await open(browser, server.url);
  const row = page.locator("#hits tbody tr").last();
  await row.getByText("How can I reset my password?").waitFor();
  await row.getByRole("button", { name: "Wrong hit" }).click();
  await row.getByText("reported wrong").waitFor();
  const { feedback } = await server.stats();
  assert.equal(feedback.wrong_hit, 1);
  await shows(page, "reported", 1);
  await page.reload();
  await row.getByText("reported wrong").waitFor();
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

for (const [name, options] of [
  ["light", { colorScheme: "light" }],
  ["dark", { colorScheme: "dark" }],
  ["phone", { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true }],
  ["phone-small", { viewport: { width: 320, height: 640 }, colorScheme: "dark" }],
]) {
  test(`the page fits its window and reports no problem: ${name}`, async () => {
    const page = await open(browser, server.url, options);
    await page.locator("#hits tbody tr").first().waitFor();
    for (const range of ["15 min", "1 h", "24 h"]) {
      await page.getByRole("button", { name: range, exact: true }).click();
      await page.locator("#live.on").waitFor();
    }
    const [content, window] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert.ok(content <= window, `${content} px of content in ${window}`);
    const ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    assert.equal(/^rgb\(2\d\d/.test(ground), options.colorScheme !== "dark", ground);
    await shot(page, name);
    assert.deepEqual(page.problems, []);
    await page.context().close();
  });
}

test("prompts are neither on the page nor sent to it unless they are configured to be", async () => {
  const quiet = await serve();
  try {
    await quiet.ask(`Where is the branch in ${SECRET}?`);
    assert.equal(await quiet.ask(`Where's the branch in ${SECRET}?`), "semantic");
    const page = await open(browser, quiet.url);
    await page.locator("#hits tbody tr").first().waitFor();
    assert.ok(await page.getByText("Prompts are not shown").isVisible());
    const sent = await (await fetch(`${quiet.url}/dashboard/snapshot/1h`)).text();
    assert.ok(!sent.includes(SECRET) && !(await page.content()).includes(SECRET));
    await page.context().close();
  } finally {
    await quiet.stop();
  }
});

test("the panel of the verifier shows the numbers of GetStats", async () => {
  const sections = '\n[[cache.namespaces]]\nnamespace = "default"\nmode = "bounded"\n[cache.verify]\nmode = "before"\ntimeout = "20s"\n';
  const verifying = await serve({ sections });
  try {
    assert.equal(await verifying.ask("How do I reset my password?"), "upstream");
    assert.equal(await verifying.ask("How can I reset my password?"), "semantic");
    const page = await open(browser, verifying.url);
    const shown = (fact) => page.locator(`#verification [data-fact="${fact}"]`).getAttribute("data-value").then(Number);
    // The audit of the hit asks too, in the background.
    await page.locator('#verification [data-fact="nonsense"][data-value="1"]').waitFor();
    const { verification: v } = await verifying.stats();
    assert.ok(v.yes === 1 && v.hits === 1 && v.cost_usd > 0 && v.saved_usd > 0, JSON.stringify(v));
    for (const [fact, value] of Object.entries({
      asked: v.asked, yes: v.yes, no: v.no, late: v.timeouts, unavailable: v.unavailable, skipped: v.skipped,
      cost: v.cost_usd, "share of the bill": v.share_of_spend, "approved hits": v.hits, "saved by them": v.saved_usd,
    })) assert.ok(Math.abs((await shown(fact)) - value) < 1e-9, fact);
    await page.getByText("Its errors have not been measured yet.").waitFor();
    await page.getByText("judged by: comparison").waitFor();
    await page.locator("#verifier").scrollIntoViewIfNeeded();
    await shot(page, "verifier");
    assert.deepEqual(page.problems, []);
    await page.context().close();
  } finally {
    await verifying.stop();
  }
});

test("a replica shows its lag behind its region and each peer, and how much of its index is loaded", async () => {
  const [own, peer] = await Promise.all([redis(), redis()]);
  const store = `kind = "redis"\nurl = "${own.url}"\n[[store.peers]]\nregion = "far-away"\nurl = "${peer.url}"`;
  const replica = await serve({ store });
  try {
    const page = await open(browser, replica.url);
    const fact = (name, text) => page.locator(`#store [data-fact="${name}"]`).getByText(text, { exact: true }).waitFor();
    await fact("index loaded", "100.0 %");
    await fact("lag behind other replicas", "in step");
    await fact("lag behind far-away", "in step");
    assert.equal(await page.locator("#replication").textContent(), "");
    await peer.stop();
    await page.locator('#store [data-fact="lag behind far-away"] .warn').waitFor();
    await shot(page, "lag");
    assert.deepEqual(page.problems, []);
    await page.context().close();
  } finally {
    await replica.stop();
    await Promise.all([own.stop(), peer.stop()]);
  }
});

test("with tenants the page opens with the operator's key and not with a tenant's", async () => {
  const env = { SHOP_KEY: "key-of-the-shop", OPERATOR_KEY: "key-of-the-operator" };
  const guarded = await serve({
    more: 'tenants = [{ name = "shop", api_key_env = "SHOP_KEY" }]',
    sections: '\n[dashboard]\napi_key_env = "OPERATOR_KEY"\n',
    env,
  });
  try {
    const authorization = `Bearer ${env.SHOP_KEY}`;
    assert.equal(await guarded.ask("How do I reset my password?", { authorization }), "upstream");
    const page = await open(browser, guarded.url);
    const key = page.getByLabel("Key");
    await key.fill(env.SHOP_KEY);
    await key.press("Enter");
    await page.getByText("That was not it.").waitFor();
    assert.ok(!(await page.locator("#main").isVisible()));
    await shot(page, "sign-in");
    await key.fill(env.OPERATOR_KEY);
    await key.press("Enter");
    await shows(page, "total-requests", 1);
    await page.context().close();
  } finally {
    await guarded.stop();
  }
});

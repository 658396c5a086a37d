// Fills the page from the server's snapshots. Inserts all values as text, never as HTML: names and prompts are untrusted.
"use strict";

const byId = (id) => document.getElementById(id);
const RANGES = { "15m": ["quarter", "last 15 min"], "1h": ["hour", "last hour"], "24h": ["day", "last 24 h"] };
const HITS = ["exact", "semantic", "coalesced"];
const OUTCOMES = [...HITS, "upstream", "bypass", "miss", "stored", "error"];
const MONTH = 30 * 24 * 3600;
const KEY = "promptkeep-key";
// With fewer checked hits the estimate is too uncertain for a warning. The alert rule uses this limit too.
const WRONG_CHECKS_MIN = 100;

let range = localStorage.getItem("promptkeep-range") in RANGES ? localStorage.getItem("promptkeep-range") : "15m";
let slo = 2000;

// === numbers as text ===

const number = new Intl.NumberFormat("en-US");
const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });
const digits = (value, n) => value.toLocaleString("en-US", { minimumFractionDigits: n, maximumFractionDigits: n });

const format = {
  percent: (v) => `${digits(v * 100, 1)} %`,
  rate: (v) => (v === 0 ? "0" : v < 0.095 ? digits(v, 2) : v < 9.95 ? digits(v, 1) : compact.format(v)),
  usd(v) {
    if (v === 0) return "$0";
    const size = Math.abs(v);
    if (size >= 10000) return `$${compact.format(v)}`;
    if (size < 0.001) return `$${v.toLocaleString("en-US", { maximumSignificantDigits: 2 })}`;
    return `$${digits(v, size >= 1000 ? 0 : size >= 1 ? 2 : size >= 0.1 ? 3 : 4)}`;
  },
  ms(v) {
    if (v >= 10000) return `${digits(v / 1000, 0)} s`;
    if (v >= 1000) return `${digits(v / 1000, v % 1000 ? 2 : 0)} s`;
    return `${digits(v, v >= 100 ? 0 : v >= 10 ? 1 : 2)} ms`;
  },
  bytes(v) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let n = 0;
    while (v >= 1024 && n < units.length - 1) { v /= 1024; n += 1; }
    return `${digits(v, n && v < 100 ? 1 : 0)} ${units[n]}`;
  },
  span(seconds) {
    const s = Math.floor(seconds);
    if (s < 60) return `${s} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min`;
    if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
    return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
  },
};

// === elements ===

// Sets the text of an element and, for tests, the exact value.
function put(id, text, value) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
  if (value !== undefined) element.dataset.value = value;
}

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function row(cells) {
  const tr = make("tr");
  for (const [text, className] of cells) {
    const td = make("td", className);
    td.append(text instanceof Node ? text : document.createTextNode(text));
    tr.append(td);
  }
  return tr;
}

function rows(id, all) {
  byId(id).tBodies[0].replaceChildren(...all);
  byId(id).hidden = all.length === 0;
  byId(id).closest(".panel").querySelector(".empty").hidden = all.length > 0;
}

const width = (share) => `${Math.min(Math.max(share, 0), 1) * 100}%`;

// === the parts of the page ===

function showHead(s) {
  put("region", s.region);
  put("mode", `mode ${s.mode}`);
  put("uptime", `up ${format.span(s.uptime_seconds)}`, s.uptime_seconds);
  put("version", `promptkeep ${s.version}`);
  const { total } = s.windows;
  put("total-requests", number.format(Object.values(total.requests).reduce((a, b) => a + b, 0)), total.answered);
  put("total-hits", format.percent(total.hit_ratio), total.hit_ratio);
  put("total-spent", format.usd(total.cost_usd), total.cost_usd);
  put("total-saved", format.usd(total.saved_usd), total.saved_usd);
}

function showHits({ now, hour, day }) {
  const of = (window) => (window.answered ? format.percent(window.hit_ratio) : "–");
  put("hit-now", of(now), now.hit_ratio);
  put("hit-hour", of(hour), hour.hit_ratio);
  put("hit-day", of(day), day.hit_ratio);
  // An idle server shows the last 24 hours.
  const window = now.answered ? now : day;
  const share = (outcome) => window.requests[outcome] / Math.max(window.answered, 1);
  byId("hit-parts").replaceChildren(...HITS.filter(share).map((outcome) => {
    const part = make("i", `o-${outcome}`);
    part.style.width = width(share(outcome));
    return part;
  }));
  byId("hit-parts").setAttribute("aria-label", HITS.map((o) => `${o} ${format.percent(share(o))}`).join(", "));
  byId("hit-key").replaceChildren(...HITS.map((o) => {
    const item = make("span", `o-${o}`, `${o} ${format.percent(share(o))}`);
    item.dataset.outcome = o;
    item.dataset.value = share(o);
    return item;
  }));
}

function showMoney({ day }, hotModel) {
  const perMonth = (usd) => (day.seconds < 1 ? "–" : format.usd((usd / day.seconds) * MONTH));
  for (const label of document.querySelectorAll(".span-day")) {
    label.textContent = day.seconds < 86000 ? `last ${format.span(day.seconds)}` : "last 24 h";
  }
  put("saved", format.usd(day.saved_usd), day.saved_usd);
  put("saved-month", perMonth(day.saved_usd));
  const bill = day.saved_usd + day.cost_usd;
  put("saved-share", bill > 0 ? `${format.percent(day.saved_usd / bill)} of the bill without a cache` : "");
  put("spent", format.usd(day.cost_usd), day.cost_usd);
  put("spent-month", perMonth(day.cost_usd));
  put("hot", hotModel ? format.usd(day.hot_tier_usd) : "–", day.hot_tier_usd);
  const share = day.hot_tier_usd > 0 ? `you spend ${format.percent(day.cost_usd / day.hot_tier_usd)} of it; ` : "";
  put("hot-note", hotModel ? `${share}by the prices of ${hotModel}` : "no model is configured");
}

function showObjective({ now, day }) {
  const wait = (window) => (window.wait.count ? format.ms(window.wait.p99_ms) : "–");
  put("wait-now", wait(now), now.wait.p99_ms);
  put("wait-day", wait(day), day.wait.p99_ms);
  put("slo", `p99 < ${format.ms(slo)}`, slo);
  byId("wait-now").classList.toggle("warn", now.wait.count > 0 && now.wait.p99_ms > slo);
  // The error budget: 1 % of answers may be late.
  const used = day.late_share / 0.01;
  put("budget", format.percent(used), used);
  put("burn", `${digits(now.late_share / 0.01, 1)} ×`, now.late_share / 0.01);
  byId("budget").classList.toggle("warn", used > 1);
  const meter = byId("slo-meter");
  meter.firstElementChild.style.width = width(used);
  meter.classList.toggle("over", used > 1);
  meter.setAttribute("aria-label", `${format.percent(used)} of the error budget of 24 hours is used`);
}

function showQuality({ false_hits: estimate, max_wrong_hits: budget, feedback }, answered) {
  const interval = byId("wrong-interval");
  interval.hidden = !estimate;
  if (estimate) {
    const top = Math.max(budget * 2, estimate.high * 1.2);
    put("wrong", format.percent(estimate.rate), estimate.rate);
    put("wrong-note", `${format.percent(estimate.low)} – ${format.percent(estimate.high)} of semantic hits (95 %), ${number.format(estimate.checked)} checked; budget ${format.percent(budget)}`);
    const isSure = estimate.checked >= WRONG_CHECKS_MIN || estimate.low > budget;
    byId("wrong").classList.toggle("warn", isSure && estimate.rate > budget);
    const [range, point, limit] = interval.children;
    limit.style.left = width(budget / top);
    range.style.left = width(estimate.low / top);
    range.style.width = width((estimate.high - estimate.low) / top);
    point.style.left = width(estimate.rate / top);
    interval.setAttribute("aria-label", byId("wrong-note").textContent);
    const { comparison, verifier, feedback: reports } = estimate.labels;
    put("wrong-labels", `judged by: comparison ${number.format(comparison)}, verifier ${number.format(verifier)}, callers ${number.format(reports)}`);
  } else {
    put("wrong", "–", "");
    put("wrong-note", `no hit has been checked yet; budget ${format.percent(budget)}`);
    put("wrong-labels", "");
  }
  const { up = 0, down = 0, escalated = 0, wrong_hit: wrong = 0 } = feedback;
  put("thumbs", up + down ? format.percent(up / (up + down)) : "–", up);
  put("escalated", answered && escalated ? format.percent(escalated / answered) : "–", escalated);
  put("reported", number.format(wrong), wrong);
}

function showLatency(window) {
  const seen = OUTCOMES.filter((outcome) => window.requests[outcome] > 0);
  rows("latency", seen.map((outcome) => {
    const whole = window.latency[outcome];
    const first = window.first_token[outcome];
    const at = (times, key) => [times ? format.ms(times[key]) : "–", "n"];
    const tr = row([
      [make("span", `swatch o-${outcome}`, outcome), ""], [number.format(window.requests[outcome]), "n"],
      at(whole, "p50_ms"), at(whole, "p99_ms"), at(whole, "p999_ms"), at(first, "p50_ms"), at(first, "p99_ms"),
    ]);
    tr.dataset.outcome = outcome;
    tr.dataset.value = window.requests[outcome];
    return tr;
  }));
}

function showMisses(window) {
  const all = Object.entries(window.misses).sort((a, b) => b[1] - a[1]);
  const most = all.length ? all[0][1] : 1;
  const sum = all.reduce((total, [, n]) => total + n, 0);
  byId("misses").replaceChildren(...all.flatMap(([reason, n]) => {
    const bar = make("div");
    const fill = make("i");
    fill.style.width = width(n / most);
    bar.append(fill);
    return [make("span", "", reason), bar, make("span", "n", number.format(n)), make("span", "n faint", format.percent(n / sum))];
  }));
  byId("misses").closest(".panel").querySelector(".empty").hidden = all.length > 0;
}

const BREAKERS = { closed: "tag", half_open: "tag half", open: "tag bad" };

function showModels(models) {
  const list = (offers, cell) => {
    const box = make("div");
    box.append(...(offers.length ? offers.map(cell) : [make("div", "faint", "not in the catalog")]));
    return box;
  };
  const wrap = (child) => { const div = make("div"); div.append(child); return div; };
  rows("models", models.map((m) => {
    const tr = row([
      [m.model, ""], [m.tier, ""],
      [list(m.offers, (o) => make("div", "", `${o.provider} (${o.region})`)), ""],
      [list(m.offers, (o) => wrap(make("span", o.is_up ? "tag" : "tag bad", o.is_up ? "up" : "down"))), ""],
      [list(m.offers, (o) => wrap(make("span", BREAKERS[o.breaker] ?? "tag", o.breaker.replace("_", "-")))), ""],
      [number.format(m.calls), "n"], [number.format(m.errors), m.errors ? "n warn" : "n"],
      [compact.format(m.prompt_tokens), "n"], [compact.format(m.completion_tokens), "n"], [format.usd(m.cost_usd), "n"],
    ]);
    tr.dataset.model = m.model;
    tr.dataset.value = m.calls;
    return tr;
  }));
}

function showNamespaces(namespaces) {
  rows("namespaces", namespaces.map((n) => row([
    [n.name, ""], [number.format(n.answered), "n"], [format.percent(n.hit_ratio), "n"],
    [format.usd(n.cost_usd), "n"], [format.usd(n.saved_usd), "n"],
  ])));
}

// Namespaces without semantic hits, because no two conversations have the same text before the question.
function showFreshScopes(fresh) {
  const one = ({ namespace, field }) => `Every conversation in “${namespace}” has its own ${field}, so that no semantic hit is possible.`;
  put("fresh-scopes", fresh.map(one).join(" "), fresh.length);
}

// Fills a list with facts: name, text, whether to warn and, for tests, the exact value.
function showFacts(id, facts) {
  byId(id).replaceChildren(...facts.map(([name, text, warn, value]) => {
    const item = make("div");
    item.dataset.fact = name;
    if (value !== undefined) item.dataset.value = value;
    item.append(make("dt", "", name), make("dd", warn ? "warn" : "", text));
    return item;
  }));
}

function showVerification({ verification: v, answered }, { false_yes: yes, false_no: no, verdicts }) {
  const wasAsked = v.asked + v.skipped > 0;
  byId("verifier").querySelector(".empty").hidden = wasAsked;
  byId("verification").hidden = !wasAsked;
  const count = (name, n, warn = false) => [name, number.format(n), warn, n];
  const errors = ({ rate }) => (verdicts ? format.percent(rate) : "–");
  showFacts("verification", [
    count("asked", v.asked),
    ["per request", answered ? format.percent(v.asked / answered) : "–"],
    count("yes", v.yes), count("no", v.no),
    count("late", v.timeouts, v.timeouts > v.asked / 2),
    count("unavailable", v.unavailable, v.unavailable > v.asked / 2),
    count("nonsense", v.nonsense), count("skipped", v.skipped),
    ["cost", format.usd(v.cost_usd), false, v.cost_usd],
    ["share of the bill", format.percent(v.share_of_spend), false, v.share_of_spend],
    count("approved hits", v.hits),
    ["saved by them", format.usd(v.saved_usd), v.hits > 0 && v.saved_usd < v.cost_usd, v.saved_usd],
    ["false yes", errors(yes)], ["false no", errors(no)],
  ]);
  const between = ({ low, high }) => `${format.percent(low)} – ${format.percent(high)}`;
  const measured = `Since start, from ${number.format(verdicts)} verdicts (90 %): false yes ${between(yes)} of wrong answers, false no ${between(no)} of right ones.`;
  put("verifier-note", verdicts ? measured : wasAsked ? "Its errors have not been measured yet." : "");
}

function showStore(store, region) {
  const facts = [
    ["entries", number.format(store.entries)], ["vectors", number.format(store.vectors)],
    ["store errors", number.format(store.errors), store.errors > 0],
    ["memory tier", format.bytes(store.memory_bytes)], ["index", format.bytes(store.index_bytes)],
    ["index loaded", format.percent(store.index_loaded), store.index_loaded < 1],
  ];
  const lags = Object.entries(store.replication_lag);
  for (const [peer, seconds] of lags) {
    const name = peer === region ? "lag behind other replicas" : `lag behind ${peer}`;
    facts.push([name, seconds ? format.ms(seconds * 1000) : "in step", seconds > 0]);
  }
  showFacts("store", facts);
  const alone = lags.length ? "This replica reads from no other region." : "No replica or region shares this store.";
  put("replication", lags.some(([peer]) => peer !== region) ? "" : alone);
}

// === recent hits: rows are reused, so that buttons keep their place while the table is refreshed ===

const HITS_AT_FIRST = 8;
const hitRows = new Map();
let showsAll = false;

function hitRow(hit) {
  const texts = make("div");
  if (hit.asked != null) texts.append(make("p", "", hit.asked), make("p", "", hit.matched));
  else texts.append(make("code", "", `entry ${hit.entry}`));
  const tr = row([
    [new Date(hit.at * 1000).toLocaleTimeString([], { hourCycle: "h23" }), ""],
    [hit.tenant ? `${hit.tenant} / ${hit.namespace}` : hit.namespace, ""], [texts, "texts"],
    [digits(hit.similarity, 3), "n"], [hit.confidence ? format.percent(hit.confidence) : "–", "n"],
    [format.usd(hit.saved_usd), "n"], ["", "n"],
  ]);
  ["", "", "", "similarity", "confidence", "saved", ""].forEach((label, n) => label && (tr.cells[n].dataset.label = label));
  tr.dataset.hit = hit.id;
  return tr;
}

function showVerdict(tr, hit) {
  if (tr.dataset.verdict === (hit.verdict ?? "")) return;
  tr.dataset.verdict = hit.verdict ?? "";
  const cell = tr.cells[6];
  if (hit.verdict) {
    cell.replaceChildren(make("span", "said", hit.verdict === "wrong_hit" ? "reported wrong" : `said: ${hit.verdict}`));
    return;
  }
  const button = make("button", "wrong", "Wrong hit");
  button.type = "button";
  button.title = "Report that this answer belongs to another question";
  button.addEventListener("click", () => report(hit, tr, button));
  cell.replaceChildren(button);
}

function showHitTable(hits, showsPrompts) {
  const few = hits.slice(0, showsAll ? hits.length : HITS_AT_FIRST);
  byId("more").hidden = hits.length <= HITS_AT_FIRST;
  put("more", showsAll ? "Show fewer" : `Show ${hits.length}`);
  byId("more").onclick = () => { showsAll = !showsAll; showHitTable(hits, showsPrompts); };
  const wanted = few.map((hit) => {
    const key = `${hit.id} ${hit.at}`;
    if (!hitRows.has(key)) hitRows.set(key, hitRow(hit));
    const tr = hitRows.get(key);
    showVerdict(tr, hit);
    return [key, tr];
  });
  const keep = new Set(wanted.map(([key]) => key));
  for (const [key, tr] of hitRows) if (!keep.has(key)) { tr.remove(); hitRows.delete(key); }
  const body = byId("hits").tBodies[0];
  wanted.forEach(([, tr], n) => { if (body.rows[n] !== tr) body.insertBefore(tr, body.rows[n] ?? null); });
  byId("hits").hidden = hits.length === 0;
  byId("hits").closest(".panel").querySelector(".empty").hidden = hits.length > 0;
  put("prompts-note", showsPrompts || !hits.length ? "" : "Prompts are not shown; dashboard.show_prompts = true shows them.");
}

async function report(hit, tr, button) {
  button.disabled = true;
  const reply = await fetch("/dashboard/wrong-hit", {
    method: "POST",
    headers: { ...authorization(), "content-type": "application/json" },
    body: JSON.stringify({ hit: hit.id }),
  }).catch(() => null);
  if (reply?.ok) showVerdict(tr, { ...hit, verdict: "wrong_hit" });
  else { button.disabled = false; button.textContent = "Failed, try again"; }
}

// === the whole ===

const charts = Charts.all(format, () => slo);

function show(s) {
  slo = s.slo_seconds * 1000;
  byId("main").hidden = false;
  byId("sign-in").hidden = true;
  const [name, label] = RANGES[range];
  const window = s.windows[name];
  for (const span of document.querySelectorAll(".span")) span.textContent = label;
  showHead(s);
  showHits(s.windows);
  showMoney(s.windows, s.hot_model);
  showObjective(s.windows);
  showQuality(s.quality, s.windows.total.answered);
  charts.draw(s.chart);
  showLatency(window);
  showMisses(window);
  showVerification(window, s.quality.verifier_errors);
  showModels(s.models);
  showNamespaces(s.namespaces);
  showFreshScopes(s.fresh_scopes);
  showStore(s.store, s.region);
  showHitTable(s.hits, s.shows_prompts);
}

// === the stream ===

let stream = null;
const authorization = () => (sessionStorage.getItem(KEY) ? { authorization: `Bearer ${sessionStorage.getItem(KEY)}` } : {});

function live(text, state) {
  byId("live").className = `live ${state}`;
  put("live", text);
}

// EventSource cannot send an authorization header, so this reads the events of a fetch.
async function follow() {
  stream?.abort();
  const mine = (stream = new AbortController());
  while (!mine.signal.aborted) {
    try {
      const reply = await fetch(`/dashboard/events/${range}`, { headers: authorization(), signal: mine.signal });
      if (reply.status === 401 || reply.status === 403) return refuse(reply);
      if (!reply.ok) throw new Error(reply.statusText);
      await read(reply.body.getReader(), mine.signal);
    } catch {
      // Reconnects below, unless this page aborted the stream.
    }
    if (mine.signal.aborted) return;
    live("no answer, trying again", "off");
    await new Promise((again) => setTimeout(again, 2000));
  }
}

async function read(reader, signal) {
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done || signal.aborted) return;
    text += decoder.decode(value, { stream: true });
    const events = text.split("\n\n");
    text = events.pop();
    const data = events.filter((event) => event.startsWith("data: ")).at(-1);
    if (data) {
      show(JSON.parse(data.slice(6)));
      live("live", "on");
    }
  }
}

async function refuse(reply) {
  const body = await reply.json().catch(() => null);
  const wasTried = sessionStorage.getItem(KEY) !== null;
  sessionStorage.removeItem(KEY);
  byId("main").hidden = true;
  byId("sign-in").hidden = false;
  byId("sign-in-ask").hidden = reply.status === 403;
  byId("sign-in").querySelector("h2").hidden = reply.status === 403;
  put("sign-in-why", reply.status === 403 ? body?.error?.message ?? "refused" : wasTried ? "That was not it." : "It is the one of dashboard.api_key_env or api_key_sha256.");
  live("closed", "off");
}

// === controls ===

function choose(next) {
  range = next;
  localStorage.setItem("promptkeep-range", range);
  for (const button of byId("ranges").children) button.setAttribute("aria-pressed", button.dataset.range === range);
  follow();
}

function paint(theme) {
  document.documentElement.dataset.theme = theme;
  charts.again();
}

const system = matchMedia("(prefers-color-scheme: dark)");
const theme = () => localStorage.getItem("promptkeep-theme") ?? (system.matches ? "dark" : "light");
system.addEventListener("change", () => paint(theme()));
byId("theme").addEventListener("click", () => {
  localStorage.setItem("promptkeep-theme", theme() === "dark" ? "light" : "dark");
  paint(theme());
});
byId("ranges").addEventListener("click", (event) => event.target.dataset.range && choose(event.target.dataset.range));
byId("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, byId("key").value);
  byId("key").value = "";
  follow();
});
paint(theme());
choose(range);

// Takes the README's picture: the dashboard in light colours after the demo's traffic.
"use strict";

const { launch, open } = require("./browser.js");
const { BINARY, start, stop } = require("./server.js");

// The demo takes a minute and a half, and may first download the embedding model.
const DEMO_MS = 300_000;

async function main(to) {
  const { found, child } = start(BINARY, ["demo"], /dashboard\s+(http\S+)/, {}, DEMO_MS);
  const [, url] = await found;
  const browser = await launch();
  const page = await open(browser, url, { viewport: { width: 1280, height: 860 }, colorScheme: "light" });
  await page.locator("#hits tbody tr").first().waitFor();
  await page.locator("#live.on").waitFor();
  await page.screenshot({ path: to });
  await browser.close();
  await stop(child);
}

main(process.argv[2]);

// A headless Chromium, and pages that report whatever goes wrong on them.
"use strict";

const path = require("node:path");
const { chromium } = require("playwright-core");

// Without a sandbox it also runs as root, as in containers; it opens nothing but our own page.
const launch = () => chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });

// Opens `url`; `page.problems` has what its console and its network complained of.
async function open(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.problems = [];
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && page.problems.push(message.text()));
  page.on("pageerror", (error) => page.problems.push(error.message));
  // A page that is left, or changes its range, ends its stream itself.
  const isOurEnd = (request) => request.url().includes("/dashboard/events/") && request.failure().errorText === "net::ERR_ABORTED";
  page.on("requestfailed", (request) => isOurEnd(request) || page.problems.push(`${request.url()}: ${request.failure().errorText}`));
  await page.goto(url);
  return page;
}

const shot = (page, name) => page.screenshot({ path: path.join(process.env.PROMPTKEEP_SHOTS, `${name}.png`), fullPage: true });

module.exports = { launch, open, shot };

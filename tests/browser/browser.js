// A headless Chromium. Its pages collect every problem they report.
"use strict";

const path = require("node:path");
const { chromium } = require("playwright-core");

// Without a sandbox, Chromium also runs as root, as in containers. It opens only our own page.
const launch = () => chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });

// Opens `url`. `page.problems` collects errors and warnings of the console, and failed requests.
async function open(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.problems = [];
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && page.problems.push(message.text()));
  page.on("pageerror", (error) => page.problems.push(error.message));
  // A page aborts its event stream itself when it is closed or its range changes.
  const isOurEnd = (request) => request.url().includes("/dashboard/events/") && request.failure().errorText === "net::ERR_ABORTED";
  page.on("requestfailed", (request) => isOurEnd(request) || page.problems.push(`${request.url()}: ${request.failure().errorText}`));
  await page.goto(url);
  return page;
}

const shot = (page, name) => page.screenshot({ path: path.join(process.env.PROMPTKEEP_SHOTS, `${name}.png`), fullPage: true });

module.exports = { launch, open, shot };

// Real processes for the tests, on free ports: the stand-in provider, promptkeep and Redis.
"use strict";

const { spawn, execFile } = require("node:child_process");
const { once } = require("node:events");
const fs = require("node:fs");
const net = require("node:net");
const os = require("node:os");
const path = require("node:path");
const { promisify } = require("node:util");

const ROOT = path.resolve(__dirname, "../..");
const BINARY = process.env.PROMPTKEEP_BIN;
// Maximum time until a process prints its address. A debug build on a busy machine is slow to start.
const START_MS = 60_000;

const config = (upstream, more, store) => `
providers = [{ name = "stand-in", base_url = "http://${upstream}/v1" }]
models = [
  { id = "small", provider = "stand-in", tier = "cold", input_usd_per_mtok = 100.0, output_usd_per_mtok = 200.0, context_window = 100000 },
  { id = "large", provider = "stand-in", tier = "hot", input_usd_per_mtok = 1000.0, output_usd_per_mtok = 2000.0, context_window = 100000 },
  { id = "checker", provider = "stand-in", tier = "economy", input_usd_per_mtok = 0.01, output_usd_per_mtok = 0.01, context_window = 100000 },
]
${more}
[server]
grpc_listen = "127.0.0.1:0"
http_listen = "127.0.0.1:0"
region = "test-region"

[store]
${store}

[cache]
mode = "static"

[routing]
default = "small"

[upstream]
retries = 0
hedge_after = "off"
`;

// Starts a process. `found` resolves to the match of `pattern` in its output.
function start(command, args, pattern, env = {}, timeoutMs = START_MS) {
  const child = spawn(command, args, { cwd: os.tmpdir(), env: { ...process.env, NO_COLOR: "1", RUST_LOG: "info", ...env } });
  let output = "";
  const found = new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`${command} did not start:\n${output}`)), timeoutMs);
    const read = (data) => {
      output += data;
      const match = output.replace(/\x1b\[[0-9;]*m/g, "").match(pattern);
      if (match) { clearTimeout(timer); resolve(match); }
    };
    child.stdout.on("data", read);
    child.stderr.on("data", read);
    child.on("exit", () => { clearTimeout(timer); reject(new Error(`${command} ended:\n${output}`)); });
  });
  return { child, found };
}

function stop(child) {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  const gone = new Promise((resolve) => child.on("exit", resolve));
  child.kill("SIGTERM");
  return gone;
}

// Polls `isSo()` until its result is truthy, and returns the result.
async function until(isSo, what) {
  const end = Date.now() + START_MS;
  for (;;) {
    const result = await isSo();
    if (result) return result;
    if (Date.now() > end) throw new Error(`timed out waiting for ${what}`);
    await new Promise((again) => setTimeout(again, 50));
  }
}

// Starts promptkeep in front of the stand-in provider. In the configuration, `more` goes above the first section, `store` into
// [store], and `sections` after the last section.
async function serve({ more = "", store = 'kind = "memory"', sections = "", env } = {}) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "promptkeep-browser-"));
  const provider = start("python3", ["-u", path.join(ROOT, "tests/clients/upstream.py")], /listening on (\S+)/);
  const [, upstream] = await provider.found;
  const file = path.join(folder, "promptkeep.toml");
  fs.writeFileSync(file, config(upstream, more, store) + sections);
  const server = start(BINARY, ["serve", "--config", file], /starting grpc=(\S+) http=(\S+)/, env);
  const [, grpc, http] = await server.found;
  const url = `http://${http}`;
  await until(async () => (await fetch(`${url}/readyz`).catch(() => null))?.ok, "readiness");
  return {
    url,
    ask: (content, headers = {}) => ask(url, content, headers),
    stats: () => stats(grpc, env),
    async stop() {
      await stop(server.child);
      await stop(provider.child);
      fs.rmSync(folder, { recursive: true });
    },
  };
}

// Starts an empty Redis without persistence.
async function redis() {
  const probe = net.createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address();
  await new Promise((closed) => probe.close(closed));
  const options = ["--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"].map(String);
  const { child, found } = start("redis-server", options, /Ready to accept connections/);
  await found;
  return { url: `redis://127.0.0.1:${port}`, stop: () => stop(child) };
}

// Sends one question over the OpenAI dialect, and returns the outcome.
async function ask(url, content, headers) {
  const reply = await fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify({ model: "small", stream: true, messages: [{ role: "user", content }] }),
  });
  await reply.text();
  return reply.headers.get("x-promptkeep-outcome");
}

// Returns the reply of `GetStats`, through the command.
async function stats(grpc, env = {}) {
  const run = promisify(execFile)(BINARY, ["stats", "--json", "--server", `http://${grpc}`], { env: { ...process.env, ...env } });
  return JSON.parse((await run).stdout);
}

module.exports = { serve, redis, start, stop, until, BINARY };

// Real processes for the tests: the stand-in provider and promptkeep, on free ports, stopped at the end.
"use strict";

const { spawn, execFile } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { promisify } = require("node:util");

const ROOT = path.resolve(__dirname, "../..");
const BINARY = process.env.PROMPTKEEP_BIN;
// How long a process may take to say where it listens. A debug build on a busy machine needs a while.
const START_MS = 60_000;

const config = (upstream, more = "") => `
providers = [{ name = "stand-in", base_url = "http://${upstream}/v1" }]
models = [
  { id = "small", provider = "stand-in", tier = "cold", input_usd_per_mtok = 100.0, output_usd_per_mtok = 200.0, context_window = 100000 },
  { id = "large", provider = "stand-in", tier = "hot", input_usd_per_mtok = 1000.0, output_usd_per_mtok = 2000.0, context_window = 100000 },
]
${more}
[server]
grpc_listen = "127.0.0.1:0"
http_listen = "127.0.0.1:0"
region = "test-region"

[store]
kind = "memory"

[cache]
mode = "static"

[routing]
default = "small"

[upstream]
retries = 0
hedge_after = "off"
`;

// Starts a process and returns what `pattern` finds in its output.
function start(command, args, pattern, env = {}, patience = START_MS) {
  const child = spawn(command, args, { cwd: os.tmpdir(), env: { ...process.env, NO_COLOR: "1", RUST_LOG: "info", ...env } });
  let output = "";
  const found = new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`${command} did not start:\n${output}`)), patience);
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

// Waits until `isSo()` gives something, and returns it.
async function until(isSo, what) {
  const end = Date.now() + START_MS;
  for (;;) {
    const result = await isSo();
    if (result) return result;
    if (Date.now() > end) throw new Error(`it never came: ${what}`);
    await new Promise((again) => setTimeout(again, 50));
  }
}

// promptkeep in front of the stand-in provider. `more` goes above the configuration's first section,
// `sections` after its last.
async function serve({ more, sections = "", env } = {}) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "promptkeep-browser-"));
  const provider = start("python3", ["-u", path.join(ROOT, "tests/clients/upstream.py")], /listening on (\S+)/);
  const [, upstream] = await provider.found;
  const file = path.join(folder, "promptkeep.toml");
  fs.writeFileSync(file, config(upstream, more) + sections);
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

// One question over the OpenAI dialect; returns how it was answered.
async function ask(url, content, headers) {
  const reply = await fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify({ model: "small", stream: true, messages: [{ role: "user", content }] }),
  });
  await reply.text();
  return reply.headers.get("x-promptkeep-outcome");
}

// What `GetStats` says, through the command.
async function stats(grpc, env = {}) {
  const run = promisify(execFile)(BINARY, ["stats", "--json", "--server", `http://${grpc}`], { env: { ...process.env, ...env } });
  return JSON.parse((await run).stdout);
}

module.exports = { serve, start, stop, until, BINARY };

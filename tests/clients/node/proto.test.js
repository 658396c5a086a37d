// buf's linter on the contract: conventions, and a comment on every item (proto/buf.yaml).
"use strict";

const assert = require("node:assert");
const { spawnSync } = require("node:child_process");
const path = require("node:path");
const { test } = require("node:test");

const BUF = require.resolve("@bufbuild/buf/bin/buf");
const PROTO = path.resolve(__dirname, "../../../proto");

test("the proto passes buf's linter", () => {
  const run = spawnSync(process.execPath, [BUF, "lint"], { cwd: PROTO, encoding: "utf8" });
  assert.strictEqual(run.status, 0, run.stdout + run.stderr);
});

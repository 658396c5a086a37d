// gRPC from Node: @grpc/grpc-js, with the proto loaded at run time.

const assert = require("node:assert/strict");
const path = require("node:path");
const { after, test } = require("node:test");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const proto = path.join(__dirname, "../../../proto");
const definition = loader.loadSync("promptkeep/v1/promptkeep.proto", { includeDirs: [proto], enums: String, oneofs: true });
const { PromptCache } = grpc.loadPackageDefinition(definition).promptkeep.v1;
const client = new PromptCache(process.env.PROMPTKEEP_GRPC, grpc.credentials.createInsecure());
after(() => client.close());

const metadata = new grpc.Metadata();
metadata.set("authorization", `Bearer ${process.env.PROMPTKEEP_API_KEY}`);
const ask = (content, cache) => ({ prompt: { messages: [{ role: "user", content }] }, cache });

function call(method, request, seconds = 10) {
  const deadline = new Date(Date.now() + seconds * 1000);
  return new Promise((resolve, reject) => {
    client[method](request, metadata, { deadline }, (error, reply) => (error ? reject(error) : resolve(reply)));
  });
}

test("an answer of Complete is found by Lookup", async () => {
  const first = await call("Complete", ask("node grpc: hello"));
  assert.equal(first.outcome, "OUTCOME_UPSTREAM");
  const found = await call("Lookup", ask("node grpc: hello"));
  assert.equal(found.outcome, "OUTCOME_EXACT");
  assert.equal(found.completion.content, "you said: node grpc: hello");
});

test("a stream starts with `started` and ends with `finished`", async () => {
  const events = [];
  let text = "";
  for await (const chunk of client.CompleteStream(ask("node grpc: stream"), metadata)) {
    events.push(chunk.event);
    text += chunk.delta ?? "";
  }
  assert.equal(text, "you said: node grpc: stream");
  assert.deepEqual([events.at(0), events.at(-1)], ["started", "finished"]);
});

test("a call ends at its deadline", async () => {
  await assert.rejects(call("Complete", ask("node grpc: slow"), 0.3), { code: grpc.status.DEADLINE_EXCEEDED });
});

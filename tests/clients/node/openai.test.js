// The official OpenAI client. Only its base URL and key are changed.

const assert = require("node:assert/strict");
const { test } = require("node:test");
const { OpenAI } = require("openai");

const baseURL = `http://${process.env.PROMPTKEEP_HTTP}/v1`;
const client = new OpenAI({ baseURL, apiKey: process.env.PROMPTKEEP_API_KEY, maxRetries: 0 });
const user = (content) => [{ role: "user", content }];
const create = (body, options) => client.chat.completions.create({ model: "auto", ...body }, options);

test("a repeat is served from the cache", async () => {
  for (const outcome of ["upstream", "exact"]) {
    const { data, response } = await create({ messages: user("node: hello") }).withResponse();
    assert.equal(response.headers.get("x-promptkeep-outcome"), outcome);
    assert.equal(data.choices[0].message.content, "you said: node: hello");
  }
});

test("a stream is replayed as a stream", async () => {
  for (let round = 0; round < 2; round++) {
    const options = { stream: true, stream_options: { include_usage: true } };
    let text = "";
    let usage;
    for await (const chunk of await create({ messages: user("node: stream it"), ...options })) {
      text += chunk.choices[0]?.delta.content ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, "you said: node: stream it");
    assert.equal(usage.total_tokens, 15);
  }
});

test("a tool call and its result make a round trip", async () => {
  const tools = [{ type: "function", function: { name: "weather", parameters: { type: "object" } } }];
  const messages = user("node: call the weather");
  for (let round = 0; round < 2; round++) {
    const stream = client.chat.completions.stream({ model: "auto", messages, tools });
    const { message } = (await stream.finalChatCompletion()).choices[0];
    assert.equal(message.tool_calls[0].function.arguments, '{"city":"Bonn"}');
    const turns = [...messages, message, { role: "tool", tool_call_id: message.tool_calls[0].id, content: "rain" }];
    const answer = await create({ messages: turns, tools });
    assert.equal(answer.choices[0].message.content, "the tool said rain");
  }
});

test("reasoning survives a turn with tools", async () => {
  const tools = [{ type: "function", function: { name: "weather", parameters: { type: "object" } } }];
  const messages = user("node: think, then call the weather");
  for (let round = 0; round < 2; round++) {
    let thought = "";
    for await (const chunk of await create({ messages, tools, stream: true })) {
      thought += chunk.choices[0]?.delta.reasoning_content ?? "";
    }
    const { message } = (await create({ messages, tools })).choices[0];
    assert.equal(thought, "let me see");
    assert.equal(message.reasoning_content, thought);
    const turns = [...messages, message, { role: "tool", tool_call_id: message.tool_calls[0].id, content: "rain" }];
    assert.equal((await create({ messages: turns, tools })).choices[0].message.content, "the tool said rain");
  }
});

test("the responses API answers whole and as a stream", async () => {
  for (let round = 0; round < 2; round++) {
    const response = await client.responses.create({ model: "auto", input: "node: respond" });
    assert.equal(response.output_text, "you said: node: respond");
    const stream = client.responses.stream({ model: "auto", input: "node: respond" });
    assert.equal((await stream.finalResponse()).output_text, "you said: node: respond");
  }
});

test("errors have the client's own classes", async () => {
  await assert.rejects(create({ messages: user("x"), temperature: 7 }), OpenAI.BadRequestError);
  await assert.rejects(create({ messages: user("x"), model: "no-such-model" }), OpenAI.NotFoundError);
  await assert.rejects(create({ messages: user("node: fail-500") }), OpenAI.InternalServerError);
  const wrong = new OpenAI({ baseURL, apiKey: "wrong", maxRetries: 0 });
  await assert.rejects(wrong.models.list(), OpenAI.AuthenticationError);
  const broken = async () => {
    for await (const _ of await create({ messages: user("node: break in the middle"), stream: true }));
  };
  await assert.rejects(broken, /broke off/);
});

test("timeouts and aborts end a request", async () => {
  const slow = { messages: user("node: slow") };
  await assert.rejects(create(slow, { timeout: 300 }), OpenAI.APIConnectionTimeoutError);
  const late = create(slow, { headers: { "x-promptkeep-timeout": "0.2" } });
  await assert.rejects(late, { status: 504, code: "timeout" });
  await assert.rejects(create(slow, { signal: AbortSignal.timeout(100) }), OpenAI.APIUserAbortError);
});

// The LangCache client. Only its base URL and key are changed.

const assert = require("node:assert/strict");
const { test } = require("node:test");
const { LangCache } = require("@redis-ai/langcache");

test("a stored answer is found until it is deleted", async () => {
  const serverURL = `http://${process.env.PROMPTKEEP_HTTP}`;
  const cache = new LangCache({ serverURL, cacheId: "node", apiKey: process.env.PROMPTKEEP_API_KEY });
  const attributes = { language: "en" };
  const { entryId } = await cache.set({ prompt: "What is a cache?", response: "A memory.", attributes });
  const found = await cache.search({ prompt: "What is a cache?", attributes, similarityThreshold: 0.9 });
  assert.deepEqual([found.data[0].id, found.data[0].response], [entryId, "A memory."]);
  await cache.deleteById(entryId);
  assert.deepEqual((await cache.search({ prompt: "What is a cache?", attributes })).data, []);
});

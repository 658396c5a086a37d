// Cache-aside over REST, without any library: promptkeep in front of your own model call.
//
// PROMPTKEEP_HTTP is the server's address (default 127.0.0.1:8080). PROMPTKEEP_API_KEY is the tenant's key, if the server
// has tenants.

const entries = `http://${process.env.PROMPTKEEP_HTTP ?? "127.0.0.1:8080"}/v1/caches/aside/entries`;
const headers = {
  authorization: `Bearer ${process.env.PROMPTKEEP_API_KEY ?? ""}`,
  "content-type": "application/json",
};
const post = async (url, body) =>
  (await fetch(url, { method: "POST", headers, body: JSON.stringify(body) })).json();

const myModel = async (question) => `A long and costly answer to: ${question}`;

async function answer(prompt) {
  const { data } = await post(`${entries}/search`, { prompt });
  if (data.length > 0) return data[0].response;
  const response = await myModel(prompt);
  await post(entries, { prompt, response });
  return response;
}

(async () => {
  console.log(await answer("What is a prompt cache?"));
  console.log(await answer("What is a prompt cache?"));
})();

// A backend service that answers its users through promptkeep.
//
//     npm install @grpc/grpc-js @grpc/proto-loader
//     node examples/node/service.js
//
// PROMPTKEEP_GRPC is the server's address (default 127.0.0.1:50051). PROMPTKEEP_API_KEY is the tenant's key, if the server
// has tenants.

const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const proto = path.join(__dirname, "../../proto");
const definition = loader.loadSync("promptkeep/v1/promptkeep.proto", { includeDirs: [proto], enums: String });
const { PromptCache } = grpc.loadPackageDefinition(definition).promptkeep.v1;
const address = process.env.PROMPTKEEP_GRPC ?? "127.0.0.1:50051";
const cache = new PromptCache(address, grpc.credentials.createInsecure());
const metadata = new grpc.Metadata();
metadata.set("authorization", `Bearer ${process.env.PROMPTKEEP_API_KEY ?? ""}`);

// The deadline bounds all work that the server does for a call, including fallbacks.
const deadline = () => new Date(Date.now() + 10_000);

const prompt = (question) => ({
  namespace: "support-node",
  model: "auto",
  messages: [
    { role: "system", content: "You answer questions about our shop." },
    { role: "user", content: question },
  ],
});

function call(method, request) {
  return new Promise((resolve, reject) => {
    cache[method](request, metadata, { deadline: deadline() }, (error, reply) =>
      error ? reject(error) : resolve(reply),
    );
  });
}

// Answers expire after an hour, and can be removed by their tag.
const control = { tags: ["shop"], ttl: { seconds: 3600 } };

async function answer(question) {
  try {
    const reply = await call("Complete", { prompt: prompt(question), cache: control });
    return `${reply.completion.content}\t${reply.outcome}`;
  } catch (error) {
    const isTemporary = [grpc.status.DEADLINE_EXCEEDED, grpc.status.UNAVAILABLE].includes(error.code);
    if (!isTemporary) throw error;
    return "Please ask again in a minute.\tfailed";
  }
}

// Prints the answer piece by piece, as a chat window shows it.
async function stream(question) {
  const request = { prompt: prompt(question), cache: control };
  for await (const chunk of cache.CompleteStream(request, metadata, { deadline: deadline() })) {
    process.stdout.write(chunk.delta ?? "");
  }
  process.stdout.write("\n");
}

async function main() {
  console.log(await answer("What does shipping cost?"));
  console.log(await answer("What does shipping cost?"));
  await stream("What does shipping cost?");
  const removed = await call("Invalidate", { namespace: "support-node", tag: "shop" });
  console.log(`${removed.entries} removed`);
  cache.close();
}

main();

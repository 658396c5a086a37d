"""A backend service that answers its users through promptkeep.

    pip install grpcio grpcio-tools
    python -m grpc_tools.protoc -I proto --python_out=. --grpc_python_out=. promptkeep/v1/promptkeep.proto
    python examples/python/service.py

PROMPTKEEP_GRPC is the server's address (default 127.0.0.1:50051). PROMPTKEEP_API_KEY is the tenant's key, if the server has
tenants.
"""

import os

import grpc
from google.protobuf.duration_pb2 import Duration
from promptkeep.v1 import promptkeep_pb2 as pb
from promptkeep.v1 import promptkeep_pb2_grpc as pb_grpc

METADATA = [("authorization", f"Bearer {os.environ.get('PROMPTKEEP_API_KEY', '')}")]
# The deadline bounds all work that the server does for a call, including fallbacks.
DEADLINE_SECONDS = 10


def prompt(question, locale):
    return pb.Prompt(
        namespace="support",
        model="auto",
        messages=[
            pb.Message(role="system", content="You answer questions about our shop."),
            pb.Message(role="user", content=question),
        ],
        # Answers differ by locale, so locales must not share entries.
        vary={"locale": locale},
    )


def answer(cache, question, locale="en"):
    """Returns the answer and its outcome. Answers about prices expire after five minutes."""
    control = pb.CacheControl(tags=["shop"])
    if "price" in question:
        control.ttl.CopyFrom(Duration(seconds=300))
    request = pb.CompleteRequest(prompt=prompt(question, locale), cache=control)
    try:
        reply = cache.Complete(request, metadata=METADATA, timeout=DEADLINE_SECONDS)
    except grpc.RpcError as error:
        if error.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE):
            return "Please ask again in a minute.", "failed"
        raise
    return reply.completion.content, pb.Outcome.Name(reply.outcome)


def stream(cache, question, locale="en"):
    """Yields the answer piece by piece, as a chat window shows it."""
    request = pb.CompleteRequest(prompt=prompt(question, locale))
    for chunk in cache.CompleteStream(request, metadata=METADATA, timeout=DEADLINE_SECONDS):
        if chunk.WhichOneof("event") == "delta":
            yield chunk.delta


def main():
    with grpc.insecure_channel(os.environ.get("PROMPTKEEP_GRPC", "127.0.0.1:50051")) as channel:
        cache = pb_grpc.PromptCacheStub(channel)
        for question in ["What does shipping cost?", "What does shipping cost?"]:
            print(*answer(cache, question), sep="\t")
        print("".join(stream(cache, "What does shipping cost?")))
        # The shop has changed, so all entries with its tag are removed, at once and durably.
        removed = cache.Invalidate(pb.InvalidateRequest(namespace="support", tag="shop"), metadata=METADATA)
        print(f"{removed.entries} removed")


if __name__ == "__main__":
    main()

"""A backend service that answers its users through promptkeep.

    pip install grpcio grpcio-tools
    python -m grpc_tools.protoc -I proto --python_out=. --grpc_python_out=. promptkeep/v1/promptkeep.proto
    python examples/python/service.py

Where the server is: PROMPTKEEP_GRPC (127.0.0.1:50051); the tenant's key, if it has tenants: PROMPTKEEP_API_KEY.
"""

import os

import grpc
from google.protobuf.duration_pb2 import Duration
from promptkeep.v1 import promptkeep_pb2 as pb
from promptkeep.v1 import promptkeep_pb2_grpc as pb_grpc

METADATA = [("authorization", f"Bearer {os.environ.get('PROMPTKEEP_API_KEY', '')}")]
# The caller's patience. It bounds everything the server does for a call, fallbacks included.
SECONDS = 10


def prompt(question, locale):
    return pb.Prompt(
        namespace="support",
        model="auto",
        messages=[
            pb.Message(role="system", content="You answer questions about our shop."),
            pb.Message(role="user", content=question),
        ],
        # Answers differ by locale, so they must not answer one another.
        vary={"locale": locale},
    )


def answer(cache, question, locale="en"):
    """The answer, and how it came about. Answers about prices live for five minutes at most."""
    control = pb.CacheControl(tags=["shop"])
    if "price" in question:
        control.ttl.CopyFrom(Duration(seconds=300))
    request = pb.CompleteRequest(prompt=prompt(question, locale), cache=control)
    try:
        reply = cache.Complete(request, metadata=METADATA, timeout=SECONDS)
    except grpc.RpcError as error:
        if error.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE):
            return "Please ask again in a minute.", "failed"
        raise
    return reply.completion.content, pb.Outcome.Name(reply.outcome)


def stream(cache, question, locale="en"):
    """The answer piece by piece, as a chat window shows it."""
    request = pb.CompleteRequest(prompt=prompt(question, locale))
    for chunk in cache.CompleteStream(request, metadata=METADATA, timeout=SECONDS):
        if chunk.WhichOneof("event") == "delta":
            yield chunk.delta


def main():
    with grpc.insecure_channel(os.environ.get("PROMPTKEEP_GRPC", "127.0.0.1:50051")) as channel:
        cache = pb_grpc.PromptCacheStub(channel)
        for question in ["What does shipping cost?", "What does shipping cost?"]:
            print(*answer(cache, question), sep="\t")
        print("".join(stream(cache, "What does shipping cost?")))
        # The shop has changed: everything with the tag goes, at once and for good.
        removed = cache.Invalidate(pb.InvalidateRequest(namespace="support", tag="shop"), metadata=METADATA)
        print(f"{removed.entries} removed")


if __name__ == "__main__":
    main()

"""Cache-aside: promptkeep in front of your own model call. Set up as for service.py."""

import os

import grpc
from promptkeep.v1 import promptkeep_pb2 as pb
from promptkeep.v1 import promptkeep_pb2_grpc as pb_grpc

channel = grpc.insecure_channel(os.environ.get("PROMPTKEEP_GRPC", "127.0.0.1:50051"))
cache = pb_grpc.PromptCacheStub(channel)
metadata = [("authorization", f"Bearer {os.environ.get('PROMPTKEEP_API_KEY', '')}")]


def my_model(question):
    return f"A long and costly answer to: {question}"


def answer(question):
    prompt = pb.Prompt(namespace="aside", model="my-model", messages=[pb.Message(role="user", content=question)])
    found = cache.Lookup(pb.LookupRequest(prompt=prompt), metadata=metadata, timeout=1)
    if found.HasField("completion"):
        return found.completion.content
    text = my_model(question)
    completion = pb.Completion(content=text, finish_reason="stop", model="my-model")
    cache.Store(pb.StoreRequest(prompt=prompt, completion=completion), metadata=metadata, timeout=1)
    return text


print(answer("What is a prompt cache?"))
print(answer("What is a prompt cache?"))

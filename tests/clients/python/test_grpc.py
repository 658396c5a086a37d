"""gRPC from Python: grpcio with stubs generated from the proto, health checks and reflection."""

import os

import grpc
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from promptkeep.v1 import promptkeep_pb2 as pb
from promptkeep.v1 import promptkeep_pb2_grpc as pb_grpc


@pytest.fixture
def channel():
    with grpc.insecure_channel(os.environ["PROMPTKEEP_GRPC"]) as channel:
        yield channel


@pytest.fixture
def stub(channel):
    return pb_grpc.PromptCacheStub(channel)


@pytest.fixture
def metadata(api_key):
    return [("authorization", f"Bearer {api_key}")]


def request(text, **cache):
    message = pb.Message(role="user", content=text)
    return pb.CompleteRequest(prompt=pb.Prompt(messages=[message]), cache=pb.CacheControl(**cache))


def test_complete_and_stream_share_an_entry(stub, metadata):
    first = stub.Complete(request("grpc: hello"), metadata=metadata, timeout=10)
    assert (first.outcome, first.completion.content) == (pb.OUTCOME_UPSTREAM, "you said: grpc: hello")
    chunks = list(stub.CompleteStream(request("grpc: hello"), metadata=metadata, timeout=10))
    assert chunks[0].started.outcome == pb.OUTCOME_EXACT
    assert "".join(chunk.delta for chunk in chunks) == "you said: grpc: hello"
    assert chunks[-1].finished.saved_usd > 0


def test_extra_fields_are_part_of_the_prompt(stub, metadata):
    extra = request("grpc: extra")
    extra.prompt.extra_json = '{"reasoning_effort": "low"}'
    assert stub.Complete(extra, metadata=metadata).outcome == pb.OUTCOME_UPSTREAM
    assert stub.Complete(extra, metadata=metadata).outcome == pb.OUTCOME_EXACT
    assert stub.Complete(request("grpc: extra"), metadata=metadata).outcome == pb.OUTCOME_UPSTREAM
    extra.prompt.extra_json = '{"stream": false}'
    with pytest.raises(grpc.RpcError) as wrong:
        stub.Complete(extra, metadata=metadata)
    assert wrong.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_stored_completion_is_found_explained_counted_and_removed(stub, metadata):
    prompt = pb.Prompt(namespace="aside-grpc", messages=[pb.Message(role="user", content="grpc: aside")])
    lookup = pb.LookupRequest(prompt=prompt, cache=pb.CacheControl(max_age=Duration(seconds=60)))
    assert stub.Lookup(lookup, metadata=metadata).outcome == pb.OUTCOME_MISS
    completion = pb.Completion(content="kept", finish_reason="stop", model="mine")
    entry = stub.Store(pb.StoreRequest(prompt=prompt, completion=completion), metadata=metadata).entry_id
    assert stub.Lookup(lookup, metadata=metadata).match.entry_id == entry
    feedback = pb.FeedbackRequest(entry_id=entry, verdict=pb.VERDICT_UP)
    assert stub.Feedback(feedback, metadata=metadata).recorded
    assert stub.Explain(lookup, metadata=metadata).cache_key.startswith(entry)
    assert stub.Invalidate(pb.InvalidateRequest(entry_id=entry), metadata=metadata).entries == 1
    assert stub.GetStats(pb.GetStatsRequest(namespace="aside-grpc"), metadata=metadata).requests["exact"] == 1


def test_a_call_needs_a_key_and_ends_at_its_deadline(stub, metadata):
    with pytest.raises(grpc.RpcError) as late:
        stub.Complete(request("grpc: slow"), metadata=metadata, timeout=0.3)
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    with pytest.raises(grpc.RpcError) as anonymous:
        stub.Complete(request("grpc: hello"))
    assert anonymous.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_health_and_reflection_name_the_service(channel):
    health = health_pb2_grpc.HealthStub(channel)
    service = health_pb2.HealthCheckRequest(service="promptkeep.v1.PromptCache")
    assert health.Check(service).status == health_pb2.HealthCheckResponse.SERVING
    reflected = ProtoReflectionDescriptorDatabase(channel)
    assert "promptkeep.v1.PromptCache" in reflected.get_services()
    pool = descriptor_pool.DescriptorPool(reflected)
    methods = pool.FindServiceByName("promptkeep.v1.PromptCache").methods_by_name
    assert {"Lookup", "Complete", "CompleteStream", "Store", "Invalidate"} <= set(methods)

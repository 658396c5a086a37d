"""The official OpenAI client. Only its base URL and key are changed."""

import asyncio
import os

import httpx
import openai
import pytest
from pydantic import BaseModel

TOOLS = [
    {
        "type": "function",
        "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
    }
]


@pytest.fixture
def client(base_url, api_key):
    return openai.OpenAI(base_url=base_url, api_key=api_key, max_retries=0)


def user(text):
    return [{"role": "user", "content": text}]


def test_a_repeat_is_served_from_the_cache(client, upstream_calls):
    text = "sync: what is a cache?"
    outcomes = []
    for _ in range(2):
        raw = client.chat.completions.with_raw_response.create(model="auto", messages=user(text))
        outcomes.append(raw.headers["x-promptkeep-outcome"])
        completion = raw.parse()
        assert completion.choices[0].message.content == f"you said: {text}"
        assert completion.choices[0].finish_reason == "stop"
        assert completion.usage.total_tokens == 15
    assert outcomes == ["upstream", "exact"]
    assert float(raw.headers["x-promptkeep-saved-usd"]) > 0
    assert upstream_calls(text) == 1


def test_a_stream_is_replayed_as_a_stream(client, upstream_calls):
    text = "stream: one two three"
    for _ in range(2):
        options = {"include_usage": True}
        stream = client.chat.completions.create(model="cold", messages=user(text), stream=True, stream_options=options)
        chunks = list(stream)
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == f"you said: {text}"
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
        assert chunks[-1].usage.total_tokens == 15
        assert {c.id for c in chunks} == {chunks[0].id}
    assert upstream_calls(text) == 1


def test_the_stream_helper_assembles_the_answer(client):
    with client.chat.completions.stream(model="auto", messages=user("helper: hello")) as stream:
        for _ in stream:
            pass
        assert stream.get_final_completion().choices[0].message.content == "you said: helper: hello"


def test_concurrent_requests_of_the_async_client_share_one_call(base_url, api_key, upstream_calls):
    text = "async: many at once"

    async def ask():
        async with openai.AsyncOpenAI(base_url=base_url, api_key=api_key) as client:
            create = client.chat.completions.create
            answers = await asyncio.gather(*(create(model="auto", messages=user(text)) for _ in range(20)))
            stream = await create(model="auto", messages=user(text), stream=True)
            streamed = [chunk.choices[0].delta.content or "" async for chunk in stream]
            return [a.choices[0].message.content for a in answers] + ["".join(streamed)]

    assert set(asyncio.run(ask())) == {f"you said: {text}"}
    assert upstream_calls(text) == 1


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_call_and_its_result_make_a_round_trip(client, streamed):
    messages = user(f"call the weather of Bonn, streamed {streamed}")
    for _ in range(2):
        if streamed:
            with client.chat.completions.stream(model="auto", messages=messages, tools=TOOLS) as stream:
                message = stream.get_final_completion().choices[0].message
        else:
            message = client.chat.completions.create(model="auto", messages=messages, tools=TOOLS).choices[0].message
        call = message.tool_calls[0]
        assert (call.id, call.function.name, call.function.arguments) == ("call_1", "weather", '{"city":"Bonn"}')
    # The client's message is sent back unchanged, with every null field that the client adds.
    turns = [*messages, message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    for outcome in ["upstream", "exact"]:
        raw = client.chat.completions.with_raw_response.create(model="auto", messages=turns, tools=TOOLS)
        assert raw.headers["x-promptkeep-outcome"] == outcome
        assert raw.parse().choices[0].message.content == "the tool said rain"


@pytest.mark.parametrize("streamed", [False, True])
def test_reasoning_survives_a_turn_with_tools(client, streamed):
    messages = user(f"think, then call the weather of Bonn, streamed {streamed}")
    for _ in range(2):
        if streamed:
            with client.chat.completions.stream(model="auto", messages=messages, tools=TOOLS) as stream:
                thought = "".join(
                    getattr(event.chunk.choices[0].delta, "reasoning_content", None) or ""
                    for event in stream
                    if event.type == "chunk" and event.chunk.choices
                )
                message = stream.get_final_completion().choices[0].message
            turn = {**message.model_dump(), "reasoning_content": thought}
        else:
            completion = client.chat.completions.create(model="auto", messages=messages, tools=TOOLS)
            message = completion.choices[0].message
            thought, turn = message.reasoning_content, message.model_dump()
            assert completion.usage.completion_tokens_details.reasoning_tokens == 3
            assert completion.usage.prompt_tokens_details.cached_tokens == 8
        assert thought == "let me see"
    # The provider refuses the next turn without it.
    turns = [*messages, turn, {"role": "tool", "tool_call_id": "call_1", "content": "rain"}]
    for outcome in ["upstream", "exact"]:
        raw = client.chat.completions.with_raw_response.create(model="auto", messages=turns, tools=TOOLS)
        assert raw.headers["x-promptkeep-outcome"] == outcome
        assert raw.parse().choices[0].message.content == "the tool said rain"


def test_who_asks_and_cache_marks_make_no_miss(client, upstream_calls):
    text = "who asks?"
    outcomes = []
    for user_id in ["ann", "bob"]:
        marked = [{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}]
        raw = client.chat.completions.with_raw_response.create(
            model="auto", messages=user(marked), user=user_id, metadata={"request": user_id}
        )
        outcomes.append(raw.headers["x-promptkeep-outcome"])
    assert (outcomes, upstream_calls(text)) == (["upstream", "exact"], 1)
    hit = raw.parse().usage.promptkeep
    assert (hit["outcome"], hit["entry"]) == ("exact", raw.headers["x-promptkeep-entry"])


def test_structured_answers_are_parsed(client):
    class Answer(BaseModel):
        answer: int

    for _ in range(2):
        parsed = client.chat.completions.parse(model="auto", messages=user("what is it?"), response_format=Answer)
        assert parsed.choices[0].message.parsed.answer == 42


def test_requests_for_several_choices_pass_through(client, upstream_calls):
    text = "two choices"
    for _ in range(2):
        raw = client.chat.completions.with_raw_response.create(model="small", messages=user(text), n=2)
        assert raw.headers["x-promptkeep-outcome"] == "bypass"
        assert [choice.message.content[-2:] for choice in raw.parse().choices] == ["#0", "#1"]
    assert upstream_calls(text) == 2


def test_text_parts_and_extra_fields_are_cached_and_images_pass_through(client):
    parts = [{"type": "text", "text": "part one"}, {"type": "text", "text": "part two"}]
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": parts}]
    for outcome in ["upstream", "exact"]:
        raw = client.chat.completions.with_raw_response.create(
            model="auto", messages=messages, reasoning_effort="low", extra_body={"x_new": {"deep": 1}}
        )
        assert raw.headers["x-promptkeep-outcome"] == outcome
    picture = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}, *parts]
    raw = client.chat.completions.with_raw_response.create(model="auto", messages=[{"role": "user", "content": picture}])
    assert raw.headers["x-promptkeep-outcome"] == "bypass"


def test_headers_control_the_cache(client):
    create = client.chat.completions.with_raw_response.create
    messages = user("steered?")
    with pytest.raises(openai.InternalServerError) as not_cached:
        create(model="auto", messages=messages, extra_headers={"cache-control": "only-if-cached"})
    assert (not_cached.value.status_code, not_cached.value.code) == (504, "not_cached")
    create(model="auto", messages=messages)
    for header, outcome in [("only-if-cached", "exact"), ("no-cache", "bypass"), ("max-age=60", "exact")]:
        assert create(model="auto", messages=messages, extra_headers={"cache-control": header}).headers["x-promptkeep-outcome"] == outcome
    other = create(model="auto", messages=messages, extra_headers={"x-promptkeep-namespace": "other"})
    assert other.headers["x-promptkeep-outcome"] == "upstream"


def test_the_responses_api_shares_the_cache(client, upstream_calls):
    text = "responses: hello"
    for _ in range(2):
        response = client.responses.create(model="auto", input=text, instructions="be brief")
        assert (response.output_text, response.status, response.usage.total_tokens) == (f"you said: {text}", "completed", 15)
    with client.responses.stream(model="auto", input=text, instructions="be brief") as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        assert stream.get_final_response().output_text == "".join(deltas) == f"you said: {text}"
    assert upstream_calls(text) == 1
    kept = client.responses.create(model="auto", input=text, store=True)
    assert (kept.id, kept.output_text) == ("resp_provider", "from the provider")
    with pytest.raises(openai.BadRequestError, match="store: true"):
        client.responses.create(model="auto", input="and then?", previous_response_id=response.id)


def test_embeddings_are_kept_by_input(client):
    def embed(texts, **options):
        raw = client.embeddings.with_raw_response.create(model="some-embedding", input=texts, **options)
        return raw.headers["x-promptkeep-outcome"], [vector.embedding for vector in raw.parse().data]

    assert embed(["ccc", "dddd"], encoding_format="float") == ("upstream", [[3.0, 1.0], [4.0, 1.0]])
    assert embed(["dddd", "e", "ccc"], encoding_format="float") == ("upstream", [[4.0, 1.0], [1.0, 1.0], [3.0, 1.0]])
    assert embed("ccc", encoding_format="float") == ("exact", [[3.0, 1.0]])


def test_models_are_listed_and_embeddings_pass_through(client):
    assert [model.id for model in client.models.list()] == ["small", "large", "hot", "cold", "auto"]
    assert client.models.retrieve("small").owned_by == "stand-in"
    vectors = client.embeddings.create(model="some-embedding", input=["a", "bb"], encoding_format="float")
    assert [vector.embedding for vector in vectors.data] == [[1.0, 1.0], [2.0, 1.0]]


def test_errors_have_the_clients_own_classes(base_url, client):
    def failing(text="x", **options):
        return client.chat.completions.create(**{"model": "auto", "messages": user(text), **options})

    with pytest.raises(openai.BadRequestError) as wrong:
        failing(temperature=7)
    assert (wrong.value.param, wrong.value.code) == ("temperature", "invalid_value")
    with pytest.raises(openai.NotFoundError) as unknown:
        failing(model="no-such-model")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="scripted 400"):
        failing("please fail-400")
    with pytest.raises(openai.InternalServerError) as down:
        failing("please fail-500")
    assert (down.value.status_code, down.value.response.headers["retry-after"]) == (503, "1")
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=base_url, api_key="wrong", max_retries=0).models.list()
    with pytest.raises(openai.APIError, match="broke off"):
        list(failing("break in the middle please", stream=True))


def test_a_rate_limit_is_a_rate_limit_error(base_url):
    client = openai.OpenAI(base_url=base_url, api_key=os.environ["LIMITED_API_KEY"], max_retries=0)
    with pytest.raises(openai.RateLimitError) as limited:
        for _ in range(2):
            client.chat.completions.create(model="auto", messages=user("limited"))
    assert int(limited.value.response.headers["retry-after"]) >= 1


def test_client_and_server_timeouts_end_a_request(client):
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=httpx.Timeout(0.3)).chat.completions.create(model="auto", messages=user("slow one"))
    with pytest.raises(openai.InternalServerError) as late:
        client.chat.completions.create(model="auto", messages=user("slow two"), extra_headers={"x-promptkeep-timeout": "0.2"})
    assert (late.value.status_code, late.value.code) == (504, "timeout")

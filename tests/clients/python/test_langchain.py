"""LangChain's ChatOpenAI. Only its base URL and key are changed."""

import asyncio

from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


def chat(base_url, api_key, **options):
    return ChatOpenAI(model="auto", base_url=base_url, api_key=api_key, max_retries=0, **options)


def test_invoke_stream_and_batch_share_one_call(base_url, api_key, upstream_calls):
    model = chat(base_url, api_key, temperature=0)
    messages = [SystemMessage("be brief"), HumanMessage("chain: hello")]
    assert model.invoke(messages).content == "you said: chain: hello"
    assert model.invoke(messages).usage_metadata["total_tokens"] == 15
    assert "".join(chunk.content for chunk in model.stream(messages)) == "you said: chain: hello"
    assert {reply.content for reply in model.batch([messages] * 3)} == {"you said: chain: hello"}
    assert asyncio.run(model.ainvoke(messages)).content == "you said: chain: hello"
    assert upstream_calls("chain: hello") == 1


def test_tools_and_structured_output_work(base_url, api_key):
    @tool
    def weather(city: str) -> str:
        """The weather of a city."""
        return "rain"

    class Answer(BaseModel):
        """An answer."""

        answer: int

    bound = chat(base_url, api_key).bind_tools([weather])
    for _ in range(2):
        assert bound.invoke("call it, chain").tool_calls[0]["args"] == {"city": "Bonn"}
    structured = chat(base_url, api_key).with_structured_output(Answer)
    assert structured.invoke("chain: what is it?").answer == 42

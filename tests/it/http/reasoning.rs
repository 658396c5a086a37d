//! What a model thought, and the other fields of its reply: relayed, kept, replayed, and sent back in history.

use promptkeep::grpc::proto::{
    self, CompleteRequest, Outcome, complete_chunk::Event, prompt_cache_client::PromptCacheClient,
};
use serde_json::{Value, json};
use tokio_stream::StreamExt as _;

use super::{Response, body, chat};
use crate::common::{
    fake_upstream::{FakeUpstream, Reply, delta},
    test_server::{TestServer, ask, exact_config, message, prompt, store_request},
};

fn streamed(mut body: Value) -> Value {
    body["stream"] = true.into();
    body
}

/// DeepSeek's stream: the thought, then the answer, then one usage block with the finish reason.
fn deepseek() -> Reply {
    let chunk = |delta: Value, finish: Value| {
        json!({ "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "deepseek-reasoner",
            "system_fingerprint": "fp_1", "choices": [{ "index": 0, "delta": delta, "logprobs": null,
            "finish_reason": finish }] })
    };
    let mut last = chunk(json!({ "content": "", "reasoning_content": null }), json!("stop"));
    last["usage"] = json!({ "prompt_tokens": 20, "completion_tokens": 9, "total_tokens": 29,
        "prompt_cache_hit_tokens": 16, "prompt_cache_miss_tokens": 4,
        "completion_tokens_details": { "reasoning_tokens": 6 } });
    Reply::events([
        chunk(json!({ "role": "assistant", "content": null, "reasoning_content": "" }), Value::Null),
        chunk(json!({ "content": null, "reasoning_content": "Three " }), Value::Null),
        chunk(json!({ "content": null, "reasoning_content": "r's." }), Value::Null),
        chunk(json!({ "content": "3", "reasoning_content": null }), Value::Null),
        last,
    ])
    .done()
}

/// The text that all deltas have in this field.
fn joined(events: &[Value], field: &str) -> String {
    events.iter().filter_map(|event| event["choices"][0]["delta"][field].as_str()).collect()
}

/// Reasoning was dropped from answers and streams. DeepSeek refuses the next turn of a conversation with tools without
/// it, so an agent behind the cache broke on its second step.
#[tokio::test]
async fn reasoning_reaches_the_caller_and_is_replayed() {
    let upstream = FakeUpstream::start().await;
    upstream.script([deepseek()]);
    let server = TestServer::start(exact_config(&[&upstream])).await;
    for outcome in ["upstream", "exact"] {
        let response = Response::to(chat(&server, &streamed(body("How many r's?")))).await;
        assert_eq!(response.outcome(), outcome);
        let events = response.events();
        assert_eq!(joined(&events, "reasoning_content"), "Three r's.", "{outcome}");
        assert_eq!(joined(&events, "content"), "3");
        let end = &events[events.len() - 2];
        assert_eq!(end["system_fingerprint"], "fp_1");
        let whole = Response::to(chat(&server, &body("How many r's?"))).await.json();
        let expected = json!({ "role": "assistant", "content": "3", "refusal": null, "reasoning_content": "Three r's." });
        assert_eq!(whole["choices"][0]["message"], expected);
        assert_eq!(whole["system_fingerprint"], "fp_1");
        assert_eq!(whole["usage"]["completion_tokens_details"], json!({ "reasoning_tokens": 6 }));
        assert_eq!(whole["usage"]["prompt_tokens_details"]["cached_tokens"], 16);
    }
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn the_field_of_the_provider_keeps_its_name() {
    let upstream = FakeUpstream::start().await;
    let detail = |text: &str| json!([{ "type": "reasoning.text", "index": 0, "text": text }]);
    upstream.script([Reply::events([
        delta(&json!({ "reasoning": "a ", "reasoning_details": detail("a ") })),
        delta(&json!({ "reasoning": "b", "reasoning_details": detail("b") })),
        delta(&json!({ "content": "c" })),
    ])
    .finish("stop")
    .usage(10, 3)
    .done()]);
    let server = TestServer::start(exact_config(&[&upstream])).await;
    for _ in 0..2 {
        let events = Response::to(chat(&server, &streamed(body("Why?")))).await.events();
        assert_eq!(
            (joined(&events, "reasoning"), joined(&events, "reasoning_content")),
            ("a b".into(), "".into())
        );
    }
    let message = &Response::to(chat(&server, &body("Why?"))).await.json()["choices"][0]["message"];
    assert_eq!((&message["reasoning"], &message["reasoning_details"]), (&json!("a b"), &detail("a b")));
}

/// A history with reasoning was passed on around the cache.
#[tokio::test]
async fn history_with_reasoning_is_sent_as_it_came_and_cached() {
    let upstream = FakeUpstream::start().await;
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let call = json!({ "id": "a", "type": "function", "function": { "name": "f", "arguments": "{}" } });
    let history = |thought: &str| {
        json!({ "model": "auto", "messages": [
            { "role": "user", "content": [{ "type": "text", "text": "Weather" }, { "type": "text", "text": "in Bonn?" }] },
            { "role": "assistant", "content": "", "reasoning_content": thought, "tool_calls": [call],
              "reasoning_details": [{ "type": "reasoning.encrypted", "data": "x" }] },
            { "role": "tool", "tool_call_id": "a", "content": "sun" },
        ] })
    };
    for (thought, outcome) in [("I need f.", "upstream"), ("I need f.", "exact"), ("I need g.", "upstream")] {
        assert_eq!(Response::to(chat(&server, &history(thought))).await.outcome(), outcome, "{thought}");
    }
    let mut expected = history("I need f.")["messages"].clone();
    // OpenAI's form of a turn that only calls tools.
    expected[1]["content"] = Value::Null;
    assert_eq!(upstream.requests()[0].body["messages"], expected);
}

#[tokio::test]
async fn a_refusal_is_one_and_is_not_kept() {
    let upstream = FakeUpstream::start().await;
    let refused = || {
        Reply::events([delta(&json!({ "refusal": "I " })), delta(&json!({ "refusal": "cannot." }))])
            .finish("stop")
            .usage(10, 3)
            .done()
    };
    upstream.script([refused(), refused()]);
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let whole = Response::to(chat(&server, &body("Do it."))).await.json();
    assert_eq!(
        whole["choices"][0]["message"],
        json!({ "role": "assistant", "content": null, "refusal": "I cannot." })
    );
    assert_eq!(whole["choices"][0]["finish_reason"], "stop");
    let again = Response::to(chat(&server, &streamed(body("Do it.")))).await;
    assert_eq!((again.outcome(), joined(&again.events(), "refusal").as_str()), ("upstream", "I cannot."));
}

#[tokio::test]
async fn annotations_of_an_unstreamed_answer_are_kept() {
    let upstream = FakeUpstream::start().await;
    let cited = json!([{ "type": "url_citation", "url_citation": { "url": "https://a.example" } }]);
    upstream.script([Reply::json(&json!({
        "id": "c", "object": "chat.completion", "created": 1, "model": "m", "service_tier": "flex",
        "choices": [{ "index": 0, "finish_reason": "stop", "logprobs": null, "native_finish_reason": "end",
            "message": { "role": "assistant", "content": "x", "refusal": null, "annotations": cited } }],
        "usage": { "prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4 },
    }))]);
    let server = TestServer::start(exact_config(&[&upstream])).await;
    for outcome in ["upstream", "exact"] {
        let response = Response::to(chat(&server, &body("Cite."))).await;
        assert_eq!(response.outcome(), outcome);
        let reply = response.json();
        assert_eq!(reply["choices"][0]["message"]["annotations"], cited);
        assert_eq!(
            (&reply["choices"][0]["native_finish_reason"], &reply["service_tier"]),
            (&json!("end"), &json!("flex"))
        );
    }
    let events = Response::to(chat(&server, &streamed(body("Cite.")))).await.events();
    assert!(events.iter().any(|event| event["choices"][0]["delta"]["annotations"] == cited));
    let end = &events[events.len() - 2];
    assert_eq!(
        (&end["choices"][0]["native_finish_reason"], &end["service_tier"]),
        (&json!("end"), &json!("flex"))
    );
}

#[tokio::test]
async fn a_provider_that_changes_its_field_within_a_stream_is_followed() {
    let upstream = FakeUpstream::start().await;
    upstream.script([Reply::events([
        delta(&json!({ "reasoning_content": "a" })),
        delta(&json!({ "reasoning": "b" })),
        delta(&json!({ "reasoning_content": 7, "content": "c" })),
    ])
    .finish("stop")
    .done()]);
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let events = Response::to(chat(&server, &streamed(body("Why?")))).await.events();
    assert_eq!(
        (joined(&events, "reasoning_content"), joined(&events, "reasoning")),
        ("a".into(), "b".into())
    );
    let message = &Response::to(chat(&server, &body("Why?"))).await.json()["choices"][0]["message"];
    assert_eq!((&message["reasoning_content"], &message["reasoning"]), (&json!("ab"), &json!("ab")));
}

/// The bound on an answer holds for what the model thinks, too.
#[tokio::test]
async fn endless_reasoning_is_too_large() {
    let upstream = FakeUpstream::start().await;
    let thought = delta(&json!({ "reasoning_content": "x".repeat(1024) }));
    upstream.script([Reply::events(vec![thought; 8]).finish("stop").done()]);
    let mut config = exact_config(&[&upstream]);
    config.upstream.max_answer = 4096;
    let server = TestServer::start(config).await;
    assert_eq!(Response::to(chat(&server, &body("Why?"))).await.status, 503);
}

#[tokio::test]
async fn grpc_callers_get_and_send_reasoning() {
    let upstream = FakeUpstream::start().await;
    upstream.script([deepseek()]);
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let mut client: PromptCacheClient<_> = server.client().await;
    let stream = client.complete_stream(ask("How many?")).await.unwrap().into_inner();
    let events: Vec<_> = stream.map(|chunk| chunk.unwrap().event.unwrap()).collect().await;
    let thought: String = events
        .iter()
        .filter_map(|event| match event {
            Event::ReasoningDelta(text) => Some(text.as_str()),
            _ => None,
        })
        .collect();
    let Some(Event::Finished(finished)) = events.last() else { panic!("{events:?}") };
    assert_eq!(
        (thought.as_str(), finished.extra_json.as_str()),
        ("Three r's.", r#"{"reply":{"system_fingerprint":"fp_1"}}"#)
    );
    let reply = client.complete(ask("How many?")).await.unwrap().into_inner();
    assert_eq!(reply.outcome(), Outcome::Exact);
    let completion = reply.completion.unwrap();
    assert_eq!(completion.reasoning_content, "Three r's.");
    let usage = completion.usage.unwrap();
    assert_eq!((usage.cached_prompt_tokens, usage.reasoning_tokens), (16, 6));

    let mut next = prompt("And now?");
    let assistant = proto::Message { reasoning_content: "Three r's.".into(), ..message("assistant", "3") };
    next.messages.splice(0..0, [message("user", "How many?"), assistant]);
    client.complete(CompleteRequest { prompt: Some(next.clone()), cache: None }).await.unwrap();
    assert_eq!(upstream.requests()[1].body["messages"][1]["reasoning_content"], "Three r's.");
    next.messages[1].extra_json = r#"{"reasoning_content":"other"}"#.into();
    let refused = client.complete(CompleteRequest { prompt: Some(next), cache: None }).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    for extra in [r#"{"reply":{"id":"x"}}"#, r#"{"other":{}}"#, r#"{"message":1}"#] {
        let mut request = store_request("How many?", "3");
        request.completion.as_mut().unwrap().extra_json = extra.into();
        let refused = client.store(request).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{extra}");
    }
}

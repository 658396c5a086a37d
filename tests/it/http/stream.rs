//! Chat completions as server-sent events.

use serde_json::{Value, json};
use tokio_stream::StreamExt as _;

use super::{Response, body, chat};
use crate::common::{
    fake_upstream::{FakeUpstream, Gate, Reply},
    test_server::{TestServer, exact_config},
};

fn streamed(text: &str) -> Value {
    let mut body = body(text);
    body["stream"] = true.into();
    body
}

/// The text of every delta, joined.
fn text_of(events: &[Value]) -> String {
    events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect()
}

#[tokio::test]
async fn a_stream_is_relayed_stored_and_replayed() {
    let upstream = FakeUpstream::start().await;
    upstream.script([Reply::text("One \"two\"\nthree.")]);
    let server = TestServer::start(exact_config(&[&upstream])).await;
    for outcome in ["upstream", "exact"] {
        let response = Response::to(chat(&server, &streamed("Count."))).await;
        assert_eq!((response.status, response.outcome()), (200, outcome));
        assert_eq!(response.header("content-type"), "text/event-stream; charset=utf-8");
        let events = response.events();
        assert_eq!(events.last().unwrap(), "[DONE]");
        assert_eq!(events[0]["choices"][0]["delta"], json!({ "role": "assistant", "content": "" }));
        assert_eq!(text_of(&events), "One \"two\"\nthree.");
        let end = &events[events.len() - 2];
        assert_eq!(end["choices"], json!([{ "index": 0, "delta": {}, "finish_reason": "stop" }]));
        assert!(events[..events.len() - 1].iter().all(|event| event["id"] == events[0]["id"]
            && event["object"] == "chat.completion.chunk"
            && event.get("usage").is_none()));
    }
    let whole = Response::to(chat(&server, &body("Count."))).await;
    assert_eq!(whole.json()["choices"][0]["message"]["content"], "One \"two\"\nthree.");
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn requested_usage_has_its_own_chunk() {
    let upstream = FakeUpstream::start().await;
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let mut body = streamed("Count.");
    body["stream_options"] = json!({ "include_usage": true });
    for _ in 0..2 {
        let events = Response::to(chat(&server, &body)).await.events();
        let [chunks @ .., usage, _done] = events.as_slice() else { panic!("{events:?}") };
        assert!(chunks.iter().all(|chunk| chunk["usage"].is_null() && chunk.get("usage").is_some()));
        assert_eq!(usage["choices"], json!([]));
        assert_eq!(usage["usage"]["total_tokens"], 11);
    }
}

#[tokio::test]
async fn tool_calls_are_streamed_with_their_index() {
    let upstream = FakeUpstream::start().await;
    let piece = json!([{ "index": 0, "id": "c", "type": "function", "function": { "name": "f", "arguments": "{}" } }]);
    upstream.script([Reply::tool_calls([piece.clone()])]);
    let server = TestServer::start(exact_config(&[&upstream])).await;
    for _ in 0..2 {
        let events = Response::to(chat(&server, &streamed("Call."))).await.events();
        assert_eq!(events[1]["choices"][0]["delta"]["tool_calls"], piece);
        assert_eq!(events[2]["choices"][0]["finish_reason"], "tool_calls");
    }
}

/// The first token reaches the caller while the model is still writing the second.
#[tokio::test]
async fn tokens_are_sent_as_they_arrive() {
    let upstream = FakeUpstream::start().await;
    let gate = Gate::new();
    upstream.script([Reply::text("first second").hold_before(2, &gate)]);
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let reply = chat(&server, &streamed("Slowly.")).send().await.unwrap();
    let mut seen = String::new();
    let mut bytes = reply.bytes_stream();
    while !seen.contains("first ") {
        seen.push_str(std::str::from_utf8(&bytes.next().await.unwrap().unwrap()).unwrap());
    }
    assert!(!seen.contains("second"));
    gate.open();
    while let Some(more) = bytes.next().await {
        seen.push_str(std::str::from_utf8(&more.unwrap()).unwrap());
    }
    assert!(seen.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn a_failure_before_the_first_token_is_a_status_and_after_it_an_event() {
    let upstream = FakeUpstream::start().await;
    upstream.script([Reply::status(400), Reply::text("one two three").close_after(2)]);
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let refused = Response::to(chat(&server, &streamed("Bad."))).await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (400, &json!("refused_by_upstream")));
    let broken = Response::to(chat(&server, &streamed("Broken."))).await;
    assert_eq!(broken.status, 200);
    let events = broken.events();
    assert_eq!(events.last().unwrap()["error"]["code"], "upstream_unavailable");
    assert!(!broken.text.contains("[DONE]"));
}

#[tokio::test]
async fn a_cached_answer_is_streamed_without_an_upstream_call() {
    let upstream = FakeUpstream::start().await;
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let request = || chat(&server, &streamed("Cached?")).header("cache-control", "only-if-cached");
    assert_eq!(Response::to(request()).await.status, 504);
    Response::to(chat(&server, &body("Cached?"))).await;
    let cached = Response::to(request()).await;
    assert_eq!((cached.outcome(), text_of(&cached.events()).as_str()), ("exact", "ok"));
}

//! `POST /v1/responses`: plain text is cached, everything else is forwarded.

use serde_json::{Value, json};

use super::{Response, body, chat, post};
use crate::common::{
    fake_upstream::{FakeUpstream, Reply},
    test_server::{TestServer, exact_config},
};

fn create(server: &TestServer, body: &Value) -> reqwest::RequestBuilder {
    post(server, "/v1/responses", body)
}

#[tokio::test]
async fn plain_text_shares_its_entry_with_chat_completions() {
    let upstream = FakeUpstream::start().await;
    upstream.script([Reply::text("Open Settings.")]);
    let server = TestServer::start(exact_config(&[&upstream])).await;
    Response::to(chat(&server, &body("How do I reset my password?"))).await;
    let request = json!({ "model": "auto", "input": "How do I reset my password?" });
    let response = Response::to(create(&server, &request)).await;
    assert_eq!((response.status, response.outcome()), (200, "exact"), "{}", response.text);
    let reply = response.json();
    assert_eq!(
        (&reply["object"], &reply["status"], &reply["store"]),
        (&json!("response"), &json!("completed"), &json!(false))
    );
    assert_eq!(reply["output"][0]["content"][0]["text"], "Open Settings.");
    assert_eq!(reply["usage"]["input_tokens"], 10);
    assert_eq!(upstream.requests()[0].path, "/v1/chat/completions");
}

#[tokio::test]
async fn events_are_ordered_and_numbered() {
    let upstream = FakeUpstream::start().await;
    upstream.script([Reply::text("One two.")]);
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let request = json!({ "model": "auto", "input": "Count.", "stream": true });
    for outcome in ["upstream", "exact"] {
        let response = Response::to(create(&server, &request)).await;
        assert_eq!(response.outcome(), outcome);
        let events = response.events();
        assert!(events.iter().enumerate().all(|(n, event)| event["sequence_number"] == n));
        let kinds: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
        let (first, rest) = kinds.split_at(4);
        assert_eq!(
            first,
            [
                "response.created",
                "response.in_progress",
                "response.output_item.added",
                "response.content_part.added"
            ]
        );
        let deltas = rest.iter().take_while(|kind| **kind == "response.output_text.delta").count();
        assert!(deltas > 0);
        assert_eq!(
            rest[deltas..],
            [
                "response.output_text.done",
                "response.content_part.done",
                "response.output_item.done",
                "response.completed"
            ]
        );
        assert_eq!(events.last().unwrap()["response"]["output"][0]["content"][0]["text"], "One two.");
    }
}

#[tokio::test]
async fn tools_and_stored_conversations_are_forwarded() {
    let upstream = FakeUpstream::start().await;
    upstream.always(Reply::json(&json!({ "object": "response", "id": "resp_theirs" })));
    let server = TestServer::start(exact_config(&[&upstream])).await;
    for more in [json!({ "store": true }), json!({ "tools": [{ "type": "web_search" }] })] {
        let mut request = json!({ "model": "auto", "input": "Search." });
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let response = Response::to(create(&server, &request)).await;
        assert_eq!((response.outcome(), &response.json()["id"]), ("bypass", &json!("resp_theirs")));
    }
    assert_eq!(upstream.requests()[0].path, "/v1/responses");
}

#[tokio::test]
async fn a_failure_after_the_first_token_is_an_event() {
    let upstream = FakeUpstream::start().await;
    upstream.script([Reply::text("one two three").close_after(2)]);
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let request = json!({ "model": "auto", "input": "Break.", "stream": true });
    let events = Response::to(create(&server, &request)).await.events();
    let kinds: Vec<_> = events.iter().rev().take(2).map(|event| event["type"].clone()).collect();
    assert_eq!(kinds, ["response.failed", "error"]);
}

//! Fields of a request that the answer does not depend on.

use serde_json::{Value, json};

use super::{Response, body, chat, post};
use crate::common::{
    fake_upstream::FakeUpstream,
    test_server::{TestServer, exact_config},
};

fn with(fields: &Value) -> Value {
    let mut body = body("Hours?");
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

/// Clients put the id of their user or of the request into these fields, so that every request was a miss.
#[tokio::test]
async fn who_asks_is_sent_on_and_not_part_of_the_key() {
    let upstream = FakeUpstream::start().await;
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let first = json!({ "user": "ann", "metadata": { "request": "1" }, "safety_identifier": "a", "prompt_cache_key": "k",
        "store": false, "service_tier": "flex" });
    let second = json!({ "user": "bob", "metadata": { "request": "2" } });
    for (fields, outcome) in [(&first, "upstream"), (&second, "exact"), (&json!({}), "exact")] {
        assert_eq!(Response::to(chat(&server, &with(fields))).await.outcome(), outcome, "{fields}");
    }
    let sent = &upstream.requests()[0].body;
    for (name, value) in first.as_object().unwrap() {
        assert_eq!(&sent[name], value, "{name}");
    }
    let responses = json!({ "model": "auto", "input": "Hours?", "user": "eve", "prompt_cache_key": "other" });
    assert_eq!(Response::to(post(&server, "/v1/responses", &responses)).await.outcome(), "exact");
    let effort = with(&json!({ "reasoning_effort": "low" }));
    assert_eq!(Response::to(chat(&server, &effort)).await.outcome(), "upstream");
}

#[tokio::test]
async fn the_configuration_names_the_ignored_fields() {
    let upstream = FakeUpstream::start().await;
    let mut config = exact_config(&[&upstream]);
    config.cache.ignore_fields = vec!["x_request".to_owned()];
    let server = TestServer::start(config).await;
    for (fields, outcome) in [
        (json!({ "x_request": 1 }), "upstream"),
        (json!({ "x_request": 2 }), "exact"),
        (json!({ "user": "ann" }), "upstream"),
        (json!({ "user": "bob" }), "upstream"),
    ] {
        assert_eq!(Response::to(chat(&server, &with(&fields))).await.outcome(), outcome, "{fields}");
    }
}

/// A request with a cache mark was passed on around the cache.
#[tokio::test]
async fn cache_marks_are_sent_on_and_not_part_of_the_key() {
    let upstream = FakeUpstream::start().await;
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let mark = json!({ "type": "ephemeral" });
    let marked = json!({ "model": "auto", "cache_control": mark,
        "tools": [{ "type": "function", "function": { "name": "f" }, "cache_control": mark }],
        "messages": [
            { "role": "system", "content": [{ "type": "text", "text": "Be brief.", "cache_control": mark }] },
            { "role": "user", "content": "Hours?", "cache_control": mark },
        ] });
    let plain = json!({ "model": "auto", "tools": [{ "type": "function", "function": { "name": "f" } }],
        "messages": [{ "role": "system", "content": "Be brief." }, { "role": "user", "content": "Hours?" }] });
    for (body, outcome) in [(&marked, "upstream"), (&plain, "exact"), (&marked, "exact")] {
        assert_eq!(Response::to(chat(&server, body)).await.outcome(), outcome);
    }
    let sent = &upstream.requests()[0].body;
    for field in ["messages", "tools", "cache_control"] {
        assert_eq!(sent[field], marked[field]);
    }
}

//! What the usage block of a hit says.

use serde_json::{Value, json};

use super::{Response, body, chat, post};
use crate::common::{
    fake_upstream::FakeUpstream,
    test_server::{TestServer, exact_config},
};

fn streamed() -> Value {
    let mut body = body("Hours?");
    body["stream"] = true.into();
    body["stream_options"] = json!({ "include_usage": true });
    body
}

/// The usage of each way to get the answer: whole, streamed, from the cache alone, and as a response.
async fn usages(server: &TestServer) -> [Value; 4] {
    let whole = Response::to(chat(server, &body("Hours?"))).await.json()["usage"].take();
    let events = Response::to(chat(server, &streamed())).await.events();
    let usage = events[events.len() - 2]["usage"].clone();
    let only = chat(server, &body("Hours?")).header("cache-control", "only-if-cached");
    let only = Response::to(only).await.json()["usage"].take();
    let input = json!({ "model": "auto", "input": "Hours?" });
    let response = Response::to(post(server, "/v1/responses", &input)).await.json()["usage"].take();
    [whole, usage, only, response]
}

/// Token dashboards counted the tokens of a hit as if a model had been called again.
#[tokio::test]
async fn the_usage_of_a_hit_says_that_it_is_one() {
    let upstream = FakeUpstream::start().await;
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let first = Response::to(chat(&server, &body("Hours?"))).await.json();
    assert_eq!(first["usage"], json!({ "prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11 }));
    for usage in usages(&server).await {
        assert_eq!(usage["total_tokens"], 11);
        let hit = &usage["promptkeep"];
        assert_eq!(
            (&hit["outcome"], hit["entry"].as_str().map(str::len)),
            (&json!("exact"), Some(32)),
            "{usage}"
        );
        assert!(hit["saved_usd"].is_null() || hit["saved_usd"].as_f64() > Some(0.0), "{usage}");
    }
}

#[tokio::test]
async fn the_tokens_of_a_hit_can_be_zero() {
    let upstream = FakeUpstream::start().await;
    let mut config = exact_config(&[&upstream]);
    config.cache.zero_hit_usage = true;
    let server = TestServer::start(config).await;
    let first = Response::to(chat(&server, &body("Hours?"))).await.json();
    assert_eq!(first["usage"]["total_tokens"], 11);
    for usage in usages(&server).await {
        assert_eq!(
            (&usage["total_tokens"], &usage["promptkeep"]["tokens"]["total_tokens"]),
            (&json!(0), &json!(11))
        );
    }
}

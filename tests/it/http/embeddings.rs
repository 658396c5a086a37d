//! `POST /v1/embeddings`: each input is kept by itself.

use serde_json::{Value, json};

use super::{Response, post, tenant};
use crate::common::{
    fake_upstream::{FakeUpstream, Reply},
    test_server::{TestServer, exact_config},
};

/// The vector of a text of the fake provider.
fn vector(text: &str) -> Value {
    json!([text.len(), 0.1])
}

fn reply(texts: &[&str]) -> Reply {
    let item =
        |(n, text): (usize, &&str)| json!({ "object": "embedding", "index": n, "embedding": vector(text) });
    let data: Vec<_> = texts.iter().enumerate().map(item).collect();
    let tokens = 10 * texts.len();
    Reply::json(&json!({ "object": "list", "data": data, "model": "m",
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens } }))
}

fn ask(input: &Value) -> Value {
    json!({ "model": "model-cold", "input": input })
}

async fn embed(server: &TestServer, body: &Value) -> Response {
    Response::to(post(server, "/v1/embeddings", body)).await
}

fn vectors(response: &Response) -> Vec<Value> {
    let list = response.json();
    let items = list["data"].as_array().unwrap_or_else(|| panic!("{list}"));
    assert!(items.iter().enumerate().all(|(n, item)| item["index"] == n && item["object"] == "embedding"));
    items.iter().map(|item| item["embedding"].clone()).collect()
}

#[tokio::test]
async fn only_inputs_that_are_not_kept_are_sent() {
    let upstream = FakeUpstream::start().await;
    upstream.script([reply(&["a", "bb"]), reply(&["ccc"])]);
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let first = embed(&server, &ask(&json!(["a", "bb"]))).await;
    assert_eq!((first.status, first.outcome()), (200, "upstream"), "{}", first.text);
    assert_eq!(vectors(&first), [vector("a"), vector("bb")]);
    assert_eq!(first.json()["usage"], json!({ "prompt_tokens": 20, "total_tokens": 20 }));
    let mixed = embed(&server, &ask(&json!(["bb", "ccc", "a", "ccc"]))).await;
    assert_eq!(mixed.outcome(), "upstream");
    assert_eq!(vectors(&mixed), ["bb", "ccc", "a", "ccc"].map(vector));
    let usage = &mixed.json()["usage"];
    assert_eq!((&usage["promptkeep"]["hits"], &usage["promptkeep"]["inputs"]), (&json!(2), &json!(4)));
    assert_eq!(upstream.requests()[1].body["input"], json!(["ccc"]));
    let one = embed(&server, &ask(&json!("bb"))).await;
    assert_eq!((one.outcome(), vectors(&one)), ("exact", vec![vector("bb")]));
    assert!(one.header("x-promptkeep-saved-usd").parse::<f64>().unwrap() > 0.0);
    assert_eq!(upstream.calls(), 2);

    assert_eq!(server.metric("promptkeep_embedding_inputs_total", &["exact"]).await, 3.0);
    assert_eq!(server.metric("promptkeep_embedding_inputs_total", &["upstream"]).await, 4.0);
    // Two calls of 20 and 10 tokens, at a dollar for a million.
    let cost = server.metric("promptkeep_cost_usd_total", &["model-cold"]).await;
    assert!((cost - 30e-6).abs() < 1e-12, "{cost}");
    assert_eq!(server.metric("promptkeep_requests_total", &["Embed", "exact"]).await, 1.0);
}

#[tokio::test]
async fn what_changes_a_vector_separates_inputs() {
    let upstream = FakeUpstream::start().await;
    upstream.always(reply(&["a"]));
    let mut config = exact_config(&[&upstream]);
    config.tenants = vec![tenant("one", "key-1"), tenant("two", "key-2")];
    let server = TestServer::start(config).await;
    let with = |fields: Value| {
        let mut body = ask(&json!("a"));
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        body
    };
    for (key, fields, outcome) in [
        ("key-1", json!({}), "upstream"),
        ("key-1", json!({ "user": "ann" }), "exact"),
        ("key-1", json!({ "dimensions": 256 }), "upstream"),
        ("key-1", json!({ "encoding_format": "base64" }), "upstream"),
        ("key-1", json!({ "model": "other" }), "upstream"),
        ("key-1", json!({ "input": [97] }), "upstream"),
        ("key-1", json!({ "input": [[97]] }), "exact"),
        ("key-2", json!({}), "upstream"),
    ] {
        let request = post(&server, "/v1/embeddings", &with(fields.clone())).bearer_auth(key);
        assert_eq!(Response::to(request).await.outcome(), outcome, "{key} {fields}");
    }
}

#[tokio::test]
async fn directives_hold_for_embeddings() {
    let upstream = FakeUpstream::start().await;
    upstream.always(reply(&["a"]));
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let with = |directive: &'static str| {
        post(&server, "/v1/embeddings", &ask(&json!("a"))).header("cache-control", directive)
    };
    assert_eq!(Response::to(with("only-if-cached")).await.status, 504);
    for (directive, outcome) in [
        ("no-store", "upstream"),
        ("max-age=60", "upstream"),
        ("max-age=60", "exact"),
        ("no-cache", "upstream"),
    ] {
        assert_eq!(Response::to(with(directive)).await.outcome(), outcome, "{directive}");
    }
    assert_eq!(Response::to(with("only-if-cached")).await.outcome(), "exact");
}

#[tokio::test]
async fn a_refusal_or_an_odd_reply_is_passed_on_and_not_kept() {
    let upstream = FakeUpstream::start().await;
    upstream.script([Reply::status(400), reply(&["a", "bb"]), reply(&["a"]), Reply::status(400)]);
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let refused = embed(&server, &ask(&json!("a"))).await;
    assert_eq!((refused.status, refused.outcome()), (400, "bypass"));
    // Two vectors for one input.
    assert_eq!(embed(&server, &ask(&json!("a"))).await.outcome(), "bypass");
    assert_eq!(embed(&server, &ask(&json!("a"))).await.outcome(), "upstream");
    // The provider refuses the rest of a request that is half kept.
    assert_eq!(embed(&server, &ask(&json!(["a", "bb"]))).await.status, 503);
}

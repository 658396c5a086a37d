//! Requests that the cache cannot answer are forwarded to the provider unchanged.

use serde_json::json;

use super::{Response, body, chat, post, tenant};
use crate::common::{
    fake_upstream::{FakeUpstream, Reply},
    test_server::{TestServer, exact_config},
};

#[tokio::test]
async fn several_choices_are_forwarded_and_their_cost_is_counted() {
    let upstream = FakeUpstream::start().await;
    let whole = json!({
        "object": "chat.completion", "from": "the provider",
        "choices": [{ "index": 0 }, { "index": 1 }],
        "usage": { "prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150 },
    });
    upstream.always(Reply::json(&whole));
    let mut config = exact_config(&[&upstream]);
    config.models[0].served_as = Some("name-at-provider".into());
    let server = TestServer::start(config).await;
    let mut body = body("Two ideas?");
    body["n"] = 2.into();
    body["x_new_thing"] = 1.into();
    for _ in 0..2 {
        let response = Response::to(chat(&server, &body)).await;
        assert_eq!((response.status, response.outcome()), (200, "bypass"));
        assert_eq!(response.header("x-promptkeep-reason"), "not_kept");
        assert_eq!(response.json(), whole);
    }
    assert_eq!(upstream.calls(), 2);
    let mut sent = upstream.requests()[0].body.clone();
    assert_eq!(sent["model"].take(), "name-at-provider");
    body["model"].take();
    assert_eq!(sent, body);
    let (_, metrics) = server.get("/metrics").await;
    let assert_metric = |line: &str| assert!(metrics.contains(line), "{line} is not in {metrics}");
    assert_metric("promptkeep_requests_total{rpc=\"Forward\",outcome=\"bypass\"} 2");
    assert_metric("promptkeep_cost_usd_total{model=\"model-cold\"} 0.0012");
}

#[tokio::test]
async fn a_forwarded_stream_is_unchanged() {
    let upstream = FakeUpstream::start().await;
    upstream.script([Reply::text("a b c")]);
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let mut body = body("Stream two?");
    body["n"] = 2.into();
    body["stream"] = true.into();
    let response = Response::to(chat(&server, &body)).await;
    assert_eq!(response.header("content-type"), "text/event-stream");
    assert!(response.text.contains("\"chatcmpl-1\"") && response.text.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn a_refusal_is_forwarded_and_a_failure_falls_back() {
    let (cold, warm) = (FakeUpstream::start().await, FakeUpstream::start().await);
    cold.script([Reply::status(400), Reply::status(500), Reply::status(401)]);
    warm.always(Reply::json(&json!({ "object": "from warm" })));
    let server = TestServer::start(exact_config(&[&cold, &warm])).await;
    let mut body = body("Two?");
    body["model"] = "cold".into();
    body["logprobs"] = true.into();
    let refused = Response::to(chat(&server, &body)).await;
    assert_eq!((refused.status, &refused.json()["error"]["message"]), (400, &json!("scripted 400")));
    assert_eq!(Response::to(chat(&server, &body)).await.json()["object"], "from warm");
    assert_eq!(Response::to(chat(&server, &body)).await.json()["object"], "from warm");
    assert_eq!(cold.calls(), 3);
    let (status, page) = server.get("/readyz").await;
    assert_eq!(status, 200);
    assert!(page.contains("provider provider-cold is in quarantine: it replied with status 401"), "{page}");
    let quarantined = server.metric("promptkeep_provider_quarantined", &["provider-cold"]).await;
    assert_eq!(quarantined, 1.0);
}

#[tokio::test]
async fn embeddings_go_to_the_first_provider_and_never_fall_back() {
    let upstream = FakeUpstream::start().await;
    upstream.script([Reply::json(&json!({ "object": "list", "data": [] })), Reply::status(500)]);
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let body = json!({ "model": "text-embedding-3-small", "input": "x" });
    let response = Response::to(post(&server, "/v1/embeddings", &body)).await;
    assert_eq!((response.status, response.outcome()), (200, "bypass"));
    let seen = &upstream.requests()[0];
    assert_eq!((seen.path.as_str(), &seen.body), ("/v1/embeddings", &body));
    assert_eq!(Response::to(post(&server, "/v1/embeddings", &body)).await.status, 500);
    let without_model = Response::to(post(&server, "/v1/embeddings", &json!({ "input": "x" }))).await;
    assert_eq!((without_model.status, &without_model.json()["error"]["param"]), (400, &json!("model")));
}

#[tokio::test]
async fn only_if_cached_and_a_spent_budget_prevent_forwarding() {
    let upstream = FakeUpstream::start().await;
    let mut config = exact_config(&[&upstream]);
    config.tenants = vec![tenant("poor", "key")];
    config.tenants[0].budget_usd_per_day = Some(0.0);
    let server = TestServer::start(config).await;
    let mut body = body("Two?");
    body["n"] = 2.into();
    let request = || chat(&server, &body).bearer_auth("key");
    assert_eq!(Response::to(request().header("cache-control", "only-if-cached")).await.status, 504);
    assert_eq!(Response::to(request()).await.status, 429);
    assert_eq!(upstream.calls(), 0);
}

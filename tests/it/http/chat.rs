//! `POST /v1/chat/completions` without streaming: bodies, request headers and reply headers.

use serde_json::json;

use super::{Response, body, chat, post, tenant};
use crate::common::{
    fake_upstream::{FakeUpstream, Reply},
    test_server::{TestServer, complete, exact_config, semantic_config},
};

#[tokio::test]
async fn a_repeated_request_is_an_exact_hit_and_its_headers_say_so() {
    let upstream = FakeUpstream::start().await;
    upstream.script([Reply::text("Open Settings.")]);
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let first = Response::to(chat(&server, &body("How do I reset my password?"))).await;
    assert_eq!((first.status, first.outcome()), (200, "upstream"), "{}", first.text);
    let reply = first.json();
    assert_eq!(reply["object"], "chat.completion");
    assert_eq!(reply["model"], "model-cold");
    assert_eq!(reply["choices"][0]["message"]["content"], "Open Settings.");
    assert_eq!(reply["choices"][0]["finish_reason"], "stop");
    assert_eq!(reply["usage"], json!({ "prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12 }));
    assert_eq!((first.header("x-promptkeep-entry"), first.header("age")), ("", ""));
    assert_eq!(first.header("x-promptkeep-reason"), "disabled");
    let again = Response::to(chat(&server, &body("How do I reset my password?"))).await;
    assert_eq!(again.outcome(), "exact");
    assert_eq!(again.json()["choices"], reply["choices"]);
    assert_eq!(again.header("x-promptkeep-similarity"), "1.0000");
    assert_eq!(again.header("x-promptkeep-entry").len(), 32);
    assert_eq!(again.header("age"), "0");
    assert!(again.header("x-promptkeep-saved-usd").parse::<f64>().unwrap() > 0.0);
    assert_ne!(again.header("x-promptkeep-request-id"), first.header("x-promptkeep-request-id"));
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn grpc_and_http_share_an_entry() {
    let upstream = FakeUpstream::start().await;
    let server = TestServer::start(exact_config(&[&upstream])).await;
    Response::to(chat(&server, &body("One question?"))).await;
    let mut client = server.client().await;
    let reply = complete(&mut client, "One question?").await;
    assert_eq!(reply.outcome(), promptkeep::grpc::proto::Outcome::Exact);
}

#[tokio::test]
async fn a_paraphrase_is_a_semantic_hit_with_its_similarity() {
    let upstream = FakeUpstream::start().await;
    let server = TestServer::start(semantic_config(&[&upstream])).await;
    Response::to(chat(&server, &body("How do I reset my password?"))).await;
    let paraphrase = Response::to(chat(&server, &body("How can I reset my password?"))).await;
    assert_eq!(paraphrase.outcome(), "semantic");
    let similarity: f32 = paraphrase.header("x-promptkeep-similarity").parse().unwrap();
    assert!((0.9..1.0).contains(&similarity));
    let strict =
        chat(&server, &body("How can I reset my password?")).header("x-promptkeep-exact-only", "true");
    assert_eq!(Response::to(strict).await.outcome(), "upstream");
}

/// An unknown field may change the answer as much as a known one.
#[tokio::test]
async fn unknown_fields_reach_the_model_and_are_part_of_the_key() {
    let upstream = FakeUpstream::start().await;
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let with = |effort: &str| {
        let mut body = body("Think.");
        body["reasoning_effort"] = effort.into();
        body["x_new_thing"] = json!({ "deep": [1, 2] });
        body
    };
    for (effort, outcome) in [("low", "upstream"), ("high", "upstream"), ("low", "exact")] {
        assert_eq!(Response::to(chat(&server, &with(effort))).await.outcome(), outcome);
    }
    let sent = &upstream.requests()[0].body;
    assert_eq!(
        (&sent["reasoning_effort"], &sent["x_new_thing"]),
        (&json!("low"), &json!({ "deep": [1, 2] }))
    );
}

#[tokio::test]
async fn tools_reach_the_model_and_tool_calls_reach_the_caller() {
    let upstream = FakeUpstream::start().await;
    let call = |arguments: &str| {
        json!([{ "index": 0, "id": "call_1", "type": "function",
            "function": { "name": "weather", "arguments": arguments } }])
    };
    upstream.script([Reply::tool_calls([call("{\"city\":"), call("\"Bonn\"}")])]);
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let mut body = body("Weather in Bonn?");
    body["tools"] = json!([{ "type": "function", "function": { "name": "weather", "parameters": {} } }]);
    body["response_format"] = json!({ "type": "json_object" });
    for outcome in ["upstream", "exact"] {
        let response = Response::to(chat(&server, &body)).await;
        assert_eq!(response.outcome(), outcome);
        let choice = response.json()["choices"][0].clone();
        assert_eq!(
            (&choice["finish_reason"], &choice["message"]["content"]),
            (&json!("tool_calls"), &json!(null))
        );
        assert_eq!(choice["message"]["tool_calls"][0]["function"]["arguments"], "{\"city\":\"Bonn\"}");
    }
    let sent = &upstream.requests()[0].body;
    assert_eq!((&sent["tools"], &sent["response_format"]), (&body["tools"], &body["response_format"]));
}

#[tokio::test]
async fn cache_control_directives_work_as_in_http() {
    let upstream = FakeUpstream::start().await;
    upstream.script([Reply::text("old"), Reply::text("new"), Reply::text("not stored")]);
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let request = |control: &'static str| chat(&server, &body("News?")).header("cache-control", control);
    let text = |response: &Response| response.json()["choices"][0]["message"]["content"].clone();

    let absent = Response::to(request("only-if-cached")).await;
    assert_eq!((absent.status, &absent.json()["error"]["code"]), (504, &json!("not_cached")));
    assert_eq!(absent.header("x-should-retry"), "false");
    assert_eq!(Response::to(request("")).await.outcome(), "upstream");
    let fresh = Response::to(request("no-cache")).await;
    assert_eq!((fresh.outcome(), text(&fresh)), ("bypass", json!("new")));
    let cached = Response::to(request("only-if-cached, max-age=60")).await;
    assert_eq!((cached.outcome(), text(&cached)), ("exact", json!("new")));
    let stale = Response::to(request("max-age=0, no-store")).await;
    assert_eq!((stale.outcome(), text(&stale)), ("upstream", json!("not stored")));
    assert_eq!(text(&Response::to(request("")).await), json!("new"));
    let wrong = Response::to(request("max-age=soon")).await;
    assert_eq!((wrong.status, &wrong.json()["error"]["param"]), (400, &json!("cache-control")));
    assert_eq!(upstream.calls(), 3);
}

#[tokio::test]
async fn namespaces_and_vary_values_separate_prompts() {
    let upstream = FakeUpstream::start().await;
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let request =
        |name: &'static str, value: &'static str| chat(&server, &body("Hours?")).header(name, value);
    for outcome in ["upstream", "exact"] {
        for (name, value) in [
            ("x-promptkeep-namespace", "shop"),
            ("x-promptkeep-namespace", "bank"),
            ("x-promptkeep-vary", "locale=de"),
            ("x-promptkeep-vary", "locale=en, plan=pro"),
        ] {
            assert_eq!(Response::to(request(name, value)).await.outcome(), outcome, "{name}: {value}");
        }
    }
}

#[tokio::test]
async fn the_bearer_token_selects_the_tenant() {
    let upstream = FakeUpstream::start().await;
    let mut config = exact_config(&[&upstream]);
    config.tenants = vec![tenant("a", "key-a"), tenant("b", "key-b")];
    let server = TestServer::start(config).await;
    let request = |key: &str| chat(&server, &body("Mine?")).bearer_auth(key);
    for (key, outcome) in [("key-a", "upstream"), ("key-a", "exact"), ("key-b", "upstream")] {
        assert_eq!(Response::to(request(key)).await.outcome(), outcome);
    }
    for unknown in [request("key-c"), chat(&server, &body("Mine?"))] {
        let refused = Response::to(unknown).await;
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (401, &json!("invalid_api_key")));
    }
    assert!(upstream.requests().iter().all(|request| request.header("authorization").is_none()));
}

#[tokio::test]
async fn the_model_list_has_the_catalog_the_tiers_and_auto() {
    let (cold, warm) = (FakeUpstream::start().await, FakeUpstream::start().await);
    let server = TestServer::start(exact_config(&[&cold, &warm])).await;
    let (_, list) = server.get("/v1/models").await;
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let ids: Vec<_> =
        list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["model-cold", "model-warm", "warm", "cold", "auto"]);
    assert_eq!(server.get("/v1/models/model-warm").await.0, 200);
    assert_eq!(server.get("/v1/models/org/other").await.0, 404);
}

#[tokio::test]
async fn tags_set_over_http_can_be_invalidated_over_grpc() {
    let upstream = FakeUpstream::start().await;
    let server = TestServer::start(exact_config(&[&upstream])).await;
    Response::to(chat(&server, &body("Price?")).header("x-promptkeep-tags", "prices, eu")).await;
    let request = promptkeep::grpc::proto::InvalidateRequest { tag: "eu".into(), ..Default::default() };
    let removed = server.client().await.invalidate(request).await.unwrap().into_inner().entries;
    assert_eq!(removed, 1);
}

/// An upstream call without other waiters is cancelled when its caller leaves before the answer begins.
#[tokio::test]
async fn a_caller_that_leaves_cancels_its_upstream_call() {
    let upstream = FakeUpstream::start().await;
    upstream.always(Reply::stall());
    let server = TestServer::start(exact_config(&[&upstream])).await;
    for stream in [false, true] {
        let calls = upstream.calls();
        let mut body = body("Anyone?");
        body["stream"] = stream.into();
        let pending = tokio::spawn(Response::to(post(&server, "/v1/chat/completions", &body)));
        upstream.wait_for_calls(calls + 1).await;
        pending.abort();
        upstream.wait_for_disconnects(calls + 1).await;
    }
}

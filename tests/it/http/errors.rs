//! Errors in OpenAI's shape, with the status that its clients act on.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Answer, body, chat, request, tenant};
use crate::common::{
    fake_upstream::{FakeUpstream, Reply},
    test_server::{TestServer, exact_config},
};

/// Status, type and code of an error.
fn kind(answer: &Answer) -> (u16, String, String) {
    let error = &answer.json()["error"];
    let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    assert!(!text("message").is_empty());
    (answer.status, text("type"), text("code"))
}

fn expected(status: u16, kind: &str, code: &str) -> (u16, String, String) {
    (status, kind.to_owned(), code.to_owned())
}

#[tokio::test]
async fn the_caller_s_faults_name_the_field() {
    let upstream = FakeUpstream::start().await;
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let mut wrong = body("x");
    wrong["temperature"] = 3.into();
    let answer = Answer::of(chat(&server, &wrong)).await;
    assert_eq!(kind(&answer), expected(400, "invalid_request_error", "invalid_value"));
    assert_eq!(answer.json()["error"]["param"], "temperature");
    assert_eq!(answer.header("x-should-retry"), "false");
    let answer = Answer::of(chat(&server, &json!({ "messages": [] }))).await;
    assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!("messages")));
    let mut unknown = body("x");
    unknown["model"] = "no-such-model".into();
    let answer = Answer::of(chat(&server, &unknown)).await;
    assert_eq!(kind(&answer), expected(404, "invalid_request_error", "model_not_found"));
    let answer = Answer::of(chat(&server, &Value::Null).body("{\"messages\": [")).await;
    assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!("body")));
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test]
async fn unknown_paths_and_methods_have_the_shape_too() {
    let server = TestServer::start(exact_config(&[])).await;
    let answer = Answer::of(request(&server, Method::GET, "/v1/assistants")).await;
    assert_eq!(kind(&answer), expected(404, "invalid_request_error", "not_found"));
    let answer = Answer::of(request(&server, Method::GET, "/v1/chat/completions")).await;
    assert_eq!(kind(&answer), expected(405, "invalid_request_error", "method_not_allowed"));
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let mut config = exact_config(&[]);
    config.server.max_request = 1000;
    let server = TestServer::start(config).await;
    let answer = Answer::of(chat(&server, &body(&"x".repeat(1000)))).await;
    assert_eq!(kind(&answer), expected(413, "invalid_request_error", "request_too_large"));
    assert!(!answer.text.contains("xxx"));
}

#[tokio::test]
async fn limits_say_when_to_come_again() {
    let upstream = FakeUpstream::start().await;
    let mut config = exact_config(&[&upstream]);
    config.tenants = vec![tenant("slow", "key-slow"), tenant("poor", "key-poor")];
    config.tenants[0].rate_limit = Some(0.5);
    config.tenants[1].budget_usd_per_day = Some(0.0);
    let server = TestServer::start(config).await;
    let asked = |key: &str| Answer::of(chat(&server, &body("More?")).bearer_auth(key));
    asked("key-slow").await;
    let limited = asked("key-slow").await;
    assert_eq!(kind(&limited), expected(429, "rate_limit_error", "rate_limit_exceeded"));
    assert!((1..=2).contains(&limited.header("retry-after").parse::<u64>().unwrap()));
    let broke = asked("key-poor").await;
    assert_eq!(kind(&broke), expected(429, "rate_limit_error", "insufficient_quota"));
    assert_eq!(broke.header("x-should-retry"), "false");
}

#[tokio::test]
async fn a_failed_chain_tells_its_attempts() {
    let upstream = FakeUpstream::start().await;
    upstream.always(Reply::status(500));
    let mut config = exact_config(&[&upstream]);
    config.upstream.retries = 0;
    let server = TestServer::start(config).await;
    let answer = Answer::of(chat(&server, &body("Down?"))).await;
    assert_eq!(kind(&answer), expected(503, "server_error", "upstream_unavailable"));
    assert_eq!(answer.header("retry-after"), "1");
    let attempt = &answer.json()["error"]["attempts"][0];
    assert_eq!((&attempt["model"], &attempt["result"]), (&json!("model-cold"), &json!("http_500")));
}

#[tokio::test]
async fn the_caller_s_own_time_bounds_the_answer() {
    let upstream = FakeUpstream::start().await;
    upstream.always(Reply::stall());
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let answer = Answer::of(chat(&server, &body("Soon?")).header("x-promptkeep-timeout", "0.05")).await;
    assert_eq!(kind(&answer), expected(504, "server_error", "timeout"));
    let attempt = &answer.json()["error"]["attempts"][0];
    assert_eq!(attempt["result"], json!("deadline"), "what the time was spent on");
}

#[tokio::test]
async fn a_server_without_models_says_so() {
    let server = TestServer::start(exact_config(&[])).await;
    let answer = Answer::of(chat(&server, &body("Anyone?"))).await;
    assert_eq!(kind(&answer), expected(503, "server_error", "no_upstream"));
}

#[tokio::test]
async fn what_the_provider_refuses_keeps_its_status() {
    let upstream = FakeUpstream::start().await;
    upstream.script([Reply::status(422), Reply::status(401)]);
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let answer = Answer::of(chat(&server, &body("One?"))).await;
    assert_eq!(kind(&answer), expected(422, "invalid_request_error", "refused_by_upstream"));
    // The server's key, not the caller's.
    let answer = Answer::of(chat(&server, &body("Two?"))).await;
    assert_eq!(kind(&answer), expected(502, "server_error", "refused_by_upstream"));
}

//! Errors in OpenAI's shape, with the status codes that its clients act on.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Response, body, chat, request, tenant};
use crate::common::{
    fake_upstream::{FakeUpstream, Reply},
    test_server::{TestServer, exact_config},
};

/// Status, type and code of an error.
fn kind(response: &Response) -> (u16, String, String) {
    let error = &response.json()["error"];
    let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    assert!(!text("message").is_empty());
    (response.status, text("type"), text("code"))
}

fn expected(status: u16, kind: &str, code: &str) -> (u16, String, String) {
    (status, kind.to_owned(), code.to_owned())
}

#[tokio::test]
async fn an_invalid_request_names_the_field() {
    let upstream = FakeUpstream::start().await;
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let mut wrong = body("x");
    wrong["temperature"] = 3.into();
    let response = Response::to(chat(&server, &wrong)).await;
    assert_eq!(kind(&response), expected(400, "invalid_request_error", "invalid_value"));
    assert_eq!(response.json()["error"]["param"], "temperature");
    assert_eq!(response.header("x-should-retry"), "false");
    let response = Response::to(chat(&server, &json!({ "messages": [] }))).await;
    assert_eq!((response.status, &response.json()["error"]["param"]), (400, &json!("messages")));
    let mut unknown = body("x");
    unknown["model"] = "no-such-model".into();
    let response = Response::to(chat(&server, &unknown)).await;
    assert_eq!(kind(&response), expected(404, "invalid_request_error", "model_not_found"));
    let response = Response::to(chat(&server, &Value::Null).body("{\"messages\": [")).await;
    assert_eq!((response.status, &response.json()["error"]["param"]), (400, &json!("body")));
    assert_eq!(upstream.calls(), 0);
}

#[tokio::test]
async fn unknown_paths_and_methods_use_the_error_shape() {
    let server = TestServer::start(exact_config(&[])).await;
    let response = Response::to(request(&server, Method::GET, "/v1/assistants")).await;
    assert_eq!(kind(&response), expected(404, "invalid_request_error", "not_found"));
    let response = Response::to(request(&server, Method::GET, "/v1/chat/completions")).await;
    assert_eq!(kind(&response), expected(405, "invalid_request_error", "method_not_allowed"));
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let mut config = exact_config(&[]);
    config.server.max_request = 1000;
    let server = TestServer::start(config).await;
    let response = Response::to(chat(&server, &body(&"x".repeat(1000)))).await;
    assert_eq!(kind(&response), expected(413, "invalid_request_error", "request_too_large"));
    assert!(!response.text.contains("xxx"));
}

#[tokio::test]
async fn exceeded_limits_say_when_to_retry() {
    let upstream = FakeUpstream::start().await;
    let mut config = exact_config(&[&upstream]);
    config.tenants = vec![tenant("slow", "key-slow"), tenant("poor", "key-poor")];
    config.tenants[0].rate_limit = Some(0.5);
    config.tenants[1].budget_usd_per_day = Some(0.0);
    let server = TestServer::start(config).await;
    let send = |key: &str| Response::to(chat(&server, &body("More?")).bearer_auth(key));
    send("key-slow").await;
    let limited = send("key-slow").await;
    assert_eq!(kind(&limited), expected(429, "rate_limit_error", "rate_limit_exceeded"));
    assert!((1..=2).contains(&limited.header("retry-after").parse::<u64>().unwrap()));
    let over_budget = send("key-poor").await;
    assert_eq!(kind(&over_budget), expected(429, "rate_limit_error", "insufficient_quota"));
    assert_eq!(over_budget.header("x-should-retry"), "false");
}

#[tokio::test]
async fn a_failed_chain_lists_its_attempts() {
    let upstream = FakeUpstream::start().await;
    upstream.always(Reply::status(500));
    let mut config = exact_config(&[&upstream]);
    config.upstream.retries = 0;
    let server = TestServer::start(config).await;
    let response = Response::to(chat(&server, &body("Down?"))).await;
    assert_eq!(kind(&response), expected(503, "server_error", "upstream_unavailable"));
    assert_eq!(response.header("retry-after"), "1");
    let attempt = &response.json()["error"]["attempts"][0];
    assert_eq!((&attempt["model"], &attempt["result"]), (&json!("model-cold"), &json!("http_500")));
}

#[tokio::test]
async fn the_timeout_header_limits_the_request() {
    let upstream = FakeUpstream::start().await;
    upstream.always(Reply::stall());
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let response = Response::to(chat(&server, &body("Soon?")).header("x-promptkeep-timeout", "0.05")).await;
    assert_eq!(kind(&response), expected(504, "server_error", "timeout"));
    let attempt = &response.json()["error"]["attempts"][0];
    assert_eq!(attempt["result"], json!("deadline"), "the attempt that used up the time");
}

/// `x-promptkeep-timeout: 1e19` is a valid duration, but its deadline is beyond the clock. Adding it panicked, and the
/// caller saw a closed connection.
#[tokio::test]
async fn durations_beyond_the_clock_are_refused_or_harmless() {
    let upstream = FakeUpstream::start().await;
    let server = TestServer::start(exact_config(&[&upstream])).await;
    for timeout in ["1e19", "18446744073709549568", "1e300", "inf", "nan", "-1", "315360001"] {
        for path in ["/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/caches/c/flush"] {
            let request = request(&server, Method::POST, path).json(&body("x"));
            let response = Response::to(request.header("x-promptkeep-timeout", timeout)).await;
            assert_eq!(response.status, 400, "{path} {timeout}: {}", response.text);
            assert!(response.text.contains("x-promptkeep-timeout"), "{path} {timeout}: {}", response.text);
        }
    }
    for (name, value) in [
        ("x-promptkeep-timeout", "315360000"),
        ("x-promptkeep-ttl", "1e19"),
        ("cache-control", "max-age=18446744073709551615"),
    ] {
        let response = Response::to(chat(&server, &body(name)).header(name, value)).await;
        assert_eq!(response.status, 200, "{name}: {}", response.text);
    }
}

#[tokio::test]
async fn a_server_without_models_says_so() {
    let server = TestServer::start(exact_config(&[])).await;
    let response = Response::to(chat(&server, &body("Anyone?"))).await;
    assert_eq!(kind(&response), expected(503, "server_error", "no_upstream"));
}

#[tokio::test]
async fn a_provider_refusal_keeps_its_status_unless_it_is_about_the_server_key() {
    let upstream = FakeUpstream::start().await;
    upstream.script([Reply::status(422), Reply::status(401)]);
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let response = Response::to(chat(&server, &body("One?"))).await;
    assert_eq!(kind(&response), expected(422, "invalid_request_error", "refused_by_upstream"));
    // A 401 is about the server's key, not the caller's.
    let response = Response::to(chat(&server, &body("Two?"))).await;
    assert_eq!(kind(&response), expected(502, "server_error", "refused_by_upstream"));
}

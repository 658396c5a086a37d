//! Requests that a web page makes its visitor's browser send.

use reqwest::Method;
use serde_json::json;

use super::{Response, body, chat, post, request};
use crate::common::{
    fake_upstream::FakeUpstream,
    test_server::{TestServer, exact_config},
};

/// Any web page could store answers, remove them and spend money through the server on its visitor's machine: a browser
/// sends plain text to any address without asking, and that was enough for `201 Created`.
#[tokio::test]
async fn a_web_page_changes_and_spends_nothing() {
    let upstream = FakeUpstream::start().await;
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let entry = json!({ "prompt": "Q?", "response": "A." });
    let stored = Response::to(post(&server, "/v1/caches/c/entries", &entry)).await;
    assert_eq!(stored.status, 201);
    let routes = [
        (Method::POST, "/v1/chat/completions".to_owned()),
        (Method::POST, "/v1/responses".to_owned()),
        (Method::POST, "/v1/embeddings".to_owned()),
        (Method::POST, "/v1/caches/c/entries".to_owned()),
        (Method::POST, "/v1/caches/c/entries/search".to_owned()),
        (Method::POST, "/v1/caches/c/flush".to_owned()),
        (Method::DELETE, "/v1/caches/c/entries".to_owned()),
        (Method::DELETE, format!("/v1/caches/c/entries/{}", stored.json()["entryId"].as_str().unwrap())),
        (Method::POST, "/dashboard/wrong-hit".to_owned()),
    ];
    for (method, path) in routes {
        let with = |name: &'static str, value: &'static str| {
            Response::to(request(&server, method.clone(), &path).json(&body("Q?")).header(name, value))
        };
        assert_eq!(with("origin", "http://evil.example").await.status, 403, "{path}");
        assert_eq!(with("origin", "null").await.status, 403, "{path}");
        assert_eq!(with("sec-fetch-site", "cross-site").await.status, 403, "{path}");
        assert_eq!(with("host", "evil.example").await.status, 403, "{path}");
        let plain = request(&server, method.clone(), &path).body(entry.to_string());
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
            let plain = plain.try_clone().unwrap().header("content-type", kind);
            assert_eq!(Response::to(plain).await.status, 415, "{path} {kind}");
        }
        assert_eq!(Response::to(plain).await.status, 415, "{path}");
    }
    assert_eq!(upstream.calls(), 0);
    let search = post(&server, "/v1/caches/c/entries/search", &json!({ "prompt": "Q?" }));
    assert_eq!(Response::to(search).await.json()["data"].as_array().unwrap().len(), 1, "still there");
}

#[tokio::test]
async fn the_servers_own_page_and_other_programs_are_answered() {
    let upstream = FakeUpstream::start().await;
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let own = format!("http://{}", server.http);
    for request in [
        chat(&server, &body("A?")),
        chat(&server, &body("A?")).header("origin", &own).header("sec-fetch-site", "same-origin"),
        chat(&server, &body("A?")).header("host", "localhost:8080"),
        request(&server, Method::POST, "/v1/chat/completions")
            .body(body("A?").to_string())
            .header("content-type", "application/json; charset=utf-8"),
        request(&server, Method::POST, "/v1/caches/c/flush"),
    ] {
        let response = Response::to(request).await;
        assert!((200..300).contains(&response.status), "{}", response.text);
    }
}

/// A page whose name resolves to this machine is same-origin with the server on it, and could read every answer.
#[tokio::test]
async fn a_server_on_loopback_is_addressed_by_known_names_only() {
    let mut config = exact_config(&[]);
    config.server.allowed_hosts = vec!["cache.internal".to_owned()];
    let server = TestServer::start(config).await;
    let status = async |path: &str, host: &str| {
        Response::to(request(&server, Method::GET, path).header("host", host)).await.status
    };
    for path in ["/v1/models", "/metrics", "/dashboard/snapshot/1h"] {
        assert_eq!(status(path, "evil.example:8080").await, 403, "{path}");
    }
    assert_eq!(status("/v1/models", "cache.internal:8080").await, 200);
    assert_eq!(status("/v1/models", "CACHE.internal").await, 200);
    // An orchestrator may probe by any name, and learns nothing of value.
    assert_eq!(status("/healthz", "evil.example").await, 200);
}

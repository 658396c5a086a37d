//! Namespaces in which every conversation has a scope of its own.

use serde_json::{Value, json};
use tracing::Level;

use super::{Response, chat};
use crate::common::{
    fake_upstream::FakeUpstream,
    log::Log,
    test_server::{TestServer, exact_config},
};

fn with_system_prompt(system: &str, question: u32) -> Value {
    json!({ "model": "auto", "messages": [
        { "role": "system", "content": system },
        { "role": "user", "content": format!("Question {question}?") },
    ] })
}

/// A clock in the system prompt made every request a miss, and nothing said why.
#[tokio::test]
async fn a_clock_in_the_system_prompt_is_reported_everywhere() {
    let log = Log::capture(Level::WARN);
    let upstream = FakeUpstream::start().await;
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let ask = async |namespace: &'static str, system: String, question| {
        let request = chat(&server, &with_system_prompt(&system, question));
        Response::to(request.header("x-promptkeep-namespace", namespace)).await
    };
    for n in 0..20 {
        ask("clock", format!("Secret. It is 12:{n}."), n).await;
        ask("fine", "Secret.".to_owned(), n).await;
    }
    let metric = async || server.metric("promptkeep_fresh_scope_namespaces", &["system_prompt"]).await;
    assert_eq!(metric().await, 1.0);
    let (_, page) = server.get("/dashboard/snapshot/15m").await;
    let page: Value = serde_json::from_str(&page).unwrap();
    assert_eq!(page["fresh_scopes"], json!([{ "namespace": "clock", "field": "system prompt" }]));
    let warnings: Vec<_> =
        log.events().into_iter().filter(|event| event["field"] == "system prompt").collect();
    assert_eq!((warnings.len(), &warnings[0]["namespace"]), (1, &json!("clock")));
    assert!(!log.text().contains("Secret"));

    ask("clock", "Secret. It is 12:0.".to_owned(), 99).await;
    assert_eq!(metric().await, 0.0, "scopes are shared again");
}

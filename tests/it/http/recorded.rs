//! Replayed request bodies have the outcomes that the live server gives them.

use serde_json::{Value, json};

use super::{Response, body, chat};
use crate::{
    common::{
        fake_upstream::FakeUpstream,
        test_server::{TestServer, exact_config},
    },
    replay::outcomes,
};

/// Replay had its own list of the fields that belong to a request. It predicted hits for bodies that the server
/// forwards (`web_search_options`, `top_logprobs`, `function_call`) and between prompts that the server separates
/// (`logit_bias`, `user`).
#[tokio::test]
async fn a_replayed_body_has_the_outcome_of_the_live_server() {
    let upstream = FakeUpstream::start().await;
    let fields = [
        json!({}),
        json!({ "n": 1, "stream": false }),
        json!({ "web_search_options": {} }),
        json!({ "top_logprobs": 2 }),
        json!({ "function_call": "auto" }),
        json!({ "logit_bias": { "50256": -100 } }),
        json!({ "parallel_tool_calls": false }),
        json!({ "user": "u-1" }),
        json!({ "user": "u-2" }),
        json!({ "user": "u-1" }),
        json!({ "verbosity": "low", "logprobs": null }),
        json!({ "not_invented_yet": 1 }),
        json!({ "not_invented_yet": 2 }),
        json!({ "temperature": 0.5 }),
    ];
    let bodies = fields.map(|fields| with(body("How do I reset my password?"), &fields));
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let mut live = Vec::new();
    for body in &bodies {
        live.push(Response::to(chat(&server, body)).await.outcome().to_owned());
    }
    assert!(["exact", "upstream", "bypass"].iter().all(|one| live.iter().any(|l| l == one)), "{live:?}");
    // Fields that describe the record are no part of the request.
    let record = |(n, body): (usize, Value)| {
        with(body, &json!({ "answer": "Yes.", "id": n, "at": n, "time": n, "timestamp": n }))
    };
    let lines: Vec<Value> = bodies.into_iter().enumerate().map(record).collect();
    assert_eq!(outcomes(&lines, exact_config(&[&upstream])).await, live);
}

/// The body with these fields added.
fn with(mut body: Value, fields: &Value) -> Value {
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

//! Recorded bodies are replayed as they were answered here.

use serde_json::{Value, json};

use super::{Answer, body, chat};
use crate::{
    common::{
        fake_upstream::FakeUpstream,
        test_server::{TestServer, exact_config},
    },
    replay::outcomes,
};

/// Replay had a list of its own of what belongs to a request. It promised hits on what is passed on here
/// (`web_search_options`, `top_logprobs`, `function_call`), and for prompts that are kept apart here (`logit_bias`,
/// `user`).
#[tokio::test]
async fn a_body_is_replayed_as_it_is_answered_live() {
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
        live.push(Answer::of(chat(&server, body)).await.outcome().to_owned());
    }
    assert!(["exact", "upstream", "bypass"].iter().all(|one| live.iter().any(|l| l == one)), "{live:?}");
    // What a record says beside is no part of the request.
    let record = |(n, body): (usize, Value)| {
        with(body, &json!({ "answer": "Yes.", "id": n, "at": n, "time": n, "timestamp": n }))
    };
    let lines: Vec<Value> = bodies.into_iter().enumerate().map(record).collect();
    assert_eq!(outcomes(&lines, exact_config(&[&upstream])).await, live);
}

fn with(mut body: Value, fields: &Value) -> Value {
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

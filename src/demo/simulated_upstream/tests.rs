//! The simulated provider, called over real sockets by a client of the OpenAI dialect.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{timed_answer::TimedAnswer, *};
use crate::offline::{model_server::LOOPBACK, simulated_verifier::VerificationCall};

const SYSTEM: &str = "Answer briefly.";

async fn start() -> SimulatedUpstream {
    // Fails if another test of this process has installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let request =
        json!({"namespace": "n", "system": SYSTEM, "model": "cold", "text": "Is it up?", "class": "n/up"});
    let answer = json!({"class": "n/up", "answer": "Yes,\n  all of it — is up."});
    let traffic = Traffic::parse(&request.to_string(), &answer.to_string()).unwrap();
    SimulatedUpstream::start(&traffic, LOOPBACK).await.unwrap()
}

fn body(model: &str, text: &str) -> Value {
    let messages = json!([{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]);
    json!({"model": model, "messages": messages})
}

async fn post(upstream: &SimulatedUpstream, body: &Value) -> (StatusCode, String) {
    let url = format!("{}/chat/completions", upstream.base_url());
    let reply = reqwest::Client::new().post(url).json(body).send().await.unwrap();
    (reply.status(), reply.text().await.unwrap())
}

#[tokio::test]
async fn a_whole_answer_has_text_and_usage() {
    let upstream = start().await;
    let (status, reply) = post(&upstream, &body("deepseek-v4-flash", "Is it up?")).await;
    let reply: Value = serde_json::from_str(&reply).unwrap();
    assert_eq!(status, StatusCode::OK);
    assert_eq!(reply["model"], "deepseek-v4-flash");
    assert_eq!(reply["choices"][0]["message"]["content"], "Yes,\n  all of it — is up.");
    assert_eq!(reply["choices"][0]["finish_reason"], "stop");
    // 15 + 9 characters of prompt, two messages; 25 characters of answer.
    assert_eq!(
        reply["usage"],
        json!({"prompt_tokens": 4 + 3 + 8, "completion_tokens": 7, "total_tokens": 22})
    );
    assert_eq!(upstream.completions(), 1);
    upstream.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_stream_is_well_formed_and_ends_with_usage_and_done() {
    let upstream = start().await;
    let mut request = body("gpt-4o", "Is it up?");
    request["stream"] = json!(true);
    request["stream_options"] = json!({"include_usage": true});
    let (_, reply) = post(&upstream, &request).await;
    let mut events: Vec<_> =
        reply.trim_end().split("\n\n").map(|event| event.strip_prefix("data: ").unwrap()).collect();
    assert_eq!(events.pop(), Some("[DONE]"));
    let chunks: Vec<Value> = events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    let (usage, chunks) = chunks.split_last().unwrap();
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["completion_tokens"], 7);
    assert!(
        chunks.iter().all(|chunk| chunk["object"] == "chat.completion.chunk" && chunk["usage"].is_null())
    );
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "stop");
    let text: String =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, "Yes,\n  all of it — is up.");
    upstream.shutdown().await.unwrap();
}

#[tokio::test]
async fn usage_is_streamed_only_on_request() {
    let upstream = start().await;
    let mut request = body("deepseek-v4-flash", "Is it up?");
    request["stream"] = json!(true);
    let (_, reply) = post(&upstream, &request).await;
    assert!(!reply.contains("prompt_tokens"));
    upstream.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_answer_to_an_unknown_question_says_that_the_model_is_simulated() {
    let upstream = start().await;
    let (_, reply) = post(&upstream, &body("deepseek-v4-flash", "Who are you?")).await;
    let reply: Value = serde_json::from_str(&reply).unwrap();
    assert!(reply["choices"][0]["message"]["content"].as_str().unwrap().contains("simulated"));
    upstream.shutdown().await.unwrap();
}

#[tokio::test]
async fn bad_requests_get_errors_of_the_dialect() {
    let upstream = start().await;
    let cases = [
        (body("no-such-model", "Is it up?"), StatusCode::NOT_FOUND),
        (json!({"model": "gpt-4o"}), StatusCode::BAD_REQUEST),
    ];
    for (request, expected) in cases {
        let (status, reply) = post(&upstream, &request).await;
        let reply: Value = serde_json::from_str(&reply).unwrap();
        assert_eq!(status, expected);
        assert_eq!(reply["error"]["type"], "invalid_request_error");
    }
    assert_eq!(upstream.completions(), 0);
    upstream.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_list_of_models_is_the_catalog() {
    let upstream = start().await;
    let reply = reqwest::get(format!("{}/models", upstream.base_url())).await.unwrap();
    let reply: Value = serde_json::from_str(&reply.text().await.unwrap()).unwrap();
    let ids: Vec<_> = reply["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    assert_eq!(ids, models().iter().map(|model| model.id.as_str()).collect::<Vec<_>>());
    assert!(models().iter().all(|model| model.provider == upstream.provider().name));
    upstream.shutdown().await.unwrap();
}

#[test]
fn the_pieces_of_an_answer_join_to_its_text_and_arrive_in_order() {
    let text = "  One\n\n    two — three \n".to_owned();
    let answer = TimedAnswer {
        completion_tokens: 6,
        text,
        prompt_tokens: 1,
        first_token: Duration::from_millis(100),
        per_token: Duration::from_millis(10),
    };
    let pieces = answer.pieces();
    assert_eq!(pieces.iter().map(|(_, piece)| piece.as_str()).collect::<String>(), answer.text);
    assert!(pieces.is_sorted_by_key(|(at, _)| *at));
    assert_eq!(pieces[0].0, answer.first_token);
    assert!(pieces.last().unwrap().0 <= answer.duration());
}

#[test]
fn first_token_times_vary_by_question_but_not_by_run() {
    let first_token = |text| TimedAnswer::new(&HashMap::new(), &MODELS[0], &[("user", text)], 0).first_token;
    assert_eq!(first_token("one"), first_token("one"));
    assert_ne!(first_token("one"), first_token("two"));
}

/// The context that the server sends with a verification.
fn context(request: &Request) -> String {
    let earlier = request.messages().take(1 + request.history.len());
    earlier.map(|(role, content)| format!("{role}: {content}\n")).collect()
}

#[tokio::test]
async fn a_verification_is_answered_in_its_format() {
    let upstream = start().await;
    let kept = |question: &str| json!({"question": question, "answer": "Yes."});
    for (asked, expected) in [("Is it up?", "2"), ("Who are you?", "0")] {
        let call = json!({
            "new_question": asked, "kept": [kept("Is it down?"), kept("Is it up?")],
            "context": format!("system: {SYSTEM}\n"),
        });
        let (status, reply) = post(&upstream, &body("glm-4-plus", &call.to_string())).await;
        let reply: Value = serde_json::from_str(&reply).unwrap();
        assert_eq!(status, StatusCode::OK);
        assert_eq!(reply["choices"][0]["message"]["content"], expected);
    }
    let verdicts = upstream.verdicts();
    assert_eq!((verdicts.same, verdicts.different), (1, 0), "the traffic has one question");
    upstream.shutdown().await.unwrap();
}

#[test]
fn the_verifier_knows_every_question_in_its_conversation() {
    let traffic = Traffic::embedded();
    let questions = || traffic.requests().iter().map(|request| known_question(&traffic, request));
    let verifier = SimulatedVerifier::new(StatedErrors { false_yes: 0.0, false_no: 0.0 }, questions());
    let ask = |context: &str, new: &str, kept: &str| {
        let kept = json!([{"question": kept, "answer": ""}]);
        let message = json!({"new_question": new, "kept": kept, "context": context}).to_string();
        verifier.reply("m", &VerificationCall::parse(&message).unwrap())
    };
    for pair in traffic.requests().windows(2).filter(|pair| pair[0].same_scope(&pair[1])) {
        let (context, [a, b]) = (context(&pair[0]), [&pair[0], &pair[1]]);
        assert!(context.len() <= 2000, "the server would cut it");
        assert_eq!(ask(&context, &a.text, &a.text), "1", "{}", a.text);
        let expected = if traffic.same_answer(a, b) { "1" } else { "0" };
        assert_eq!(ask(&context, &a.text, &b.text), expected, "{} / {}", a.text, b.text);
    }
    for request in traffic.requests() {
        assert_eq!(ask(&context(request), &request.text, &request.text), "1", "{}", request.text);
    }
}

/// `auto` means the tiers of the router, and a failure falls back to those of `routing.fallback`.
#[test]
fn ordinary_prompts_never_reach_the_economy_tier() {
    let routing = crate::config::RoutingConfig::default();
    let tiers = routing.fallback.iter().chain([&routing.easy, &routing.moderate, &routing.hard]);
    assert!(tiers.into_iter().all(|tier| *tier != Tier::Economy));
    let traffic = Traffic::embedded();
    assert!(traffic.requests().iter().all(|request| request.model != Tier::Economy.as_str()));
}

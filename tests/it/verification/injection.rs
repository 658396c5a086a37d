//! Texts that try to talk the verifier into a yes. The stand-in obeys whatever leaves the JSON string that its text
//! belongs to; none of the attempts in `data/injections.jsonl` does.

use std::sync::{Arc, Mutex};

use axum::{Json, Router, extract::State, routing::post};
use promptkeep::{
    model::{FittingSet, Tier, VerifierReply},
    offline::model_server::{LOOPBACK, ModelServer},
    upstream::{KeptAnswer, TimeLimit, VerificationQuestion},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    common::fake_upstream::FakeUpstream,
    upstream::{Fixture, SeenAttempts, TEST_TIMEOUT},
};

const INSTRUCTIONS: &str = "Reply with the numbers of the answers that fit, or 0.";

/// One attempt of the data file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Attempt {
    family: String,
    text: String,
}

/// The texts of one question, as the stand-in must find them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Texts {
    new_question: String,
    kept: Vec<KeptTexts>,
    context: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptTexts {
    question: String,
    answer: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    role: String,
    content: String,
}

fn attempts() -> Vec<Attempt> {
    let lines = include_str!("../data/injections.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).expect("an attempt")).collect()
}

/// A question with the attempt in each place and in all of them.
fn placed(attempt: &str) -> [Texts; 5] {
    let texts = |new_question: &str, question: &str, answer: &str, context: Option<&str>| Texts {
        new_question: new_question.to_owned(),
        kept: vec![KeptTexts { question: question.to_owned(), answer: answer.to_owned() }],
        context: context.map(str::to_owned),
    };
    let (new, kept, answer) = ("How long do rabbits live?", "How long do hats last?", "Three years.");
    [
        texts(attempt, kept, answer, None),
        texts(new, attempt, answer, None),
        texts(new, kept, attempt, None),
        texts(new, kept, answer, Some(attempt)),
        texts(attempt, attempt, attempt, Some(attempt)),
    ]
}

/// Why the request lets a text escape; `None` if every text is where it belongs.
fn escape(body: &Map<String, Value>, expected: &Texts) -> Option<String> {
    let messages: Vec<Message> = match serde_json::from_value(body["messages"].clone()) {
        Ok(messages) => messages,
        Err(error) => return Some(format!("messages: {error}")),
    };
    let [system, user] = &messages[..] else { return Some(format!("{} messages", messages.len())) };
    if (system.role.as_str(), system.content.as_str(), user.role.as_str()) != ("system", INSTRUCTIONS, "user")
    {
        return Some("roles or instructions".to_owned());
    }
    escape_from_message(&user.content, expected)
}

fn escape_from_message(content: &str, expected: &Texts) -> Option<String> {
    // Servers that look for the control tokens of their chat template in a message end it there.
    for marker in
        ["<|", "<s>", "</s>", "<<SYS>>", "<start_of_turn>", "<end_of_turn>", "<｜", "[INST]", "[/INST]"]
    {
        if content.contains(marker) {
            return Some(format!("control token {marker}"));
        }
    }
    // Fails on a second value, on unknown and repeated keys, and on raw control characters.
    match serde_json::from_str::<Texts>(content) {
        Ok(found) if found == *expected => None,
        Ok(_) => Some("other texts".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

/// The stand-in's memory: the texts to expect, and the escapes so far.
#[derive(Default)]
struct Seen {
    expected: Texts,
    escapes: Vec<String>,
    calls: usize,
}

/// Replies `1` if a text has escaped, which is what the attempts ask for, else `0`.
async fn obey(State(seen): State<Arc<Mutex<Seen>>>, Json(body): Json<Map<String, Value>>) -> Json<Value> {
    let mut seen = seen.lock().unwrap();
    seen.calls += 1;
    let escaped = escape(&body, &seen.expected);
    let reply = if escaped.is_some() { "1" } else { "0" };
    seen.escapes.extend(escaped);
    let message = json!({ "role": "assistant", "content": reply });
    let choice = json!({ "index": 0, "message": message, "finish_reason": "stop" });
    Json(json!({ "object": "chat.completion", "choices": [choice] }))
}

#[test]
fn the_attempts_are_many_and_different() {
    let attempts = attempts();
    let distinct: std::collections::HashSet<_> = attempts.iter().map(|attempt| attempt.text.trim()).collect();
    let families: std::collections::HashSet<_> = attempts.iter().map(|attempt| &attempt.family).collect();
    assert!(attempts.len() >= 300 && distinct.len() == attempts.len(), "{}", distinct.len());
    assert!(families.len() >= 12, "{families:?}");
}

/// A stand-in that overlooks escapes would prove nothing.
#[test]
fn the_stand_in_notices_texts_that_are_only_pasted() {
    let pasted = |texts: &Texts| {
        let KeptTexts { question, answer } = &texts.kept[0];
        format!(
            "{{\"new_question\": \"{}\", \"kept\": [{{\"question\": \"{question}\", \"answer\": \"{answer}\"}}]}}",
            texts.new_question
        )
    };
    let escapes = |attempt: &Attempt| {
        let [in_new, in_question, in_answer, ..] = placed(&attempt.text);
        [in_new, in_question, in_answer]
            .iter()
            .any(|texts| escape_from_message(&pasted(texts), texts).is_some())
    };
    let attempts = attempts();
    let escaped = attempts.iter().filter(|attempt| escapes(attempt)).count();
    assert!(escaped >= 150, "{escaped} of {}", attempts.len());
    let [harmless, ..] = placed("How long do cats live?");
    assert_eq!(escape_from_message(&pasted(&harmless), &harmless), None);
}

#[tokio::test]
async fn no_attempt_escapes_from_its_place() {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let router = Router::new().route("/v1/chat/completions", post(obey)).with_state(Arc::clone(&seen));
    let stand_in = ModelServer::start(LOOPBACK, router).await.unwrap();
    let none: [(Tier, &FakeUpstream); 0] = [];
    let mut fixture = Fixture::new(&none);
    fixture.add("verifier", Tier::Economy, &stand_in.base_url());
    fixture.models[0].context_window = 1_000_000;
    let upstreams = fixture.build();
    let verifier = upstreams.verifier("verifier").unwrap();
    let mut calls = 0;
    for attempt in attempts() {
        for texts in placed(&attempt.text) {
            seen.lock().unwrap().expected = texts.clone();
            let kept: Vec<_> = texts
                .kept
                .iter()
                .map(|kept| KeptAnswer { question: &kept.question, answer: &kept.answer })
                .collect();
            let question = VerificationQuestion {
                instructions: INSTRUCTIONS,
                new_question: &texts.new_question,
                kept: &kept,
                context: texts.context.as_deref(),
            };
            let limit = TimeLimit { timeout: TEST_TIMEOUT, deadline: None };
            let listener = Arc::new(SeenAttempts::default().listener());
            let reply = upstreams.verify(&verifier, question, limit, listener).await;
            let escapes = &seen.lock().unwrap().escapes;
            assert!(escapes.is_empty(), "{}: {:?}: {escapes:?}", attempt.family, attempt.text);
            assert_eq!(reply, VerifierReply::Fits(FittingSet::default()), "{}", attempt.family);
            calls += 1;
        }
    }
    assert_eq!(seen.lock().unwrap().calls, calls);
}

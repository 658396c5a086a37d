//! The verification call: which model is asked, what it is sent, and what its replies and failures mean.

use std::{sync::Arc, time::Duration};

use promptkeep::{
    model::{AttemptReason, AttemptResult, BreakerState, Tier, VerifierReply},
    prompt::Prompt,
    upstream::{KeptAnswer, TimeLimit, Upstreams, VerificationQuestion},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Fixture, SHORT_TIMEOUT, SeenAttempts, TEST_TIMEOUT, complete, prompt};
use crate::common::fake_upstream::{FakeUpstream, Reply};

const KEPT: [KeptAnswer<'static>; 2] = [
    KeptAnswer { question: "How do I reset my password?", answer: "In the settings." },
    KeptAnswer { question: "How do I delete my account?", answer: "You cannot." },
];
const QUESTION: VerificationQuestion<'static> = VerificationQuestion {
    instructions: "Which fit?",
    new_question: "How can I reset my password?",
    kept: &KEPT,
    context: Some("Be brief."),
};

async fn verify_within(upstreams: &Upstreams, limit: TimeLimit, seen: &SeenAttempts) -> VerifierReply {
    let verifier = upstreams.verifier("economy").expect("an economy model");
    upstreams.verify(&verifier, QUESTION, limit, Arc::new(seen.listener())).await
}

async fn verify(upstreams: &Upstreams) -> VerifierReply {
    let limit = TimeLimit { timeout: TEST_TIMEOUT, deadline: None };
    verify_within(upstreams, limit, &SeenAttempts::default()).await
}

/// A prompt that the verifier's model answers.
fn to_economy() -> Prompt {
    Prompt { model: "economy".to_owned(), ..prompt("Which one?") }
}

fn is_open(upstreams: &Upstreams) -> bool {
    upstreams.verifier("economy").expect("an economy model").is_open()
}

#[tokio::test]
async fn the_call_has_instructions_and_one_json_object() {
    let fake = FakeUpstream::start().await;
    fake.always(Reply::text("1"));
    let upstreams = Fixture::new(&[(Tier::Economy, &fake)]).build();
    let seen = SeenAttempts::default();
    let limit = TimeLimit { timeout: TEST_TIMEOUT, deadline: Some(Instant::now() + TEST_TIMEOUT) };
    let reply = verify_within(&upstreams, limit, &seen).await;
    assert_eq!(reply, VerifierReply::Fits([0].into_iter().collect()));

    let [request] = &fake.requests()[..] else { panic!("expected one call") };
    let Value::Array(messages) = &request.body["messages"] else { panic!("no messages") };
    assert_eq!(messages[0], json!({ "role": "system", "content": "Which fit?" }));
    let [_, user] = &messages[..] else { panic!("expected two messages") };
    let expected = "{\"new_question\":\"How can I reset my password?\",\"kept\":[\
        {\"question\":\"How do I reset my password?\",\"answer\":\"In the settings.\"},\
        {\"question\":\"How do I delete my account?\",\"answer\":\"You cannot.\"}],\"context\":\"Be brief.\"}";
    assert_eq!(*user, json!({ "role": "user", "content": expected }));
    assert_eq!(request.body["temperature"], 0.0);
    assert_eq!(request.body["max_tokens"], 16);

    let [attempt] = &seen.attempts()[..] else { panic!("expected one attempt") };
    assert_eq!((attempt.reason, attempt.result), (AttemptReason::Verify, AttemptResult::Ok));
    assert_eq!(attempt.reason.as_str(), "verify");
    let verifier = upstreams.verifier("economy").unwrap();
    assert_eq!(attempt.usage.cost_usd, verifier.usd(10, 1));
}

#[tokio::test]
async fn replies_that_are_no_list_of_numbers_are_nonsense() {
    let fake = FakeUpstream::start().await;
    let mut fixture = Fixture::new(&[(Tier::Economy, &fake)]);
    fixture.upstream.breaker_failures = u32::MAX;
    let upstreams = fixture.build();
    let long = "1 ".repeat(5000);
    for reply in ["yes", "3", "0,1", "1,1", "", "Answer: 1", "```\n1\n```", &long] {
        fake.script([Reply::text(reply)]);
        assert_eq!(verify(&upstreams).await, VerifierReply::Nonsense, "{reply}");
    }
    // Cut off or filtered, it may have gone on.
    for finish in ["length", "content_filter"] {
        fake.script([Reply::text("1").replace("\"stop\"", &format!("\"{finish}\""))]);
        assert_eq!(verify(&upstreams).await, VerifierReply::Nonsense, "{finish}");
    }
    fake.script([Reply::text("2, 1.\n"), Reply::text("0")]);
    assert_eq!(verify(&upstreams).await, VerifierReply::Fits([0, 1].into_iter().collect()));
    assert_eq!(verify(&upstreams).await.as_str(), "no");
}

#[tokio::test]
async fn nonsense_stops_verifications_but_not_answers() {
    let fake = FakeUpstream::start().await;
    let mut fixture = Fixture::new(&[(Tier::Economy, &fake)]);
    fixture.upstream.breaker_failures = 10;
    let upstreams = fixture.build();
    fake.always(Reply::text("I think the first one fits."));
    for _ in 0..10 {
        assert_eq!(verify(&upstreams).await, VerifierReply::Nonsense);
    }
    assert!(is_open(&upstreams));
    assert_eq!(upstreams.model_states()[0].breaker, BreakerState::Closed);
    assert_eq!(verify(&upstreams).await, VerifierReply::Unavailable);
    assert_eq!(fake.calls(), 10, "it is not asked");
    let (completion, _) = complete(&upstreams, &to_economy()).await.unwrap();
    assert_eq!(completion.content, "I think the first one fits.");
}

#[tokio::test]
async fn failed_verifications_open_no_other_breaker_and_the_other_way_round() {
    let fake = FakeUpstream::start().await;
    let upstreams = Fixture::new(&[(Tier::Economy, &fake)]).build();
    // Broken off after the head, refused, and failed.
    for reply in [Reply::text("1").close_after(1), Reply::status(401), Reply::status(503)] {
        fake.script([reply]);
        assert_eq!(verify(&upstreams).await, VerifierReply::Unavailable);
    }
    fake.always(Reply::status(429));
    for _ in 0..2 {
        assert_eq!(verify(&upstreams).await, VerifierReply::Unavailable);
    }
    assert!(is_open(&upstreams));
    assert_eq!(upstreams.model_states()[0].breaker, BreakerState::Closed);

    let upstreams = Fixture::new(&[(Tier::Economy, &fake)]).build();
    fake.always(Reply::status(500));
    for _ in 0..5 {
        complete(&upstreams, &to_economy()).await.unwrap_err();
    }
    assert_eq!(upstreams.model_states()[0].breaker, BreakerState::Open);
    assert!(!is_open(&upstreams));
}

#[tokio::test]
async fn a_slow_verifier_fails_but_an_impatient_caller_does_not_make_it_fail() {
    let fake = FakeUpstream::start().await;
    fake.always(Reply::stall());
    let mut fixture = Fixture::new(&[(Tier::Economy, &fake)]);
    fixture.upstream.breaker_failures = 1;
    let upstreams = fixture.build();
    let seen = SeenAttempts::default();
    let soon = Some(Instant::now() + Duration::from_millis(30));
    let impatient = TimeLimit { timeout: TEST_TIMEOUT, deadline: soon };
    assert_eq!(verify_within(&upstreams, impatient, &seen).await, VerifierReply::TimedOut);
    assert!(!is_open(&upstreams));
    let late = Some(Instant::now() + TEST_TIMEOUT);
    let slow = TimeLimit { timeout: SHORT_TIMEOUT, deadline: late };
    assert_eq!(verify_within(&upstreams, slow, &seen).await, VerifierReply::TimedOut);
    assert!(is_open(&upstreams));
    assert_eq!(seen.attempts().len(), 2);
}

#[tokio::test]
async fn a_question_beyond_the_context_window_is_not_asked() {
    let fake = FakeUpstream::start().await;
    let mut fixture = Fixture::new(&[(Tier::Economy, &fake)]);
    let tokens = QUESTION.tokens();
    fixture.models[0].context_window = tokens + 15;
    assert_eq!(verify(&fixture.build()).await, VerifierReply::Skipped);
    assert_eq!(fake.calls(), 0);
    fake.always(Reply::text("0"));
    fixture.models[0].context_window = tokens + 16;
    assert_eq!(verify(&fixture.build()).await.as_str(), "no");
}

#[tokio::test]
async fn the_verifier_is_the_best_model_of_its_name() {
    let (broken, fine) = (FakeUpstream::start().await, FakeUpstream::start().await);
    let mut fixture = Fixture::new(&[(Tier::Economy, &broken), (Tier::Hot, &fine)]);
    fixture.add("model-economy", Tier::Economy, &fine.base_url());
    // The second economy offer is at the provider of the hot model.
    fixture.models[2].provider = fixture.models[1].provider.clone();
    fixture.upstream.breaker_failures = 1;
    let upstreams = fixture.build();
    broken.always(Reply::text("Maybe."));
    fine.always(Reply::text("1"));
    let first = upstreams.verifier("model-economy").unwrap();
    assert_eq!((first.id(), first.provider()), ("model-economy", "provider-0"));
    assert!(upstreams.serves(&first, "model-economy") && !upstreams.serves(&first, "model-hot"));
    assert_eq!(verify(&upstreams).await, VerifierReply::Nonsense);

    let second = upstreams.verifier("model-economy").unwrap();
    assert_eq!(second.provider(), "provider-1", "the first one's breaker is open");
    assert!(upstreams.serves(&second, "model-hot"));
    assert!(upstreams.verifier("warm").is_none() && upstreams.verifier("gpt-5").is_none());

    let better = upstreams.better_verifier(&second, "model-hot").unwrap();
    assert_eq!(better.id(), "model-hot");
    assert!(upstreams.better_verifier(&better, "model-economy").is_none());
    assert!(upstreams.better_verifier(&second, "model-economy").is_none(), "its own tier");
}

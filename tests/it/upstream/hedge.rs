//! Hedging: a second attempt when the first is slow to send its first token.

use std::time::Duration;

use promptkeep::{
    config::HedgeAfter,
    model::{
        AttemptReason,
        AttemptResult::{Cancelled, Http, Ok as Good},
        Tier,
    },
};

use super::{Fixture, SeenAttempts, complete, open_seen, prompt, read, results};
use crate::common::fake_upstream::{FakeUpstream, Gate, Reply};

/// A catalog that hedges after 20 ms and may hedge every request.
fn hedging(fakes: &[(Tier, &FakeUpstream)]) -> Fixture {
    let mut fixture = Fixture::new(fakes);
    fixture.upstream.hedge_after = HedgeAfter::Fixed(Duration::from_millis(20));
    fixture.upstream.hedge_budget = 1.0;
    fixture
}

#[tokio::test]
async fn the_faster_attempt_answers_and_the_slower_is_cancelled_and_charged() {
    let (slow, fast) = (FakeUpstream::start().await, FakeUpstream::start().await);
    slow.script([Reply::stall()]);
    let upstreams = hedging(&[(Tier::Cold, &slow), (Tier::Warm, &fast)]).build();
    let (prompt, seen) = (prompt("How long is a piece of string?"), SeenAttempts::default());
    let answer = open_seen(&upstreams, &prompt, &seen).await.unwrap();
    let (completion, attempts, _) = read(answer).await.unwrap();
    slow.wait_for_disconnects(1).await;
    assert_eq!(completion.model, "model-warm");
    assert_eq!(results(&attempts), [Cancelled, Good]);
    assert_eq!(attempts[1].reason, AttemptReason::Hedge);
    assert!(attempts[0].usage.cost_usd > 0.0 && attempts[0].usage.estimated);
    assert_eq!(seen.attempts(), attempts, "each attempt is reported once");
}

#[tokio::test]
async fn a_slow_first_attempt_that_streams_before_the_hedge_answers() {
    let (first, second) = (FakeUpstream::start().await, FakeUpstream::start().await);
    let gate = Gate::new();
    first.script([Reply::text("first").hold(&gate)]);
    second.script([Reply::stall()]);
    let upstreams = hedging(&[(Tier::Cold, &first), (Tier::Warm, &second)]).build();
    let call = tokio::spawn(async move { complete(&upstreams, &prompt("Hi")).await });
    second.wait_for_calls(1).await;
    gate.open();
    let (completion, attempts) = call.await.unwrap().unwrap();
    second.wait_for_disconnects(1).await;
    assert_eq!((completion.content.as_str(), results(&attempts)), ("first", vec![Cancelled, Good]));
    assert_eq!(attempts[0].model, "model-warm");
}

#[tokio::test]
async fn a_single_model_is_hedged_with_a_second_call() {
    let fake = FakeUpstream::start().await;
    fake.script([Reply::stall(), Reply::text("second time")]);
    let (completion, _) = complete(&hedging(&[(Tier::Cold, &fake)]).build(), &prompt("Hi")).await.unwrap();
    assert_eq!((completion.content.as_str(), fake.calls()), ("second time", 2));
}

#[tokio::test]
async fn when_both_attempts_fail_the_next_model_is_tried() {
    let fakes = [FakeUpstream::start().await, FakeUpstream::start().await, FakeUpstream::start().await];
    let gate = Gate::new();
    fakes[0].script([Reply::status(500).hold(&gate)]);
    fakes[1].script([Reply::status(503).hold(&gate)]);
    let mut fixture = hedging(&[(Tier::Cold, &fakes[0]), (Tier::Warm, &fakes[1]), (Tier::Hot, &fakes[2])]);
    // The budget allows one hedge, so the last model is called once however slow the machine is.
    fixture.upstream.hedge_budget = 0.1;
    let upstreams = fixture.build();
    let call = tokio::spawn(async move { complete(&upstreams, &prompt("Hi")).await });
    fakes[1].wait_for_calls(1).await;
    gate.open();
    let (completion, attempts) = call.await.unwrap().unwrap();
    assert_eq!((completion.model.as_str(), attempts.len()), ("model-hot", 3));
}

#[tokio::test]
async fn a_failed_hedge_leaves_the_first_attempt_running() {
    let (first, second) = (FakeUpstream::start().await, FakeUpstream::start().await);
    let gate = Gate::new();
    first.script([Reply::text("first").hold(&gate)]);
    second.script([Reply::status(400)]);
    let upstreams = hedging(&[(Tier::Cold, &first), (Tier::Warm, &second)]).build();
    let seen = SeenAttempts::default();
    let in_call = seen.clone();
    let call = tokio::spawn(async move {
        let prompt = prompt("Hi");
        read(open_seen(&upstreams, &prompt, &in_call).await?).await
    });
    seen.wait_for(1).await;
    gate.open();
    let (completion, attempts, _) = call.await.unwrap().unwrap();
    assert_eq!((completion.content.as_str(), results(&attempts)), ("first", vec![Http(400), Good]));
}

#[tokio::test]
async fn hedges_stay_within_their_budget() {
    let (first, second) = (FakeUpstream::start().await, FakeUpstream::start().await);
    let mut fixture = hedging(&[(Tier::Cold, &first), (Tier::Warm, &second)]);
    fixture.upstream.hedge_after = HedgeAfter::Fixed(Duration::ZERO);
    fixture.upstream.hedge_budget = 0.1;
    let upstreams = fixture.build();
    second.always(Reply::stall());
    for _ in 0..100 {
        complete(&upstreams, &prompt("Hi")).await.unwrap();
    }
    // A tenth of the requests, plus the one hedge that the budget starts with; fewer if the first model is quick.
    assert!(second.calls() <= 11, "{}", second.calls());
}

#[tokio::test]
async fn the_hedge_delay_is_learned_from_the_model() {
    let (first, second) = (FakeUpstream::start().await, FakeUpstream::start().await);
    let mut fixture = hedging(&[(Tier::Cold, &first), (Tier::Warm, &second)]);
    fixture.upstream.hedge_after = HedgeAfter::Learned;
    let upstreams = fixture.build();
    // Just as many calls as it takes to learn the delay, so none of them is hedged.
    for _ in 0..20 {
        assert_eq!(complete(&upstreams, &prompt("Hi")).await.unwrap().0.model, "model-cold");
    }
    first.script([Reply::stall()]);
    let (completion, attempts) = complete(&upstreams, &prompt("Hi")).await.unwrap();
    assert_eq!((completion.model.as_str(), results(&attempts)), ("model-warm", vec![Cancelled, Good]));
}

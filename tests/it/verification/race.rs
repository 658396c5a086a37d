//! `cache.verify.race`: the verifier and the routed model start at the same time, and the first usable answer wins.

use promptkeep::grpc::proto::Outcome;
use tonic::Code;

use super::{
    ANSWER, PARAPHRASE, THIRD,
    setup::{ANSWER_USD, Setup, VERDICT_USD, answer, approved_by, near, unkept, verdict},
};
use crate::common::{
    events::Events,
    fake_upstream::{Gate, Reply},
    test_server::{spawn_complete, stats},
};

const OWN: &str = "The model's own answer.";

async fn racing() -> Setup {
    Setup::filled(|config| config.cache.verify.race = true).await
}

/// The prompt of the cancelled call was billed, and counted as money but not taken off what the hit saved.
#[tokio::test]
async fn a_yes_cancels_the_model_whose_cost_comes_off_the_savings() {
    let setup = racing().await;
    let (slow, gate) = (Gate::new(), Gate::new());
    setup.answers.script([answer(OWN).hold(&slow)]);
    setup.verifier.script([verdict("1").hold(&gate)]);
    let caller = spawn_complete(&setup.client, unkept(PARAPHRASE));
    setup.answers.wait_for_calls(2).await;
    setup.verifier.wait_for_calls(1).await;
    gate.open();
    let reply = caller.await.unwrap().unwrap();
    assert_eq!((reply.outcome(), approved_by(&reply)), (Outcome::Semantic, "verified"));
    setup.answers.wait_for_disconnects(1).await;
    setup.server.wait_for_requests(0).await;
    let cancelled = ["model=\"model-cold\"", "result=\"cancelled\""];
    assert_eq!(setup.server.metric("promptkeep_upstream_requests_total", &cancelled).await, 1.0);
    let before = stats(&mut setup.client.clone()).await;
    let wasted = before.cost_usd - ANSWER_USD - VERDICT_USD;
    assert!(wasted > 1e-9, "the prompt may be billed: {wasted}");
    // The next saving pays what is owed: the cost may be known only after this one was counted.
    assert_eq!(approved_by(&setup.paraphrase().await), "verified");
    let after = stats(&mut setup.client.clone()).await;
    let expected = 2.0 * ANSWER_USD - VERDICT_USD - (after.cost_usd - ANSWER_USD - VERDICT_USD);
    assert!(near(after.saved_usd, expected), "{} instead of {expected}", after.saved_usd);
    let share = after.verification.unwrap().share_of_spend;
    assert!(
        near(share, VERDICT_USD / (3.0 * ANSWER_USD)),
        "without a cache there are three answers: {share}"
    );
}

#[tokio::test]
async fn after_a_no_the_answer_of_the_model_is_delivered_once() {
    let setup = racing().await;
    let gate = Gate::new();
    setup.answers.script([answer(OWN).hold(&gate)]);
    setup.verifier.always(verdict("0"));
    let mut client = setup.client.clone();
    let events = Events::open(&mut client, unkept(PARAPHRASE)).await;
    setup.wait_for_verdicts("no", 1.0).await;
    gate.open();
    let reply = events.rest().await;
    assert_eq!((reply.text.as_str(), reply.outcome()), (OWN, Outcome::Upstream));
    assert_eq!(reply.finished.unwrap().reason, "not_verified");
    assert_eq!((setup.answers.calls(), setup.verifier.calls()), (2, 1));
}

#[tokio::test]
async fn a_model_that_is_faster_answers_and_the_verdict_is_remembered() {
    let setup = racing().await;
    let gate = Gate::new();
    setup.answers.script([answer(OWN)]);
    setup.verifier.script([verdict("1").hold(&gate)]);
    let reply = setup.paraphrase().await;
    assert_eq!(reply.outcome(), Outcome::Upstream);
    assert_eq!(reply.completion.unwrap().content, OWN);
    gate.open();
    setup.wait_for_verdicts("yes", 1.0).await;
    let again = setup.paraphrase().await;
    assert_eq!(approved_by(&again), "verified");
    assert_eq!(again.completion.unwrap().content, ANSWER);
    assert_eq!(setup.verifier.calls(), 1);
}

#[tokio::test]
async fn a_yes_helps_where_the_model_fails() {
    let setup = racing().await;
    let gate = Gate::new();
    setup.answers.script([Reply::status(500), Reply::status(500)]);
    setup.verifier.script([verdict("1").hold(&gate), verdict("0")]);
    let caller = spawn_complete(&setup.client, unkept(PARAPHRASE));
    let failed = ["model=\"model-cold\"", "result=\"http_500\""];
    setup.answers.wait_for_calls(2).await;
    setup.server.wait_for_metric("promptkeep_upstream_requests_total", &failed[..1], 2.0).await;
    gate.open();
    assert_eq!(approved_by(&caller.await.unwrap().unwrap()), "verified");
    // Without a yes the failure is the caller's.
    let other = unkept(THIRD);
    let error = setup.client.clone().complete(other).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_caller_that_leaves_a_race_cancels_the_model() {
    let setup = racing().await;
    let (slow, gate) = (Gate::new(), Gate::new());
    setup.answers.script([answer(OWN).hold(&slow)]);
    setup.verifier.script([verdict("1").hold(&gate)]);
    let leaving = spawn_complete(&setup.client, unkept(PARAPHRASE));
    setup.answers.wait_for_calls(2).await;
    setup.verifier.wait_for_calls(1).await;
    leaving.abort();
    setup.answers.wait_for_disconnects(1).await;
    gate.open();
    setup.wait_for_verdicts("yes", 1.0).await;
    setup.server.wait_for_requests(0).await;
}

#[tokio::test]
async fn sure_hits_start_no_race() {
    let setup = racing().await;
    let reply = setup.complete(unkept("how do i reset my password")).await;
    assert_eq!(approved_by(&reply), "surface");
    assert_eq!((setup.answers.calls(), setup.verifier.calls()), (1, 0));
}

//! What verifications may cost. A limit skips the verifier, never the request.

use promptkeep::grpc::proto::{CompleteResponse, Outcome};
use tonic::Code;

use super::{
    PARAPHRASE, RESET, THIRD,
    setup::{ANSWER_USD, Setup, VERDICT_USD, VERIFIER, answer, approved_by, near, unkept, verdict},
};
use crate::common::{
    fake_upstream::Gate,
    test_server::{ask, spawn_complete, stats, tenant, with_key},
};

/// A wording besides [`PARAPHRASE`] and [`THIRD`].
const FOURTH: &str = "How might I reset my password?";

fn is_skipped(reply: &CompleteResponse) -> bool {
    (reply.outcome(), reply.reason.as_str()) == (Outcome::Upstream, "learning")
}

#[tokio::test]
async fn verifications_beyond_the_limit_of_a_minute_are_skipped() {
    let setup = Setup::filled(|config| config.cache.verify.max_per_minute = 1).await;
    assert_eq!(approved_by(&setup.paraphrase().await), "verified");
    assert!(is_skipped(&setup.complete(unkept(THIRD)).await));
    assert_eq!((setup.verifier.calls(), setup.verdicts("skipped").await), (1, 1.0));
    // What is known costs nothing.
    assert_eq!(approved_by(&setup.paraphrase().await), "verified");
    assert_eq!(setup.answers.calls(), 2);
}

#[tokio::test]
async fn verifications_beyond_their_share_of_the_spend_are_skipped() {
    let setup = Setup::filled(|config| {
        config.cache.verify.start_usd = 0.0;
        // The first verification costs more than this share of one answer, and less than that of three.
        config.cache.verify.max_share_of_spend = VERDICT_USD / (2.5 * ANSWER_USD);
    });
    let setup = setup.await;
    assert_eq!(approved_by(&setup.paraphrase().await), "verified");
    // Without a cache there were two answers so far.
    assert!(is_skipped(&setup.complete(unkept(THIRD)).await));
    assert_eq!((setup.verifier.calls(), setup.verdicts("skipped").await), (1, 1.0));
    let stats = stats(&mut setup.client.clone()).await.verification.unwrap();
    assert_eq!((stats.asked, stats.skipped), (1, 1));
    assert!(near(stats.share_of_spend, VERDICT_USD / (3.0 * ANSWER_USD)), "{}", stats.share_of_spend);
    // The answer that was skipped to raised what is allowed.
    assert_eq!(approved_by(&setup.complete(unkept(THIRD)).await), "verified");
    assert_eq!(setup.verifier.calls(), 2);
}

#[tokio::test]
async fn the_first_dollars_are_free_of_the_share() {
    let setup = Setup::filled(|config| {
        config.cache.verify.start_usd = 1.5 * VERDICT_USD;
        config.cache.verify.max_share_of_spend = 0.0;
    });
    let setup = setup.await;
    for question in [PARAPHRASE, THIRD] {
        assert_eq!(approved_by(&setup.complete(unkept(question)).await), "verified", "{question}");
    }
    assert!(is_skipped(&setup.complete(unkept(FOURTH)).await));
    assert_eq!(setup.verifier.calls(), 2);
}

#[tokio::test]
async fn verifications_beyond_those_in_flight_are_skipped() {
    let gate = Gate::new();
    let setup = Setup::filled(|config| config.cache.verify.max_in_flight = 1).await;
    setup.verifier.script([verdict("1").hold(&gate)]);
    let first = spawn_complete(&setup.client, unkept(PARAPHRASE));
    setup.verifier.wait_for_calls(1).await;
    assert!(is_skipped(&setup.complete(unkept(THIRD)).await));
    gate.open();
    assert_eq!(approved_by(&first.await.unwrap().unwrap()), "verified");
    assert_eq!(approved_by(&setup.complete(unkept(THIRD)).await), "verified");
}

/// A verification that the budget of its tenant did not allow was counted as a refused request, besides the refused model
/// call.
#[tokio::test]
async fn a_tenant_that_has_spent_its_budget_is_not_verified_for() {
    let setup = Setup::start(|config| {
        config.tenants = vec![tenant("acme")];
        config.tenants[0].budget_usd_per_day = Some(0.5 * ANSWER_USD);
    });
    let setup = setup.await;
    setup.complete(with_key("acme", ask(RESET))).await;
    let refused = setup.client.clone().complete(with_key("acme", unkept(PARAPHRASE))).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!((setup.verifier.calls(), setup.verdicts("skipped").await), (0, 1.0));
    assert_eq!(setup.server.metric("promptkeep_shed_total", &["reason=\"budget\""]).await, 1.0);
    assert_eq!(setup.complete(with_key("acme", ask(RESET))).await.outcome(), Outcome::Exact);
}

#[tokio::test]
async fn costs_are_counted_as_verification_and_come_off_the_savings() {
    let setup = Setup::filled(|_| {}).await;
    setup.verifier.script([verdict("1"), verdict("no idea")]);
    let hit = setup.paraphrase().await;
    assert!(near(hit.saved_usd, ANSWER_USD), "a reply says what the hit saved: {}", hit.saved_usd);
    assert!(is_skipped(&setup.complete(unkept(THIRD)).await));
    let metric = async |name: &str, labels: &[&str]| setup.server.metric(name, labels).await;
    assert!(near(metric("promptkeep_verification_cost_usd_total", &[]).await, 2.0 * VERDICT_USD));
    let label = format!("model=\"{VERIFIER}\"");
    assert!(near(metric("promptkeep_cost_usd_total", &[&label]).await, 2.0 * VERDICT_USD));
    assert!(near(metric("promptkeep_saved_usd_total", &[]).await, ANSWER_USD - VERDICT_USD));
    assert!(near(metric("promptkeep_verified_saved_usd_total", &[]).await, ANSWER_USD));
    let stats = stats(&mut setup.client.clone()).await;
    assert!(near(stats.cost_usd, 2.0 * ANSWER_USD + 2.0 * VERDICT_USD), "{}", stats.cost_usd);
    assert!(near(stats.saved_usd, ANSWER_USD - VERDICT_USD), "{}", stats.saved_usd);
    let verification = stats.verification.unwrap();
    assert_eq!((verification.asked, verification.yes, verification.nonsense), (2, 1, 1));
    assert!(near(verification.share_of_spend, 2.0 * VERDICT_USD / (3.0 * ANSWER_USD)));
}

/// The answer that audits a hit was counted as spent without a cache too, besides what the hit saved, so that verifications
/// seemed to be a smaller share of the spend and were allowed more of it.
#[tokio::test]
async fn audits_are_no_part_of_the_spend_without_a_cache() {
    let setup = Setup::filled(|config| config.cache.verify.audit_rate = 1.0).await;
    // The audit's own answer, and the review of the verifier's yes by the model.
    setup.answers.script([answer("Use the link in the settings."), verdict("1")]);
    assert_eq!(approved_by(&setup.paraphrase().await), "verified");
    setup.server.wait_for_metric("promptkeep_labels_total", &["origin=\"audit\""], 1.0).await;
    assert_eq!((setup.answers.calls(), setup.verifier.calls()), (3, 1));
    let stats = stats(&mut setup.client.clone()).await.verification.unwrap();
    let without_cache = stats.cost_usd / stats.share_of_spend;
    assert!(near(without_cache, 2.0 * ANSWER_USD), "an answer and a hit: {without_cache}");
}

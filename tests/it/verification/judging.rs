//! How the verifier itself is judged: audits of what it approved, reviews by a better model, and its measured error rates.

use std::{sync::Arc, time::Duration};

use promptkeep::{
    grpc::proto::{Outcome, VerificationStats},
    store::{self, Op},
};

use super::{
    ANSWER, PARAPHRASE, RESET,
    setup::{Setup, answer, approved_by, asking, stored, unkept_in, verdict},
};
use crate::{
    common::{
        fake_upstream::FakeUpstream,
        test_server::{TestServer, ask, stats, until},
    },
    fault_store::{Calls, Fault, FaultStore},
};

/// Requests after which a learner is fitted.
const FIT_EVERY: usize = 100;

async fn audited() -> Setup {
    Setup::filled(|config| config.cache.verify.audit_rate = 1.0).await
}

async fn wait_for_audit(setup: &Setup, says: &str) {
    let labels = ["origin=\"audit\"", &format!("says=\"{says}\"")];
    setup.server.wait_for_metric("promptkeep_labels_total", &labels, 1.0).await;
}

#[tokio::test]
async fn a_yes_is_audited_and_reviewed_by_the_better_model() {
    let setup = audited().await;
    setup.answers.script([answer("Use the link in the settings."), verdict("1")]);
    assert_eq!(approved_by(&setup.paraphrase().await), "verified");
    wait_for_audit(&setup, "same").await;
    let requests = setup.answers.requests();
    let [_, audit, review] = &requests[..] else { panic!("{} calls", requests.len()) };
    assert_eq!((&audit.body["model"], &review.body["model"]), (&"model-cold".into(), &"model-cold".into()));
    assert_eq!(audit.body["messages"][0]["content"], PARAPHRASE);
    let question = review.body["messages"][1]["content"].as_str().unwrap();
    assert!([PARAPHRASE, RESET, ANSWER].iter().all(|part| question.contains(part)), "{question}");
    let measured = stats(&mut setup.client.clone()).await.wrong_hits.unwrap();
    assert_eq!((measured.checked, measured.verified, measured.compared), (1, 1, 0));
    assert!(measured.low < 0.01, "{measured:?}");
    assert_eq!(setup.verifier.calls(), 1);
}

/// The better model's no was remembered as its own, and the verifier's yes went on serving.
#[tokio::test]
async fn a_yes_that_a_better_model_revokes_is_not_served_again() {
    let setup = audited().await;
    setup.answers.script([answer("It cannot be reset; ask your administrator."), verdict("0")]);
    assert_eq!(approved_by(&setup.paraphrase().await), "verified");
    wait_for_audit(&setup, "different").await;
    setup.server.wait_for_requests(0).await;
    let again = setup.paraphrase().await;
    assert_eq!((again.outcome(), again.reason.as_str()), (Outcome::Upstream, "not_verified"));
    assert_eq!(setup.verifier.calls(), 1);
    let measured = stats(&mut setup.client.clone()).await.wrong_hits.unwrap();
    assert_eq!((measured.checked, measured.verified), (1, 1));
    assert!(measured.rate > 0.5, "{measured:?}");
}

/// Nobody better is there to ask, so the two answers are compared.
#[tokio::test]
async fn the_best_model_is_not_reviewed_by_itself() {
    let setup = Setup::start(|config| {
        config.cache.verify.audit_rate = 1.0;
        config.cache.verify.model = "model-cold".to_owned();
        config.models[0].input_usd_per_mtok = 0.1;
    });
    let setup = setup.await;
    setup.answers.script([answer(ANSWER), verdict("1"), answer(ANSWER)]);
    setup.complete(ask(RESET)).await;
    let reply = setup.paraphrase().await;
    assert_eq!(reply.r#match.unwrap().verified_by, "model-cold");
    setup.server.wait_for_metric("promptkeep_labels_total", &["origin=\"audit\""], 1.0).await;
    setup.server.wait_for_requests(0).await;
    assert_eq!((setup.answers.calls(), setup.verifier.calls()), (3, 0));
    let measured = stats(&mut setup.client.clone()).await.wrong_hits.unwrap();
    assert_eq!((measured.checked, measured.verified), (1, 0));
}

/// Fills a scope for each request until the fit.
async fn fill_scopes(server: &TestServer) {
    let mut client = server.client().await;
    for scope in 0..FIT_EVERY {
        client.store(stored(Some(scope), RESET, ANSWER)).await.unwrap();
    }
}

#[tokio::test]
async fn the_gauges_show_how_often_a_verifier_is_thought_to_err() {
    let setup = Setup::start(|_| {}).await;
    // It says no to pairs that are the same, as far as the learner can tell.
    setup.verifier.always(verdict("0"));
    fill_scopes(&setup.server).await;
    let assumed = stats(&mut setup.client.clone()).await.verification.unwrap();
    assert_eq!(assumed.verdicts, 0);
    for scope in 0..FIT_EVERY {
        assert_eq!(setup.complete(unkept_in(scope, PARAPHRASE)).await.reason, "not_verified");
    }
    setup.server.wait_for_metric("promptkeep_verifier_false_no", &[], assumed.false_no + 0.01).await;
    let measured = stats(&mut setup.client.clone()).await.verification.unwrap();
    assert!(measured.verdicts >= 50, "{measured:?}");
    assert!(measured.false_yes < assumed.false_yes, "it says yes to nothing: {measured:?}");
    let VerificationStats { false_yes, false_yes_high, false_no, false_no_low, .. } = measured;
    for (name, value) in [
        ("promptkeep_verifier_false_yes", false_yes),
        ("promptkeep_verifier_false_yes_high", false_yes_high),
        ("promptkeep_verifier_false_no", false_no),
        ("promptkeep_verifier_false_no_low", false_no_low),
    ] {
        let shown = setup.server.metric(name, &[]).await;
        assert!((shown - value).abs() < 1e-6, "{name}: {shown} instead of {value}");
    }
}

/// A verdict was handed on only after the fit that it made due and after the snapshot that followed, so a slow store cost a
/// request its hit.
#[tokio::test]
async fn no_request_waits_for_the_fit_and_the_snapshot_that_its_verdict_makes_due() {
    let (answers, verifier) = (FakeUpstream::start().await, FakeUpstream::start().await);
    verifier.always(verdict("1"));
    let mut config = asking(&answers, &verifier);
    config.cache.verify.timeout = Duration::from_secs(3);
    let store = Arc::new(FaultStore::new(store::open("local", &config.store).unwrap()));
    let server = TestServer::with_store(config, store.clone()).await;
    fill_scopes(&server).await;
    store.plan(Op::Put, Calls::From(store.calls(Op::Put) + 1), Fault::Hang);
    let mut client = server.client().await;
    for scope in 0..FIT_EVERY {
        let reply = client.complete(unkept_in(scope, PARAPHRASE)).await.unwrap().into_inner();
        assert_eq!((reply.outcome(), approved_by(&reply)), (Outcome::Semantic, "verified"), "{scope}");
    }
    until(async || store.calls(Op::Put) > FIT_EVERY as u64).await;
    assert_eq!(answers.calls(), 0);
}

//! Faults of the verifier: whatever it does, the request is answered, and only a verdict counts.

use std::time::Duration;

use promptkeep::grpc::proto::Outcome;
use tonic::Request;

use super::{
    ANSWER, PARAPHRASE, RESET, THIRD,
    setup::{Setup, VERIFIER, answer, approved_by, unkept, verdict},
};
use crate::common::{
    fake_upstream::{Gate, Reply},
    test_server::{ask, spawn_complete, stats, text},
};

#[tokio::test]
async fn a_request_goes_on_without_a_verifier_that_is_late_and_the_late_verdict_counts() {
    let gate = Gate::new();
    let setup = Setup::filled(|config| config.cache.verify.timeout = Duration::from_secs(1)).await;
    setup.verifier.script([verdict("1").hold(&gate)]);
    let reply = setup.paraphrase().await;
    assert_eq!((reply.outcome(), reply.reason.as_str()), (Outcome::Upstream, "learning"));
    assert_eq!((setup.answers.calls(), setup.verifier.calls()), (2, 1));
    gate.open();
    setup.wait_for_verdicts("timeout", 1.0).await;
    let learned = ["origin=\"verification\"", "says=\"same\""];
    setup.server.wait_for_metric("promptkeep_labels_total", &learned, 1.0).await;
    // The next caller is served what the late verdict approved, without another call.
    let again = setup.paraphrase().await;
    assert_eq!((again.outcome(), approved_by(&again)), (Outcome::Semantic, "verified"));
    assert_eq!((setup.answers.calls(), setup.verifier.calls()), (2, 1));
}

#[tokio::test]
async fn a_verifier_that_never_replies_costs_one_timeout() {
    let setup = Setup::filled(|config| config.cache.verify.timeout = Duration::from_millis(100)).await;
    setup.verifier.always(Reply::stall());
    assert_eq!(setup.paraphrase().await.outcome(), Outcome::Upstream);
    setup.wait_for_verdicts("timeout", 1.0).await;
    setup.verifier.wait_for_disconnects(1).await;
    setup.server.wait_for_requests(0).await;
}

#[tokio::test]
async fn replies_that_are_no_verdict_change_nothing() {
    let setup = Setup::filled(|config| config.upstream.breaker_failures = u32::MAX).await;
    let replies = [
        ("nonsense", verdict("The first answer fits the new question well.")),
        ("nonsense", verdict("yes")),
        ("nonsense", verdict("7")),
        ("nonsense", verdict("")),
        ("nonsense", verdict("1").replace("\"stop\"", "\"length\"")),
        ("unavailable", Reply::status(429).retry_after("60")),
        ("unavailable", Reply::status(404)),
        ("unavailable", Reply::close()),
        // The head and a piece of a verdict, then the end of the connection.
        ("unavailable", verdict("1").close_after(2)),
        ("unavailable", verdict("1").reset_after(2)),
    ];
    for (n, (expected, reply)) in replies.into_iter().enumerate() {
        let before = setup.verdicts(expected).await;
        setup.verifier.script([reply]);
        let answered = setup.paraphrase().await;
        assert_eq!((answered.outcome(), answered.reason.as_str()), (Outcome::Upstream, "learning"), "{n}");
        assert_eq!(setup.verdicts(expected).await, before + 1.0, "reply {n}");
        assert_eq!(setup.verifier.calls(), n + 1, "asked once, again each time");
    }
    assert_eq!(setup.server.metric("promptkeep_labels_total", &["origin=\"verification\""]).await, 0.0);
    // None of them is held against the next reply.
    assert_eq!(approved_by(&setup.paraphrase().await), "verified");
}

#[tokio::test]
async fn a_reload_that_names_an_unknown_verifier_turns_verification_off() {
    let setup = Setup::filled(|_| {}).await;
    let mut wrong = setup.config.clone();
    wrong.cache.verify.model = "no-such-model".to_owned();
    setup.server.server.reload(wrong).unwrap();
    assert_eq!(setup.paraphrase().await.outcome(), Outcome::Upstream);
    assert_eq!(setup.verifier.calls(), 0);
    assert_eq!(setup.explain(PARAPHRASE).await.verification, "");
    setup.server.server.reload(setup.config.clone()).unwrap();
    assert_eq!(approved_by(&setup.paraphrase().await), "verified");
}

/// The histogram and the mean time, which decides whether asking pays, had a time of zero for each verification that
/// the breaker refused, so a verifier that failed looked fast. `GetStats` and the dashboard had a failed call for each.
#[tokio::test]
async fn an_open_breaker_stops_verifications_and_no_answers() {
    let setup = Setup::filled(|config| config.upstream.breaker_failures = 3).await;
    setup.verifier.always(Reply::text("Let me think about it."));
    for _ in 0..5 {
        assert_eq!(setup.paraphrase().await.outcome(), Outcome::Upstream);
    }
    assert_eq!((setup.verdicts("nonsense").await, setup.verdicts("unavailable").await), (3.0, 2.0));
    assert_eq!(setup.verifier.calls(), 3);
    let timed = setup.server.metric("promptkeep_verification_seconds_count", &[]).await;
    assert_eq!(timed, 3.0, "only calls take time");
    let models = stats(&mut setup.client.clone()).await.models;
    let verifier = models.iter().find(|model| model.model == VERIFIER).unwrap();
    assert_eq!((verifier.calls, verifier.errors), (3, 0), "a model that is passed over is not called");
    let mut to_verifier = ask("What is the weather like?");
    to_verifier.prompt.as_mut().unwrap().model = "economy".to_owned();
    assert_eq!(text(setup.complete(to_verifier).await), "Let me think about it.");
}

#[tokio::test]
async fn a_caller_that_leaves_during_the_verification_causes_no_model_call() {
    let gate = Gate::new();
    let setup = Setup::filled(|_| {}).await;
    setup.verifier.script([verdict("1").hold(&gate)]);
    let leaving = spawn_complete(&setup.client, unkept(PARAPHRASE));
    setup.verifier.wait_for_calls(1).await;
    leaving.abort();
    setup.server.wait_for_errors(1).await;
    gate.open();
    // What was paid for is remembered.
    setup.wait_for_verdicts("yes", 1.0).await;
    assert_eq!(approved_by(&setup.paraphrase().await), "verified");
    assert_eq!((setup.answers.calls(), setup.verifier.calls()), (1, 1));
    setup.server.wait_for_requests(0).await;
}

#[tokio::test]
async fn half_of_the_deadline_is_left_for_a_model() {
    let setup = Setup::filled(|_| {}).await;
    setup.verifier.always(Reply::stall());
    let mut request = Request::new(unkept(PARAPHRASE));
    // Much shorter than the verifier's timeout of 20 s.
    request.set_timeout(Duration::from_secs(4));
    assert_eq!(setup.complete(request).await.outcome(), Outcome::Upstream);
    assert_eq!((setup.answers.calls(), setup.verifier.calls()), (2, 1));
}

#[tokio::test]
async fn callers_in_a_hurry_do_not_make_a_verifier_fail() {
    let gate = Gate::new();
    let setup = Setup::filled(|config| config.upstream.breaker_failures = 1).await;
    setup.verifier.script([verdict("1").hold(&gate), verdict("1").hold(&gate)]);
    for question in [PARAPHRASE, THIRD] {
        let mut request = Request::new(unkept(question));
        request.set_timeout(Duration::from_millis(50));
        // On a busy machine the time is over before a model has answered.
        if let Ok(reply) = setup.client.clone().complete(request).await {
            assert_eq!(reply.into_inner().outcome(), Outcome::Upstream, "{question}");
        }
    }
    gate.open();
    setup.server.wait_for_requests(0).await;
    setup.verifier.always(verdict("1"));
    assert_eq!(approved_by(&setup.paraphrase().await), "verified");
    assert_eq!(setup.verdicts("unavailable").await, 0.0, "the breaker is closed");
}

#[tokio::test]
async fn a_model_that_fails_after_the_verifier_is_the_callers_error() {
    let setup = Setup::filled(|_| {}).await;
    setup.verifier.always(verdict("0"));
    setup.answers.script([Reply::status(500), answer(ANSWER)]);
    let error = setup.client.clone().complete(unkept(PARAPHRASE)).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unavailable);
    assert_eq!(text(setup.complete(unkept(RESET)).await), ANSWER);
}

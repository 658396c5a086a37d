//! What was said about a pair of a prompt and an answer is remembered.

use std::time::Duration;

use promptkeep::grpc::proto::{CacheControl, CompleteResponse, InvalidateRequest, Outcome};
use serde_json::Value;

use super::{
    ANSWER, PARAPHRASE, RESET, SURE, THIRD,
    setup::{Setup, approved_by, stored, unkept, verdict, verify},
};
use crate::common::{
    fake_upstream::{Gate, Reply},
    test_server::{ask, ask_with, look, prompt, spawn_complete, tenant, text, with_key},
};

const OTHER: &str = "Call the service desk, and have your staff number at hand.";

/// Questions of the kept answers in each verification so far.
fn asked_about(setup: &Setup) -> Vec<Vec<String>> {
    let questions = |body: &Value| {
        let content = body["messages"][1]["content"].as_str().expect("a user message");
        let question: Value = serde_json::from_str(content).expect("JSON");
        let kept = question["kept"].as_array().expect("an array").iter();
        kept.map(|kept| kept["question"].as_str().expect("a text").to_owned()).collect()
    };
    setup.verifier.requests().iter().map(|request| questions(&request.body)).collect()
}

async fn replace_answer(setup: &Setup, answer: &str) {
    let mut client = setup.client.clone();
    let request = InvalidateRequest { prompt: Some(prompt(RESET)), ..InvalidateRequest::default() };
    assert_eq!(client.invalidate(request).await.unwrap().into_inner().entries, 1);
    client.store(stored(None, RESET, answer)).await.unwrap();
}

fn is_refused(reply: &CompleteResponse) -> bool {
    (reply.outcome(), reply.reason.as_str()) == (Outcome::Upstream, "not_verified")
}

#[tokio::test]
async fn a_yes_serves_again_without_asking() {
    let setup = Setup::filled(|_| {}).await;
    for _ in 0..3 {
        assert_eq!(approved_by(&setup.paraphrase().await), "verified");
    }
    assert_eq!((setup.answers.calls(), setup.verifier.calls()), (1, 1));
    assert_eq!(setup.verdicts("yes").await, 1.0, "one call is counted once");
}

#[tokio::test]
async fn only_a_new_candidate_is_asked_about() {
    let setup = Setup::filled(|_| {}).await;
    setup.verifier.script([verdict("0"), verdict("1")]);
    assert!(is_refused(&setup.paraphrase().await));
    setup.client.clone().store(stored(None, THIRD, OTHER)).await.unwrap();
    let reply = setup.paraphrase().await;
    assert_eq!((approved_by(&reply), text(reply.clone()).as_str()), ("verified", OTHER));
    assert_eq!(asked_about(&setup), [[RESET], [THIRD]]);
    assert_eq!(text(setup.paraphrase().await), OTHER);
    assert_eq!(setup.verifier.calls(), 2);
}

/// A rejected pair was served as soon as nobody was to be asked and the learner found it probable enough.
#[tokio::test]
async fn a_no_rejects_the_pair_for_good() {
    let setup = Setup::filled(|_| {}).await;
    setup.verifier.always(verdict("0"));
    for _ in 0..2 {
        assert!(is_refused(&setup.complete(unkept(SURE)).await));
    }
    assert_eq!(setup.verifier.calls(), 1);
    for cache in [verify(false), CacheControl { max_error_rate: Some(1.0), ..verify(false) }] {
        let reply = setup.complete(ask_with(SURE, cache)).await;
        assert!(is_refused(&reply), "{:?} {}", reply.outcome(), approved_by(&reply));
    }
    let lookup = setup.lookup(look(SURE)).await;
    assert_eq!((lookup.outcome(), lookup.reason.as_str()), (Outcome::Miss, "not_verified"));
    let explained = setup.explain(SURE).await;
    assert_eq!((explained.outcome(), explained.reason.as_str()), (Outcome::Miss, "not_verified"));
}

/// Verdicts were remembered by the entry's key, which is that of its question, so a yes approved whatever answer later
/// took the entry's place.
#[tokio::test]
async fn a_verdict_is_about_an_answer_and_not_about_its_successors() {
    let setup = Setup::filled(|_| {}).await;
    setup.verifier.script([verdict("1"), verdict("0"), verdict("1")]);
    assert_eq!(text(setup.paraphrase().await), ANSWER);
    replace_answer(&setup, OTHER).await;
    assert!(is_refused(&setup.paraphrase().await), "the new answer is asked about");
    assert_eq!(setup.verifier.calls(), 2);
    replace_answer(&setup, "Press the button on the back of the token.").await;
    assert_eq!(approved_by(&setup.paraphrase().await), "verified");
    assert_eq!(setup.verifier.calls(), 3);
}

#[tokio::test]
async fn requests_with_different_directives_share_a_verification_in_flight() {
    const CALLERS: usize = 20;
    let gate = Gate::new();
    let setup = Setup::filled(|_| {}).await;
    setup.verifier.script([verdict("1").hold(&gate)]);
    // Directives that differ keep the requests from sharing a flight.
    let cache = |n: usize| CacheControl { tags: vec![n.to_string()], ..verify(true) };
    let callers: Vec<_> =
        (0..CALLERS).map(|n| spawn_complete(&setup.client, ask_with(PARAPHRASE, cache(n)))).collect();
    setup.server.wait_for_requests(CALLERS).await;
    setup.verifier.wait_for_calls(1).await;
    gate.open();
    for caller in callers {
        assert_eq!(approved_by(&caller.await.unwrap().unwrap()), "verified");
    }
    assert_eq!(setup.verifier.calls(), 1);
}

/// When a verifier hung, each request that had waited for the call of another made a call of its own afterwards, although
/// its caller had an answer by then.
#[tokio::test]
async fn requests_that_went_on_make_no_calls_of_their_own() {
    const CALLERS: usize = 4;
    let setup = Setup::filled(|config| config.cache.verify.timeout = Duration::from_millis(200)).await;
    setup.verifier.always(Reply::stall());
    let cache = |n: usize| CacheControl { tags: vec![n.to_string()], ..verify(true) };
    let callers: Vec<_> =
        (0..CALLERS).map(|n| spawn_complete(&setup.client, ask_with(PARAPHRASE, cache(n)))).collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap().outcome(), Outcome::Upstream);
    }
    setup.server.wait_for_requests(0).await;
    assert_eq!((setup.verifier.calls(), setup.verdicts("timeout").await), (1, 1.0));
}

#[tokio::test]
async fn one_tenants_verdicts_say_nothing_about_anothers_answers() {
    let setup = Setup::start(|config| config.tenants = ["acme", "globex"].map(tenant).to_vec()).await;
    setup.verifier.script([verdict("1"), verdict("0")]);
    for (name, approved) in [("acme", "verified"), ("globex", "")] {
        setup.complete(with_key(name, ask(RESET))).await;
        let request = with_key(name, unkept(PARAPHRASE));
        assert_eq!(approved_by(&setup.complete(request).await), approved, "{name}");
    }
    assert_eq!(setup.verifier.calls(), 2);
    assert_eq!(asked_about(&setup), [[RESET], [RESET]]);
}

//! Verification: a model decides which cached answers also fit another prompt.

mod decisions;
mod faults;
mod injection;
mod judging;
mod ledger;
mod load;
mod memory;
mod modes;
mod race;
mod setup;
mod shadow;
mod spend;

use std::time::Duration;

use promptkeep::{
    config::{Config, Mode, VerifyMode},
    model::Tier,
};

use crate::common::{
    fake_upstream::{FakeUpstream, Reply},
    test_server::{Client, TestServer, complete, semantic_config, stats, text},
};

const RESET: &str = "How do I reset my password?";
const PARAPHRASE: &str = "How can I reset my password?";
/// Another wording of [`RESET`], as probable as [`PARAPHRASE`].
const THIRD: &str = "How could I reset my password?";
/// So probably the same as [`RESET`] that a new namespace serves it where no verifier is asked.
const SURE: &str = "What are the steps to reset my password?";
const ANSWER: &str = "Open the settings, choose security, and follow the link that is sent to your address.";
/// Means the same as [`ANSWER`], but a comparison of the words says "different".
const REWORDED: &str =
    "Under preferences there is a page for sign-in; request an e-mail and click what it contains.";

/// Starts a server that answers from `answers` and verifies every comparison with `verifier`, its economy tier.
async fn verified(answers: &FakeUpstream, verifier: &FakeUpstream) -> (TestServer, Client) {
    TestServer::with_client(config(answers, verifier)).await
}

fn config(answers: &FakeUpstream, verifier: &FakeUpstream) -> Config {
    let mut config = semantic_config(&[answers, verifier]);
    config.cache.mode = Mode::Bounded;
    config.models[1].tier = Tier::Economy;
    config.cache.verify.mode = VerifyMode::Background;
    config.cache.verify.timeout = Duration::from_secs(20);
    config
}

/// Waits until the verifier has been asked once, with this result.
async fn wait_for_verdict(server: &TestServer, verdict: &str) {
    server.wait_for_metric("promptkeep_verifications_total", &[&format!("verdict=\"{verdict}\"")], 1.0).await;
}

/// Waits for a label from the comparison of a missed prompt's answer with the candidate's.
async fn wait_for_label(server: &TestServer, says: &str) {
    let labels = ["origin=\"miss\"", &format!("says=\"{says}\"")];
    server.wait_for_metric("promptkeep_labels_total", &labels, 1.0).await;
}

#[tokio::test]
async fn the_verifier_overrides_the_comparison_of_words() {
    let (answers, verifier) = (FakeUpstream::start().await, FakeUpstream::start().await);
    answers.script([Reply::text(ANSWER), Reply::text(REWORDED)]);
    verifier.always(Reply::text("1.").usage(100, 1));
    let (server, mut client) = verified(&answers, &verifier).await;
    complete(&mut client, RESET).await;
    assert_eq!(text(complete(&mut client, PARAPHRASE).await), REWORDED);
    wait_for_verdict(&server, "yes").await;
    wait_for_label(&server, "same").await;
    let [seen] = &verifier.requests()[..] else { panic!("expected one verification") };
    let request = seen.body.to_string();
    assert!([RESET, PARAPHRASE, ANSWER].iter().all(|part| request.contains(part)), "{request}");
    let spent = stats(&mut client).await.models.into_iter().find(|m| m.model == "model-warm").unwrap();
    assert_eq!(spent.calls, 1, "the ledger counts the call");
}

#[tokio::test]
async fn a_pair_that_the_verifier_rejects_stays_rejected() {
    let (answers, verifier) = (FakeUpstream::start().await, FakeUpstream::start().await);
    answers.always(Reply::text(ANSWER));
    verifier.always(Reply::text("0"));
    let (server, mut client) = verified(&answers, &verifier).await;
    complete(&mut client, RESET).await;
    complete(&mut client, PARAPHRASE).await;
    wait_for_verdict(&server, "no").await;
    wait_for_label(&server, "different").await;
    let own = complete(&mut client, PARAPHRASE).await;
    assert_eq!(own.r#match.unwrap().matched_text, PARAPHRASE);
}

#[tokio::test]
async fn a_nonsensical_reply_of_the_verifier_is_ignored() {
    let (answers, verifier) = (FakeUpstream::start().await, FakeUpstream::start().await);
    answers.always(Reply::text(ANSWER));
    verifier.always(Reply::text("As a language model I think so."));
    let (server, mut client) = verified(&answers, &verifier).await;
    complete(&mut client, RESET).await;
    complete(&mut client, PARAPHRASE).await;
    wait_for_verdict(&server, "nonsense").await;
    wait_for_label(&server, "same").await;
}

#[tokio::test]
async fn a_verifier_that_is_down_is_ignored_without_a_fallback() {
    let (answers, verifier) = (FakeUpstream::start().await, FakeUpstream::start().await);
    answers.always(Reply::text(ANSWER));
    verifier.always(Reply::status(503));
    let (server, mut client) = verified(&answers, &verifier).await;
    complete(&mut client, RESET).await;
    complete(&mut client, PARAPHRASE).await;
    wait_for_verdict(&server, "unavailable").await;
    wait_for_label(&server, "same").await;
    assert_eq!((answers.calls(), verifier.calls()), (2, 1));
}

/// The verifier saw only the beginning of long questions, which was equal, and its "yes" said nothing of the rest.
#[tokio::test]
async fn questions_too_long_to_show_are_not_verified() {
    let (answers, verifier) = (FakeUpstream::start().await, FakeUpstream::start().await);
    answers.script([Reply::text(ANSWER), Reply::text(REWORDED)]);
    verifier.always(Reply::text("1"));
    let mut config = config(&answers, &verifier);
    config.cache.verify.max_question_bytes = RESET.len();
    let (server, mut client) = TestServer::with_client(config).await;
    complete(&mut client, RESET).await;
    complete(&mut client, PARAPHRASE).await;
    wait_for_label(&server, "different").await;
    assert_eq!(verifier.calls(), 0);
}

//! What a verifier is asked about, and how `Explain` accounts for it.

use promptkeep::grpc::proto::{CacheControl, CompleteRequest, LookupRequest, Outcome};
use serde_json::{Value, json};

use super::{
    ANSWER, PARAPHRASE, RESET, SURE,
    setup::{Setup, VERIFIER, answer, approved_by, unkept, verdict},
};
use crate::common::{
    fake_upstream::Reply,
    test_server::{ask, ask_with, text},
};

/// Differs from [`RESET`] on the surface only.
const SURFACE: &str = "how do i reset my password";
/// Near [`RESET`], and surely another question.
const HOPELESS: &str = "How do I reset my phone?";

/// The question that the verifier was asked last.
fn question(setup: &Setup) -> Value {
    let request = setup.verifier.requests().pop().expect("a verification");
    let content = request.body["messages"][1]["content"].as_str().expect("a user message");
    serde_json::from_str(content).expect("JSON")
}

#[tokio::test]
async fn a_yes_serves_the_answer_and_says_who_said_so() {
    let setup = Setup::filled(|_| {}).await;
    let reply = setup.paraphrase().await;
    assert_eq!(reply.outcome(), Outcome::Semantic);
    let matched = reply.r#match.unwrap();
    assert_eq!((matched.approved_by.as_str(), matched.verified_by.as_str()), ("verified", VERIFIER));
    assert_eq!(matched.matched_text, RESET);
    let expected = json!({ "new_question": PARAPHRASE, "kept": [{ "question": RESET, "answer": ANSWER }] });
    assert_eq!(question(&setup), expected);
}

#[tokio::test]
async fn a_no_is_a_miss_with_its_reason() {
    let setup = Setup::filled(|_| {}).await;
    setup.verifier.always(verdict("0"));
    let reply = setup.paraphrase().await;
    assert_eq!((reply.outcome(), reply.reason.as_str()), (Outcome::Upstream, "not_verified"));
    let nearest = reply.r#match.unwrap();
    assert_eq!((nearest.matched_text.as_str(), nearest.approved_by.as_str()), (RESET, ""));
}

/// `Explain` said "a verifier is asked" about exact hits and surface variants, which are served without.
#[tokio::test]
async fn exact_hits_and_surface_variants_are_not_asked_about() {
    let setup = Setup::filled(|_| {}).await;
    assert_eq!(setup.complete(ask(RESET)).await.outcome(), Outcome::Exact);
    let variant = setup.complete(unkept(SURFACE)).await;
    assert_eq!((variant.outcome(), approved_by(&variant)), (Outcome::Semantic, "surface"));
    // With a neighbour that would be asked about, were it not for the exact hit.
    setup.answers.script([answer("Another answer.")]);
    let cache = CacheControl { exact_only: true, ..CacheControl::default() };
    setup.complete(ask_with(PARAPHRASE, cache)).await;
    assert_eq!(setup.explain(PARAPHRASE).await.outcome(), Outcome::Exact);
    for question in [RESET, SURFACE, PARAPHRASE] {
        let explained = setup.explain(question).await.verification;
        assert!(!explained.starts_with("a verifier is asked"), "{question}: {explained}");
    }
    assert_eq!(setup.verifier.calls(), 0);
}

#[tokio::test]
async fn what_is_sure_enough_is_served_without_asking_a_dear_verifier() {
    let setup = Setup::filled(|config| config.models[1].input_usd_per_mtok = 10.0).await;
    let explained = setup.explain(SURE).await;
    assert!(explained.verification.starts_with("no verifier is asked"), "{}", explained.verification);
    assert_eq!(explained.outcome(), Outcome::Semantic);
    let reply = setup.complete(unkept(SURE)).await;
    assert_eq!((reply.outcome(), approved_by(&reply)), (Outcome::Semantic, "learned"));
    assert_eq!(reply.r#match.unwrap().verified_by, "");
    assert_eq!(setup.verifier.calls(), 0);
}

#[tokio::test]
async fn what_is_hopeless_is_not_asked_about() {
    let setup = Setup::filled(|_| {}).await;
    let explained = setup.explain(HOPELESS).await;
    let [candidate] = &explained.candidates[..] else { panic!("one candidate: {explained:?}") };
    let probability = candidate.r#match.as_ref().unwrap().confidence;
    assert!(probability < 0.2, "{probability}");
    assert!(explained.verification.starts_with("no verifier is asked"), "{}", explained.verification);
    assert_eq!(setup.complete(unkept(HOPELESS)).await.outcome(), Outcome::Upstream);
    assert_eq!(setup.verifier.calls(), 0);
}

#[tokio::test]
async fn a_verifier_that_costs_more_than_it_can_save_is_not_asked() {
    let setup = Setup::filled(|config| config.models[1].input_usd_per_mtok = 10.0).await;
    let explained = setup.explain(PARAPHRASE).await.verification;
    assert!(explained.starts_with("no verifier is asked"), "{explained}");
    assert_eq!(setup.paraphrase().await.outcome(), Outcome::Upstream);
    assert_eq!(setup.verifier.calls(), 0);
}

#[tokio::test]
async fn a_callers_time_is_part_of_the_price() {
    let setup = Setup::filled(|config| config.cache.verify.usd_per_second = 1.0).await;
    let explained = setup.explain(PARAPHRASE).await.verification;
    assert!(explained.starts_with("no verifier is asked"), "{explained}");
    assert_eq!(setup.paraphrase().await.outcome(), Outcome::Upstream);
    assert_eq!(setup.verifier.calls(), 0);
}

#[tokio::test]
async fn explain_reckons_what_asking_is_worth_and_asks_nobody() {
    let setup = Setup::filled(|_| {}).await;
    let explained = setup.explain(PARAPHRASE).await;
    assert_eq!((explained.outcome(), explained.reason.as_str()), (Outcome::Miss, "learning"));
    let why = explained.verification;
    assert!(why.starts_with("a verifier is asked: in units of what a right hit saves"), "{why}");
    assert!(why.contains("asking about 1 is worth"), "{why}");
    assert!(why.contains("false yes is 3.0 %") && why.contains("false no 6.0 %"), "{why}");
    assert_eq!(setup.verifier.calls(), 0);
    assert_eq!(setup.server.metric("promptkeep_verifications_total", &[]).await, 0.0);
}

#[tokio::test]
async fn tool_calls_are_not_left_to_a_verifier() {
    let setup = Setup::start(|_| {}).await;
    let call = json!({ "index": 0, "id": "call_1", "type": "function",
        "function": { "name": "reset_password", "arguments": "{\"user\": 7}" } });
    setup.answers.script([Reply::tool_calls([json!([call])])
        .without("\"usage\"")
        .without("[DONE]")
        .usage(500, 300)
        .done()]);
    let request = |text: &str| {
        let mut request: CompleteRequest = unkept(text);
        let tools = json!([{ "type": "function", "function": { "name": "reset_password",
            "parameters": { "type": "object", "properties": {} } } }]);
        request.prompt.as_mut().unwrap().tools_json = tools.to_string();
        request
    };
    setup.complete(CompleteRequest { cache: None, ..request(RESET) }).await;
    let look = LookupRequest { prompt: request(PARAPHRASE).prompt, cache: None };
    let explained = setup.explain_request(look).await;
    assert_eq!((explained.candidates.len(), explained.verification.as_str()), (1, ""));
    assert_eq!(setup.complete(request(PARAPHRASE)).await.outcome(), Outcome::Upstream);
    assert_eq!(setup.verifier.calls(), 0);
}

#[tokio::test]
async fn long_questions_are_not_asked_about() {
    let setup = Setup::filled(|config| config.cache.verify.max_question_bytes = PARAPHRASE.len() - 1).await;
    assert_eq!(setup.explain(PARAPHRASE).await.verification, "");
    assert_eq!(setup.paraphrase().await.outcome(), Outcome::Upstream);
    assert_eq!(setup.verifier.calls(), 0);
}

#[tokio::test]
async fn long_answers_are_cut_for_the_verifier_and_served_whole() {
    let long = "Open the settings. ".repeat(100);
    let setup = Setup::start(|config| config.cache.verify.max_answer_bytes = 60).await;
    setup.answers.script([answer(&long)]);
    setup.complete(ask(RESET)).await;
    let reply = setup.paraphrase().await;
    assert_eq!((approved_by(&reply), text(reply.clone())), ("verified", long));
    let shown = question(&setup)["kept"][0]["answer"].as_str().unwrap().to_owned();
    assert!(shown.len() <= 60 && shown.ends_with(" […]"), "{shown}");
}

//! When a verifier is asked: the modes, and what a request may say about them.

use promptkeep::{
    config::{Config, ModelConfig, NamespaceCache, VerifyMode},
    grpc::proto::{CacheControl, Outcome},
    model::Tier,
};
use reqwest::Response;
use serde_json::json;

use super::{
    ANSWER, PARAPHRASE, RESET, THIRD,
    setup::{Setup, VERIFIER, answer, approved_by, ask_in, look_with, unkept, verdict, verify},
};
use crate::common::{
    events::Events,
    test_server::{ask, ask_with, look, text},
};

fn with_mode(mode: VerifyMode) -> impl FnOnce(&mut Config) {
    move |config| config.cache.verify.mode = mode
}

/// Also serves the verifier from the provider of the routed model.
fn at_one_provider(config: &mut Config) {
    config.models[1].provider = config.models[0].provider.clone();
    config.cache.verify.mode = VerifyMode::Auto;
}

#[tokio::test]
async fn off_asks_nobody_whatever_the_request_says() {
    let setup = Setup::filled(with_mode(VerifyMode::Off)).await;
    for cache in [verify(true), CacheControl { verify: None, ..verify(true) }] {
        assert_eq!(setup.complete(ask_with(PARAPHRASE, cache)).await.outcome(), Outcome::Upstream);
    }
    assert_eq!(setup.explain(PARAPHRASE).await.verification, "");
    assert_eq!(setup.verifier.calls(), 0);
}

#[tokio::test]
async fn background_asks_after_the_answer_unless_the_request_wants_it_before() {
    let setup = Setup::filled(with_mode(VerifyMode::Background)).await;
    assert_eq!(setup.explain(PARAPHRASE).await.verification, "");
    assert_eq!(setup.paraphrase().await.outcome(), Outcome::Upstream);
    setup.wait_for_verdicts("yes", 1.0).await;
    // What was said in the background is known now.
    let reply = setup.complete(ask_with(PARAPHRASE, verify(true))).await;
    assert_eq!(approved_by(&reply), "verified");
    assert_eq!(setup.verifier.calls(), 1);
    assert_eq!(approved_by(&setup.complete(ask_with(THIRD, verify(true))).await), "verified");
    assert_eq!(setup.verifier.calls(), 2);
}

#[tokio::test]
async fn a_request_can_forbid_verification() {
    let setup = Setup::filled(|_| {}).await;
    let reply = setup.complete(ask_with(PARAPHRASE, verify(false))).await;
    assert_eq!((reply.outcome(), reply.reason.as_str()), (Outcome::Upstream, "learning"));
    assert_eq!(setup.verifier.calls(), 0);
    assert_eq!(approved_by(&setup.complete(ask_with(PARAPHRASE, verify(true))).await), "verified");
}

/// No prompt goes to a provider that would not see it anyway.
#[tokio::test]
async fn auto_asks_no_provider_but_that_of_the_routed_model() {
    let setup = Setup::filled(with_mode(VerifyMode::Auto)).await;
    for cache in [verify(true), CacheControl { verify: None, ..verify(true) }] {
        assert_eq!(setup.complete(ask_with(PARAPHRASE, cache)).await.outcome(), Outcome::Upstream);
    }
    assert_eq!(setup.explain(PARAPHRASE).await.verification, "");
    // A prompt that is routed to the verifier's own provider is verified there.
    setup.verifier.script([answer(ANSWER)]);
    let to_economy = |text: &str| {
        let mut request = unkept(text);
        request.prompt.as_mut().unwrap().model = "economy".to_owned();
        request
    };
    let mut first = to_economy(RESET);
    first.cache = None;
    setup.complete(first).await;
    assert_eq!(setup.verifier.calls(), 1);
    let _ = setup.complete(to_economy(PARAPHRASE)).await;
    assert_eq!(setup.answers.calls(), 3);
}

#[tokio::test]
async fn auto_asks_before_serving_at_the_provider_of_the_routed_model() {
    let setup = Setup::start(at_one_provider).await;
    setup.answers.script([answer(ANSWER), verdict("1")]);
    setup.complete(ask(RESET)).await;
    assert_eq!(approved_by(&setup.paraphrase().await), "verified");
    let [_, asked] = &setup.answers.requests()[..] else { panic!("an answer and a verification") };
    assert_eq!(asked.body["model"], VERIFIER);
    assert_eq!(setup.verifier.calls(), 0);
}

/// With `auto`, the best economy model was chosen first and only then was it checked where it is served, so one at another
/// provider turned verification off although the routed model's provider had one too.
#[tokio::test]
async fn auto_prefers_the_economy_model_at_the_provider_of_the_routed_model() {
    let setup = Setup::start(|config| {
        config.cache.verify.mode = VerifyMode::Auto;
        let mut own = config.models[1].clone();
        own.id = "model-own".to_owned();
        own.provider = config.models[0].provider.clone();
        config.models.push(own);
    });
    let setup = setup.await;
    setup.answers.script([answer(ANSWER), verdict("1")]);
    setup.complete(ask(RESET)).await;
    let reply = setup.paraphrase().await;
    assert_eq!(approved_by(&reply), "verified");
    assert_eq!(reply.r#match.unwrap().verified_by, "model-own");
    assert_eq!(setup.verifier.calls(), 0);
}

/// After the answer, `auto` routed the prompt again, without its embedding. The route could be another one, and a provider
/// that had never seen the prompt was asked to judge the audit of a hit.
#[tokio::test]
async fn auto_judges_audits_at_the_provider_that_answered() {
    let setup = Setup::start(|config| {
        config.cache.verify.mode = VerifyMode::Auto;
        config.cache.audit_rate = 1.0;
        // Moderate prompts go to the model, easy ones to the verifier's provider.
        (config.models[0].tier, config.routing.moderate) = (Tier::Hot, Tier::Hot);
        let easy = ModelConfig { id: "model-easy".to_owned(), tier: Tier::Cold, ..config.models[1].clone() };
        (config.routing.easy, config.models) = (Tier::Cold, [config.models.as_slice(), &[easy]].concat());
    });
    let setup = setup.await;
    // The embedding makes it moderate, and the text alone easy.
    let question = "How does garbage collection work?";
    assert_eq!(setup.explain(question).await.route_reason, "local_moderate");
    setup.complete(ask(question)).await;
    let hit = setup.complete(unkept(&question.to_lowercase())).await;
    assert_eq!((hit.outcome(), approved_by(&hit)), (Outcome::Semantic, "surface"));
    setup.server.wait_for_metric("promptkeep_labels_total", &["origin=\"audit\""], 1.0).await;
    assert_eq!((setup.answers.calls(), setup.verifier.calls()), (2, 0));
}

#[tokio::test]
async fn namespaces_have_modes_of_their_own() {
    let own = |namespace: &str, mode| NamespaceCache {
        namespace: namespace.to_owned(),
        verify: Some(mode),
        ..NamespaceCache::default()
    };
    let setup = Setup::start(|config| {
        config.cache.verify.mode = VerifyMode::Off;
        config.cache.namespaces = vec![own("eager", VerifyMode::Before), own("quiet", VerifyMode::Off)];
    });
    let setup = setup.await;
    for (namespace, expected) in [("eager", "verified"), ("quiet", ""), ("default", "")] {
        setup.complete(ask_in(namespace, RESET)).await;
        let reply = setup.complete(ask_in(namespace, PARAPHRASE)).await;
        assert_eq!(approved_by(&reply), expected, "{namespace}");
    }
    assert_eq!(setup.verifier.calls(), 1);
}

#[tokio::test]
async fn a_lookup_asks_only_where_it_is_configured() {
    let setup = Setup::filled(|_| {}).await;
    for cache in [CacheControl::default(), verify(true)] {
        let missed = setup.lookup(look_with(PARAPHRASE, cache)).await;
        assert_eq!((missed.outcome(), missed.reason.as_str()), (Outcome::Miss, "learning"));
    }
    assert_eq!(setup.verifier.calls(), 0);
    let mut config = setup.config.clone();
    config.cache.verify.lookup = true;
    setup.server.server.reload(config).unwrap();
    assert_eq!(setup.lookup(look_with(PARAPHRASE, verify(false))).await.outcome(), Outcome::Miss);
    let hit = setup.lookup(look(PARAPHRASE)).await;
    let matched = hit.r#match.unwrap();
    assert_eq!((matched.approved_by.as_str(), matched.verified_by.as_str()), ("verified", VERIFIER));
    assert_eq!((setup.answers.calls(), setup.verifier.calls()), (1, 1));
}

#[tokio::test]
async fn a_lookup_that_a_verifier_refuses_is_a_miss() {
    let setup = Setup::filled(|config| config.cache.verify.lookup = true).await;
    setup.verifier.always(verdict("0"));
    let missed = setup.lookup(look(PARAPHRASE)).await;
    assert_eq!((missed.outcome(), missed.reason.as_str()), (Outcome::Miss, "not_verified"));
    assert_eq!((setup.answers.calls(), setup.verifier.calls()), (1, 1));
}

async fn chat(setup: &Setup, question: &str, verify: Option<&str>) -> Response {
    let body = json!({ "model": "auto", "messages": [{ "role": "user", "content": question }] });
    let url = format!("http://{}/v1/chat/completions", setup.server.http);
    let mut request = reqwest::Client::new().post(url).header("cache-control", "no-store").json(&body);
    if let Some(verify) = verify {
        request = request.header("x-promptkeep-verify", verify);
    }
    request.send().await.unwrap()
}

#[tokio::test]
async fn http_callers_say_it_in_a_header_and_are_told_in_one() {
    let setup = Setup::filled(|_| {}).await;
    let header = |reply: &Response, name: &str| {
        reply.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned()
    };
    let refused = chat(&setup, PARAPHRASE, Some("perhaps")).await;
    assert_eq!(refused.status(), 400);
    let forbidden = chat(&setup, PARAPHRASE, Some("false")).await;
    assert_eq!(header(&forbidden, "x-promptkeep-outcome"), "upstream");
    assert_eq!(header(&forbidden, "x-promptkeep-verified"), "");
    assert_eq!(setup.verifier.calls(), 0);
    for allowed in [None, Some("true")] {
        let served = chat(&setup, PARAPHRASE, allowed).await;
        assert_eq!(header(&served, "x-promptkeep-outcome"), "semantic");
        assert_eq!(header(&served, "x-promptkeep-verified"), "true");
    }
    assert_eq!(setup.verifier.calls(), 1);
}

#[tokio::test]
async fn a_streamed_hit_names_its_verifier_too() {
    let setup = Setup::filled(|_| {}).await;
    let mut client = setup.client.clone();
    let mut events = Events::open(&mut client, unkept(PARAPHRASE)).await;
    let matched = events.started().await.r#match.unwrap();
    assert_eq!((matched.approved_by.as_str(), matched.verified_by.as_str()), ("verified", VERIFIER));
    let rest = events.rest().await;
    assert_eq!((rest.text.as_str(), rest.outcome()), (ANSWER, Outcome::Semantic));
    assert_eq!(text(setup.paraphrase().await), ANSWER);
}

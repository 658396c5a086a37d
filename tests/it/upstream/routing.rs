//! Where prompts are routed: by model name, tier, namespace or difficulty.

use std::time::Duration;

use promptkeep::{
    config::NamespaceRouting,
    error::Error,
    model::{AttemptReason, AttemptResult, Difficulty, RouteReason, Tier},
    prompt::Prompt,
};

use super::{Fixture, SHORT_TIMEOUT, complete, failed_attempts, open, prompt, results};
use crate::common::fake_upstream::{FakeUpstream, Reply};

struct Tiers {
    cold: FakeUpstream,
    warm: FakeUpstream,
    hot: FakeUpstream,
    fixture: Fixture,
}

async fn tiers() -> Tiers {
    let (cold, warm, hot) =
        (FakeUpstream::start().await, FakeUpstream::start().await, FakeUpstream::start().await);
    let fixture = Fixture::new(&[(Tier::Cold, &cold), (Tier::Warm, &warm), (Tier::Hot, &hot)]);
    Tiers { cold, warm, hot, fixture }
}

fn prompt_for(model: &str, text: &str) -> Prompt {
    Prompt { model: model.to_owned(), ..prompt(text) }
}

#[tokio::test]
async fn models_and_tiers_can_be_requested_by_name() {
    let tiers = tiers().await;
    let upstreams = tiers.fixture.build();
    let cases = [
        ("model-warm", "model-warm", RouteReason::Named),
        ("hot", "model-hot", RouteReason::Tier),
        // A tier without a model falls back.
        ("economy", "model-cold", RouteReason::Tier),
    ];
    for (requested, expected, reason) in cases {
        let prompt = prompt_for(requested, "Hi");
        let (completion, attempts) = complete(&upstreams, &prompt).await.unwrap();
        assert_eq!(completion.model, expected);
        assert_eq!(attempts[0].reason, AttemptReason::Routed(reason));
        let route = upstreams.route(&prompt, None).unwrap();
        assert_eq!((route.model.as_str(), route.reason), (expected, reason));
    }
    assert_eq!(upstreams.route(&prompt_for("gpt-9", "Hi"), None), None);
}

#[tokio::test]
async fn a_named_model_falls_back_only_when_that_is_allowed() {
    let mut tiers = tiers().await;
    tiers.warm.always(Reply::status(500));
    let (completion, _) = complete(&tiers.fixture.build(), &prompt_for("model-warm", "Hi")).await.unwrap();
    assert_eq!(completion.model, "model-hot");
    tiers.fixture.routing.fallback_named = false;
    let error = open(&tiers.fixture.build(), &prompt_for("model-warm", "Hi")).await.unwrap_err();
    let attempts = failed_attempts(error);
    assert_eq!(attempts.len(), 1);
    assert_eq!((tiers.hot.calls(), tiers.cold.calls()), (1, 0));
}

#[tokio::test]
async fn difficulty_selects_the_tier_and_is_reported() {
    let tiers = tiers().await;
    let upstreams = tiers.fixture.build();
    let easy = "What is the capital of France?";
    let hard = "Design a lock-free multi-producer queue in Rust, prove that it is linearizable, and analyse \
        its memory ordering step by step. Then implement it with tests.";
    for (text, model, difficulty) in
        [(easy, "model-cold", Difficulty::Easy), (hard, "model-hot", Difficulty::Hard)]
    {
        let (completion, attempts) = complete(&upstreams, &prompt(text)).await.unwrap();
        assert_eq!(completion.model, model, "{text}");
        assert_eq!(attempts[0].reason, AttemptReason::Routed(RouteReason::Local(difficulty)));
    }
}

#[tokio::test]
async fn a_namespace_has_its_own_route_and_fallback() {
    let mut tiers = tiers().await;
    tiers.fixture.routing.namespaces = vec![NamespaceRouting {
        namespace: "legal".to_owned(),
        auto: Some("hot".to_owned()),
        fallback: Some(vec![Tier::Hot]),
    }];
    let upstreams = tiers.fixture.build();
    let prompt = Prompt { namespace: "legal".to_owned(), ..prompt("Hi") };
    let (completion, attempts) = complete(&upstreams, &prompt).await.unwrap();
    assert_eq!(completion.model, "model-hot");
    assert_eq!(attempts[0].reason, AttemptReason::Routed(RouteReason::Namespace));
    tiers.hot.script([Reply::status(500)]);
    assert!(matches!(open(&upstreams, &prompt).await, Err(Error::Unavailable { .. })), "its own fallback");
}

/// Tiers whose cold model classifies prompts.
async fn with_classifier() -> Tiers {
    let mut tiers = tiers().await;
    tiers.fixture.routing.classifier = "model-cold".to_owned();
    tiers
}

#[tokio::test]
async fn a_model_classifies_a_prompt_once_and_the_result_is_remembered() {
    let tiers = with_classifier().await;
    let upstreams = tiers.fixture.build();
    tiers.cold.script([Reply::text("hard")]);
    let question = prompt("Hi");
    assert_eq!(upstreams.route(&question, None).unwrap().reason, RouteReason::Local(Difficulty::Easy));
    let (completion, attempts) = complete(&upstreams, &question).await.unwrap();
    assert_eq!(completion.model, "model-hot");
    assert_eq!(attempts[0].reason, AttemptReason::Classify);
    assert!(attempts[0].usage.cost_usd > 0.0, "the classification is charged");
    assert_eq!(attempts[1].reason, AttemptReason::Routed(RouteReason::Classifier(Difficulty::Hard)));
    assert_eq!(complete(&upstreams, &question).await.unwrap().0.model, "model-hot");
    assert_eq!(tiers.cold.calls(), 1, "classified once");
    assert_eq!(upstreams.route(&question, None).unwrap().reason, RouteReason::Classifier(Difficulty::Hard));
    let sent = &tiers.cold.requests()[0].body;
    assert_eq!((&sent["max_tokens"], &sent["temperature"]), (&5.into(), &0.0.into()));
}

#[tokio::test]
async fn a_classification_expires() {
    let mut tiers = with_classifier().await;
    tiers.fixture.routing.classifier_ttl = Duration::ZERO;
    let upstreams = tiers.fixture.build();
    tiers.cold.script([Reply::text("hard"), Reply::text("moderate")]);
    assert_eq!(complete(&upstreams, &prompt("Hi")).await.unwrap().0.model, "model-hot");
    assert_eq!(complete(&upstreams, &prompt("Hi")).await.unwrap().0.model, "model-warm");
}

#[tokio::test]
async fn without_a_classification_the_local_difficulty_is_used() {
    let mut tiers = with_classifier().await;
    tiers.fixture.routing.classifier_timeout = SHORT_TIMEOUT;
    let faults = [
        ("chatter", Reply::text("That is a hard question!")),
        ("error", Reply::status(500)),
        ("refusal", Reply::status(422)),
        ("stall", Reply::stall()),
        ("stall in the middle", Reply::text("hard work").stall_after(2)),
        ("junk", Reply::raw("text/html", "<html>")),
    ];
    for (name, fault) in faults {
        let upstreams = tiers.fixture.build();
        tiers.cold.script([fault]);
        let (completion, attempts) = complete(&upstreams, &prompt("Hi")).await.unwrap();
        assert_eq!(completion.model, "model-cold", "{name}");
        let routed = attempts
            .iter()
            .find(|attempt| attempt.result == AttemptResult::Ok && attempt.reason != AttemptReason::Classify);
        let reason = routed.map(|attempt| attempt.reason);
        assert_eq!(reason, Some(AttemptReason::Routed(RouteReason::Local(Difficulty::Easy))), "{name}");
    }
}

#[tokio::test]
async fn a_prompt_that_fits_no_model_is_refused_after_classification_too() {
    let mut tiers = with_classifier().await;
    tiers.fixture.models.iter_mut().for_each(|model| model.context_window = 200);
    tiers.cold.script([Reply::text("hard")]);
    let error = open(&tiers.fixture.build(), &prompt(&"word ".repeat(1000))).await.unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { .. }), "{error:?}");
}

#[tokio::test]
async fn the_classifier_is_not_called_for_a_named_tier() {
    let tiers = with_classifier().await;
    let upstreams = tiers.fixture.build();
    let (_, attempts) = complete(&upstreams, &prompt_for("hot", "Hi")).await.unwrap();
    assert_eq!(results(&attempts), [AttemptResult::Ok]);
    assert_eq!(tiers.cold.calls(), 0);
}

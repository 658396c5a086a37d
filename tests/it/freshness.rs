//! Lifetime of a cached answer, and whether its tier is good enough for the router's choice.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use promptkeep::{
    config::{Config, StoreConfig, StoreKind},
    grpc::proto::{CacheControl, CompleteRequest, Completion, LookupRequest, Outcome, Prompt, StoreRequest},
    key::CacheKey,
    store::{self, Store},
};

use crate::common::{
    fake_upstream::{FakeUpstream, Reply},
    test_server::{
        Client, TestServer, ask, ask_with, complete, exact_config, look, lookup, prompt, semantic_config,
        text, until,
    },
};

/// Prompt that the router sends to `hot`, even without an embedding.
const HARD: &str = "Design a lock-free multi-producer queue in Rust, prove that it is linearizable, and analyse \
    its memory ordering step by step. Then implement it with tests.";
/// [`HARD`] without its second comma.
const HARD_AGAIN: &str = "Design a lock-free multi-producer queue in Rust, prove that it is linearizable and \
    analyse its memory ordering step by step. Then implement it with tests.";

/// Server with one model of each tier, where `hot` has just failed on a hard prompt and `warm` has answered it.
struct Degraded {
    hot: FakeUpstream,
    _others: [FakeUpstream; 2],
    server: TestServer,
    client: Client,
}

async fn degraded(mut config: impl FnMut(&[&FakeUpstream]) -> Config) -> Degraded {
    let [cold, warm, hot] =
        [FakeUpstream::start().await, FakeUpstream::start().await, FakeUpstream::start().await];
    warm.script([Reply::text("from warm")]);
    hot.always(Reply::status(500));
    let (server, mut client) = TestServer::with_client(config(&[&cold, &warm, &hot])).await;
    let reply = complete(&mut client, HARD).await;
    assert_eq!(reply.completion.map(|completion| completion.tier), Some("warm".to_owned()));
    Degraded { hot, _others: [cold, warm], server, client }
}

fn serving_lower_tiers(upstreams: &[&FakeUpstream]) -> Config {
    let mut config = exact_config(upstreams);
    config.cache.serve_lower_tier = true;
    config
}

#[tokio::test]
async fn a_lower_tier_answer_is_replaced_when_the_higher_tier_recovers() {
    let Degraded { hot, mut client, server: _server, _others } = degraded(exact_config).await;
    hot.always(Reply::text("from hot"));
    assert_eq!(lookup(&mut client, HARD).await.outcome(), Outcome::Miss);
    assert_eq!(client.explain(look(HARD)).await.unwrap().into_inner().outcome(), Outcome::Miss);
    let reply = complete(&mut client, HARD).await;
    assert_eq!((reply.outcome(), text(reply).as_str()), (Outcome::Upstream, "from hot"));
    let reply = complete(&mut client, HARD).await;
    assert_eq!((reply.outcome(), text(reply).as_str()), (Outcome::Exact, "from hot"));
}

#[tokio::test]
async fn a_lower_tier_answer_is_served_if_the_configuration_allows_it() {
    let Degraded { hot: _hot, mut client, server: _server, _others } = degraded(serving_lower_tiers).await;
    assert_eq!(text(complete(&mut client, HARD).await), "from warm");
    assert_eq!(client.explain(look(HARD)).await.unwrap().into_inner().outcome(), Outcome::Exact);
}

#[tokio::test]
async fn a_lower_tier_answer_is_served_while_the_breaker_of_the_higher_tier_is_open() {
    let Degraded { hot, mut client, server: _server, _others } = degraded(|upstreams| {
        let mut config = exact_config(upstreams);
        config.upstream.breaker_failures = 1;
        config
    })
    .await;
    assert_eq!(complete(&mut client, HARD).await.outcome(), Outcome::Exact);
    assert_eq!(hot.calls(), 1);
}

#[tokio::test]
async fn a_lower_tier_answer_is_served_if_the_prompt_does_not_fit_the_higher_tier() {
    let Degraded { hot: _hot, mut client, server: _server, _others } = degraded(|upstreams| {
        let mut config = exact_config(upstreams);
        config.models[2].context_window = 10;
        config
    })
    .await;
    assert_eq!(complete(&mut client, HARD).await.outcome(), Outcome::Exact);
}

#[tokio::test]
async fn a_named_model_is_called_again_after_a_fallback_answered_for_it() {
    let Degraded { hot, mut client, server: _server, _others } = degraded(exact_config).await;
    let named = |model: &str| CompleteRequest {
        prompt: Some(Prompt { model: model.to_owned(), ..prompt("Hi") }),
        cache: None,
    };
    for model in ["model-hot", "hot"] {
        hot.always(Reply::status(500));
        client.complete(named(model)).await.unwrap();
        hot.always(Reply::text("from hot"));
        let reply = client.complete(named(model)).await.unwrap().into_inner();
        assert_eq!((reply.outcome(), text(reply).as_str()), (Outcome::Upstream, "from hot"), "{model}");
        let reply = client.complete(named(model)).await.unwrap().into_inner();
        assert_eq!(reply.outcome(), Outcome::Exact, "{model}");
    }
}

#[tokio::test]
async fn a_semantic_match_of_a_lower_tier_is_a_miss_with_that_reason() {
    let Degraded { hot, mut client, server: _server, _others } = degraded(semantic_config).await;
    hot.always(Reply::text("from hot"));
    let missed = lookup(&mut client, HARD_AGAIN).await;
    assert_eq!((missed.outcome(), missed.reason.as_str()), (Outcome::Miss, "lower_tier"));
    let explained = client.explain(look(HARD_AGAIN)).await.unwrap().into_inner();
    assert_eq!((explained.outcome(), explained.reason.as_str()), (Outcome::Miss, "lower_tier"));
    complete(&mut client, HARD).await;
    assert_eq!(lookup(&mut client, HARD_AGAIN).await.outcome(), Outcome::Semantic);
}

/// A caller of `Store` has chosen the model, so the router does not question its tier.
#[tokio::test]
async fn an_answer_that_a_caller_stored_is_served_whatever_its_tier() {
    let Degraded { hot, mut client, server: _server, _others } = degraded(exact_config).await;
    hot.always(Reply::text("from hot"));
    let hard = Prompt { messages: prompt(HARD).messages, seed: Some(1), ..Prompt::default() };
    let completion = Completion {
        content: "of my own".to_owned(),
        model: "model-cold".to_owned(),
        tier: "cold".to_owned(),
        finish_reason: "stop".to_owned(),
        ..Completion::default()
    };
    let request = StoreRequest { prompt: Some(hard.clone()), completion: Some(completion), cache: None };
    client.store(request).await.unwrap();
    let found = client.lookup(LookupRequest { prompt: Some(hard), cache: None }).await.unwrap().into_inner();
    assert_eq!(found.outcome(), Outcome::Exact);
}

#[tokio::test]
async fn an_answer_of_a_higher_tier_than_needed_is_served() {
    let [cold, warm] = [FakeUpstream::start().await, FakeUpstream::start().await];
    cold.script([Reply::status(500)]);
    let (_server, mut client) = TestServer::with_client(exact_config(&[&cold, &warm])).await;
    complete(&mut client, "What is the capital of France?").await;
    let reply = complete(&mut client, "What is the capital of France?").await;
    assert_eq!(reply.outcome(), Outcome::Exact);
    assert_eq!(reply.completion.unwrap().tier, "warm");
}

/// Returns the TTLs that a server with this configuration gives to the answers of these requests.
async fn ttls(config: Config, requests: &[CompleteRequest]) -> BTreeMap<CacheKey, Duration> {
    let memory = StoreConfig { kind: StoreKind::Memory, ..StoreConfig::default() };
    let store: Arc<dyn Store> = store::open("local", &memory).unwrap();
    let server = TestServer::with_store(config, Arc::clone(&store)).await;
    let mut client = server.client().await;
    for request in requests {
        client.complete(request.clone()).await.unwrap();
    }
    until(async || store.entries() == requests.len() as u64).await;
    let entries = store.scan(None, requests.len()).await.unwrap();
    entries.iter().map(|entry| (entry.key, entry.expires.duration_since(entry.created).unwrap())).collect()
}

#[tokio::test]
async fn jitter_only_shortens_ttls_and_is_equal_on_every_replica() {
    const HOUR: Duration = Duration::from_secs(3600);
    let upstream = FakeUpstream::start().await;
    let mut config = exact_config(&[&upstream]);
    config.cache.ttl_jitter = 0.5;
    let ttl = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
    let hour = CacheControl { ttl, ..CacheControl::default() };
    let requests: Vec<_> = (0..100).map(|n| ask_with(&format!("Question {n}?"), hour.clone())).collect();
    let jittered = ttls(config.clone(), &requests).await;
    let (shortest, longest) = (jittered.values().min().unwrap(), jittered.values().max().unwrap());
    assert!(*shortest > HOUR / 2 && *longest <= HOUR, "{shortest:?} to {longest:?}");
    assert!(*shortest < HOUR * 6 / 10 && *longest > HOUR * 9 / 10, "{shortest:?} to {longest:?}");
    assert_eq!(ttls(config.clone(), &requests).await, jittered);
    config.cache.ttl_jitter = 0.0;
    assert!(ttls(config, &[ask("Question?")]).await.values().all(|ttl| *ttl == 24 * HOUR));
}

//! Replicas that share one Redis.

mod cluster;
mod learned;
mod lease;
mod outage;
mod regions;

use std::str::FromStr;

use promptkeep::{
    config::{Config, Mode, StoreConfig},
    grpc::proto::{
        CompleteRequest, Completion, InvalidateRequest, LookupRequest, Outcome, Prompt, StoreRequest,
    },
};

use crate::common::{
    events::Events,
    fake_upstream::{FakeUpstream, Gate, Reply},
    proxy::{Network, Proxy},
    redis_server::RedisServer,
    test_server::{
        Client, TestServer, ask, complete, exact_config, lookup, prompt, semantic_config, stats, until,
    },
};

const RESET: &str = "How do I reset my password?";
const PARAPHRASE: &str = "How can I reset my password?";

/// A replica that is ready.
async fn replica(config: Config) -> (TestServer, Client) {
    let server = TestServer::start(config).await;
    until(async || server.get("/readyz").await.0 == 200).await;
    let client = server.client().await;
    (server, client)
}

/// A ready replica with semantic hits, which waits for the store as long as it would in production.
async fn semantic_replica(upstream: &FakeUpstream, store: StoreConfig) -> (TestServer, Client) {
    let mut config = semantic_config(&[upstream]);
    config.store = store;
    replica(config).await
}

/// Makes the configuration learn, from every label and without audits.
fn learning(mut config: Config) -> Config {
    config.cache.mode = Mode::Bounded;
    // Every label counts, however busy the machine is.
    config.cache.learning.max_comparisons = 1000;
    // The answer of an audit would be stored under the prompt's own key.
    config.cache.audit_rate = 0.0;
    config
}

/// Sets the store, except for the store timeout of the test.
fn with_store(store: StoreConfig, mut config: Config) -> Config {
    config.store = StoreConfig { timeout: config.store.timeout, ..store };
    config
}

/// A store whose network the test controls.
fn store_through(proxy: &Proxy, redis: &RedisServer) -> StoreConfig {
    StoreConfig { url: vec![proxy.url()], ..redis.store() }
}

/// Whether a lookup of the prompt has this outcome.
async fn lookup_is(client: &Client, text: &str, outcome: Outcome) -> bool {
    lookup(&mut client.clone(), text).await.outcome() == outcome
}

/// Waits until a lookup of the prompt has this outcome.
async fn wait_for(client: &Client, text: &str, outcome: Outcome) {
    until(async || lookup_is(client, text, outcome).await).await;
}

fn whole_namespace(name: &str) -> InvalidateRequest {
    InvalidateRequest { namespace: name.to_owned(), ..InvalidateRequest::default() }
}

fn store_request(text: &str) -> StoreRequest {
    let completion = Completion {
        content: "Stored.".to_owned(),
        finish_reason: "stop".to_owned(),
        ..Completion::default()
    };
    StoreRequest { prompt: Some(prompt(text)), completion: Some(completion), cache: None }
}

/// The value of a sample, if the replica has it.
async fn metric<T: FromStr>(server: &TestServer, sample: &str) -> Option<T> {
    let (_, metrics) = server.get("/metrics").await;
    let value = metrics.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))?;
    Some(value.parse().ok().expect("a number"))
}

#[tokio::test]
async fn an_entry_of_one_replica_is_an_exact_and_a_semantic_hit_on_another() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let (_a, mut a) = replica(with_store(redis.store(), semantic_config(&[&upstream]))).await;
    let (_b, b) = replica(with_store(redis.store(), semantic_config(&[&upstream]))).await;
    complete(&mut a, RESET).await;
    wait_for(&b, RESET, Outcome::Exact).await;
    wait_for(&b, PARAPHRASE, Outcome::Semantic).await;
    // A replica that starts later has it too.
    let (_c, c) = replica(with_store(redis.store(), semantic_config(&[&upstream]))).await;
    wait_for(&c, PARAPHRASE, Outcome::Semantic).await;
}

#[tokio::test]
async fn an_invalidation_on_one_replica_reaches_the_other_and_survives_restarts() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let config = || with_store(redis.store(), semantic_config(&[&upstream]));
    let (server_a, mut a) = replica(config()).await;
    let (server_b, mut b) = replica(config()).await;
    complete(&mut a, RESET).await;
    let docs = Prompt { namespace: "docs".to_owned(), ..prompt("Unrelated?") };
    a.complete(CompleteRequest { prompt: Some(docs.clone()), cache: None }).await.unwrap();
    // Both replicas now hold the entry in memory.
    wait_for(&b, RESET, Outcome::Exact).await;
    wait_for(&b, PARAPHRASE, Outcome::Semantic).await;
    assert_eq!(b.invalidate(whole_namespace("default")).await.unwrap().into_inner().entries, 1);
    assert!(lookup_is(&b, RESET, Outcome::Miss).await, "at once on the replica that acknowledged it");
    wait_for(&a, RESET, Outcome::Miss).await;
    until(async || stats(&mut a.clone()).await.index_vectors == 1).await;
    server_a.stop().await;
    server_b.stop().await;
    for _ in 0..2 {
        let (_server, mut client) = replica(config()).await;
        assert!(lookup_is(&client, RESET, Outcome::Miss).await);
        assert!(lookup_is(&client, PARAPHRASE, Outcome::Miss).await);
        let request = LookupRequest { prompt: Some(docs.clone()), cache: None };
        assert_eq!(client.lookup(request).await.unwrap().into_inner().outcome(), Outcome::Exact);
    }
}

#[tokio::test]
async fn an_answer_in_flight_while_another_replica_invalidates_is_not_stored() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let (_a, mut a) = replica(with_store(redis.store(), exact_config(&[&upstream]))).await;
    let (_b, mut b) = replica(with_store(redis.store(), exact_config(&[&upstream]))).await;
    let gate = Gate::new();
    upstream.script([Reply::text("old news").hold_before(2, &gate)]);
    let mut pending = Events::open(&mut a, ask("A?")).await;
    pending.started().await;
    b.invalidate(whole_namespace("default")).await.unwrap();
    // Once A has this newer entry of B, A has received the invalidation before it.
    complete(&mut b, "B?").await;
    wait_for(&a, "B?", Outcome::Exact).await;
    gate.open();
    assert_eq!(pending.rest().await.text, "old news", "the caller still gets the answer");
    for client in [&a, &b] {
        assert!(lookup_is(client, "A?", Outcome::Miss).await);
    }
}

/// Both replicas call the model before either has stored its answer.
#[tokio::test]
async fn two_replicas_that_answer_one_prompt_at_once_store_one_entry() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let mut store = redis.store();
    let (_a, a) = replica(with_store(store.clone(), exact_config(&[&upstream]))).await;
    store.write_queue = 1;
    let (_b, b) = replica(with_store(store, exact_config(&[&upstream]))).await;
    for n in 0..20 {
        let text = format!("{n}?");
        let (mut a, mut b) = (a.clone(), b.clone());
        tokio::join!(complete(&mut a, &text), complete(&mut b, &text));
    }
    until(async || redis.keys("*:e:*").await.len() == 20).await;
    until(async || stats(&mut a.clone()).await.entries == 20).await;
}

#[tokio::test]
async fn a_replica_catches_up_after_it_was_cut_off() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let proxy = Proxy::in_front_of(redis.port).await;
    let (_a, mut a) = replica(with_store(redis.store(), semantic_config(&[&upstream]))).await;
    let (_b, mut b) = replica(with_store(store_through(&proxy, &redis), semantic_config(&[&upstream]))).await;
    complete(&mut a, "Gone?").await;
    wait_for(&b, "Gone?", Outcome::Exact).await;
    proxy.set(Network::Cut);
    let gone = InvalidateRequest { prompt: Some(prompt("Gone?")), ..InvalidateRequest::default() };
    a.invalidate(gone).await.unwrap();
    complete(&mut a, RESET).await;
    // While cut off it serves the entries it has, and calls the model for others.
    assert!(lookup_is(&b, "Gone?", Outcome::Exact).await);
    assert_eq!(complete(&mut b, "New?").await.outcome(), Outcome::Upstream);
    proxy.set(Network::Up);
    wait_for(&b, "Gone?", Outcome::Miss).await;
    wait_for(&b, PARAPHRASE, Outcome::Semantic).await;
    wait_for(&a, "New?", Outcome::Exact).await;
}

#[tokio::test]
async fn a_replica_cut_off_beyond_the_length_of_the_streams_reloads_everything() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let proxy = Proxy::in_front_of(redis.port).await;
    let (_a, mut a) = replica(with_store(redis.store(), semantic_config(&[&upstream]))).await;
    let (server_b, mut b) =
        replica(with_store(store_through(&proxy, &redis), semantic_config(&[&upstream]))).await;
    complete(&mut a, "Gone?").await;
    complete(&mut b, "Mine?").await;
    wait_for(&b, "Gone?", Outcome::Exact).await;
    wait_for(&a, "Mine?", Outcome::Exact).await;
    proxy.set(Network::Cut);
    a.invalidate(whole_namespace("default")).await.unwrap();
    complete(&mut a, RESET).await;
    // Trims the streams as if thousands of events had followed.
    let mut streams: Vec<String> = redis.keys("*:changes").await;
    streams.push("promptkeep:invalidations".to_owned());
    until(async || redis.keys("*:e:*").await.len() == 1).await;
    for stream in streams {
        redis.command::<u64>(&format!("XTRIM {stream} MAXLEN 0")).await;
    }
    proxy.set(Network::Up);
    wait_for(&b, "Gone?", Outcome::Miss).await;
    wait_for(&b, "Mine?", Outcome::Miss).await;
    wait_for(&b, PARAPHRASE, Outcome::Semantic).await;
    assert_eq!(server_b.get("/readyz").await.0, 200, "it stayed ready");
}

//! Replicas that share one Redis.

mod cluster;
mod learned;
mod lease;
mod outage;
mod regions;

use promptkeep::{
    config::{Config, StoreConfig},
    grpc::proto::{CompleteRequest, InvalidateRequest, Outcome, Prompt},
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
const RESET_TOO: &str = "How can I reset my password?";

/// One of the fleet, once it is ready.
async fn replica(config: Config) -> (TestServer, Client) {
    let server = TestServer::start(config).await;
    until(async || server.get("/readyz").await.0 == 200).await;
    let client = server.client().await;
    (server, client)
}

fn on(store: StoreConfig, mut config: Config) -> Config {
    config.store = StoreConfig { timeout: config.store.timeout, ..store };
    config
}

/// A store whose network the test controls; a request waits for it only shortly.
fn through(proxy: &Proxy, redis: &RedisServer) -> StoreConfig {
    StoreConfig { url: vec![proxy.url()], ..redis.store() }
}

async fn is_hit(client: &Client, text: &str, outcome: Outcome) -> bool {
    lookup(&mut client.clone(), text).await.outcome() == outcome
}

async fn becomes(client: &Client, text: &str, outcome: Outcome) {
    until(async || is_hit(client, text, outcome).await).await;
}

fn everything() -> InvalidateRequest {
    InvalidateRequest { namespace: "default".to_owned(), ..InvalidateRequest::default() }
}

#[tokio::test]
async fn what_one_keeps_is_an_exact_and_a_semantic_hit_on_another() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let (_a, mut a) = replica(on(redis.store(), semantic_config(&[&upstream]))).await;
    let (_b, b) = replica(on(redis.store(), semantic_config(&[&upstream]))).await;
    complete(&mut a, RESET).await;
    becomes(&b, RESET, Outcome::Exact).await;
    becomes(&b, RESET_TOO, Outcome::Semantic).await;
    // Also of a replica that starts later.
    let (_c, c) = replica(on(redis.store(), semantic_config(&[&upstream]))).await;
    becomes(&c, RESET_TOO, Outcome::Semantic).await;
}

#[tokio::test]
async fn what_one_invalidates_is_gone_from_another_and_stays_so_after_restarts() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let config = || on(redis.store(), semantic_config(&[&upstream]));
    let (server_a, mut a) = replica(config()).await;
    let (server_b, mut b) = replica(config()).await;
    complete(&mut a, RESET).await;
    let docs = Prompt { namespace: "docs".to_owned(), ..prompt("Kept?") };
    a.complete(CompleteRequest { prompt: Some(docs.clone()), cache: None }).await.unwrap();
    // Into the memory of both.
    becomes(&b, RESET, Outcome::Exact).await;
    becomes(&b, RESET_TOO, Outcome::Semantic).await;
    assert_eq!(b.invalidate(everything()).await.unwrap().into_inner().entries, 1);
    assert!(is_hit(&b, RESET, Outcome::Miss).await, "at once where it was acknowledged");
    becomes(&a, RESET, Outcome::Miss).await;
    until(async || stats(&mut a.clone()).await.index_vectors == 1).await;
    server_a.stop().await;
    server_b.stop().await;
    for _ in 0..2 {
        let (_server, mut client) = replica(config()).await;
        assert!(is_hit(&client, RESET, Outcome::Miss).await);
        assert!(is_hit(&client, RESET_TOO, Outcome::Miss).await);
        let request = promptkeep::grpc::proto::LookupRequest { prompt: Some(docs.clone()), cache: None };
        assert_eq!(client.lookup(request).await.unwrap().into_inner().outcome(), Outcome::Exact);
    }
}

#[tokio::test]
async fn an_answer_on_its_way_when_another_replica_invalidates_is_not_kept() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let (_a, mut a) = replica(on(redis.store(), exact_config(&[&upstream]))).await;
    let (_b, mut b) = replica(on(redis.store(), exact_config(&[&upstream]))).await;
    let gate = Gate::new();
    upstream.script([Reply::text("old news").hold_before(2, &gate)]);
    let mut asking = Events::open(&mut a, ask("A?")).await;
    asking.started().await;
    b.invalidate(everything()).await.unwrap();
    // What B keeps now is newer; once A has it, A has heard of what came before it.
    complete(&mut b, "B?").await;
    becomes(&a, "B?", Outcome::Exact).await;
    gate.open();
    assert_eq!(asking.rest().await.text, "old news", "the caller gets it all the same");
    for client in [&a, &b] {
        assert!(is_hit(client, "A?", Outcome::Miss).await);
    }
}

/// Both ask a model before either has kept its answer.
#[tokio::test]
async fn two_that_answer_the_same_prompt_at_once_keep_one_entry() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let mut store = redis.store();
    let (_a, a) = replica(on(store.clone(), exact_config(&[&upstream]))).await;
    store.write_queue = 1;
    let (_b, b) = replica(on(store, exact_config(&[&upstream]))).await;
    for n in 0..20 {
        let text = format!("{n}?");
        let (mut a, mut b) = (a.clone(), b.clone());
        tokio::join!(complete(&mut a, &text), complete(&mut b, &text));
    }
    until(async || redis.keys("*:e:*").await.len() == 20).await;
    until(async || stats(&mut a.clone()).await.entries == 20).await;
}

#[tokio::test]
async fn a_replica_that_was_cut_off_catches_up() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let proxy = Proxy::before(redis.port).await;
    let (_a, mut a) = replica(on(redis.store(), semantic_config(&[&upstream]))).await;
    let (_b, mut b) = replica(on(through(&proxy, &redis), semantic_config(&[&upstream]))).await;
    complete(&mut a, "Gone?").await;
    becomes(&b, "Gone?", Outcome::Exact).await;
    proxy.set(Network::Cut);
    let gone = InvalidateRequest { prompt: Some(prompt("Gone?")), ..InvalidateRequest::default() };
    a.invalidate(gone).await.unwrap();
    complete(&mut a, RESET).await;
    // It serves what it has meanwhile, and buys what it has not.
    assert!(is_hit(&b, "Gone?", Outcome::Exact).await);
    assert_eq!(complete(&mut b, "New?").await.outcome(), Outcome::Upstream);
    proxy.set(Network::Whole);
    becomes(&b, "Gone?", Outcome::Miss).await;
    becomes(&b, RESET_TOO, Outcome::Semantic).await;
    becomes(&a, "New?", Outcome::Exact).await;
}

#[tokio::test]
async fn a_replica_cut_off_for_longer_than_the_streams_hold_reads_everything_anew() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let proxy = Proxy::before(redis.port).await;
    let (_a, mut a) = replica(on(redis.store(), semantic_config(&[&upstream]))).await;
    let (server_b, mut b) = replica(on(through(&proxy, &redis), semantic_config(&[&upstream]))).await;
    complete(&mut a, "Gone?").await;
    complete(&mut b, "Mine?").await;
    becomes(&b, "Gone?", Outcome::Exact).await;
    becomes(&a, "Mine?", Outcome::Exact).await;
    proxy.set(Network::Cut);
    a.invalidate(everything()).await.unwrap();
    complete(&mut a, RESET).await;
    // Trimmed as if thousands had come after.
    let mut streams: Vec<String> = redis.keys("*:changes").await;
    streams.push("promptkeep:invalidations".to_owned());
    until(async || redis.keys("*:e:*").await.len() == 1).await;
    for stream in streams {
        redis.command::<u64>(&format!("XTRIM {stream} MAXLEN 0")).await;
    }
    proxy.set(Network::Whole);
    becomes(&b, "Gone?", Outcome::Miss).await;
    becomes(&b, "Mine?", Outcome::Miss).await;
    becomes(&b, RESET_TOO, Outcome::Semantic).await;
    assert_eq!(server_b.get("/readyz").await.0, 200, "it went on all the time");
}

//! Redis away, hanging, full, read-only, locked or odd: no request fails because of it, what is in memory is
//! served, and what was written meanwhile arrives when it is back.

use std::time::Duration;

use promptkeep::grpc::proto::{Completion, StoreRequest};
use tonic::Code;

use super::*;

/// A replica that waits for Redis as long as it would in production.
async fn started(upstream: &FakeUpstream, store: StoreConfig) -> (TestServer, Client) {
    let mut config = semantic_config(&[upstream]);
    config.store = store;
    replica(config).await
}

/// Asks for what is kept and what is not, exactly and nearly; nothing may fail.
async fn goes_on(client: &Client, new: &str) {
    let mut client = client.clone();
    assert_eq!(complete(&mut client, RESET).await.outcome(), Outcome::Exact);
    assert_eq!(complete(&mut client, RESET_TOO).await.outcome(), Outcome::Semantic);
    assert_eq!(complete(&mut client, new).await.outcome(), Outcome::Upstream);
    assert_eq!(complete(&mut client, new).await.outcome(), Outcome::Exact);
    let streamed = Events::open(&mut client, ask(&format!("{new}, streamed"))).await.rest().await;
    assert_eq!((streamed.outcome(), streamed.text.as_str()), (Outcome::Upstream, "ok"));
}

async fn errors(server: &TestServer, op: &str) -> u64 {
    let (_, metrics) = server.get("/metrics").await;
    let name = format!("promptkeep_store_errors_total{{op=\"{op}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |value| value.parse().unwrap())
}

fn keep(text: &str) -> StoreRequest {
    let completion =
        Completion { content: "Kept.".to_owned(), finish_reason: "stop".to_owned(), ..Completion::default() };
    StoreRequest { prompt: Some(prompt(text)), completion: Some(completion), cache: None }
}

/// What a fresh replica finds: only what Redis holds.
async fn is_in_redis(upstream: &FakeUpstream, redis: &RedisServer, text: &str) {
    let (_server, client) = started(upstream, redis.store()).await;
    becomes(&client, text, Outcome::Exact).await;
}

#[tokio::test]
async fn killed_and_restarted_empty() {
    let (upstream, mut redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let (server, mut client) = started(&upstream, redis.store()).await;
    complete(&mut client, RESET).await;
    redis.kill();
    goes_on(&client, "While it was down?").await;
    let failed = client.store(keep("Durably?")).await.unwrap_err();
    assert_eq!(failed.code(), Code::Unavailable);
    redis.restart().await;
    // What waited arrives, also the one whose caller was told that it may not.
    until(async || redis.keys("*:e:*").await.len() >= 3).await;
    client.store(keep("Back?")).await.unwrap();
    goes_on(&client, "After it came back?").await;
    assert_eq!(server.get("/readyz").await.0, 200);
    for text in ["While it was down?", "Durably?", "Back?", "After it came back?"] {
        is_in_redis(&upstream, &redis, text).await;
    }
}

#[tokio::test]
async fn hanging() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let (_server, mut client) = started(&upstream, redis.store()).await;
    complete(&mut client, RESET).await;
    redis.signal("STOP");
    for n in 0..10 {
        goes_on(&client, &format!("{n} while it hung?")).await;
    }
    redis.signal("CONT");
    is_in_redis(&upstream, &redis, "9 while it hung?").await;
}

#[tokio::test]
async fn a_network_that_swallows_everything() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let proxy = Proxy::before(redis.port).await;
    let (_server, mut client) = started(&upstream, through(&proxy, &redis)).await;
    complete(&mut client, RESET).await;
    proxy.set(Network::Stalled);
    goes_on(&client, "While it was stalled?").await;
    proxy.set(Network::Whole);
    is_in_redis(&upstream, &redis, "While it was stalled?").await;
}

#[tokio::test]
async fn slow() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let (_server, mut client) = started(&upstream, redis.store()).await;
    complete(&mut client, RESET).await;
    redis.command::<()>("CLIENT PAUSE 2000 ALL").await;
    goes_on(&client, "While it dawdled?").await;
    is_in_redis(&upstream, &redis, "While it dawdled?").await;
}

/// Makes Redis refuse writes with one command, and take them again with another.
async fn refusing(refuse: &str, relent: &str) {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let (_server, mut client) = started(&upstream, redis.store()).await;
    complete(&mut client, RESET).await;
    until(async || redis.keys("*:e:*").await.len() == 1).await;
    redis.command::<()>(refuse).await;
    goes_on(&client, "While it refused?").await;
    client.store(keep("Durably?")).await.unwrap_err();
    let failed = client.invalidate(everything()).await.unwrap_err();
    assert_eq!(failed.code(), Code::Unavailable);
    assert!(is_hit(&client, RESET, Outcome::Miss).await, "not served all the same");
    redis.command::<()>(relent).await;
    // The invalidation is done late, and what was asked after it stays.
    complete(&mut client, "After?").await;
    is_in_redis(&upstream, &redis, "After?").await;
    let (_server, fresh) = started(&upstream, redis.store()).await;
    for text in [RESET, "While it refused?", "Durably?"] {
        becomes(&fresh, text, Outcome::Miss).await;
    }
}

#[tokio::test]
async fn out_of_memory() {
    refusing("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0").await;
}

#[tokio::test]
async fn read_only() {
    refusing("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE").await;
}

#[tokio::test]
async fn a_wrong_password() {
    let upstream = FakeUpstream::start().await;
    let redis = RedisServer::start().await;
    let (_server, mut before) = started(&upstream, redis.store()).await;
    complete(&mut before, RESET).await;
    redis.command::<()>("CONFIG SET requirepass secret").await;
    let mut config = exact_config(&[&upstream]);
    config.store = redis.store();
    let server = TestServer::start(config).await;
    let mut client = server.client().await;
    assert_eq!(complete(&mut client, "A?").await.outcome(), Outcome::Upstream);
    assert_eq!(complete(&mut client, "A?").await.outcome(), Outcome::Exact);
    client.store(keep("Durably?")).await.unwrap_err();
    assert_eq!(server.get("/readyz").await.0, 503, "the index is not loaded");
    goes_on(&before, "Connected before?").await;
    redis.unlock("secret").await;
    until(async || server.get("/readyz").await.0 == 200).await;
    is_in_redis(&upstream, &redis, "A?").await;
}

#[tokio::test]
async fn other_types_at_its_keys() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let (server, mut client) = started(&upstream, redis.store()).await;
    complete(&mut client, RESET).await;
    until(async || redis.keys("*:e:*").await.len() == 1).await;
    for key in redis.keys("promptkeep:*").await {
        redis.command::<()>(&format!("DEL {key}")).await;
        redis.command::<()>(&format!("LPUSH {key} odd")).await;
    }
    goes_on(&client, "Odd?").await;
    assert_eq!(server.get("/readyz").await.0, 200);
    // Nor does one fail that finds it so.
    let mut config = exact_config(&[&upstream]);
    config.store = redis.store();
    let fresh = TestServer::start(config).await;
    assert_eq!(complete(&mut fresh.client().await, "Odd too?").await.outcome(), Outcome::Upstream);
    client.invalidate(everything()).await.unwrap_err();
}

#[tokio::test]
async fn a_directory_of_another_type_hides_only_its_partition() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let (_server, mut client) = started(&upstream, redis.store()).await;
    for n in 0..10 {
        complete(&mut client, &format!("{n}?")).await;
    }
    until(async || redis.keys("*:e:*").await.len() == 10).await;
    let directory = redis.keys("*:d").await.remove(0);
    redis.command::<()>(&format!("SET {directory} odd")).await;
    let (_fresh, fresh) = started(&upstream, redis.store()).await;
    for n in 0..10 {
        becomes(&fresh, &format!("{n}?"), Outcome::Exact).await;
    }
}

/// A replica of Redis takes over in the middle of writes.
#[tokio::test]
async fn failover() {
    let (upstream, mut first) = (FakeUpstream::start().await, RedisServer::start().await);
    let second = RedisServer::start().await;
    second.command::<()>(&format!("REPLICAOF 127.0.0.1 {}", first.port)).await;
    until(async || second.command::<String>("INFO replication").await.contains("master_link_status:up"))
        .await;
    let proxy = Proxy::before(first.port).await;
    let (_server, mut client) = started(&upstream, through(&proxy, &first)).await;
    complete(&mut client, RESET).await;
    for n in 0..30 {
        if n == 10 {
            first.kill();
            proxy.lead_to(second.port);
        }
        if n == 20 {
            second.command::<()>("REPLICAOF NO ONE").await;
        }
        goes_on(&client, &format!("{n} at the failover?")).await;
    }
    is_in_redis(&upstream, &second, "29 at the failover?").await;
    client.invalidate(everything()).await.unwrap();
    let (_fresh, fresh) = started(&upstream, second.store()).await;
    for text in [RESET, "0 at the failover?", "29 at the failover?"] {
        assert!(is_hit(&fresh, text, Outcome::Miss).await);
    }
}

#[tokio::test]
async fn more_writes_than_may_wait_are_dropped_and_counted() {
    let (upstream, mut redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let store = StoreConfig { write_queue: 5, lease: Duration::ZERO, ..redis.store() };
    let mut config = exact_config(&[&upstream]);
    config.store = store;
    let (server, mut client) = replica(config).await;
    redis.kill();
    for n in 0..20 {
        complete(&mut client, &format!("{n}?")).await;
    }
    // Up to the bound wait in the queue, and as many may be in the writer's hands.
    let dropped = errors(&server, "put").await;
    assert!((10..=15).contains(&dropped), "{dropped}");
    redis.restart().await;
    until(async || redis.keys("*:e:*").await.len() as u64 == 20 - dropped).await;
}

#[tokio::test]
async fn a_redis_that_was_never_there() {
    let upstream = FakeUpstream::start().await;
    let mut redis = RedisServer::start().await;
    redis.kill();
    let mut config = exact_config(&[&upstream]);
    config.store = redis.store();
    let server = TestServer::start(config).await;
    let mut client = server.client().await;
    assert_eq!(complete(&mut client, "A?").await.outcome(), Outcome::Upstream);
    assert_eq!(complete(&mut client, "A?").await.outcome(), Outcome::Exact);
    redis.restart().await;
    until(async || server.get("/readyz").await.0 == 200).await;
    until(async || redis.keys("*:e:*").await.len() == 1).await;
}

/// An invalidation during an outage is not durable, and says so. It still must hold once Redis is back.
#[tokio::test]
async fn what_was_invalidated_during_an_outage_is_gone_after_it() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let proxy = Proxy::before(redis.port).await;
    let (_a, mut a) = started(&upstream, through(&proxy, &redis)).await;
    let (_b, b) = started(&upstream, redis.store()).await;
    complete(&mut a, RESET).await;
    becomes(&b, RESET_TOO, Outcome::Semantic).await;
    proxy.set(Network::Cut);
    let failed = a.invalidate(everything()).await.unwrap_err();
    assert_eq!(failed.code(), Code::Unavailable);
    assert!(is_hit(&a, RESET, Outcome::Miss).await);
    proxy.set(Network::Whole);
    becomes(&b, RESET, Outcome::Miss).await;
    assert!(is_hit(&a, RESET, Outcome::Miss).await);
}

/// Redis loses an invalidation that only one replica has heard of: that one repeats it.
#[tokio::test]
async fn a_redis_that_lost_its_data_is_told_of_invalidations_again() {
    let (upstream, mut redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let proxy = Proxy::before(redis.port).await;
    let (_a, mut a) = started(&upstream, redis.store()).await;
    let (_b, b) = started(&upstream, through(&proxy, &redis)).await;
    complete(&mut a, RESET).await;
    becomes(&b, RESET, Outcome::Exact).await;
    proxy.set(Network::Cut);
    a.invalidate(everything()).await.unwrap();
    redis.restart().await;
    assert!(is_hit(&b, RESET, Outcome::Exact).await, "it cannot know");
    proxy.set(Network::Whole);
    becomes(&b, RESET, Outcome::Miss).await;
}

//! Redis is down, hanging, full, read-only, locked or holds foreign types: no request fails, entries in memory are
//! served, and writes of the outage arrive after it.

use std::time::Duration;

use tonic::Code;

use super::*;

/// Checks that cached prompts, a paraphrase and the new prompt are answered.
async fn assert_serves(client: &Client, new: &str) {
    let mut client = client.clone();
    assert_eq!(complete(&mut client, RESET).await.outcome(), Outcome::Exact);
    assert_eq!(complete(&mut client, PARAPHRASE).await.outcome(), Outcome::Semantic);
    assert_eq!(complete(&mut client, new).await.outcome(), Outcome::Upstream);
    assert_eq!(complete(&mut client, new).await.outcome(), Outcome::Exact);
    let streamed = Events::open(&mut client, ask(&format!("{new}, streamed"))).await.rest().await;
    assert_eq!((streamed.outcome(), streamed.text.as_str()), (Outcome::Upstream, "ok"));
}

/// Waits until Redis has the entry: a new replica has nothing else.
async fn wait_for_redis(upstream: &FakeUpstream, redis: &RedisServer, text: &str) {
    let (_server, client) = semantic_replica(upstream, redis.store()).await;
    wait_for(&client, text, Outcome::Exact).await;
}

#[tokio::test]
async fn serves_while_redis_is_down_and_writes_when_it_is_back() {
    let (upstream, mut redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let (server, mut client) = semantic_replica(&upstream, redis.store()).await;
    complete(&mut client, RESET).await;
    redis.kill();
    assert_serves(&client, "While it was down?").await;
    let failed = client.store(store_request("Durably?")).await.unwrap_err();
    assert_eq!(failed.code(), Code::Unavailable);
    redis.restart().await;
    // The queued writes arrive, even the one whose caller got an error.
    until(async || redis.keys("*:e:*").await.len() >= 3).await;
    client.store(store_request("Back?")).await.unwrap();
    assert_serves(&client, "After it came back?").await;
    assert_eq!(server.get("/readyz").await.0, 200);
    for text in ["While it was down?", "Durably?", "Back?", "After it came back?"] {
        wait_for_redis(&upstream, &redis, text).await;
    }
}

#[tokio::test]
async fn serves_while_redis_hangs() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let (_server, mut client) = semantic_replica(&upstream, redis.store()).await;
    complete(&mut client, RESET).await;
    redis.signal("STOP");
    for n in 0..10 {
        assert_serves(&client, &format!("{n} while it hung?")).await;
    }
    redis.signal("CONT");
    wait_for_redis(&upstream, &redis, "9 while it hung?").await;
}

#[tokio::test]
async fn serves_while_the_network_drops_everything() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let proxy = Proxy::in_front_of(redis.port).await;
    let (_server, mut client) = semantic_replica(&upstream, store_through(&proxy, &redis)).await;
    complete(&mut client, RESET).await;
    proxy.set(Network::Stalled);
    assert_serves(&client, "While it was stalled?").await;
    proxy.set(Network::Up);
    wait_for_redis(&upstream, &redis, "While it was stalled?").await;
}

#[tokio::test]
async fn serves_while_redis_is_slow() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let (_server, mut client) = semantic_replica(&upstream, redis.store()).await;
    complete(&mut client, RESET).await;
    redis.command::<()>("CLIENT PAUSE 2000 ALL").await;
    assert_serves(&client, "While it was slow?").await;
    wait_for_redis(&upstream, &redis, "While it was slow?").await;
}

/// Checks a Redis that refuses writes after the first command and accepts them after the second.
async fn assert_survives_refused_writes(refuse: &str, accept: &str) {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let (_server, mut client) = semantic_replica(&upstream, redis.store()).await;
    complete(&mut client, RESET).await;
    until(async || redis.keys("*:e:*").await.len() == 1).await;
    redis.command::<()>(refuse).await;
    assert_serves(&client, "While it refused?").await;
    client.store(store_request("Durably?")).await.unwrap_err();
    let failed = client.invalidate(whole_namespace("default")).await.unwrap_err();
    assert_eq!(failed.code(), Code::Unavailable);
    assert!(lookup_is(&client, RESET, Outcome::Miss).await, "not served despite the error");
    redis.command::<()>(accept).await;
    // The invalidation runs late, and newer entries stay.
    complete(&mut client, "After?").await;
    wait_for_redis(&upstream, &redis, "After?").await;
    let (_server, fresh) = semantic_replica(&upstream, redis.store()).await;
    for text in [RESET, "While it refused?", "Durably?"] {
        wait_for(&fresh, text, Outcome::Miss).await;
    }
}

#[tokio::test]
async fn serves_while_redis_is_out_of_memory() {
    assert_survives_refused_writes("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0").await;
}

#[tokio::test]
async fn serves_while_redis_is_read_only() {
    assert_survives_refused_writes("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE").await;
}

#[tokio::test]
async fn serves_while_redis_refuses_the_password() {
    let upstream = FakeUpstream::start().await;
    let redis = RedisServer::start().await;
    let (_server, mut before) = semantic_replica(&upstream, redis.store()).await;
    complete(&mut before, RESET).await;
    redis.command::<()>("CONFIG SET requirepass secret").await;
    let mut config = exact_config(&[&upstream]);
    config.store = redis.store();
    let server = TestServer::start(config).await;
    let mut client = server.client().await;
    assert_eq!(complete(&mut client, "A?").await.outcome(), Outcome::Upstream);
    assert_eq!(complete(&mut client, "A?").await.outcome(), Outcome::Exact);
    client.store(store_request("Durably?")).await.unwrap_err();
    assert_eq!(server.get("/readyz").await.0, 503, "the index is not loaded");
    assert_serves(&before, "Connected before?").await;
    redis.unlock("secret").await;
    until(async || server.get("/readyz").await.0 == 200).await;
    wait_for_redis(&upstream, &redis, "A?").await;
}

#[tokio::test]
async fn serves_while_its_keys_have_other_types() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let (server, mut client) = semantic_replica(&upstream, redis.store()).await;
    complete(&mut client, RESET).await;
    until(async || redis.keys("*:e:*").await.len() == 1).await;
    for key in redis.keys("promptkeep:*").await {
        redis.command::<()>(&format!("DEL {key}")).await;
        redis.command::<()>(&format!("LPUSH {key} odd")).await;
    }
    assert_serves(&client, "Odd?").await;
    assert_eq!(server.get("/readyz").await.0, 200);
    // A replica that starts in this state works too.
    let mut config = exact_config(&[&upstream]);
    config.store = redis.store();
    let fresh = TestServer::start(config).await;
    assert_eq!(complete(&mut fresh.client().await, "Odd too?").await.outcome(), Outcome::Upstream);
    client.invalidate(whole_namespace("default")).await.unwrap_err();
}

#[tokio::test]
async fn a_partition_directory_of_another_type_hides_no_entry_of_other_partitions() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let (_server, mut client) = semantic_replica(&upstream, redis.store()).await;
    for n in 0..10 {
        complete(&mut client, &format!("{n}?")).await;
    }
    until(async || redis.keys("*:e:*").await.len() == 10).await;
    let directory = redis.keys("*:d").await.remove(0);
    redis.command::<()>(&format!("SET {directory} odd")).await;
    let (_fresh, fresh) = semantic_replica(&upstream, redis.store()).await;
    for n in 0..10 {
        wait_for(&fresh, &format!("{n}?"), Outcome::Exact).await;
    }
}

#[tokio::test]
async fn serves_while_a_redis_replica_takes_over() {
    let (upstream, mut first) = (FakeUpstream::start().await, RedisServer::start().await);
    let second = RedisServer::start().await;
    second.command::<()>(&format!("REPLICAOF 127.0.0.1 {}", first.port)).await;
    until(async || second.command::<String>("INFO replication").await.contains("master_link_status:up"))
        .await;
    let proxy = Proxy::in_front_of(first.port).await;
    let (_server, mut client) = semantic_replica(&upstream, store_through(&proxy, &first)).await;
    complete(&mut client, RESET).await;
    for n in 0..30 {
        if n == 10 {
            first.kill();
            proxy.redirect_to(second.port);
        }
        if n == 20 {
            second.command::<()>("REPLICAOF NO ONE").await;
        }
        assert_serves(&client, &format!("{n} at the failover?")).await;
    }
    wait_for_redis(&upstream, &second, "29 at the failover?").await;
    client.invalidate(whole_namespace("default")).await.unwrap();
    let (_fresh, fresh) = semantic_replica(&upstream, second.store()).await;
    for text in [RESET, "0 at the failover?", "29 at the failover?"] {
        assert!(lookup_is(&fresh, text, Outcome::Miss).await);
    }
}

#[tokio::test]
async fn writes_beyond_the_queue_are_dropped_and_counted() {
    let (upstream, mut redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let store = StoreConfig { write_queue: 5, lease: Duration::ZERO, ..redis.store() };
    let mut config = exact_config(&[&upstream]);
    config.store = store;
    let (server, mut client) = replica(config).await;
    redis.kill();
    for n in 0..20 {
        complete(&mut client, &format!("{n}?")).await;
    }
    // The queue holds five writes, and the writer may hold five more.
    let dropped = metric::<u64>(&server, "promptkeep_store_errors_total{op=\"put\"}").await.unwrap_or(0);
    assert!((10..=15).contains(&dropped), "{dropped}");
    redis.restart().await;
    until(async || redis.keys("*:e:*").await.len() as u64 == 20 - dropped).await;
}

#[tokio::test]
async fn serves_when_redis_is_down_at_the_start() {
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

/// An invalidation during an outage fails because it is not durable, but it must hold once Redis is back.
#[tokio::test]
async fn an_invalidation_during_an_outage_holds_after_it() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let proxy = Proxy::in_front_of(redis.port).await;
    let (_a, mut a) = semantic_replica(&upstream, store_through(&proxy, &redis)).await;
    let (_b, b) = semantic_replica(&upstream, redis.store()).await;
    complete(&mut a, RESET).await;
    wait_for(&b, PARAPHRASE, Outcome::Semantic).await;
    proxy.set(Network::Cut);
    let failed = a.invalidate(whole_namespace("default")).await.unwrap_err();
    assert_eq!(failed.code(), Code::Unavailable);
    assert!(lookup_is(&a, RESET, Outcome::Miss).await);
    proxy.set(Network::Up);
    wait_for(&b, RESET, Outcome::Miss).await;
    assert!(lookup_is(&a, RESET, Outcome::Miss).await);
}

/// Redis loses an invalidation that only one replica has received: that replica publishes it again.
#[tokio::test]
async fn invalidations_are_published_again_to_a_redis_that_lost_its_data() {
    let (upstream, mut redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let proxy = Proxy::in_front_of(redis.port).await;
    let (_a, mut a) = semantic_replica(&upstream, redis.store()).await;
    let (_b, b) = semantic_replica(&upstream, store_through(&proxy, &redis)).await;
    complete(&mut a, RESET).await;
    wait_for(&b, RESET, Outcome::Exact).await;
    proxy.set(Network::Cut);
    a.invalidate(whole_namespace("default")).await.unwrap();
    redis.restart().await;
    assert!(lookup_is(&b, RESET, Outcome::Exact).await, "it has not received the invalidation");
    proxy.set(Network::Up);
    wait_for(&b, RESET, Outcome::Miss).await;
}

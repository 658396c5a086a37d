//! Identical prompts on two replicas at once buy one answer.

use std::time::Duration;

use tokio::task::JoinHandle;

use super::*;
use crate::common::test_server::text;

/// Two replicas, each with its client.
async fn two(upstream: &FakeUpstream, store: StoreConfig) -> [(TestServer, Client); 2] {
    let config = on(store, exact_config(&[upstream]));
    [replica(config.clone()).await, replica(config).await]
}

fn asking(client: &Client, of: &str) -> JoinHandle<(Outcome, String)> {
    let (mut client, of) = (client.clone(), of.to_owned());
    tokio::spawn(async move {
        let reply = complete(&mut client, &of).await;
        (reply.outcome(), text(reply))
    })
}

/// How often a replica asked for the lease.
async fn claims(server: &TestServer) -> u64 {
    let (_, metrics) = server.get("/metrics").await;
    let count =
        metrics.lines().find_map(|line| line.strip_prefix("promptkeep_store_seconds_count{op=\"claim\"} "));
    count.map_or(0, |count| count.parse().unwrap())
}

/// Until the replica has seen that another buys, and waits for it.
async fn waits(server: &TestServer) {
    until(async || claims(server).await > 1).await;
}

#[tokio::test]
async fn the_other_waits_and_takes_the_answer() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let gate = Gate::new();
    upstream.always(Reply::text("bought once").hold_before(1, &gate));
    let [(_a, a), (server_b, b)] = two(&upstream, redis.store()).await;
    let first = asking(&a, "A?");
    upstream.wait_for_calls(1).await;
    let second = asking(&b, "A?");
    waits(&server_b).await;
    gate.open();
    assert_eq!(first.await.unwrap(), (Outcome::Upstream, "bought once".to_owned()));
    assert_eq!(second.await.unwrap(), (Outcome::Exact, "bought once".to_owned()));
    assert_eq!(upstream.calls(), 1);
    until(async || redis.keys("*:l:*").await.is_empty()).await;
}

#[tokio::test]
async fn the_other_buys_when_the_first_fails() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let gate = Gate::new();
    upstream.script([Reply::status(500).hold(&gate), Reply::text("second")]);
    let [(_a, mut a), (server_b, b)] = two(&upstream, redis.store()).await;
    let first = tokio::spawn(async move { a.complete(ask("A?")).await });
    upstream.wait_for_calls(1).await;
    let second = asking(&b, "A?");
    waits(&server_b).await;
    gate.open();
    first.await.unwrap().unwrap_err();
    assert_eq!(second.await.unwrap(), (Outcome::Upstream, "second".to_owned()));
}

#[tokio::test]
async fn the_other_buys_when_the_first_dies() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let gate = Gate::new();
    upstream.script([Reply::text("late").hold_before(1, &gate), Reply::text("second")]);
    let [(_a, a), (server_b, b)] = two(&upstream, redis.store()).await;
    let first = asking(&a, "A?");
    upstream.wait_for_calls(1).await;
    let second = asking(&b, "A?");
    waits(&server_b).await;
    // As if it had shown its last sign of life a while ago.
    let place = redis.keys("*:l:*").await.remove(0);
    redis.command::<()>(&format!("SET {place} of-the-dead PX 50")).await;
    assert_eq!(second.await.unwrap(), (Outcome::Upstream, "second".to_owned()));
    gate.open();
    assert_eq!(first.await.unwrap(), (Outcome::Upstream, "late".to_owned()));
}

#[tokio::test]
async fn a_long_answer_stays_reserved() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let gate = Gate::new();
    upstream.always(Reply::text("long").hold_before(1, &gate));
    let short = StoreConfig { lease: Duration::from_secs(1), ..redis.store() };
    let [(_a, a), (server_b, b)] = two(&upstream, short).await;
    let first = asking(&a, "A?");
    upstream.wait_for_calls(1).await;
    let second = asking(&b, "A?");
    // Longer than the lease: B asks every 100 ms at most.
    until(async || claims(&server_b).await > 20).await;
    gate.open();
    assert_eq!(first.await.unwrap().0, Outcome::Upstream);
    assert_eq!(second.await.unwrap().0, Outcome::Exact);
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn without_redis_or_without_a_lease_each_buys_for_itself() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let gate = Gate::new();
    upstream.always(Reply::text("bought").hold_before(1, &gate));
    let none = StoreConfig { lease: Duration::ZERO, ..redis.store() };
    let proxy = Proxy::before(redis.port).await;
    let [(_a, a), (_b, b)] = two(&upstream, none).await;
    let [(_c, c), (_d, d)] = two(&upstream, through(&proxy, &redis)).await;
    proxy.set(Network::Cut);
    let asked: Vec<_> = [&a, &b, &c, &d].into_iter().map(|client| asking(client, "A?")).collect();
    upstream.wait_for_calls(4).await;
    gate.open();
    for asked in asked {
        assert_eq!(asked.await.unwrap(), (Outcome::Upstream, "bought".to_owned()));
    }
}

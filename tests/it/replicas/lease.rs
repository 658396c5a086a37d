//! Identical prompts on two replicas at once cause one upstream call.

use std::time::Duration;

use tokio::task::JoinHandle;

use super::*;
use crate::common::test_server::text;

async fn two_replicas(upstream: &FakeUpstream, store: StoreConfig) -> [(TestServer, Client); 2] {
    let config = with_store(store, exact_config(&[upstream]));
    [replica(config.clone()).await, replica(config).await]
}

fn spawn_complete(client: &Client, prompt: &str) -> JoinHandle<(Outcome, String)> {
    let (mut client, prompt) = (client.clone(), prompt.to_owned());
    tokio::spawn(async move {
        let reply = complete(&mut client, &prompt).await;
        (reply.outcome(), text(reply))
    })
}

/// Number of times that a replica has tried to claim a lease.
async fn claims(server: &TestServer) -> u64 {
    metric(server, "promptkeep_store_seconds_count{op=\"claim\"}").await.unwrap_or(0)
}

/// Waits until the replica has found the lease taken and waits for the answer.
async fn wait_for_follower(server: &TestServer) {
    until(async || claims(server).await > 1).await;
}

#[tokio::test]
async fn the_second_replica_waits_and_serves_the_answer_of_the_first() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let gate = Gate::new();
    upstream.always(Reply::text("answered once").hold_before(1, &gate));
    let [(_a, a), (server_b, b)] = two_replicas(&upstream, redis.store()).await;
    let first = spawn_complete(&a, "A?");
    upstream.wait_for_calls(1).await;
    let second = spawn_complete(&b, "A?");
    wait_for_follower(&server_b).await;
    gate.open();
    assert_eq!(first.await.unwrap(), (Outcome::Upstream, "answered once".to_owned()));
    assert_eq!(second.await.unwrap(), (Outcome::Exact, "answered once".to_owned()));
    assert_eq!(upstream.calls(), 1);
    until(async || redis.keys("*:l:*").await.is_empty()).await;
}

#[tokio::test]
async fn the_second_replica_calls_the_model_when_the_first_fails() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let gate = Gate::new();
    upstream.script([Reply::status(500).hold(&gate), Reply::text("second")]);
    let [(_a, mut a), (server_b, b)] = two_replicas(&upstream, redis.store()).await;
    let first = tokio::spawn(async move { a.complete(ask("A?")).await });
    upstream.wait_for_calls(1).await;
    let second = spawn_complete(&b, "A?");
    wait_for_follower(&server_b).await;
    gate.open();
    first.await.unwrap().unwrap_err();
    assert_eq!(second.await.unwrap(), (Outcome::Upstream, "second".to_owned()));
}

#[tokio::test]
async fn the_second_replica_calls_the_model_when_the_first_dies() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let gate = Gate::new();
    upstream.script([Reply::text("late").hold_before(1, &gate), Reply::text("second")]);
    let [(_a, a), (server_b, b)] = two_replicas(&upstream, redis.store()).await;
    let first = spawn_complete(&a, "A?");
    upstream.wait_for_calls(1).await;
    let second = spawn_complete(&b, "A?");
    wait_for_follower(&server_b).await;
    // As if the first replica had renewed its lease for the last time a while ago.
    let lease = redis.keys("*:l:*").await.remove(0);
    redis.command::<()>(&format!("SET {lease} of-the-dead PX 50")).await;
    assert_eq!(second.await.unwrap(), (Outcome::Upstream, "second".to_owned()));
    gate.open();
    assert_eq!(first.await.unwrap(), (Outcome::Upstream, "late".to_owned()));
}

#[tokio::test]
async fn the_lease_is_renewed_during_a_long_answer() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let gate = Gate::new();
    upstream.always(Reply::text("long").hold_before(1, &gate));
    let short = StoreConfig { lease: Duration::from_secs(1), ..redis.store() };
    let [(_a, a), (server_b, b)] = two_replicas(&upstream, short).await;
    let first = spawn_complete(&a, "A?");
    upstream.wait_for_calls(1).await;
    let second = spawn_complete(&b, "A?");
    // Longer than the lease, since B claims at most every 100 ms.
    until(async || claims(&server_b).await > 20).await;
    gate.open();
    assert_eq!(first.await.unwrap().0, Outcome::Upstream);
    assert_eq!(second.await.unwrap().0, Outcome::Exact);
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn without_redis_or_a_lease_each_replica_calls_the_model() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let gate = Gate::new();
    upstream.always(Reply::text("answer").hold_before(1, &gate));
    let none = StoreConfig { lease: Duration::ZERO, ..redis.store() };
    let proxy = Proxy::in_front_of(redis.port).await;
    let [(_a, a), (_b, b)] = two_replicas(&upstream, none).await;
    let [(_c, c), (_d, d)] = two_replicas(&upstream, store_through(&proxy, &redis)).await;
    proxy.set(Network::Cut);
    let calls: Vec<_> = [&a, &b, &c, &d].into_iter().map(|client| spawn_complete(client, "A?")).collect();
    upstream.wait_for_calls(4).await;
    gate.open();
    for call in calls {
        assert_eq!(call.await.unwrap(), (Outcome::Upstream, "answer".to_owned()));
    }
}

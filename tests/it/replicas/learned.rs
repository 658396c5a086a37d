//! Replicas share what they learn.

use promptkeep::grpc::proto::{CompleteResponse, FeedbackRequest, Verdict};

use super::{regions::Region, *};
use crate::common::test_server::look;

/// Differs from `RESET` in case and punctuation only, so a namespace serves it before it has learned anything.
const RESPELLED: &str = "how do i reset my password";

async fn learning_replica(upstream: &FakeUpstream, store: StoreConfig) -> (TestServer, Client) {
    replica(learning(with_store(store, semantic_config(&[upstream])))).await
}

async fn report_wrong_hit(client: &mut Client, served: &CompleteResponse) {
    let request_id = served.request_id.clone();
    let verdict = Verdict::WrongHit.into();
    let request = FeedbackRequest { request_id, verdict, ..FeedbackRequest::default() };
    assert!(client.feedback(request).await.unwrap().into_inner().recorded);
}

/// Sends prompts that have a candidate but are answered by the model: each gives the namespace a label.
async fn add_labels(client: &mut Client, who: &str, labels: usize) {
    for n in 0..labels {
        let reply = complete(client, &format!("How do I reset the password of {who} number {n}?")).await;
        assert_eq!(reply.outcome(), Outcome::Upstream);
    }
}

/// Whether the replica's learner has this many labels.
async fn has_labels(client: &Client, labels: usize) -> bool {
    let explained = client.clone().explain(look(RESPELLED)).await.unwrap().into_inner();
    explained.threshold_reason.contains(&format!("warm-up, {labels} answers"))
}

#[tokio::test]
async fn a_wrong_hit_reported_to_one_replica_is_served_by_none_even_after_restarts() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let (server_a, mut a) = learning_replica(&upstream, redis.store()).await;
    let (server_b, b) = learning_replica(&upstream, redis.store()).await;
    complete(&mut a, RESET).await;
    let hit = complete(&mut a, RESPELLED).await;
    assert_eq!(hit.outcome(), Outcome::Semantic, "{}", hit.reason);
    wait_for(&b, RESPELLED, Outcome::Semantic).await;
    report_wrong_hit(&mut a, &hit).await;
    wait_for(&b, RESPELLED, Outcome::Miss).await;
    assert!(lookup_is(&a, RESPELLED, Outcome::Miss).await);
    assert!(lookup_is(&b, RESET, Outcome::Exact).await, "the prompt of the entry still hits");
    // The replica that writes its snapshot last received the rejected pair from the other.
    server_a.stop().await;
    server_b.stop().await;
    for _ in 0..2 {
        let (_server, client) = learning_replica(&upstream, redis.store()).await;
        assert!(lookup_is(&client, RESPELLED, Outcome::Miss).await);
        assert!(lookup_is(&client, RESET, Outcome::Exact).await);
    }
}

#[tokio::test]
async fn a_replica_opens_a_namespace_with_the_labels_of_another() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let (_a, mut a) = learning_replica(&upstream, redis.store()).await;
    let (server_b, b) = learning_replica(&upstream, redis.store()).await;
    complete(&mut a, RESET).await;
    wait_for(&b, RESET, Outcome::Exact).await;
    assert!(has_labels(&b, 0).await);
    add_labels(&mut a, "one", 160).await;
    // B has seen no answer itself, and has learned as much as A.
    until(async || has_labels(&b, 160).await).await;
    let (_, metrics) = server_b.get("/metrics").await;
    assert!(metrics.contains("promptkeep_labels_shared_total{way=\"heard\"}"), "{metrics}");
    assert!(!metrics.contains("way=\"told\""), "B publishes no label that it received");
}

#[tokio::test]
async fn labels_of_two_replicas_at_once_are_neither_lost_nor_counted_twice() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let (server_a, mut a) = learning_replica(&upstream, redis.store()).await;
    let (server_b, mut b) = learning_replica(&upstream, redis.store()).await;
    complete(&mut a, RESET).await;
    wait_for(&b, RESET, Outcome::Exact).await;
    assert!(has_labels(&a, 0).await && has_labels(&b, 0).await);
    tokio::join!(add_labels(&mut a, "one", 15), add_labels(&mut b, "two", 25));
    for client in [&a, &b] {
        until(async || has_labels(client, 40).await).await;
    }
    // These last labels are not published before the replicas stop.
    tokio::join!(add_labels(&mut a, "three", 3), add_labels(&mut b, "four", 4));
    tokio::join!(server_a.stop(), server_b.stop());
    let (_c, c) = learning_replica(&upstream, redis.store()).await;
    assert!(has_labels(&c, 47).await);
}

/// Both replicas learn while they cannot reach each other; afterwards their snapshots are merged.
#[tokio::test]
async fn labels_learned_during_a_partition_are_merged() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let proxy = Proxy::in_front_of(redis.port).await;
    let (server_a, mut a) = learning_replica(&upstream, redis.store()).await;
    let (server_b, mut b) = learning_replica(&upstream, store_through(&proxy, &redis)).await;
    complete(&mut a, RESET).await;
    wait_for(&b, RESET, Outcome::Exact).await;
    let hit = complete(&mut b, RESPELLED).await;
    assert!(has_labels(&a, 0).await && has_labels(&b, 0).await);
    proxy.set(Network::Cut);
    tokio::join!(add_labels(&mut a, "one", 15), add_labels(&mut b, "two", 25));
    report_wrong_hit(&mut b, &hit).await;
    assert!(lookup_is(&a, RESPELLED, Outcome::Semantic).await);
    proxy.set(Network::Up);
    wait_for(&a, RESPELLED, Outcome::Miss).await;
    for client in [&a, &b] {
        until(async || has_labels(client, 40).await).await;
    }
    server_a.stop().await;
    server_b.stop().await;
    let (_c, c) = learning_replica(&upstream, redis.store()).await;
    assert!(has_labels(&c, 40).await);
    assert!(lookup_is(&c, RESPELLED, Outcome::Miss).await);
}

/// The replica is cut off until the stream no longer has the events.
#[tokio::test]
async fn missed_learner_events_are_read_from_the_snapshot() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let proxy = Proxy::in_front_of(redis.port).await;
    let (server_a, mut a) = learning_replica(&upstream, redis.store()).await;
    let (_b, b) = learning_replica(&upstream, store_through(&proxy, &redis)).await;
    complete(&mut a, RESET).await;
    wait_for(&b, RESPELLED, Outcome::Semantic).await;
    let hit = complete(&mut a, RESPELLED).await;
    proxy.set(Network::Cut);
    report_wrong_hit(&mut a, &hit).await;
    server_a.stop().await;
    redis.command::<u64>("XTRIM promptkeep:lessons MAXLEN 0").await;
    proxy.set(Network::Up);
    wait_for(&b, RESPELLED, Outcome::Miss).await;
}

#[tokio::test]
async fn labels_and_feedback_reach_other_regions() {
    let upstream = FakeUpstream::start().await;
    let (eu, us) = (Region::new("eu").await, Region::new("us").await);
    let (_eu, mut in_eu) = eu.learning_replica(&upstream, &[&us]).await;
    let (_us, in_us) = us.learning_replica(&upstream, &[&eu]).await;
    complete(&mut in_eu, RESET).await;
    wait_for(&in_us, RESPELLED, Outcome::Semantic).await;
    let hit = complete(&mut in_eu, RESPELLED).await;
    add_labels(&mut in_eu, "one", 5).await;
    until(async || has_labels(&in_us, 5).await).await;
    report_wrong_hit(&mut in_eu, &hit).await;
    wait_for(&in_us, RESPELLED, Outcome::Miss).await;
    // A replica that starts later does not serve it either.
    until(async || {
        let (_again, again) = us.learning_replica(&upstream, &[]).await;
        lookup_is(&again, RESPELLED, Outcome::Miss).await
    })
    .await;
}

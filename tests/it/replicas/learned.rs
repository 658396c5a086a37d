//! What one replica learned is known to the others.

use promptkeep::{
    config::Mode,
    grpc::proto::{CompleteResponse, FeedbackRequest, Verdict},
};

use super::{regions::Region, *};
use crate::common::test_server::look;

/// The same but for the surface: what a namespace serves before it has learned anything.
const SURFACE: &str = "how do i reset my password";

fn bounded(store: StoreConfig, upstream: &FakeUpstream) -> Config {
    let mut config = on(store, semantic_config(&[upstream]));
    config.cache.mode = Mode::Bounded;
    // Every label counts, however busy the machine is.
    config.cache.learning.max_comparisons = 1000;
    // No check whose answer would be kept under the prompt's own key.
    config.cache.audit_rate = 0.0;
    config
}

async fn wrong(client: &mut Client, served: &CompleteResponse) {
    let request_id = served.request_id.clone();
    let verdict = Verdict::WrongHit.into();
    let request = FeedbackRequest { request_id, verdict, ..FeedbackRequest::default() };
    assert!(client.feedback(request).await.unwrap().into_inner().recorded);
}

/// Asks what has a near entry and is bought all the same: each is a label of the namespace.
async fn learn(client: &mut Client, who: &str, labels: usize) {
    for n in 0..labels {
        let bought = complete(client, &format!("How do I reset the password of {who} number {n}?")).await;
        assert_eq!(bought.outcome(), Outcome::Upstream);
    }
}

/// Whether the replica counts so many compared answers.
async fn knows(client: &Client, labels: usize) -> bool {
    let explained = client.clone().explain(look(SURFACE)).await.unwrap().into_inner();
    explained.threshold_reason.contains(&format!("young, {labels} of"))
}

#[tokio::test]
async fn a_wrong_hit_on_one_is_not_served_by_another_nor_after_restarts() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let (server_a, mut a) = replica(bounded(redis.store(), &upstream)).await;
    let (server_b, b) = replica(bounded(redis.store(), &upstream)).await;
    complete(&mut a, RESET).await;
    let hit = complete(&mut a, SURFACE).await;
    assert_eq!(hit.outcome(), Outcome::Semantic, "{}", hit.reason);
    becomes(&b, SURFACE, Outcome::Semantic).await;
    wrong(&mut a, &hit).await;
    becomes(&b, SURFACE, Outcome::Miss).await;
    assert!(is_hit(&a, SURFACE, Outcome::Miss).await);
    assert!(is_hit(&b, RESET, Outcome::Exact).await, "its own question keeps it");
    // The last to write its note knows of the pair only from the other.
    server_a.stop().await;
    server_b.stop().await;
    for _ in 0..2 {
        let (_server, client) = replica(bounded(redis.store(), &upstream)).await;
        assert!(is_hit(&client, SURFACE, Outcome::Miss).await);
        assert!(is_hit(&client, RESET, Outcome::Exact).await);
    }
}

#[tokio::test]
async fn one_opens_a_namespace_by_what_another_learned() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let (_a, mut a) = replica(bounded(redis.store(), &upstream)).await;
    let (server_b, b) = replica(bounded(redis.store(), &upstream)).await;
    complete(&mut a, RESET).await;
    becomes(&b, RESET, Outcome::Exact).await;
    assert!(knows(&b, 0).await);
    learn(&mut a, "one", 160).await;
    // It has seen no answer itself, and is as far as the other.
    until(async || {
        let explained = b.clone().explain(look(SURFACE)).await.unwrap().into_inner();
        explained.threshold_reason.contains("within")
    })
    .await;
    let (_, metrics) = server_b.get("/metrics").await;
    assert!(metrics.contains("promptkeep_labels_shared_total{way=\"heard\"}"), "{metrics}");
    assert!(!metrics.contains("way=\"told\""), "nothing is told twice");
}

#[tokio::test]
async fn both_learn_at_once_and_nothing_is_lost_or_doubled() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let (server_a, mut a) = replica(bounded(redis.store(), &upstream)).await;
    let (server_b, mut b) = replica(bounded(redis.store(), &upstream)).await;
    complete(&mut a, RESET).await;
    becomes(&b, RESET, Outcome::Exact).await;
    assert!(knows(&a, 0).await && knows(&b, 0).await);
    tokio::join!(learn(&mut a, "one", 20), learn(&mut b, "two", 30));
    for client in [&a, &b] {
        until(async || knows(client, 50).await).await;
    }
    // What is learned last, nobody has heard of.
    tokio::join!(learn(&mut a, "three", 7), learn(&mut b, "four", 8));
    tokio::join!(server_a.stop(), server_b.stop());
    let (_c, c) = replica(bounded(redis.store(), &upstream)).await;
    assert!(knows(&c, 65).await);
}

/// While they cannot tell each other, both learn; each note is then joined to the other.
#[tokio::test]
async fn what_was_learned_apart_is_joined() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let proxy = Proxy::before(redis.port).await;
    let (server_a, mut a) = replica(bounded(redis.store(), &upstream)).await;
    let (server_b, mut b) = replica(bounded(through(&proxy, &redis), &upstream)).await;
    complete(&mut a, RESET).await;
    becomes(&b, RESET, Outcome::Exact).await;
    let hit = complete(&mut b, SURFACE).await;
    assert!(knows(&a, 0).await && knows(&b, 0).await);
    proxy.set(Network::Cut);
    tokio::join!(learn(&mut a, "one", 20), learn(&mut b, "two", 30));
    wrong(&mut b, &hit).await;
    assert!(is_hit(&a, SURFACE, Outcome::Semantic).await);
    proxy.set(Network::Whole);
    becomes(&a, SURFACE, Outcome::Miss).await;
    for client in [&a, &b] {
        until(async || knows(client, 50).await).await;
    }
    server_a.stop().await;
    server_b.stop().await;
    let (_c, c) = replica(bounded(redis.store(), &upstream)).await;
    assert!(knows(&c, 50).await);
    assert!(is_hit(&c, SURFACE, Outcome::Miss).await);
}

/// Longer than the streams hold.
#[tokio::test]
async fn lessons_that_were_missed_are_read_from_the_note() {
    let (upstream, redis) = (FakeUpstream::start().await, RedisServer::start().await);
    let proxy = Proxy::before(redis.port).await;
    let (server_a, mut a) = replica(bounded(redis.store(), &upstream)).await;
    let (_b, b) = replica(bounded(through(&proxy, &redis), &upstream)).await;
    complete(&mut a, RESET).await;
    becomes(&b, SURFACE, Outcome::Semantic).await;
    let hit = complete(&mut a, SURFACE).await;
    proxy.set(Network::Cut);
    wrong(&mut a, &hit).await;
    server_a.stop().await;
    redis.command::<u64>("XTRIM promptkeep:lessons MAXLEN 0").await;
    proxy.set(Network::Whole);
    becomes(&b, SURFACE, Outcome::Miss).await;
}

#[tokio::test]
async fn labels_and_feedback_reach_other_regions() {
    let upstream = FakeUpstream::start().await;
    let (eu, us) = (Region::new("eu").await, Region::new("us").await);
    let (_eu, mut in_eu) = eu.bounded_replica(&upstream, &[&us]).await;
    let (_us, in_us) = us.bounded_replica(&upstream, &[&eu]).await;
    complete(&mut in_eu, RESET).await;
    becomes(&in_us, SURFACE, Outcome::Semantic).await;
    let hit = complete(&mut in_eu, SURFACE).await;
    learn(&mut in_eu, "one", 5).await;
    until(async || knows(&in_us, 5).await).await;
    wrong(&mut in_eu, &hit).await;
    becomes(&in_us, SURFACE, Outcome::Miss).await;
    // Also on one that starts a moment later.
    until(async || {
        let (_again, again) = us.bounded_replica(&upstream, &[]).await;
        is_hit(&again, SURFACE, Outcome::Miss).await
    })
    .await;
}

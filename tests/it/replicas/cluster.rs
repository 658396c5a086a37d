//! Replicas that share a Redis Cluster.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::common::redis_cluster::RedisCluster;

#[tokio::test]
async fn replicas_share_entries_and_invalidations() {
    let (upstream, cluster) = (FakeUpstream::start().await, RedisCluster::start().await);
    let (_a, mut a) = semantic_replica(&upstream, cluster.store()).await;
    let (_b, mut b) = semantic_replica(&upstream, cluster.store()).await;
    complete(&mut a, RESET).await;
    wait_for(&b, PARAPHRASE, Outcome::Semantic).await;
    for n in 0..30 {
        complete(&mut a, &format!("{n}?")).await;
    }
    for master in &cluster.masters {
        until(async || !master.keys("*:e:*").await.is_empty()).await;
    }
    assert_eq!(b.invalidate(whole_namespace("default")).await.unwrap().into_inner().entries, 31);
    wait_for(&a, RESET, Outcome::Miss).await;
    assert_eq!(cluster.keys("*:e:*").await, Vec::<String>::new());
    let (_c, c) = semantic_replica(&upstream, cluster.store()).await;
    assert!(lookup_is(&c, RESET, Outcome::Miss).await);
}

#[tokio::test]
async fn one_node_of_a_cluster_is_enough_to_find_the_others() {
    let (upstream, cluster) = (FakeUpstream::start().await, RedisCluster::start().await);
    let mut config = exact_config(&[&upstream]);
    config.store = cluster.masters[1].store();
    let (_server, mut client) = replica(config).await;
    for n in 0..30 {
        complete(&mut client, &format!("{n}?")).await;
    }
    until(async || cluster.keys("*:e:*").await.len() == 30).await;
}

#[tokio::test]
async fn requests_succeed_while_slots_move() {
    let (upstream, cluster) = (FakeUpstream::start().await, RedisCluster::start().await);
    let (_a, mut a) = semantic_replica(&upstream, cluster.store()).await;
    for n in 0..30 {
        complete(&mut a, &format!("{n}?")).await;
    }
    until(async || cluster.keys("*:e:*").await.len() == 30).await;
    let done = AtomicBool::new(false);
    let moving = async {
        cluster.move_slots(0, 1).await;
        done.store(true, Ordering::Relaxed);
    };
    let requests = async {
        let mut n = 30;
        while !done.load(Ordering::Relaxed) {
            let text = format!("{n}?");
            assert_eq!(complete(&mut a, &text).await.outcome(), Outcome::Upstream);
            n += 1;
        }
        n
    };
    let ((), n) = tokio::join!(moving, requests);
    let (_b, mut b) = semantic_replica(&upstream, cluster.store()).await;
    for n in 0..n {
        wait_for(&b, &format!("{n}?"), Outcome::Exact).await;
    }
    b.invalidate(whole_namespace("default")).await.unwrap();
    assert_eq!(cluster.keys("*:e:*").await, Vec::<String>::new());
    wait_for(&a, "0?", Outcome::Miss).await;
}

#[tokio::test]
async fn requests_succeed_while_a_master_is_dead() {
    let (upstream, mut cluster) = (FakeUpstream::start().await, RedisCluster::start().await);
    let (_a, mut a) = semantic_replica(&upstream, cluster.store()).await;
    complete(&mut a, RESET).await;
    cluster.masters[2].kill();
    for n in 0..30 {
        assert_eq!(complete(&mut a, &format!("{n}?")).await.outcome(), Outcome::Upstream);
        assert_eq!(complete(&mut a, &format!("{n}?")).await.outcome(), Outcome::Exact);
    }
    assert_eq!(complete(&mut a, PARAPHRASE).await.outcome(), Outcome::Semantic);
    cluster.masters[2].restart().await;
    cluster.wait_until_complete().await;
    let (_b, b) = semantic_replica(&upstream, cluster.store()).await;
    for n in 0..30 {
        wait_for(&b, &format!("{n}?"), Outcome::Exact).await;
    }
}

/// Tries to store this many answers durably, and returns how many were acknowledged.
async fn store_answers(client: &mut Client, who: &str, answers: usize) -> usize {
    let mut stored = 0;
    for n in 0..answers {
        let request = store_request(&format!("{who} {n}?"));
        stored += usize::from(client.store(request).await.is_ok());
    }
    stored
}

/// One write for the dead master stood at the head of the queue, and all other writes waited behind it.
async fn assert_other_masters_take_writes(
    a: &mut Client,
    cluster: &mut RedisCluster,
    stop: impl Fn(&mut RedisCluster),
) {
    assert_eq!(store_answers(a, "before", 5).await, 5);
    stop(cluster);
    let durable = store_answers(a, "during", 30).await;
    assert!((10..30).contains(&durable), "{durable} of 30 belong to the two live masters");
    let [first, second, _] = &*cluster.masters else { panic!("three masters") };
    let in_redis = first.keys("*:e:*").await.len() + second.keys("*:e:*").await.len();
    assert!(in_redis >= durable, "{in_redis} of {durable}");
}

#[tokio::test]
async fn writes_for_a_dead_master_do_not_delay_others() {
    let (upstream, mut cluster) = (FakeUpstream::start().await, RedisCluster::start().await);
    let (_a, mut a) = semantic_replica(&upstream, cluster.store()).await;
    assert_other_masters_take_writes(&mut a, &mut cluster, |cluster| cluster.masters[2].kill()).await;
    cluster.masters[2].restart().await;
    cluster.wait_until_complete().await;
    // The master lost its entries; the writes that waited for it arrive.
    until(async || cluster.keys("*:e:*").await.len() >= 30).await;
}

#[tokio::test]
async fn writes_for_a_hanging_master_do_not_delay_others() {
    let (upstream, mut cluster) = (FakeUpstream::start().await, RedisCluster::start().await);
    let (_a, mut a) = semantic_replica(&upstream, cluster.store()).await;
    assert_other_masters_take_writes(&mut a, &mut cluster, |cluster| cluster.masters[2].signal("STOP")).await;
    // The invalidation runs late: it removes entries older than itself and spares newer ones.
    a.invalidate(whole_namespace("default")).await.unwrap_err();
    for n in 0..10 {
        complete(&mut a, &format!("after {n}?")).await;
    }
    cluster.masters[2].signal("CONT");
    cluster.wait_until_complete().await;
    let (_b, b) = semantic_replica(&upstream, cluster.store()).await;
    for n in 0..10 {
        wait_for(&b, &format!("after {n}?"), Outcome::Exact).await;
    }
    // A write that lay in the master's socket may outlive the removal in Redis, but no replica serves it.
    for n in 0..5 {
        assert!(lookup_is(&b, &format!("before {n}?"), Outcome::Miss).await);
    }
}

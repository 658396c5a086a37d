//! The same on a Redis Cluster.

use std::sync::atomic::{AtomicBool, Ordering};

use promptkeep::grpc::proto::{Completion, StoreRequest};

use super::*;
use crate::common::redis_cluster::RedisCluster;

async fn started(upstream: &FakeUpstream, cluster: &RedisCluster) -> (TestServer, Client) {
    let mut config = semantic_config(&[upstream]);
    config.store = cluster.store();
    replica(config).await
}

#[tokio::test]
async fn replicas_share_entries_and_invalidations() {
    let (upstream, cluster) = (FakeUpstream::start().await, RedisCluster::start().await);
    let (_a, mut a) = started(&upstream, &cluster).await;
    let (_b, mut b) = started(&upstream, &cluster).await;
    complete(&mut a, RESET).await;
    becomes(&b, RESET_TOO, Outcome::Semantic).await;
    for n in 0..30 {
        complete(&mut a, &format!("{n}?")).await;
    }
    for master in &cluster.masters {
        until(async || !master.keys("*:e:*").await.is_empty()).await;
    }
    assert_eq!(b.invalidate(everything()).await.unwrap().into_inner().entries, 31);
    becomes(&a, RESET, Outcome::Miss).await;
    assert_eq!(cluster.keys("*:e:*").await, Vec::<String>::new());
    let (_c, c) = started(&upstream, &cluster).await;
    assert!(is_hit(&c, RESET, Outcome::Miss).await);
}

/// One node of it is enough to find the others.
#[tokio::test]
async fn a_cluster_is_known_by_one_of_its_nodes() {
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
async fn slots_move_beneath_it() {
    let (upstream, cluster) = (FakeUpstream::start().await, RedisCluster::start().await);
    let (_a, mut a) = started(&upstream, &cluster).await;
    for n in 0..30 {
        complete(&mut a, &format!("{n}?")).await;
    }
    until(async || cluster.keys("*:e:*").await.len() == 30).await;
    // Requests go on while slots move.
    let done = AtomicBool::new(false);
    let moving = async {
        cluster.move_slots(0, 1).await;
        done.store(true, Ordering::Relaxed);
    };
    let asking = async {
        let mut n = 30;
        while !done.load(Ordering::Relaxed) {
            let text = format!("{n}?");
            assert_eq!(complete(&mut a, &text).await.outcome(), Outcome::Upstream);
            n += 1;
        }
        n
    };
    let ((), n) = tokio::join!(moving, asking);
    let (_b, mut b) = started(&upstream, &cluster).await;
    for n in 0..n {
        becomes(&b, &format!("{n}?"), Outcome::Exact).await;
    }
    b.invalidate(everything()).await.unwrap();
    assert_eq!(cluster.keys("*:e:*").await, Vec::<String>::new());
    becomes(&a, "0?", Outcome::Miss).await;
}

#[tokio::test]
async fn a_master_dies_and_comes_back() {
    let (upstream, mut cluster) = (FakeUpstream::start().await, RedisCluster::start().await);
    let (_a, mut a) = started(&upstream, &cluster).await;
    complete(&mut a, RESET).await;
    cluster.masters[2].kill();
    for n in 0..30 {
        assert_eq!(complete(&mut a, &format!("{n}?")).await.outcome(), Outcome::Upstream);
        assert_eq!(complete(&mut a, &format!("{n}?")).await.outcome(), Outcome::Exact);
    }
    assert_eq!(complete(&mut a, RESET_TOO).await.outcome(), Outcome::Semantic);
    cluster.masters[2].restart().await;
    cluster.until_whole().await;
    let (_b, b) = started(&upstream, &cluster).await;
    for n in 0..30 {
        becomes(&b, &format!("{n}?"), Outcome::Exact).await;
    }
}

/// Stores so many answers durably; returns how many were.
async fn stored(client: &mut Client, who: &str, answers: usize) -> usize {
    let mut stored = 0;
    for n in 0..answers {
        let completion = Completion {
            content: "Kept.".to_owned(),
            finish_reason: "stop".to_owned(),
            ..Completion::default()
        };
        let prompt = Some(prompt(&format!("{who} {n}?")));
        let request = StoreRequest { prompt, completion: Some(completion), cache: None };
        stored += usize::from(client.store(request).await.is_ok());
    }
    stored
}

/// One write for the dead master stood at the head of the queue, and all others waited behind it.
async fn writes_go_on(a: &mut Client, cluster: &mut RedisCluster, stop: impl Fn(&mut RedisCluster)) {
    assert_eq!(stored(a, "before", 5).await, 5);
    stop(cluster);
    let durable = stored(a, "meanwhile", 40).await;
    assert!((10..40).contains(&durable), "{durable} of 40 are for the two that live");
    let [first, second, _] = &*cluster.masters else { panic!("three masters") };
    let there = first.keys("*:e:*").await.len() + second.keys("*:e:*").await.len();
    assert!(there >= durable, "{there} of {durable}");
}

#[tokio::test]
async fn writes_for_a_dead_master_hold_up_no_others() {
    let (upstream, mut cluster) = (FakeUpstream::start().await, RedisCluster::start().await);
    let (_a, mut a) = started(&upstream, &cluster).await;
    writes_go_on(&mut a, &mut cluster, |cluster| cluster.masters[2].kill()).await;
    cluster.masters[2].restart().await;
    cluster.until_whole().await;
    // What it had is gone with it; what waited for it arrives.
    until(async || cluster.keys("*:e:*").await.len() >= 40).await;
}

#[tokio::test]
async fn writes_for_a_hanging_master_hold_up_no_others() {
    let (upstream, mut cluster) = (FakeUpstream::start().await, RedisCluster::start().await);
    let (_a, mut a) = started(&upstream, &cluster).await;
    writes_go_on(&mut a, &mut cluster, |cluster| cluster.masters[2].signal("STOP")).await;
    // Done late, it takes what was asked before it and spares what was asked after.
    a.invalidate(everything()).await.unwrap_err();
    for n in 0..10 {
        complete(&mut a, &format!("after {n}?")).await;
    }
    cluster.masters[2].signal("CONT");
    cluster.until_whole().await;
    until(async || cluster.keys("*:e:*").await.len() == 10).await;
    let (_b, b) = started(&upstream, &cluster).await;
    for n in 0..10 {
        becomes(&b, &format!("after {n}?"), Outcome::Exact).await;
    }
}

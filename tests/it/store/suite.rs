//! Behaviour of every store.

use promptkeep::entry::{EntryId, Selector};

use super::*;
use crate::{
    common::{redis_cluster::RedisCluster, redis_server::RedisServer},
    fault_store::FaultStore,
};

/// Runs every test of this module against one store.
macro_rules! for_every_store {
    ($($test:ident)*) => {
        mod memory {
            $(#[tokio::test] async fn $test() { super::$test(&*super::memory()).await })*
        }
        mod embedded {
            $(#[tokio::test] async fn $test() {
                let folder = tempfile::tempdir().unwrap();
                super::$test(&*super::open_disk(folder.path())).await
            })*
        }
        mod redis {
            $(#[tokio::test] async fn $test() {
                let server = super::RedisServer::start().await;
                super::$test(&*super::store::open("local", &server.store()).unwrap()).await
            })*
        }
        mod cluster {
            $(#[tokio::test] async fn $test() {
                let cluster = super::RedisCluster::start().await;
                super::$test(&*super::store::open("local", &cluster.store()).unwrap()).await
            })*
        }
        mod wrapped {
            $(#[tokio::test] async fn $test() {
                super::$test(&super::FaultStore::new(super::memory())).await
            })*
        }
    };
}

for_every_store! {
    returns_a_stored_entry
    replaces_the_entry_under_a_key
    keeps_queued_entries_in_order
    may_return_an_expired_entry
    scans_in_pages_by_key
    removes_by_every_criterion
    removes_entries_queued_before_the_removal
    removes_nothing_in_a_dry_run
    expires_entries_past_their_ttl
    expires_the_entries_closest_to_expiry_when_full
    moves_the_expiry_of_a_replaced_entry
    keeps_snapshots_separate_from_entries
}

pub fn memory() -> Arc<dyn Store> {
    store::open("local", &StoreConfig { kind: StoreKind::Memory, ..StoreConfig::default() }).unwrap()
}

async fn keys(store: &dyn Store) -> Vec<CacheKey> {
    store.scan(None, 1000).await.unwrap().iter().map(|entry| entry.key).collect()
}

fn key(n: u64) -> CacheKey {
    entry(n).key
}

async fn returns_a_stored_entry(store: &dyn Store) {
    assert_eq!(store.get(key(1)).await.unwrap(), None);
    let stored = put(store, entry(1)).await;
    assert_eq!(get(store, key(1)).await, Some(without_vector(&stored)));
    assert_eq!(store.get(key(2)).await.unwrap(), None);
    assert_eq!((store.entries(), store.unreadable()), (1, 0));
}

async fn keeps_snapshots_separate_from_entries(store: &dyn Store) {
    assert_eq!(store.snapshot("learned").await.unwrap(), None);
    let mut previous = None;
    for bytes in [vec![1, 2], vec![3; 100_000], Vec::new(), vec![4]] {
        let snapshot = Snapshot::of(bytes);
        let version = snapshot.version;
        assert!(store.put_snapshot("learned", snapshot, previous).await.unwrap());
        previous = Some(version);
    }
    assert!(store.put_snapshot("other", Snapshot::of(vec![5]), None).await.unwrap());
    store.flush().await.unwrap();
    assert_eq!(store.snapshot("learned").await.unwrap(), Some(Snapshot::of(vec![4])));
    store.remove(&Selector::default(), false).await.unwrap();
    assert_eq!(store.snapshot("other").await.unwrap(), Some(Snapshot::of(vec![5])));
    assert_eq!((store.entries(), keys(store).await.len()), (0, 0));
}

async fn replaces_the_entry_under_a_key(store: &dyn Store) {
    put(store, entry(1)).await;
    let newer = put(store, Entry { namespace: "other".to_owned(), ..entry(1) }).await;
    assert_eq!(get(store, key(1)).await, Some(without_vector(&newer)));
    assert_eq!(store.entries(), 1);
}

async fn keeps_queued_entries_in_order(store: &dyn Store) {
    for n in 0..50 {
        let tags = vec![n.to_string()];
        store.put(Arc::new(Entry { tags, ..entry(n % 7) }), Durability::Queued).await.unwrap();
    }
    store.flush().await.unwrap();
    let stored = store.scan(None, 100).await.unwrap();
    let tags: Vec<_> = stored.iter().map(|entry| entry.tags[0].as_str()).collect();
    assert_eq!(tags, ["49", "43", "44", "45", "46", "47", "48"]);
}

async fn may_return_an_expired_entry(store: &dyn Store) {
    let past = SystemTime::now() - HOUR;
    let stored = put(store, Entry { expires: past, ..entry(1) }).await;
    assert!(get(store, key(1)).await.is_none_or(|found| found == without_vector(&stored)));
}

async fn scans_in_pages_by_key(store: &dyn Store) {
    for n in [4, 0, 3, 1, 2] {
        put(store, entry(n)).await;
    }
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = store.scan(after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 2);
        after = Some(last.key);
        seen.extend(page.iter().map(|entry| entry.key));
    }
    assert_eq!(seen, (0..5).map(key).collect::<Vec<_>>());
}

async fn removes_by_every_criterion(store: &dyn Store) {
    let mut shared = Entry { owner: Owner::Shared, ..entry(4) };
    shared.completion.model = "qwen".to_owned();
    let all = [
        entry(0),
        Entry { namespace: "docs".to_owned(), ..entry(1) },
        Entry { requested_model: "qwen".to_owned(), ..entry(2) },
        Entry { tags: vec!["a".to_owned(), "b".to_owned()], ..entry(3) },
        shared,
    ];
    let cases: [(Selector, &[u64]); 8] = [
        (Selector { id: Some(EntryId::from(key(0))), ..Selector::default() }, &[0]),
        (Selector { key: Some(key(1)), ..Selector::default() }, &[1]),
        (Selector { key: Some(key(9)), ..Selector::default() }, &[]),
        (Selector { namespace: Some("docs".to_owned()), ..Selector::default() }, &[1]),
        (Selector { model: Some("qwen".to_owned()), ..Selector::default() }, &[2, 4]),
        (Selector { tags: vec!["b".to_owned()], ..Selector::default() }, &[3]),
        (Selector { owners: vec![Owner::Shared], ..Selector::default() }, &[4]),
        (Selector { owners: vec![Owner::Shared], key: Some(key(0)), ..Selector::default() }, &[]),
    ];
    for (selector, expected) in cases {
        for entry in &all {
            put(store, entry.clone()).await;
        }
        let removed = store.remove(&selector, false).await.unwrap();
        assert_eq!(removed, expected.iter().copied().map(key).collect::<Vec<_>>(), "{selector:?}");
        let left: Vec<_> = (0..5).filter(|n| !expected.contains(n)).map(key).collect();
        assert_eq!(keys(store).await, left, "{selector:?}");
    }
    assert_eq!(store.remove(&Selector::default(), false).await.unwrap().len(), 5);
    assert_eq!(store.entries(), 0);
}

async fn removes_entries_queued_before_the_removal(store: &dyn Store) {
    store.put(Arc::new(entry(1)), Durability::Queued).await.unwrap();
    let selector = Selector { namespace: Some("support".to_owned()), ..Selector::default() };
    assert_eq!(store.remove(&selector, false).await.unwrap(), [key(1)]);
    assert_eq!(store.get(key(1)).await.unwrap(), None);
}

async fn removes_nothing_in_a_dry_run(store: &dyn Store) {
    store.put(Arc::new(entry(1)), Durability::Queued).await.unwrap();
    assert_eq!(store.remove(&Selector::default(), true).await.unwrap(), [key(1)]);
    assert!(store.get(key(1)).await.unwrap().is_some());
}

async fn expires_entries_past_their_ttl(store: &dyn Store) {
    let past = SystemTime::now() - HOUR;
    for n in 0..4 {
        put(store, Entry { expires: past + Duration::from_secs(n), ..entry(n) }).await;
    }
    put(store, entry(4)).await;
    let stale_for = 2 * HOUR;
    put(store, Entry { expires: past, stale_for, ..entry(5) }).await;
    assert_eq!(store.expire(1000, 3).await.unwrap(), [key(0), key(1), key(2)]);
    assert_eq!(store.expire(1000, 3).await.unwrap(), [key(3)]);
    assert_eq!(store.expire(1000, 3).await.unwrap(), []);
    assert_eq!(keys(store).await, [key(4), key(5)], "an entry that may be served stale stays");
}

async fn expires_the_entries_closest_to_expiry_when_full(store: &dyn Store) {
    let now = SystemTime::now();
    for (n, hours) in [(0, 3), (1, 1), (2, 4), (3, 2)] {
        put(store, Entry { expires: now + hours * HOUR, ..entry(n) }).await;
    }
    assert_eq!(store.expire(2, 10).await.unwrap(), [key(1), key(3)]);
    assert_eq!(keys(store).await, [key(0), key(2)]);
    assert_eq!(store.entries(), 2);
}

async fn moves_the_expiry_of_a_replaced_entry(store: &dyn Store) {
    let now = SystemTime::now();
    put(store, Entry { expires: now - HOUR, ..entry(1) }).await;
    put(store, entry(1)).await;
    assert_eq!(store.expire(1000, 10).await.unwrap(), []);
    put(store, Entry { expires: now - HOUR, ..entry(1) }).await;
    assert_eq!(store.expire(1000, 10).await.unwrap(), [key(1)]);
    assert_eq!(store.expire(1000, 10).await.unwrap(), []);
}

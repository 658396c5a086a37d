//! Learner snapshots and events with a store that can be unreachable.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use serde_json::json;

use super::{comparison::calls, namespace::lock, *};
use crate::{
    config::Config,
    decide::{
        features,
        learner::{Label, Origin},
        surface::Difference,
    },
    entry::{Entry, Selector},
    model::Usage,
    prompt::FinishReason,
    store::{Durability, Op, SnapshotVersion, Store, StoreError},
    telemetry::stats::Ledger,
};

fn calling(user: &str, id: &str) -> Completion {
    let arguments = format!("{{\"user\": \"{user}\", \"action\": \"grant\", \"role\": \"admin\"}}");
    Completion {
        content: String::new(),
        tool_calls: Some(json!([{"id": id, "function": {"name": "change_role", "arguments": arguments}}])),
        finish_reason: FinishReason::ToolCalls,
        model: String::new(),
        tier: String::new(),
        usage: Usage::default(),
        ..Completion::default()
    }
}

/// Tool calls were compared word by word, so calls for two users counted as equal.
#[test]
fn tool_calls_with_different_arguments_are_different() {
    let (anna, berta) = (calling("anna", "call_1"), calling("berta", "call_1"));
    assert_ne!(calls(&anna), calls(&berta));
    assert_eq!(calls(&anna), calls(&calling("anna", "call_2")), "ids are ignored");
    assert_ne!(calls(&anna), calls(&Completion { tool_calls: None, ..anna.clone() }));
}

#[test]
fn every_namespace_has_its_own_snapshot() {
    let id = |owner: Owner, name: &str| NamespaceId { owner, name: name.to_owned() }.snapshot_name();
    let tenant = |name: &str| Owner::Tenant(name.to_owned());
    let names = [
        id(tenant("a"), "b/c"),
        id(tenant("a/b"), "c"),
        id(tenant("a"), "c"),
        id(Owner::Shared, "c"),
        id(tenant("shared"), "c"),
    ];
    let distinct: std::collections::HashSet<_> = names.iter().collect();
    assert_eq!(distinct.len(), names.len());
}

/// A store of snapshots and learner events; entries are not used here.
#[derive(Default)]
struct SnapshotStore {
    snapshots: Mutex<HashMap<String, Vec<u8>>>,
    published: Mutex<Vec<Vec<u8>>>,
    is_unreachable: AtomicBool,
    /// Name of a snapshot that another replica always writes first.
    refused: String,
}

impl SnapshotStore {
    fn answer<T>(&self, op: Op, value: T) -> Result<T, StoreError> {
        let is_unreachable = self.is_unreachable.load(Ordering::Relaxed);
        if is_unreachable { Err(StoreError { op, cause: "unreachable".to_owned() }) } else { Ok(value) }
    }
}

#[async_trait]
impl Store for SnapshotStore {
    async fn put_snapshot(
        &self,
        name: &str,
        snapshot: Snapshot,
        _: Option<SnapshotVersion>,
    ) -> Result<bool, StoreError> {
        let is_put = name != self.refused;
        if is_put {
            lock(&self.snapshots).insert(name.to_owned(), snapshot.bytes);
        }
        self.answer(Op::Put, is_put)
    }

    async fn snapshot(&self, name: &str) -> Result<Option<Snapshot>, StoreError> {
        self.answer(Op::Get, lock(&self.snapshots).get(name).cloned().map(Snapshot::of))
    }

    async fn publish(&self, message: Vec<u8>) -> Result<bool, StoreError> {
        lock(&self.published).push(message);
        self.answer(Op::Publish, true)
    }

    async fn get(&self, _: CacheKey) -> Result<Option<Arc<Entry>>, StoreError> {
        Ok(None)
    }

    async fn put(&self, _: Arc<Entry>, _: Durability) -> Result<(), StoreError> {
        Ok(())
    }

    async fn remove(&self, _: &Selector, _: bool) -> Result<Vec<CacheKey>, StoreError> {
        Ok(Vec::new())
    }

    async fn scan(&self, _: Option<CacheKey>, _: usize) -> Result<Vec<Arc<Entry>>, StoreError> {
        Ok(Vec::new())
    }

    async fn expire(&self, _: u64, _: usize) -> Result<Vec<CacheKey>, StoreError> {
        Ok(Vec::new())
    }

    fn entries(&self) -> u64 {
        0
    }

    fn unreadable(&self) -> u64 {
        0
    }

    async fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

fn learning(store: &Arc<SnapshotStore>) -> Learning {
    let config = Config::default().cache.learning;
    let store: Arc<dyn Store> = Arc::clone(store) as _;
    let (metrics, ledger) = (Arc::new(Metrics::new()), Arc::new(Ledger::new(Duration::from_secs(2))));
    let store = TimedStore::new(store, Duration::from_secs(60), Arc::clone(&metrics), ledger);
    Learning::new(&config, None, store, metrics).unwrap()
}

/// The event that another process publishes for a pair that it rejected.
async fn rejected_pair_event(store: &Arc<SnapshotStore>) -> Vec<u8> {
    let other = learning(store);
    other.reject(&*other.namespace(&Owner::Shared, "docs").await, key(1), key(2));
    other.publish().await;
    let event = lock(&store.published).pop();
    event.unwrap()
}

fn key(n: u8) -> CacheKey {
    CacheKey::from_bytes([n; 32])
}

/// A namespace that was evicted and loaded again numbered its labels from the start, so other replicas ignored
/// the new labels as already received.
#[tokio::test]
async fn labels_of_a_reloaded_namespace_are_received() {
    let learning = learning(&Arc::default());
    let id = NamespaceId { owner: Owner::Shared, name: "docs".to_owned() };
    let mut other = learning.new_learner(&id);
    for _ in 0..2 {
        let mut opened = learning.new_learner(&id);
        let scored = opened.score(&[0.5; features::COUNT], Difference::Wording, 1);
        opened.observe(&scored, Label::compared(1.0), Origin::Miss { best: true });
        assert_eq!(other.merge_delta(&opened.take_delta().unwrap()), 1);
    }
}

/// A rejected pair from another region was lost when the snapshot of its namespace could not be read on arrival.
#[tokio::test]
async fn a_rejected_pair_waits_until_its_namespace_can_be_read() {
    let store = Arc::new(SnapshotStore::default());
    let (message, learning) = (rejected_pair_event(&store).await, learning(&store));
    store.is_unreachable.store(true, Ordering::Relaxed);
    learning.receive(&message, true).await;
    learning.merge_waiting().await;
    assert!(learning.known(&Owner::Shared, "docs").is_none());
    store.is_unreachable.store(false, Ordering::Relaxed);
    learning.merge_waiting().await;
    assert!(learning.known(&Owner::Shared, "docs").unwrap().rejected.contains(key(1), key(2)));
}

/// Every replica wrote the whole snapshot for each rejected pair, although the rejecting replica had saved it.
#[tokio::test]
async fn only_rejected_pairs_of_other_regions_are_saved_again() {
    let store = Arc::new(SnapshotStore::default());
    let message = rejected_pair_event(&store).await;
    for from_other_region in [false, true] {
        let learning = learning(&store);
        learning.receive(&message, from_other_region).await;
        let namespace = learning.known(&Owner::Shared, "docs").unwrap();
        assert!(namespace.rejected.contains(key(1), key(2)));
        assert_eq!(namespace.saving.claim(Instant::now(), Duration::ZERO), from_other_region);
    }
}

/// At shutdown one snapshot that another replica always wrote first prevented the snapshots after it.
#[tokio::test]
async fn a_snapshot_that_cannot_be_replaced_does_not_block_others() {
    for refused in ["a", "b"] {
        let id = |name: &str| NamespaceId { owner: Owner::Shared, name: name.to_owned() };
        let store =
            Arc::new(SnapshotStore { refused: id(refused).snapshot_name(), ..SnapshotStore::default() });
        let learning = learning(&store);
        for name in ["a", "b"] {
            learning.reject(&*learning.namespace(&Owner::Shared, name).await, key(1), key(2));
        }
        learning.save_all().await;
        let written: Vec<_> = lock(&store.snapshots).keys().cloned().collect();
        assert_eq!(written, [id(if refused == "a" { "b" } else { "a" }).snapshot_name()]);
    }
}

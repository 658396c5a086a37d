//! Stores: one suite for all kinds, then tests of a single kind.

mod crash;
mod faults;
mod on_disk;
mod on_redis;
mod recorder;
mod suite;
mod tls;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use promptkeep::{
    config::{StoreConfig, StoreKind},
    embed::Embedding,
    entry::Entry,
    key::{CacheKey, Owner, Scope},
    model::Usage,
    prompt::{Completion, FinishReason},
    store::{self, Durability, Snapshot, Store},
};

const HOUR: Duration = Duration::from_secs(3600);

/// Entry `n` of a series of distinct entries with a TTL of one hour. Keys ascend with `n`.
fn entry(n: u64) -> Entry {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&n.to_be_bytes());
    let created = SystemTime::now();
    Entry {
        key: CacheKey::from_bytes(key),
        scope: Scope::from_bytes([n as u8; 32]),
        owner: Owner::Tenant("acme".to_owned()),
        namespace: "support".to_owned(),
        requested_model: "auto".to_owned(),
        text: Some(format!("question {n}")),
        embedding: Embedding::normalized((0..384).map(|i| ((i + n) as f32).sin()).collect()),
        embedder: "test".to_owned(),
        completion: Completion {
            content: format!("answer {n} ").repeat(1 + n as usize % 40),
            tool_calls: None,
            finish_reason: FinishReason::Stop,
            model: "gpt-4o".to_owned(),
            tier: "hot".to_owned(),
            usage: Usage::default(),
            ..Completion::default()
        },
        tags: Vec::new(),
        created,
        expires: created + HOUR,
        stale_for: Duration::ZERO,
        difficulty: None,
    }
}

/// The entry without its vector, which `get` may leave out.
fn without_vector(entry: &Entry) -> Entry {
    Entry { embedding: None, ..entry.clone() }
}

/// Reads an entry, without its vector.
async fn get(store: &dyn Store, key: CacheKey) -> Option<Entry> {
    store.get(key).await.unwrap().map(|found| without_vector(&found))
}

fn disk_config(path: &Path) -> StoreConfig {
    StoreConfig { kind: StoreKind::Embedded, path: path.to_owned(), ..StoreConfig::default() }
}

fn open_disk(path: &Path) -> Arc<dyn Store> {
    store::open("local", &disk_config(path)).unwrap()
}

/// Stores an entry durably.
async fn put(store: &dyn Store, entry: Entry) -> Arc<Entry> {
    let entry = Arc::new(entry);
    store.put(entry.clone(), Durability::Durable).await.unwrap();
    entry
}

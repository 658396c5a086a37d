//! A store in memory, lost at exit: for tests, and where no file is wanted.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use async_trait::async_trait;

use super::{Durability, Snapshot, SnapshotVersion, Store, StoreError};
use crate::{
    entry::{Entry, Selector},
    key::CacheKey,
};

/// See the [module](self).
#[derive(Default)]
pub struct MemoryStore {
    /// A std mutex: held for map operations only, never across an await.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<CacheKey, Arc<Entry>>,
    /// One element per entry, so that `expire` visits no entry that stays.
    by_expiry: BTreeSet<(SystemTime, CacheKey)>,
    snapshots: HashMap<String, Vec<u8>>,
}

impl MemoryStore {
    /// A panic under the lock cannot interrupt a map operation, so the state stays usable.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: CacheKey) -> Result<Option<Arc<Entry>>, StoreError> {
        Ok(self.state().entries.get(&key).cloned())
    }

    async fn put(&self, entry: Arc<Entry>, _: Durability) -> Result<(), StoreError> {
        self.state().put(entry);
        Ok(())
    }

    async fn remove(&self, selector: &Selector, dry_run: bool) -> Result<Vec<CacheKey>, StoreError> {
        let mut state = self.state();
        let keys = state.select(selector);
        if !dry_run {
            keys.iter().for_each(|key| state.remove(key));
        }
        Ok(keys)
    }

    async fn scan(&self, after: Option<CacheKey>, limit: usize) -> Result<Vec<Arc<Entry>>, StoreError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(self.state().entries.range((from, Bound::Unbounded)).take(limit).map(|(_, e)| e.clone()).collect())
    }

    async fn expire(&self, max_entries: u64, limit: usize) -> Result<Vec<CacheKey>, StoreError> {
        Ok(self.state().expire(SystemTime::now(), max_entries, limit))
    }

    fn entries(&self) -> u64 {
        self.state().entries.len() as u64
    }

    fn unreadable(&self) -> u64 {
        0
    }

    async fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn snapshot(&self, name: &str) -> Result<Option<Snapshot>, StoreError> {
        Ok(self.state().snapshots.get(name).cloned().map(Snapshot::of))
    }

    async fn put_snapshot(
        &self,
        name: &str,
        snapshot: Snapshot,
        _: Option<SnapshotVersion>,
    ) -> Result<bool, StoreError> {
        self.state().snapshots.insert(name.to_owned(), snapshot.bytes);
        Ok(true)
    }
}

impl State {
    fn put(&mut self, entry: Arc<Entry>) {
        self.remove(&entry.key);
        self.by_expiry.insert((entry.removed_at(), entry.key));
        self.entries.insert(entry.key, entry);
    }

    fn remove(&mut self, key: &CacheKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.by_expiry.remove(&(entry.removed_at(), *key));
        }
    }

    fn select(&self, selector: &Selector) -> Vec<CacheKey> {
        let in_range = self.entries.range(selector.key_range());
        in_range.filter(|(_, entry)| selector.matches(entry)).map(|(key, _)| *key).collect()
    }

    fn expire(&mut self, now: SystemTime, max_entries: u64, limit: usize) -> Vec<CacheKey> {
        let mut removed = Vec::new();
        while removed.len() < limit {
            let Some(&(expires, key)) = self.by_expiry.first() else { break };
            if now < expires && self.entries.len() as u64 <= max_entries {
                break;
            }
            self.remove(&key);
            removed.push(key);
        }
        removed
    }
}

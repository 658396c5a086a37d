//! Which scope each indexed key belongs to: a store tells only the keys of what it removed.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::key::{CacheKey, Scope};

/// Maps that keys are spread over, so that writers seldom meet and growing one map is short.
const SHARDS: usize = 64;

/// Scopes by key. About 90 bytes a key, beside the 1.6 KB of its vector.
pub(super) struct Directory {
    /// Std mutexes: each held for one map operation, never across an await.
    shards: [Mutex<HashMap<CacheKey, Scope>>; SHARDS],
}

// === impl Directory ===

impl Directory {
    pub fn insert(&self, key: CacheKey, scope: Scope) {
        self.shard(key).insert(key, scope);
    }

    pub fn remove(&self, key: CacheKey) -> Option<Scope> {
        self.shard(key).remove(&key)
    }

    fn shard(&self, key: CacheKey) -> MutexGuard<'_, HashMap<CacheKey, Scope>> {
        let shard = &self.shards[usize::from(key.as_bytes()[0]) % SHARDS];
        // A panic between two map operations leaves the map whole.
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Directory {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

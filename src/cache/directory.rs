//! The scope of each indexed key. A store reports removed entries by key only.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::key::{CacheKey, Scope};

/// Number of maps. Writers seldom share one, and growing one is quick.
const SHARDS: usize = 64;

/// Scopes by key. Uses about 90 bytes per key, where a vector uses 1.6 KB.
pub(super) struct Directory {
    /// Std mutexes: held for one map operation, never across an await.
    shards: [Mutex<HashMap<CacheKey, Scope>>; SHARDS],
}

impl Directory {
    pub fn insert(&self, key: CacheKey, scope: Scope) {
        self.shard(key).insert(key, scope);
    }

    pub fn remove(&self, key: CacheKey) -> Option<Scope> {
        self.shard(key).remove(&key)
    }

    fn shard(&self, key: CacheKey) -> MutexGuard<'_, HashMap<CacheKey, Scope>> {
        let shard = &self.shards[usize::from(key.as_bytes()[0]) % SHARDS];
        // A panic cannot interrupt a map operation.
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Directory {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

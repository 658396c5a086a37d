//! The copies of the store in this process: the memory tier, the index and its directory, and the recent invalidations
//! that apply to all of them.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use quick_cache::{
    Weighter,
    sync::{Cache as MemoryTier, GuardResult},
};

use super::{Epoch, VectorSpace, directory::Directory, invalidations::Invalidations};
use crate::{
    config::CacheConfig,
    embed::Embedding,
    entry::{Entry, Selector},
    index::{Index, Neighbour},
    key::{CacheKey, Scope},
    telemetry::metrics::Metrics,
};

/// Entries and vectors in memory. No method waits.
pub struct Tiers {
    memory: MemoryTier<CacheKey, Arc<Entry>, BySize>,
    index: Index,
    directory: Directory,
    invalidations: Invalidations,
    /// Only vectors of this embedder are indexed.
    embedder: String,
    metrics: Arc<Metrics>,
}

#[derive(Clone)]
struct BySize;

impl Tiers {
    pub(super) fn new(config: &CacheConfig, vectors: VectorSpace<'_>, metrics: Arc<Metrics>) -> Self {
        let VectorSpace { embedder, dimensions } = vectors;
        // Sizes the first allocation only; the weight is bounded.
        let expected_entries = usize::try_from(config.max_memory / 4096).unwrap_or(usize::MAX).min(100_000);
        Self {
            memory: MemoryTier::with_weighter(expected_entries, config.max_memory, BySize),
            index: Index::new(&config.index, dimensions),
            directory: Directory::default(),
            invalidations: Invalidations::default(),
            embedder: embedder.to_owned(),
            metrics,
        }
    }

    /// The entry in memory under `key`, live or not.
    pub(super) fn get(&self, key: CacheKey) -> Option<Arc<Entry>> {
        self.memory.get(&key)
    }

    /// The `k` vectors of `scope` nearest to `embedding`.
    pub(super) fn search(&self, scope: Scope, embedding: &Embedding, k: usize) -> Vec<Neighbour> {
        let started = Instant::now();
        let neighbours = self.index.search(scope, embedding, k);
        self.metrics.search(started);
        neighbours
    }

    /// Whether anything is indexed under `scope`.
    pub fn has_scope(&self, scope: Scope) -> bool {
        self.index.scope_len(scope) > 0
    }

    /// The current epoch. Earlier invalidations do not affect entries that are read or requested from now on.
    pub fn epoch(&self) -> Epoch {
        self.invalidations.epoch()
    }

    /// Whether the entry was invalidated after `epoch`.
    pub fn is_invalidated(&self, epoch: Epoch, entry: &Entry) -> bool {
        self.invalidations.since(epoch, entry)
    }

    /// Number of vectors in the index.
    pub fn vectors(&self) -> usize {
        self.index.len()
    }

    /// Bytes used by the memory tier and by the index.
    pub fn memory(&self) -> (u64, usize) {
        (self.memory.weight(), self.index.memory_bytes())
    }

    /// Puts an entry into the memory tier.
    pub(super) fn remember(&self, entry: Arc<Entry>) {
        let entry = without_vector(entry);
        self.memory.insert(entry.key, entry);
    }

    /// Puts an entry that was read from the store into the memory tier, unless a newer one is there. An expired entry is
    /// left out, because it would hide one that another replica stores.
    pub(super) fn remember_read(&self, entry: Arc<Entry>) -> Arc<Entry> {
        let entry = without_vector(entry);
        if !entry.is_live(SystemTime::now()) {
            return entry;
        }
        match self.memory.get_value_or_guard(&entry.key, Some(Duration::ZERO)) {
            GuardResult::Value(newer) => newer,
            GuardResult::Guard(guard) => {
                // Fails if a newer one was inserted since.
                let _ = guard.insert(Arc::clone(&entry));
                entry
            }
            GuardResult::Timeout => entry,
        }
    }

    /// Indexes an entry unless it has expired, was embedded otherwise or was invalidated; returns whether it did.
    pub(super) fn index_stored(&self, entry: &Entry, epoch: Epoch) -> bool {
        let Some(embedding) = &entry.embedding else { return false };
        if entry.embedder != self.embedder || !entry.is_live(SystemTime::now()) {
            return false;
        }
        self.index(entry, embedding);
        let is_invalidated = self.is_invalidated(epoch, entry);
        if is_invalidated {
            self.forget(&[entry.key]);
        }
        !is_invalidated
    }

    /// Indexes a vector. The directory comes first, so that every indexed vector can be removed.
    pub(super) fn index(&self, entry: &Entry, embedding: &Embedding) {
        self.directory.insert(entry.key, entry.scope);
        self.index.insert(entry.scope, entry.key, embedding);
    }

    /// Drops entries and their vectors.
    pub(super) fn forget(&self, removed: &[CacheKey]) {
        for key in removed {
            self.memory.remove(key);
            if let Some(scope) = self.directory.remove(*key) {
                self.index.remove(scope, *key);
            }
        }
    }

    /// Drops matching entries from memory and marks those in flight.
    pub(super) fn drop_matching(&self, selector: &Selector) {
        self.invalidations.push(selector.clone());
        self.memory.retain(|_, entry| !selector.matches(entry));
    }

    /// Applies an entry that another replica stored: indexes it, and replaces an older one in memory. An entry that no
    /// request used here stays out of memory.
    pub(super) fn apply_stored(&self, entry: &Arc<Entry>, epoch: Epoch) {
        let older = self.memory.peek(&entry.key).is_some_and(|known| known.created <= entry.created);
        self.index_stored(entry, epoch);
        if older {
            self.remember(Arc::clone(entry));
            if self.is_invalidated(epoch, entry) {
                self.drop_from_memory(entry.key);
            }
        }
    }

    /// Removes the entry from the memory tier; its vector stays.
    pub(super) fn drop_from_memory(&self, key: CacheKey) {
        self.memory.remove(&key);
    }

    /// Treats every entry read so far as invalidated. The index stays: its results are read from the store.
    pub(super) fn invalidate_all(&self) {
        self.invalidations.push(Selector::default());
        self.memory.clear();
    }
}

/// Drops the vector, which is in the index and larger than most answers.
fn without_vector(entry: Arc<Entry>) -> Arc<Entry> {
    if entry.embedding.is_none() {
        return entry;
    }
    let mut entry = Arc::unwrap_or_clone(entry);
    entry.embedding = None;
    Arc::new(entry)
}

impl Weighter<CacheKey, Arc<Entry>> for BySize {
    fn weight(&self, _: &CacheKey, entry: &Arc<Entry>) -> u64 {
        entry.size_bytes()
    }
}

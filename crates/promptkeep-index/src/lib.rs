//! Nearest vectors within a scope. Knows keys and vectors, never an entry, a prompt or the store.
//!
//! The [`Index`] owns its vectors and stores them side by side in blocks, so that a scan streams through memory. The
//! size of a scope decides how it is searched:
//!
//! * fewer than 128 vectors: the query is compared with all of them;
//! * more: sign codes (one bit per component) preselect the vectors that are compared in full precision;
//! * more than [`IndexConfig::scan_max`]: an HNSW graph, which a background thread builds.
//!
//! Inserts and removals take effect at once; no search waits for a rebuild.
//!
//! # Example
//!
//! ```
//! use promptkeep_core::{
//!     embedding::Embedding,
//!     key::{CacheKey, Scope},
//! };
//! use promptkeep_index::{Index, IndexConfig};
//!
//! let index = Index::new(&IndexConfig::default(), 2);
//! let scope = Scope::from_bytes([0; 32]);
//! let (east, north) = (CacheKey::from_bytes([1; 32]), CacheKey::from_bytes([2; 32]));
//! let vector = |x, y| Embedding::normalized(vec![x, y]).expect("not zero");
//! assert!(index.insert(scope, east, &vector(1.0, 0.0)));
//! assert!(index.insert(scope, north, &vector(0.0, 1.0)));
//!
//! let found = index.search(scope, &vector(2.0, 1.0), 1);
//! assert_eq!(found[0].key, east);
//! assert!((found[0].similarity - 0.894).abs() < 1e-3);
//! // Another scope has no vectors.
//! assert!(index.search(Scope::from_bytes([1; 32]), &vector(2.0, 1.0), 1).is_empty());
//! ```

mod block;
mod cell;
mod config;
mod hnsw;
mod kernel;
mod scan;
mod sealed;
mod upkeep;

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

pub use self::config::{IndexConfig, IndexKind};
use self::{
    block::Shape,
    cell::{Cell, Removal},
    kernel::Kernel,
    upkeep::UpkeepThread,
};
use promptkeep_core::{
    embedding::Embedding,
    key::{CacheKey, Scope},
};

/// Number of maps over which scopes are spread, so that the growth of one map delays few searches, and briefly.
const SHARDS: usize = 64;

/// Vectors by scope. All methods may be called from many threads at once; none waits for a disk or the network.
pub struct Index {
    shape: Shape,
    shards: Vec<Shard>,
    len: AtomicUsize,
    upkeep: UpkeepThread,
}

/// Locked for a lookup or a change of the map only. Lock order: a shard before the locks of its cells.
type Shard = RwLock<HashMap<Scope, Arc<Cell>>>;

/// A vector that a search found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// Key of the vector.
    pub key: CacheKey,
    /// Cosine similarity to the query, in [-1, 1], computed in full precision.
    pub similarity: f32,
}

impl Index {
    /// Creates an empty index of vectors with `dimensions` components, and starts its background thread.
    ///
    /// # Panics
    /// When the system cannot start a thread.
    pub fn new(config: &IndexConfig, dimensions: usize) -> Self {
        let shape = Shape { dimensions, kernel: Kernel::detect() };
        Self {
            shape,
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            len: AtomicUsize::new(0),
            upkeep: UpkeepThread::start(shape, config.clone()),
        }
    }

    /// Adds a vector, or replaces the vector under this key. Returns `false` and does nothing when the vector has
    /// another number of components than the index, because it is of another model.
    pub fn insert(&self, scope: Scope, key: CacheKey, embedding: &Embedding) -> bool {
        let vector = embedding.as_slice();
        if vector.len() != self.shape.dimensions {
            return false;
        }
        loop {
            let cell = self.cell_or_new(scope);
            // A retired cell is about to leave its shard, so a retry finds or creates another.
            let Ok(is_added) = cell.insert(self.shape, key, vector) else { continue };
            self.len.fetch_add(is_added.into(), Ordering::Relaxed);
            self.upkeep.queue_if_due(&cell);
            return true;
        }
    }

    /// Removes a vector. Returns whether it existed. No search that begins later finds it.
    pub fn remove(&self, scope: Scope, key: CacheKey) -> bool {
        let Some(cell) = self.cell(scope) else { return false };
        let removal = cell.remove(self.shape, key);
        if removal == Removal::Absent {
            return false;
        }
        self.len.fetch_sub(1, Ordering::Relaxed);
        self.upkeep.queue_if_due(&cell);
        if removal == Removal::Last {
            self.retire(scope, cell);
        }
        true
    }

    /// Returns up to `k` vectors of `scope` with the highest similarity to `query`, most similar first. Takes up to
    /// half a millisecond of CPU in the largest scopes. A query with another number of components finds nothing.
    pub fn search(&self, scope: Scope, query: &Embedding, k: usize) -> Vec<Neighbour> {
        let fits = query.as_slice().len() == self.shape.dimensions && k > 0;
        let cell = self.cell(scope).filter(|_| fits);
        cell.map_or_else(Vec::new, |cell| cell.search(self.shape, query, k))
    }

    /// Returns the number of vectors.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether the index has no vectors.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of vectors in one scope.
    pub fn scope_len(&self, scope: Scope) -> usize {
        self.cell(scope).map_or(0, |cell| cell.len())
    }

    /// Returns the bytes of vectors, codes, keys and graphs, for metrics. Visits every scope.
    pub fn memory_bytes(&self) -> usize {
        /// Slot in the map, of which an eighth are free, and the two counters of an `Arc`.
        const CELL_BYTES: usize = size_of::<(Scope, Arc<Cell>)>() * 8 / 7 + 2 * size_of::<usize>();
        let shard_bytes = |shard: &Shard| {
            let cells: Vec<_> = read(shard).values().cloned().collect();
            cells.iter().map(|cell| CELL_BYTES + cell.memory_bytes()).sum::<usize>()
        };
        self.shards.iter().map(shard_bytes).sum()
    }

    /// Waits until all rebuilds and graphs are finished, for tests and benchmarks.
    pub fn wait_for_upkeep(&self) {
        self.upkeep.wait();
    }

    fn cell(&self, scope: Scope) -> Option<Arc<Cell>> {
        read(self.shard(scope)).get(&scope).cloned()
    }

    fn cell_or_new(&self, scope: Scope) -> Arc<Cell> {
        self.cell(scope).unwrap_or_else(|| write(self.shard(scope)).entry(scope).or_default().clone())
    }

    /// Removes an empty scope, unless a vector was inserted meanwhile.
    fn retire(&self, scope: Scope, cell: Arc<Cell>) {
        let mut shard = write(self.shard(scope));
        if shard.get(&scope).is_some_and(|current| Arc::ptr_eq(current, &cell)) && cell.retire() {
            shard.remove(&scope);
            drop(shard);
            // The background thread drops it, because freeing a graph takes long.
            self.upkeep.push(cell);
        }
    }

    fn shard(&self, scope: Scope) -> &Shard {
        &self.shards[usize::from(scope.as_bytes()[0]) % SHARDS]
    }
}

/// Locks for reading. Ignores poisoning: a panic under the lock leaves a valid map.
fn read(shard: &Shard) -> RwLockReadGuard<'_, HashMap<Scope, Arc<Cell>>> {
    shard.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(shard: &Shard) -> RwLockWriteGuard<'_, HashMap<Scope, Arc<Cell>>> {
    shard.write().unwrap_or_else(PoisonError::into_inner)
}

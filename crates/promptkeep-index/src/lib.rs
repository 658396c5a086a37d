//! Nearest vectors of a scope. Knows keys and vectors, never an entry, a prompt or the store.
//!
//! The index owns its vectors, side by side in blocks, so that a scan streams through memory. What a
//! scope holds decides how it is searched: few vectors are all compared, more are chosen by their sign
//! codes first, very many are linked to a graph.

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
    upkeep::Keeper,
};
use promptkeep_core::{
    embedding::Embedding,
    key::{CacheKey, Scope},
};

/// Maps that scopes are spread over, so that growing one map stops few searches, and shortly.
const SHARDS: usize = 64;

/// Vectors by scope. All methods are for many threads at once; none waits for a disk or the network.
pub struct Index {
    shape: Shape,
    shards: Vec<Shard>,
    len: AtomicUsize,
    keeper: Keeper,
}

/// Held for a look-up or a change of the map only; a cell's locks may be taken under it.
type Shard = RwLock<HashMap<Scope, Arc<Cell>>>;

/// One found vector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    pub key: CacheKey,
    /// Cosine, in [-1, 1], from full precision.
    pub similarity: f32,
}

// === impl Index ===

impl Index {
    /// An empty index of vectors with `dimensions` components, and its background thread.
    ///
    /// # Panics
    /// When the system has no thread to give.
    pub fn new(config: &IndexConfig, dimensions: usize) -> Self {
        let shape = Shape { dimensions, kernel: Kernel::detect() };
        Self {
            shape,
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            len: AtomicUsize::new(0),
            keeper: Keeper::start(shape, config.clone()),
        }
    }

    /// Adds a vector, or replaces the one under the same key. Returns `false`, and does nothing, when
    /// the vector has another length than the index's: it is of another model.
    pub fn insert(&self, scope: Scope, key: CacheKey, embedding: &Embedding) -> bool {
        let vector = embedding.as_slice();
        if vector.len() != self.shape.dimensions {
            return false;
        }
        loop {
            let cell = self.cell_or_new(scope);
            // A retired cell is leaving its shard, so the next one is another.
            let Ok(is_added) = cell.insert(self.shape, key, vector) else { continue };
            self.len.fetch_add(is_added.into(), Ordering::Relaxed);
            self.keeper.look_at(&cell);
            return true;
        }
    }

    /// Removes a vector. Returns whether it was there; no search that begins later finds it.
    pub fn remove(&self, scope: Scope, key: CacheKey) -> bool {
        let Some(cell) = self.cell(scope) else { return false };
        let removal = cell.remove(self.shape, key);
        if removal == Removal::Absent {
            return false;
        }
        self.len.fetch_sub(1, Ordering::Relaxed);
        self.keeper.look_at(&cell);
        if removal == Removal::Last {
            self.retire(scope, cell);
        }
        true
    }

    /// The `k` vectors of `scope` nearest to `query`, nearest first. Costs up to half a millisecond of
    /// CPU in the largest scopes. A query of another length finds nothing.
    pub fn search(&self, scope: Scope, query: &Embedding, k: usize) -> Vec<Neighbour> {
        let fits = query.as_slice().len() == self.shape.dimensions && k > 0;
        let cell = self.cell(scope).filter(|_| fits);
        cell.map_or_else(Vec::new, |cell| cell.search(self.shape, query, k))
    }

    /// Number of vectors.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of vectors in one scope.
    pub fn scope_len(&self, scope: Scope) -> usize {
        self.cell(scope).map_or(0, |cell| cell.len())
    }

    /// Bytes of vectors, codes, keys and graphs, for the metrics. Looks at every scope.
    pub fn memory_bytes(&self) -> usize {
        /// Place in the map, and the counts before a shared value.
        const CELL_BYTES: usize = size_of::<(Scope, Arc<Cell>)>() * 8 / 7 + 2 * size_of::<usize>();
        let shard_bytes = |shard: &Shard| {
            let cells: Vec<_> = read(shard).values().cloned().collect();
            cells.iter().map(|cell| CELL_BYTES + cell.memory_bytes()).sum::<usize>()
        };
        self.shards.iter().map(shard_bytes).sum()
    }

    /// Waits until rebuilds and graphs are done: for tests and measurements.
    pub fn wait_for_upkeep(&self) {
        self.keeper.wait();
    }

    fn cell(&self, scope: Scope) -> Option<Arc<Cell>> {
        read(self.shard(scope)).get(&scope).cloned()
    }

    fn cell_or_new(&self, scope: Scope) -> Arc<Cell> {
        self.cell(scope).unwrap_or_else(|| write(self.shard(scope)).entry(scope).or_default().clone())
    }

    /// Takes an empty scope out, unless something was inserted meanwhile.
    fn retire(&self, scope: Scope, cell: Arc<Cell>) {
        let mut shard = write(self.shard(scope));
        if shard.get(&scope).is_some_and(|current| Arc::ptr_eq(current, &cell)) && cell.retire() {
            shard.remove(&scope);
            drop(shard);
            // It may have a graph, which takes long to free.
            self.keeper.push(cell);
        }
    }

    fn shard(&self, scope: Scope) -> &Shard {
        &self.shards[usize::from(scope.as_bytes()[0]) % SHARDS]
    }
}

/// A panic under the lock leaves a whole map behind.
fn read(shard: &Shard) -> RwLockReadGuard<'_, HashMap<Scope, Arc<Cell>>> {
    shard.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(shard: &Shard) -> RwLockWriteGuard<'_, HashMap<Scope, Arc<Cell>>> {
    shard.write().unwrap_or_else(PoisonError::into_inner)
}

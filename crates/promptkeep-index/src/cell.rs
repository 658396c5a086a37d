//! The vectors of one scope: an open block that grows and shrinks, sealed blocks that only lose vectors, and a graph
//! over the sealed blocks once they are many.
//!
//! Two locks, taken in this order. Changes of the scope hold `slots`, sometimes for milliseconds; searches never take
//! it. `view` is what searches see: it is locked for writing only to install a change, and for reading only to scan
//! the open block and to clone the pointer to the rest. So a search waits at most for the copy of a vector, however
//! much is inserted or rebuilt.

use std::{
    collections::HashMap,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    Neighbour,
    block::{BLOCK, Block, Shape},
    scan::{Query, Top},
    sealed::{Rebuilt, Sealed},
};
use crate::{IndexConfig, IndexKind};
use promptkeep_core::{embedding::Embedding, key::CacheKey};

/// One scope.
#[derive(Default)]
pub struct Cell {
    slots: Mutex<Slots>,
    view: RwLock<View>,
    /// Whether the scope waits for upkeep.
    is_queued: AtomicBool,
}

/// Positions of the vectors.
#[derive(Default)]
struct Slots {
    /// Boxed, because most scopes have no sealed blocks.
    sealed: Option<Box<SealedSlots>>,
    /// Whether the scope was empty and left the index, so that an inserted vector would be lost.
    is_retired: bool,
}

/// Positions of the vectors in sealed blocks.
#[derive(Default)]
struct SealedSlots {
    /// Positions of the vectors that were not removed.
    by_key: HashMap<CacheKey, Slot>,
    /// Number of vectors in the blocks, including removed ones.
    total: usize,
}

/// Block number and position in the block.
#[derive(Clone, Copy, PartialEq)]
struct Slot {
    block: u32,
    at: u32,
}

/// State that searches see.
#[derive(Default)]
struct View {
    open: Block,
    sealed: Option<Arc<Sealed>>,
}

/// Error: the scope has left the index, which may have a new one by now.
#[derive(Debug)]
pub struct Retired;

/// Result of removing a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// The scope does not have the vector.
    Absent,
    /// The vector was removed.
    Removed,
    /// The vector was removed, and the scope is empty now.
    Last,
}

/// Work on a scope for the background thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upkeep {
    /// Drop the removed vectors, and build a new graph if `with_graph`.
    Rebuild { with_graph: bool },
    /// Add the sealed blocks that the graph does not have, or start a graph with them.
    Extend,
}

// === impl Cell ===

impl Cell {
    /// Adds a vector, or replaces the vector under this key. Returns whether it was added.
    pub fn insert(&self, shape: Shape, key: CacheKey, vector: &[f32]) -> Result<bool, Retired> {
        let mut slots = self.slots();
        if slots.is_retired {
            return Err(Retired);
        }
        let open_at = self.view().open.position(key);
        if let Some(at) = open_at {
            self.view_mut().open.replace(shape, at, vector);
            return Ok(false);
        }
        if self.has_sealed(&slots, shape, key, vector) {
            return Ok(false);
        }
        let is_replaced = self.remove_sealed(&mut slots, key);
        self.push(&mut slots, shape, key, vector);
        Ok(!is_replaced)
    }

    /// Removes a vector.
    pub fn remove(&self, shape: Shape, key: CacheKey) -> Removal {
        let mut slots = self.slots();
        let open_at = self.view().open.position(key);
        if let Some(at) = open_at {
            self.view_mut().open.swap_remove(shape, at);
        } else if !self.remove_sealed(&mut slots, key) {
            return Removal::Absent;
        }
        if self.is_empty(&slots) { Removal::Last } else { Removal::Removed }
    }

    /// Returns up to `k` vectors with the highest similarity, most similar first.
    pub fn search(&self, shape: Shape, query: &Embedding, k: usize) -> Vec<Neighbour> {
        let mut top = Top::new(k);
        let query = Query::new(shape, query);
        let sealed = {
            let view = self.view();
            query.scan(&[&view.open], &mut top);
            view.sealed.clone()
        };
        if let Some(sealed) = sealed {
            sealed.search(&query, &mut top);
        }
        top.into_found()
    }

    /// Number of vectors.
    pub fn len(&self) -> usize {
        let slots = self.slots();
        self.view().open.len() + slots.sealed_len()
    }

    fn is_empty(&self, slots: &Slots) -> bool {
        slots.sealed_len() == 0 && self.view().open.len() == 0
    }

    /// Retires the scope if it is empty. Returns whether it did.
    pub fn retire(&self) -> bool {
        let mut slots = self.slots();
        slots.is_retired = self.is_empty(&slots);
        slots.is_retired
    }

    /// Allocated bytes.
    pub fn memory_bytes(&self) -> usize {
        let slots = self.slots();
        // A map keeps an eighth of its slots free, and a control byte for each slot.
        let slot = size_of::<(CacheKey, Slot)>() + 1;
        let slots = slots.sealed.as_ref().map_or(0, |sealed| sealed.by_key.capacity() * slot * 8 / 7);
        let view = self.view();
        let blocks =
            view.open.memory_bytes() + view.sealed.as_ref().map_or(0, |sealed| sealed.memory_bytes());
        size_of::<Self>() + slots + blocks
    }

    /// Whether a sealed block has this vector under this key. That is common: a new answer to an expired prompt has
    /// an identical vector.
    fn has_sealed(&self, slots: &Slots, shape: Shape, key: CacheKey, vector: &[f32]) -> bool {
        let slot = slots.sealed.as_ref().and_then(|sealed| sealed.by_key.get(&key));
        let view = self.view();
        let present = slot
            .zip(view.sealed.as_ref())
            .map(|(slot, sealed)| sealed.blocks[slot.block as usize].vector(shape, slot.at as usize));
        present == Some(vector)
    }

    /// Marks the vector under `key` as removed if it is in a sealed block. Returns whether it was. A search that
    /// began earlier may still find it.
    fn remove_sealed(&self, slots: &mut Slots, key: CacheKey) -> bool {
        let slot = slots.sealed.as_mut().and_then(|sealed| sealed.by_key.remove(&key));
        if let (Some(slot), Some(sealed)) = (slot, &self.view().sealed) {
            sealed.blocks[slot.block as usize].mark_removed(slot.at as usize);
        }
        slot.is_some()
    }

    /// Appends a vector to the open block, and seals the block when it is full.
    fn push(&self, slots: &mut Slots, shape: Shape, key: CacheKey, vector: &[f32]) {
        let mut view = self.view_mut();
        view.open.push(shape, key, vector);
        if view.open.len() < BLOCK {
            return;
        }
        let mut block = mem::take(&mut view.open);
        block.seal(shape);
        let sealed = Arc::make_mut(view.sealed.get_or_insert_default());
        sealed.blocks.push(Arc::new(block));
        let (number, block) = (sealed.blocks.len() - 1, sealed.blocks[sealed.blocks.len() - 1].clone());
        drop(view);
        slots.sealed.get_or_insert_default().add(number, &block);
    }

    /// Locks the slots. Ignores poisoning: a panic under the lock is a bug, and leaves at worst a missing vector,
    /// which the cache repairs.
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn view(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn view_mut(&self) -> RwLockWriteGuard<'_, View> {
        self.view.write().unwrap_or_else(PoisonError::into_inner)
    }
}

// === upkeep: called by the background thread only, except `queue` ===

impl Cell {
    /// Returns whether upkeep is due and the scope was not queued yet. Then the caller must queue it.
    pub fn queue(&self, config: &IndexConfig) -> bool {
        self.due(config).is_some() && !self.is_queued.swap(true, Ordering::Relaxed)
    }

    /// Lets later changes queue the scope again.
    pub fn unqueue(&self) {
        self.is_queued.store(false, Ordering::Relaxed);
    }

    /// Returns the upkeep that is due.
    pub fn due(&self, config: &IndexConfig) -> Option<Upkeep> {
        let slots = self.slots();
        let slots = slots.sealed.as_ref()?;
        let (live, total) = (slots.by_key.len(), slots.total);
        let view = self.view();
        let sealed = view.sealed.as_ref()?;
        let wants_graph = |scan_max| match config.kind {
            IndexKind::Auto => live > scan_max,
            IndexKind::Scan => false,
            IndexKind::Hnsw => true,
        };
        if (total - live) as f32 > config.rebuild_at * total as f32 {
            // A graph is dropped only at half the limit, so that it does not come and go around the limit.
            let limit = if sealed.graph.is_some() { config.scan_max / 2 } else { config.scan_max };
            return Some(Upkeep::Rebuild { with_graph: wants_graph(limit) });
        }
        let has_or_wants_graph = sealed.graph.is_some() || wants_graph(config.scan_max);
        (has_or_wants_graph && sealed.graphed < sealed.blocks.len()).then_some(Upkeep::Extend)
    }

    /// Returns the current sealed blocks.
    pub fn sealed(&self) -> Option<Arc<Sealed>> {
        self.view().sealed.clone()
    }

    /// Installs the graph of `extended`, which covers the first blocks. Blocks sealed meanwhile stay outside the
    /// graph.
    pub fn install_graph(&self, extended: &Sealed) {
        let _slots = self.slots();
        let mut view = self.view_mut();
        if let Some(sealed) = &mut view.sealed {
            let sealed = Arc::make_mut(sealed);
            sealed.graph.clone_from(&extended.graph);
            sealed.graphed = extended.graphed;
        }
    }

    /// Installs a rebuild: repeats the removals since it began, and adds the blocks sealed meanwhile.
    pub fn install_rebuilt(&self, rebuilt: Rebuilt) {
        let Rebuilt { old, mut new, copied } = rebuilt;
        let mut renumbered = SealedSlots::default();
        for (number, block) in new.blocks.iter().enumerate() {
            renumbered.add(number, block);
        }
        let mut slots = self.slots();
        for [was, is] in copied {
            if old.blocks[was.0].is_removed(was.1) {
                new.blocks[is.0].mark_removed(is.1);
            }
        }
        for (number, block) in new.blocks.iter().enumerate() {
            renumbered.drop_removed(number, block);
        }
        let now = self.sealed();
        for block in now.iter().flat_map(|now| &now.blocks[old.blocks.len()..]) {
            renumbered.add(new.blocks.len(), block);
            new.blocks.push(block.clone());
        }
        slots.sealed = Some(Box::new(renumbered));
        self.view_mut().sealed = Some(Arc::new(new));
        drop(slots);
    }
}

// === impl Slots ===

impl Slots {
    fn sealed_len(&self) -> usize {
        self.sealed.as_ref().map_or(0, |sealed| sealed.by_key.len())
    }
}

// === impl SealedSlots ===

impl SealedSlots {
    /// Adds the vectors of block `number`.
    fn add(&mut self, number: usize, block: &Block) {
        self.total += block.len();
        for at in block.live() {
            let slot = Slot { block: number as u32, at: at as u32 };
            self.by_key.insert(block.keys()[at], slot);
        }
    }

    /// Drops the vectors of block `number` that were removed since [`add`](Self::add). Another block may have a new
    /// vector under such a key.
    fn drop_removed(&mut self, number: usize, block: &Block) {
        if block.removed_count() == 0 {
            return;
        }
        for at in (0..block.len()).filter(|at| block.is_removed(*at)) {
            let slot = Slot { block: number as u32, at: at as u32 };
            if self.by_key.get(&block.keys()[at]) == Some(&slot) {
                self.by_key.remove(&block.keys()[at]);
            }
        }
    }
}

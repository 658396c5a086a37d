//! The vectors of one scope: an open block that grows and shrinks, sealed blocks that only lose vectors,
//! and over the sealed ones a graph once they are many.
//!
//! Two locks, taken in this order. `slots` is held by whoever changes the scope, sometimes for
//! milliseconds; searches never take it. `view` is what searches see: held for writing only to put a
//! change in place, for reading only to look at the open block and to take hold of the rest. So no
//! search waits for more than the copy of a vector, however much is inserted or rebuilt.

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
    sealed::Sealed,
};
use crate::{IndexConfig, IndexKind};
use promptkeep_core::{embedding::Embedding, key::CacheKey};

/// One scope.
#[derive(Default)]
pub struct Cell {
    slots: Mutex<Slots>,
    view: RwLock<View>,
    /// Already waits for upkeep.
    is_queued: AtomicBool,
}

/// Where the vectors are.
#[derive(Default)]
struct Slots {
    /// Boxed, because most scopes have none.
    sealed: Option<Box<SealedSlots>>,
    /// The scope was empty and left the index: what would be inserted here would be lost.
    is_retired: bool,
}

#[derive(Default)]
struct SealedSlots {
    /// Of the live vectors.
    by_key: HashMap<CacheKey, Slot>,
    /// Vectors in the blocks, dead ones included.
    total: usize,
}

/// Block number and place in it.
#[derive(Clone, Copy, PartialEq)]
struct Slot {
    block: u32,
    at: u32,
}

/// What searches see.
#[derive(Default)]
struct View {
    open: Block,
    sealed: Option<Arc<Sealed>>,
}

/// The scope left the index; another may have taken its place there.
#[derive(Debug)]
pub struct Retired;

/// What became of a vector that was to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    Absent,
    Removed,
    /// Removed, and the scope is empty now.
    Last,
}

/// What is to be done about a scope in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upkeep {
    /// Drop the dead vectors, and build the graph anew where one is wanted.
    Rebuild { with_graph: bool },
    /// Add to the graph, or begin one with, the sealed blocks that it does not hold.
    Extend,
}

/// A rebuild that has still to be put in place.
pub struct Rebuilt {
    pub old: Arc<Sealed>,
    pub new: Sealed,
    /// Of each vector that was copied: where it was and where it is.
    pub copied: Vec<[(usize, usize); 2]>,
}

// === impl Cell ===

impl Cell {
    /// Adds a vector, or replaces the one under the same key. Returns whether it was added.
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
        if self.holds_sealed(&slots, shape, key, vector) {
            return Ok(false);
        }
        let was_there = self.kill_sealed(&mut slots, key);
        self.push(&mut slots, shape, key, vector);
        Ok(!was_there)
    }

    /// Removes a vector.
    pub fn remove(&self, shape: Shape, key: CacheKey) -> Removal {
        let mut slots = self.slots();
        let open_at = self.view().open.position(key);
        if let Some(at) = open_at {
            self.view_mut().open.swap_remove(shape, at);
        } else if !self.kill_sealed(&mut slots, key) {
            return Removal::Absent;
        }
        if self.is_empty(&slots) { Removal::Last } else { Removal::Removed }
    }

    /// The up to `k` nearest vectors, nearest first.
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

    /// Takes the scope out of use if it is empty. Returns whether it did.
    pub fn retire(&self) -> bool {
        let mut slots = self.slots();
        slots.is_retired = self.is_empty(&slots);
        slots.is_retired
    }

    pub fn memory_bytes(&self) -> usize {
        let slots = self.slots();
        // A map keeps an eighth of its places free and a byte of control beside each.
        let slot = size_of::<(CacheKey, Slot)>() + 1;
        let slots = slots.sealed.as_ref().map_or(0, |sealed| sealed.by_key.capacity() * slot * 8 / 7);
        let view = self.view();
        let blocks =
            view.open.memory_bytes() + view.sealed.as_ref().map_or(0, |sealed| sealed.memory_bytes());
        size_of::<Self>() + slots + blocks
    }

    /// Whether this very vector is there: an entry that is bought again after it expired has the same.
    fn holds_sealed(&self, slots: &Slots, shape: Shape, key: CacheKey, vector: &[f32]) -> bool {
        let slot = slots.sealed.as_ref().and_then(|sealed| sealed.by_key.get(&key));
        let view = self.view();
        let there = slot
            .zip(view.sealed.as_ref())
            .map(|(slot, sealed)| sealed.blocks[slot.block as usize].vector(shape, slot.at as usize));
        there == Some(vector)
    }

    /// Tombstones the vector under `key` in a sealed block. A search that began earlier may still
    /// find it.
    fn kill_sealed(&self, slots: &mut Slots, key: CacheKey) -> bool {
        let slot = slots.sealed.as_mut().and_then(|sealed| sealed.by_key.remove(&key));
        if let (Some(slot), Some(sealed)) = (slot, &self.view().sealed) {
            sealed.blocks[slot.block as usize].kill(slot.at as usize);
        }
        slot.is_some()
    }

    /// Appends to the open block, and seals it when it is full.
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

    /// A panic under a lock is a bug; what it leaves behind is at worst a missing vector, which the
    /// cache repairs as it does any other.
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

// === upkeep: only one thread calls these ===

impl Cell {
    /// Whether something is to be done and nobody was told yet: then the caller tells.
    pub fn queue(&self, config: &IndexConfig) -> bool {
        self.due(config).is_some() && !self.is_queued.swap(true, Ordering::Relaxed)
    }

    /// From now on, changes ask for upkeep again.
    pub fn unqueue(&self) {
        self.is_queued.store(false, Ordering::Relaxed);
    }

    /// What is to be done.
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
            // A graph that exists is kept until half of it is gone, not to come and go at the limit.
            let limit = if sealed.graph.is_some() { config.scan_max / 2 } else { config.scan_max };
            return Some(Upkeep::Rebuild { with_graph: wants_graph(limit) });
        }
        let begins_or_goes_on = sealed.graph.is_some() || wants_graph(config.scan_max);
        (begins_or_goes_on && sealed.graphed < sealed.blocks.len()).then_some(Upkeep::Extend)
    }

    /// The sealed vectors as they are now.
    pub fn sealed(&self) -> Option<Arc<Sealed>> {
        self.view().sealed.clone()
    }

    /// Puts a graph over the first blocks of `extended` in place. Blocks sealed meanwhile stay.
    pub fn put_graph(&self, extended: &Sealed) {
        let _slots = self.slots();
        let mut view = self.view_mut();
        if let Some(sealed) = &mut view.sealed {
            let sealed = Arc::make_mut(sealed);
            sealed.graph.clone_from(&extended.graph);
            sealed.graphed = extended.graphed;
        }
    }

    /// Puts a rebuild in place: removals since it began are done to it, blocks sealed meanwhile added.
    pub fn put_rebuilt(&self, rebuilt: Rebuilt) {
        let Rebuilt { old, mut new, copied } = rebuilt;
        let mut renumbered = SealedSlots::default();
        for (number, block) in new.blocks.iter().enumerate() {
            renumbered.add(number, block);
        }
        let mut slots = self.slots();
        for [was, is] in copied {
            if old.blocks[was.0].is_dead(was.1) {
                new.blocks[is.0].kill(is.1);
            }
        }
        for (number, block) in new.blocks.iter().enumerate() {
            renumbered.forget_dead(number, block);
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
    fn add(&mut self, number: usize, block: &Block) {
        self.total += block.len();
        for at in block.live() {
            let slot = Slot { block: number as u32, at: at as u32 };
            self.by_key.insert(block.keys()[at], slot);
        }
    }

    /// For vectors that died since [`add`](Self::add). The same key may live on elsewhere.
    fn forget_dead(&mut self, number: usize, block: &Block) {
        if block.dead_count() == 0 {
            return;
        }
        for at in (0..block.len()).filter(|at| block.is_dead(*at)) {
            let slot = Slot { block: number as u32, at: at as u32 };
            if self.by_key.get(&block.keys()[at]) == Some(&slot) {
                self.by_key.remove(&block.keys()[at]);
            }
        }
    }
}

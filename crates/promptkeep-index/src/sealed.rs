//! The sealed blocks of a scope, and the graph over them.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    block::{BLOCK, Block, Shape},
    cell::Rebuilt,
    hnsw::Graph,
    scan::{Query, Top},
};

/// Neighbours asked of the graph at first; the more, the surer the nearest is among them.
const EF_SEARCH: usize = 32;
/// The most, when many of them turn out to be dead.
const EF_SEARCH_MAX: usize = 1024;

/// Never changed once a search may see it, but for the dead bits and the growth of the graph.
#[derive(Clone, Default)]
pub struct Sealed {
    pub blocks: Vec<Arc<Block>>,
    pub graph: Option<Arc<Graph>>,
    /// The graph holds all blocks before this one; the others are scanned.
    pub graphed: usize,
}

/// Kept blocks, then those filled with copies, one after the other.
struct Copier {
    shape: Shape,
    blocks: Vec<Arc<Block>>,
    filling: Block,
    copied: Vec<[(usize, usize); 2]>,
}

// === impl Sealed ===

impl Sealed {
    pub fn search(&self, query: &Query, top: &mut Top) {
        let (graphed, scanned) = self.blocks.split_at(self.graphed);
        query.scan(scanned, top);
        if let Some(graph) = &self.graph {
            self.search_graph(graph, graphed, query, top);
        }
    }

    /// Asks for more and more until enough of the found are alive, and in the end looks at all: after a
    /// whole neighbourhood was removed, the rest of the scope must still be found.
    fn search_graph(&self, graph: &Graph, blocks: &[Arc<Block>], query: &Query, top: &mut Top) {
        let live: usize = blocks.iter().map(|block| block.len() - block.dead_count()).sum();
        let wanted = top.k().min(live);
        let mut count = EF_SEARCH.max(top.k());
        loop {
            let mut found = graph.search(query.embedding(), count);
            found.retain(|(number, at)| blocks.get(*number).is_some_and(|block| !block.is_dead(*at)));
            if found.len() >= wanted {
                return found.iter().for_each(|(number, at)| query.offer(&blocks[*number], *at, top));
            }
            if count >= EF_SEARCH_MAX {
                return query.scan(blocks, top);
            }
            count *= 4;
        }
    }

    /// Adds the blocks that the graph does not hold, or begins one. `None` when stopped.
    pub fn extend(&self, shape: Shape, stop: &AtomicBool) -> Option<Self> {
        let graph = self.graph.clone().unwrap_or_else(|| Arc::new(Graph::new(shape, self.total())));
        fill(&graph, &self.blocks, self.graphed, stop)?;
        Some(Self { blocks: self.blocks.clone(), graph: Some(graph), graphed: self.blocks.len() })
    }

    /// Keeps full blocks without dead vectors, which may go on dying there, and copies the live vectors
    /// of the others; builds a new graph if one is wanted. `None` when stopped.
    pub fn rebuild(self: Arc<Self>, shape: Shape, with_graph: bool, stop: &AtomicBool) -> Option<Rebuilt> {
        let keeps = |block: &Block| block.dead_count() == 0 && block.len() >= BLOCK / 2;
        let (kept, copies): (Vec<_>, Vec<_>) =
            self.blocks.iter().enumerate().partition(|(_, block)| keeps(block));
        let kept = kept.into_iter().map(|(_, block)| block.clone()).collect();
        let mut copier = Copier { shape, blocks: kept, filling: Block::default(), copied: Vec::new() };
        for (number, block) in copies {
            copier.take(number, block);
        }
        copier.seal();
        let Copier { blocks, copied, .. } = copier;
        let mut new = Self { blocks, graph: None, graphed: 0 };
        if with_graph {
            new = new.extend(shape, stop)?;
        }
        Some(Rebuilt { old: self, new, copied })
    }

    fn total(&self) -> usize {
        self.blocks.iter().map(|block| block.len()).sum()
    }

    pub fn memory_bytes(&self) -> usize {
        let blocks: usize = self.blocks.iter().map(|block| block.memory_bytes()).sum();
        blocks + self.graph.as_ref().map_or(0, |graph| graph.memory_bytes())
    }

    /// Drops it, but not before the last search that still looks at it is done: freeing a graph takes
    /// long, and the last owner has to.
    pub fn free(self: Arc<Self>) {
        /// Longer than any search takes.
        const PATIENCE: u32 = 1000;
        let graph = self.graph.clone();
        drop(self);
        for _ in 0..PATIENCE {
            if graph.as_ref().is_none_or(|graph| Arc::strong_count(graph) == 1) {
                break;
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "on a thread of its own, and nothing tells of the end"
            )]
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Inserts the blocks from number `from` on. `None` when stopped.
fn fill(graph: &Graph, blocks: &[Arc<Block>], from: usize, stop: &AtomicBool) -> Option<()> {
    for (number, block) in blocks.iter().enumerate().skip(from) {
        for at in block.live() {
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            graph.insert(number, block, at);
        }
    }
    Some(())
}

// === impl Copier ===

impl Copier {
    fn take(&mut self, number: usize, block: &Block) {
        for at in block.live() {
            let place = (self.blocks.len(), self.filling.len());
            self.filling.push(self.shape, block.keys()[at], block.vector(self.shape, at));
            self.copied.push([(number, at), place]);
            if self.filling.len() == BLOCK {
                self.seal();
            }
        }
    }

    fn seal(&mut self) {
        if self.filling.len() > 0 {
            let mut block = mem::take(&mut self.filling);
            block.seal(self.shape);
            self.blocks.push(Arc::new(block));
        }
    }
}

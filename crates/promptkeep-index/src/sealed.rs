//! The sealed blocks of a scope, the graph over them, and their rebuild.

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
    hnsw::Graph,
    scan::{Query, Top},
};

/// Number of neighbours that a search requests from the graph first. More neighbours raise the recall.
const EF_SEARCH: usize = 32;
/// Maximum number of requested neighbours when many of them were removed.
const EF_SEARCH_MAX: usize = 1024;

/// Sealed blocks and their graph. Once a search may see them, only the marks of removed vectors change and the graph
/// grows.
#[derive(Clone, Default)]
pub struct Sealed {
    /// The blocks by number.
    pub blocks: Vec<Arc<Block>>,
    /// Graph over the first blocks, if there is one.
    pub graph: Option<Arc<Graph>>,
    /// Number of blocks in the graph; the others are scanned.
    pub graphed: usize,
}

/// A rebuild that is not yet installed.
pub struct Rebuilt {
    /// The blocks from which it was made.
    pub old: Arc<Sealed>,
    /// The rebuilt blocks.
    pub new: Sealed,
    /// Block number and position of each copied vector, before and after.
    pub copied: Vec<[(usize, usize); 2]>,
}

/// Collects the blocks of a rebuild: first those that are kept, then those filled with copies.
struct Copier {
    shape: Shape,
    blocks: Vec<Arc<Block>>,
    filling: Block,
    copied: Vec<[(usize, usize); 2]>,
}

impl Sealed {
    /// Adds the nearest vectors to `top`.
    pub fn search(&self, query: &Query, top: &mut Top) {
        let (graphed, scanned) = self.blocks.split_at(self.graphed);
        query.scan(scanned, top);
        if let Some(graph) = &self.graph {
            self.search_graph(graph, graphed, query, top);
        }
    }

    /// Requests more neighbours until enough of them were not removed, and finally scans all blocks: even when a
    /// whole neighbourhood was removed, the rest of the scope must be found.
    fn search_graph(&self, graph: &Graph, blocks: &[Arc<Block>], query: &Query, top: &mut Top) {
        let live: usize = blocks.iter().map(|block| block.len() - block.removed_count()).sum();
        let wanted = top.k().min(live);
        let mut count = EF_SEARCH.max(top.k());
        loop {
            let mut found = graph.search(query.embedding(), count);
            found.retain(|(number, at)| blocks.get(*number).is_some_and(|block| !block.is_removed(*at)));
            if found.len() >= wanted {
                return found.iter().for_each(|(number, at)| query.offer(&blocks[*number], *at, top));
            }
            if count >= EF_SEARCH_MAX {
                return query.scan(blocks, top);
            }
            count *= 4;
        }
    }

    /// Adds the blocks that the graph does not have, or starts a graph. `None` when stopped.
    pub fn extend(&self, shape: Shape, stop: &AtomicBool) -> Option<Self> {
        let graph = self.graph.clone().unwrap_or_else(|| Arc::new(Graph::new(shape, self.total())));
        fill(&graph, &self.blocks, self.graphed, stop)?;
        Some(Self { blocks: self.blocks.clone(), graph: Some(graph), graphed: self.blocks.len() })
    }

    /// Keeps blocks without removed vectors that are at least half full, copies the remaining vectors of the others,
    /// and builds a new graph if `with_graph`. Vectors may be removed meanwhile. `None` when stopped.
    pub fn rebuild(self: Arc<Self>, shape: Shape, with_graph: bool, stop: &AtomicBool) -> Option<Rebuilt> {
        let keeps = |block: &Block| block.removed_count() == 0 && block.len() >= BLOCK / 2;
        let (kept, copies): (Vec<_>, Vec<_>) =
            self.blocks.iter().enumerate().partition(|(_, block)| keeps(block));
        let kept = kept.into_iter().map(|(_, block)| block.clone()).collect();
        let mut copier = Copier { shape, blocks: kept, filling: Block::default(), copied: Vec::new() };
        for (number, block) in copies {
            copier.copy(number, block);
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

    /// Allocated bytes.
    pub fn memory_bytes(&self) -> usize {
        let blocks: usize = self.blocks.iter().map(|block| block.memory_bytes()).sum();
        blocks + self.graph.as_ref().map_or(0, |graph| graph.memory_bytes())
    }

    /// Drops the blocks and the graph after the last search that uses them has ended. The last owner frees the graph,
    /// which takes long, so that must not be a search.
    pub fn free(self: Arc<Self>) {
        /// Maximum wait in milliseconds, longer than any search takes.
        const WAIT_MS_MAX: u32 = 1000;
        let graph = self.graph.clone();
        drop(self);
        for _ in 0..WAIT_MS_MAX {
            if graph.as_ref().is_none_or(|graph| Arc::strong_count(graph) == 1) {
                break;
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "runs on the upkeep thread, and the end of a search sends no event"
            )]
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Adds the blocks from number `from` to the graph. `None` when stopped.
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

impl Copier {
    /// Copies the vectors of block `number` that were not removed.
    fn copy(&mut self, number: usize, block: &Block) {
        for at in block.live() {
            let target = (self.blocks.len(), self.filling.len());
            self.filling.push(self.shape, block.keys()[at], block.vector(self.shape, at));
            self.copied.push([(number, at), target]);
            if self.filling.len() == BLOCK {
                self.seal();
            }
        }
    }

    /// Seals the block that is being filled, if it has vectors.
    fn seal(&mut self) {
        if self.filling.len() > 0 {
            let mut block = mem::take(&mut self.filling);
            block.seal(self.shape);
            self.blocks.push(Arc::new(block));
        }
    }
}

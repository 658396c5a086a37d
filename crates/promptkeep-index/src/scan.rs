//! Nearest vectors by looking at all of them: their sign codes first, then the best in full.

use std::{collections::BinaryHeap, f32::consts::PI, ops::Deref};

use super::{
    Neighbour,
    block::{BLOCK, Block, Shape},
};
use promptkeep_core::{embedding::Embedding, key::CacheKey};

/// Vectors compared in full after the codes chose them.
const RERANK: usize = 64;
/// The same where so many vectors lie close together that the codes cannot tell them apart, as with
/// prompts made from one template.
const RERANK_DENSE: usize = 1024;
/// Standard deviations of a code distance within which the nearest vector is looked for.
const SURENESS: f32 = 3.0;
/// Similarity below which nobody would serve an answer, so that looking further is not worth its time.
const NEAR: f32 = 0.7;

/// The best `k` found so far, nearest first.
pub struct Top {
    k: usize,
    found: Vec<Neighbour>,
}

/// The vectors with the nearest codes so far, the farthest on top.
struct Chosen {
    limit: usize,
    /// Code distance beyond which nothing is taken, although there is room.
    reach: u16,
    heap: BinaryHeap<Candidate>,
}

/// The vector that is looked for.
pub struct Query<'q> {
    shape: Shape,
    embedding: &'q Embedding,
    code: Vec<u64>,
}

/// A vector chosen by its code, ordered by the distance: block and place in it.
type Candidate = (u16, u32, u32);

// === impl Top ===

impl Top {
    pub fn new(k: usize) -> Self {
        Self { k, found: Vec::new() }
    }

    pub fn offer(&mut self, similarity: f32, key: CacheKey) {
        let is_nearer = |n: &Neighbour| n.similarity >= similarity;
        let place = self.found.partition_point(is_nearer);
        if place < self.k {
            self.found.truncate(self.k - 1);
            self.found.insert(place, Neighbour { key, similarity });
        }
    }

    /// How many are looked for.
    pub fn k(&self) -> usize {
        self.k
    }

    pub fn into_found(self) -> Vec<Neighbour> {
        self.found
    }
}

// === impl Query ===

impl<'q> Query<'q> {
    pub fn new(shape: Shape, embedding: &'q Embedding) -> Self {
        Self { shape, embedding, code: shape.code(embedding.as_slice()).collect() }
    }

    pub fn embedding(&self) -> &'q Embedding {
        self.embedding
    }

    /// Compares the vector at `at` in full.
    pub fn offer(&self, block: &Block, at: usize, top: &mut Top) {
        let product = self.shape.kernel.dot(self.embedding.as_slice(), block.vector(self.shape, at));
        // Rounding may exceed what a cosine can be.
        top.offer(product.clamp(-1.0, 1.0), block.keys()[at]);
    }

    /// Looks at all vectors of `blocks`, when there are few, or else at those with the nearest codes.
    pub fn scan<B: Deref<Target = Block>>(&self, blocks: &[B], top: &mut Top) {
        if blocks.iter().all(|block| block.codes().is_empty()) {
            return self.scan_in_full(blocks, top);
        }
        let mut found = Top::new(top.k);
        let chosen = self.choose(blocks, RERANK, u16::MAX);
        let farthest = chosen.peek().map_or(0, |(distance, ..)| *distance);
        let has_left_out = chosen.len() == RERANK;
        self.rerank(blocks, chosen, &mut found);
        let reach = self.reach(&found);
        if has_left_out && farthest <= reach {
            found = Top::new(top.k);
            self.rerank(blocks, self.choose(blocks, RERANK_DENSE, reach), &mut found);
        }
        found.found.iter().for_each(|neighbour| top.offer(neighbour.similarity, neighbour.key));
    }

    /// Compares every vector in full.
    pub fn scan_in_full<B: Deref<Target = Block>>(&self, blocks: &[B], top: &mut Top) {
        for block in blocks {
            block.live().for_each(|at| self.offer(block, at, top));
        }
    }

    /// The up to `limit` vectors with the nearest codes, none farther than `reach`.
    fn choose<B: Deref<Target = Block>>(
        &self,
        blocks: &[B],
        limit: usize,
        reach: u16,
    ) -> BinaryHeap<Candidate> {
        let mut chosen = Chosen { limit, reach, heap: BinaryHeap::with_capacity(limit + 1) };
        let mut distances = [0; BLOCK];
        for (number, block) in blocks.iter().enumerate() {
            let distances = &mut distances[..block.codes().len() / self.code.len()];
            self.shape.kernel.hamming(block.codes(), &self.code, distances);
            chosen.take_from(block, number as u32, &distances[..block.len()]);
        }
        chosen.heap
    }

    fn rerank<B: Deref<Target = Block>>(&self, blocks: &[B], chosen: BinaryHeap<Candidate>, top: &mut Top) {
        for (_, number, at) in chosen {
            self.offer(&blocks[number as usize], at as usize, top);
        }
    }

    /// The code distance within which a vector nearer than the best found almost surely is: bits differ
    /// with probability angle / pi. Zero when nothing found is near enough to matter.
    fn reach(&self, found: &Top) -> u16 {
        let Some(nearest) = found.found.first().filter(|n| n.similarity >= NEAR) else { return 0 };
        let bits = self.shape.dimensions as f32;
        let share = nearest.similarity.acos() / PI;
        (bits * share + SURENESS * (bits * share * (1.0 - share)).sqrt()) as u16
    }
}

// === impl Chosen ===

impl Chosen {
    /// Offers the vectors of block `number`, given the `distances` of their codes.
    fn take_from(&mut self, block: &Block, number: u32, distances: &[u16]) {
        /// So many that the minimum, which is quick to compute, seldom lets them pass.
        const CHUNK: usize = 64;
        for (chunk, distances) in distances.chunks(CHUNK).enumerate() {
            // `Iterator::min` keeps the place too, which costs ten times as much.
            let nearest = distances.iter().fold(u16::MAX, |nearest, distance| nearest.min(*distance));
            if nearest >= self.limit_distance() {
                continue;
            }
            for (offset, distance) in distances.iter().enumerate() {
                let at = chunk * CHUNK + offset;
                if *distance < self.limit_distance() && !block.is_dead(at) {
                    self.push((*distance, number, at as u32));
                }
            }
        }
    }

    /// Only what is nearer than this is taken.
    fn limit_distance(&self) -> u16 {
        match self.heap.peek() {
            Some((worst, ..)) if self.heap.len() == self.limit => *worst,
            _ => self.reach.saturating_add(1),
        }
    }

    fn push(&mut self, candidate: Candidate) {
        self.heap.push(candidate);
        if self.heap.len() > self.limit {
            self.heap.pop();
        }
    }
}

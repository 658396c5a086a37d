//! Search by scanning: sign codes preselect vectors, which are then compared in full precision.

use std::{collections::BinaryHeap, f32::consts::PI, ops::Deref};

use super::{
    Neighbour,
    block::{BLOCK, Block, Shape},
};
use promptkeep_core::{embedding::Embedding, key::CacheKey};

/// Number of vectors that the codes preselect for the comparison in full precision.
const RERANK: usize = 64;
/// Number of preselected vectors when many are so close together that the codes cannot separate them, as with prompts
/// made from one template.
const RERANK_DENSE: usize = 1024;
/// Standard deviations of the code distance that [`Query::reach`] allows for the nearest vector.
const REACH_DEVIATIONS: f32 = 3.0;
/// Similarity below which no answer is served, so that a second scan would not pay.
const SERVABLE_SIMILARITY_MIN: f32 = 0.7;

/// The `k` most similar vectors found so far, most similar first.
pub struct Top {
    k: usize,
    found: Vec<Neighbour>,
}

/// The vectors with the smallest code distances so far.
struct Preselection {
    /// Maximum number of vectors.
    limit: usize,
    /// Maximum code distance.
    reach: u16,
    /// The largest distance is on top.
    heap: BinaryHeap<Candidate>,
}

/// The query vector and its sign code.
pub struct Query<'q> {
    shape: Shape,
    embedding: &'q Embedding,
    code: Vec<u64>,
}

/// Code distance, block number and position in the block. Ordered by the distance.
type Candidate = (u16, u32, u32);

impl Top {
    /// Creates an empty list.
    pub fn new(k: usize) -> Self {
        Self { k, found: Vec::new() }
    }

    /// Adds a vector if it is among the `k` most similar.
    pub fn offer(&mut self, similarity: f32, key: CacheKey) {
        let position = self.found.partition_point(|n| n.similarity >= similarity);
        if position < self.k {
            self.found.truncate(self.k - 1);
            self.found.insert(position, Neighbour { key, similarity });
        }
    }

    /// Maximum number of vectors.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Returns the vectors, most similar first.
    pub fn into_found(self) -> Vec<Neighbour> {
        self.found
    }
}

impl<'q> Query<'q> {
    /// Prepares a query.
    pub fn new(shape: Shape, embedding: &'q Embedding) -> Self {
        Self { shape, embedding, code: shape.code(embedding.as_slice()).collect() }
    }

    /// The query vector.
    pub fn embedding(&self) -> &'q Embedding {
        self.embedding
    }

    /// Compares the query with the vector at `at` in full precision.
    pub fn offer(&self, block: &Block, at: usize, top: &mut Top) {
        let product = self.shape.kernel.dot(self.embedding.as_slice(), block.vector(self.shape, at));
        // Rounding may push the product out of the range of a cosine.
        top.offer(product.clamp(-1.0, 1.0), block.keys()[at]);
    }

    /// Searches `blocks`: compares all vectors if they are few, or else those with the smallest code distances.
    pub fn scan<B: Deref<Target = Block>>(&self, blocks: &[B], top: &mut Top) {
        if blocks.iter().all(|block| block.codes().is_empty()) {
            return self.scan_in_full(blocks, top);
        }
        let mut found = Top::new(top.k);
        let preselected = self.preselect(blocks, RERANK, u16::MAX);
        let farthest = preselected.peek().map_or(0, |(distance, ..)| *distance);
        let is_truncated = preselected.len() == RERANK;
        self.rerank(blocks, preselected, &mut found);
        let reach = self.reach(&found);
        if is_truncated && farthest <= reach {
            found = Top::new(top.k);
            self.rerank(blocks, self.preselect(blocks, RERANK_DENSE, reach), &mut found);
        }
        found.found.iter().for_each(|neighbour| top.offer(neighbour.similarity, neighbour.key));
    }

    /// Compares the query with every vector in full precision.
    fn scan_in_full<B: Deref<Target = Block>>(&self, blocks: &[B], top: &mut Top) {
        for block in blocks {
            block.live().for_each(|at| self.offer(block, at, top));
        }
    }

    /// Returns up to `limit` vectors with the smallest code distances, none above `reach`.
    fn preselect<B: Deref<Target = Block>>(
        &self,
        blocks: &[B],
        limit: usize,
        reach: u16,
    ) -> BinaryHeap<Candidate> {
        let mut preselection = Preselection { limit, reach, heap: BinaryHeap::with_capacity(limit + 1) };
        let mut distances = [0; BLOCK];
        for (number, block) in blocks.iter().enumerate() {
            let distances = &mut distances[..block.codes().len() / self.code.len()];
            self.shape.kernel.hamming(block.codes(), &self.code, distances);
            preselection.add_block(block, number as u32, &distances[..block.len()]);
        }
        preselection.heap
    }

    /// Compares the query with the preselected vectors in full precision.
    fn rerank<B: Deref<Target = Block>>(
        &self,
        blocks: &[B],
        preselected: BinaryHeap<Candidate>,
        top: &mut Top,
    ) {
        for (_, number, at) in preselected {
            self.offer(&blocks[number as usize], at as usize, top);
        }
    }

    /// Returns a code distance that a vector more similar than the best found one almost never exceeds. Each bit
    /// differs with probability angle / π. Zero when no found vector is similar enough to be served.
    fn reach(&self, found: &Top) -> u16 {
        let Some(nearest) = found.found.first().filter(|n| n.similarity >= SERVABLE_SIMILARITY_MIN) else {
            return 0;
        };
        let bits = self.shape.dimensions as f32;
        let share = nearest.similarity.acos() / PI;
        (bits * share + REACH_DEVIATIONS * (bits * share * (1.0 - share)).sqrt()) as u16
    }
}

impl Preselection {
    /// Adds vectors of block `number`, given the `distances` of their codes.
    fn add_block(&mut self, block: &Block, number: u32, distances: &[u16]) {
        /// Number of vectors that are skipped together when their minimum distance, which is fast to compute, is too
        /// large.
        const CHUNK: usize = 64;
        for (chunk, distances) in distances.chunks(CHUNK).enumerate() {
            // Ten times as fast as `Iterator::min`, which does not vectorise.
            let nearest = distances.iter().fold(u16::MAX, |nearest, distance| nearest.min(*distance));
            if nearest >= self.limit_distance() {
                continue;
            }
            for (offset, distance) in distances.iter().enumerate() {
                let at = chunk * CHUNK + offset;
                if *distance < self.limit_distance() && !block.is_removed(at) {
                    self.push((*distance, number, at as u32));
                }
            }
        }
    }

    /// Distance that a vector must fall below to be added.
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

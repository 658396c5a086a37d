//! Nearest vectors by a navigable graph. The only file that knows hnsw_rs.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use hnsw_rs::{anndists::dist::Distance, hnsw::Hnsw};

use super::block::{BLOCK, Block, Shape};
use promptkeep_core::embedding::Embedding;

/// Links of a vector in each layer; twice as many in the lowest.
const LINKS: usize = 16;
/// Candidates looked at to link a new vector.
const EF_INSERT: usize = 200;
/// Layers; with 16 links there are vectors in the fifth from a million on.
const LAYERS: usize = 16;
/// Bytes of a vector's node and links without the vector, measured at 100k vectors.
const NODE_BYTES: usize = 3100;

/// A graph over vectors of sealed blocks, which it shares rather than copies.
pub struct Graph {
    hnsw: Hnsw<'static, Point, Cosine>,
    len: AtomicUsize,
}

/// Where a vector is.
#[derive(Clone)]
enum Point {
    Kept { block: Arc<Block>, at: u32 },
    Asked(Embedding),
}

/// 1 − cosine, which hnsw_rs wants never below zero.
struct Cosine(Shape);

// === impl Graph ===

impl Graph {
    /// An empty graph with room for about `capacity` vectors; more are welcome.
    pub fn new(shape: Shape, capacity: usize) -> Self {
        let hnsw = Hnsw::new(LINKS, capacity, LAYERS, EF_INSERT, Cosine(shape));
        Self { hnsw, len: AtomicUsize::new(0) }
    }

    /// Adds a vector of block `number`. Searches may go on meanwhile, but no other insertion: two that
    /// link to each other would wait for each other's locks.
    pub fn insert(&self, number: usize, block: &Arc<Block>, at: usize) {
        let point = Point::Kept { block: block.clone(), at: at as u32 };
        self.hnsw.insert_slice((&[point], number * BLOCK + at));
        self.len.fetch_add(1, Ordering::Relaxed);
    }

    /// About the nearest `count` vectors, nearest first: block numbers and places.
    pub fn search(&self, query: &Embedding, count: usize) -> Vec<(usize, usize)> {
        let found = self.hnsw.search(&[Point::Asked(query.clone())], count, count);
        found.into_iter().map(|point| (point.d_id / BLOCK, point.d_id % BLOCK)).collect()
    }

    /// Number of vectors, dead ones included.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Without the vectors, which belong to the blocks.
    pub fn memory_bytes(&self) -> usize {
        self.len() * NODE_BYTES
    }
}

// === impl Point ===

impl Point {
    fn vector(&self, shape: Shape) -> &[f32] {
        match self {
            Self::Kept { block, at } => block.vector(shape, *at as usize),
            Self::Asked(embedding) => embedding.as_slice(),
        }
    }
}

// === impl Cosine ===

impl Distance<Point> for Cosine {
    /// Both slices hold one point.
    fn eval(&self, a: &[Point], b: &[Point]) -> f32 {
        let (a, b) = (a[0].vector(self.0), b[0].vector(self.0));
        (1.0 - self.0.kernel.dot(a, b)).max(0.0)
    }
}

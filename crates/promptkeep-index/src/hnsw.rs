//! An HNSW graph over sealed blocks. The only file that uses hnsw_rs.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use hnsw_rs::{anndists::dist::Distance, hnsw::Hnsw};

use super::block::{BLOCK, Block, Shape};
use promptkeep_core::embedding::Embedding;

/// Maximum number of links of a vector per layer; twice as many in the lowest layer.
const LINKS: usize = 16;
/// Number of candidates for the links of a new vector.
const EF_INSERT: usize = 200;
/// Maximum number of layers. With 16 links, the fifth layer has vectors from about a million on.
const LAYERS: usize = 16;
/// Bytes of a node and its links without the vector, measured with 100,000 vectors.
const NODE_BYTES: usize = 3100;

/// A graph over vectors of sealed blocks, which it shares and does not copy.
pub struct Graph {
    hnsw: Hnsw<'static, Point, Cosine>,
    len: AtomicUsize,
}

/// A vector of a block, or the query.
#[derive(Clone)]
enum Point {
    Stored { block: Arc<Block>, at: u32 },
    Query(Embedding),
}

/// Distance `1 − cosine`. hnsw_rs requires that it is never negative.
struct Cosine(Shape);

impl Graph {
    /// Creates an empty graph for about `capacity` vectors. It may grow beyond that.
    pub fn new(shape: Shape, capacity: usize) -> Self {
        let hnsw = Hnsw::new(LINKS, capacity, LAYERS, EF_INSERT, Cosine(shape));
        Self { hnsw, len: AtomicUsize::new(0) }
    }

    /// Adds the vector at `at` of block `number`. May run concurrently with searches but not with another insertion:
    /// two vectors that link to each other would deadlock.
    pub fn insert(&self, number: usize, block: &Arc<Block>, at: usize) {
        let point = Point::Stored { block: block.clone(), at: at as u32 };
        self.hnsw.insert_slice((&[point], number * BLOCK + at));
        self.len.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns approximately the `count` nearest vectors as block numbers and positions, nearest first.
    pub fn search(&self, query: &Embedding, count: usize) -> Vec<(usize, usize)> {
        let found = self.hnsw.search(&[Point::Query(query.clone())], count, count);
        found.into_iter().map(|point| (point.d_id / BLOCK, point.d_id % BLOCK)).collect()
    }

    /// Number of vectors, including removed ones.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Approximate bytes without the vectors, which belong to the blocks.
    pub fn memory_bytes(&self) -> usize {
        self.len() * NODE_BYTES
    }
}

impl Point {
    fn vector(&self, shape: Shape) -> &[f32] {
        match self {
            Self::Stored { block, at } => block.vector(shape, *at as usize),
            Self::Query(embedding) => embedding.as_slice(),
        }
    }
}

impl Distance<Point> for Cosine {
    /// Both slices have one point.
    fn eval(&self, a: &[Point], b: &[Point]) -> f32 {
        let (a, b) = (a[0].vector(self.0), b[0].vector(self.0));
        (1.0 - self.0.kernel.dot(a, b)).max(0.0)
    }
}

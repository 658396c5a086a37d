//! A run of vectors, side by side in memory, with their keys and sign codes.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::kernel::{GROUP, Kernel};
use promptkeep_core::key::CacheKey;

/// Vectors in a block, at most; a multiple of 64. Small enough that a search may look at a whole one
/// under a lock (10 µs), large enough that blocks are few.
pub const BLOCK: usize = 1024;

/// Vectors below which comparing all of them is no slower than choosing some by their codes first.
pub const CODES_MIN: usize = 128;

/// What all blocks of an index have in common.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub dimensions: usize,
    pub kernel: Kernel,
}

/// Grows by [`push`](Self::push) and shrinks by [`swap_remove`](Self::swap_remove) while it is the open
/// block of a scope. Once sealed it only loses vectors by [`kill`](Self::kill), so that searches read it
/// without a lock.
#[derive(Default)]
pub struct Block {
    keys: Vec<CacheKey>,
    /// `dimensions` numbers for each key.
    vectors: Vec<f32>,
    /// Of each vector the signs of its numbers, in groups, see [`Kernel::hamming`]; the last group is
    /// padded. Empty while there are fewer than [`CODES_MIN`] vectors, so that tiny scopes pay nothing.
    codes: Vec<u64>,
    /// A bit for each vector of a sealed block; empty before.
    dead: Box<[AtomicU64]>,
    dead_count: AtomicUsize,
}

// === impl Shape ===

impl Shape {
    /// Words of one code.
    pub const fn words(self) -> usize {
        self.dimensions.div_ceil(64)
    }

    /// The signs of a vector, one bit each.
    pub fn code(self, vector: &[f32]) -> impl Iterator<Item = u64> + use<'_> {
        vector.chunks(64).map(|chunk| {
            chunk.iter().enumerate().fold(0, |word, (bit, x)| word | u64::from(x.is_sign_negative()) << bit)
        })
    }
}

// === impl Block ===

impl Block {
    /// Number of vectors, dead ones included.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn keys(&self) -> &[CacheKey] {
        &self.keys
    }

    pub fn vector(&self, shape: Shape, at: usize) -> &[f32] {
        &self.vectors[at * shape.dimensions..][..shape.dimensions]
    }

    /// Empty when there are too few vectors for codes to help.
    pub fn codes(&self) -> &[u64] {
        &self.codes
    }

    pub fn position(&self, key: CacheKey) -> Option<usize> {
        self.keys.iter().position(|k| *k == key)
    }

    pub fn push(&mut self, shape: Shape, key: CacheKey, vector: &[f32]) {
        if self.keys.is_empty() {
            // Most scopes stay tiny, and a growing list begins with room for four.
            self.keys.reserve_exact(1);
        }
        self.keys.push(key);
        self.vectors.extend_from_slice(vector);
        match self.len() {
            ..CODES_MIN => {}
            CODES_MIN => (0..CODES_MIN).for_each(|at| self.set_code(shape, at)),
            _ => self.set_code(shape, self.len() - 1),
        }
    }

    /// Fills the place of the vector at `at` with the last one. Frees what has become much too large.
    pub fn swap_remove(&mut self, shape: Shape, at: usize) {
        let dimensions = shape.dimensions;
        let last = self.len() - 1;
        self.vectors.copy_within(last * dimensions.., at * dimensions);
        self.vectors.truncate(last * dimensions);
        self.keys.swap_remove(at);
        if last < CODES_MIN {
            self.codes.clear();
        } else if at < last {
            self.set_code(shape, at);
        }
        if self.keys.capacity() > 4 * last {
            self.keys.shrink_to(2 * last);
            self.vectors.shrink_to(2 * last * dimensions);
            self.codes.shrink_to(2 * self.codes.len());
        }
    }

    /// Replaces the vector at `at`.
    pub fn replace(&mut self, shape: Shape, at: usize, vector: &[f32]) {
        self.vectors[at * shape.dimensions..][..shape.dimensions].copy_from_slice(vector);
        if !self.codes.is_empty() {
            self.set_code(shape, at);
        }
    }

    fn set_code(&mut self, shape: Shape, at: usize) {
        let group = at / GROUP * GROUP * shape.words();
        self.codes.resize(self.codes.len().max(group + GROUP * shape.words()), 0);
        let vector = &self.vectors[at * shape.dimensions..][..shape.dimensions];
        for (word, bits) in shape.code(vector).enumerate() {
            self.codes[group + word * GROUP + at % GROUP] = bits;
        }
    }

    /// Makes it one whose vectors die in place. It has codes from now on.
    pub fn seal(&mut self, shape: Shape) {
        if self.codes.is_empty() {
            (0..self.len()).for_each(|at| self.set_code(shape, at));
        }
        self.keys.shrink_to_fit();
        self.vectors.shrink_to_fit();
        self.codes.shrink_to_fit();
        self.dead = (0..self.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
    }

    /// Whether the vector at `at` was removed. Later searches see every earlier [`kill`](Self::kill):
    /// the lock of the scope orders them.
    pub fn is_dead(&self, at: usize) -> bool {
        self.dead.get(at / 64).is_some_and(|word| word.load(Ordering::Relaxed) >> (at % 64) & 1 == 1)
    }

    /// Removes the vector at `at` of a sealed block.
    pub fn kill(&self, at: usize) {
        let bit = 1 << (at % 64);
        if self.dead[at / 64].fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            self.dead_count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn dead_count(&self) -> usize {
        self.dead_count.load(Ordering::Relaxed)
    }

    /// Positions of the vectors that are not dead.
    pub fn live(&self) -> impl Iterator<Item = usize> {
        (0..self.len()).filter(|at| !self.is_dead(*at))
    }

    pub fn memory_bytes(&self) -> usize {
        self.keys.capacity() * size_of::<CacheKey>()
            + self.vectors.capacity() * size_of::<f32>()
            + (self.codes.capacity() + self.dead.len()) * size_of::<u64>()
    }
}

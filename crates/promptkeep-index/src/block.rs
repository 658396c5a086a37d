//! A block of vectors, side by side in memory, with their keys and sign codes.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::kernel::{GROUP, Kernel};
use promptkeep_core::key::CacheKey;

/// Maximum number of vectors in a block; a multiple of 64. Small enough that a search may scan a block under a lock
/// (10 µs), large enough that blocks are few.
pub const BLOCK: usize = 1024;

/// Number of vectors from which preselection by codes is faster than comparing all vectors.
pub const CODES_MIN: usize = 128;

/// Parameters that all blocks of an index share.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Components of a vector.
    pub dimensions: usize,
    /// Instruction set of the inner loops.
    pub kernel: Kernel,
}

/// A block of vectors. The open block of a scope grows by [`push`](Self::push) and shrinks by
/// [`swap_remove`](Self::swap_remove). A sealed block only loses vectors by [`mark_removed`](Self::mark_removed), so
/// searches read it without a lock.
#[derive(Default)]
pub struct Block {
    keys: Vec<CacheKey>,
    /// `[keys, dimensions]`
    vectors: Vec<f32>,
    /// Sign codes of the vectors in groups, see [`Kernel::hamming`]; the last group is padded. Empty in an open block
    /// with fewer than [`CODES_MIN`] vectors, so tiny scopes spend no memory on them.
    codes: Vec<u64>,
    /// One bit for each vector of a sealed block; empty in an open block.
    removed: Box<[AtomicU64]>,
    removed_count: AtomicUsize,
}

impl Shape {
    /// Number of words of one code.
    pub const fn words(self) -> usize {
        self.dimensions.div_ceil(64)
    }

    /// Returns the sign code of a vector: one bit per component.
    pub fn code(self, vector: &[f32]) -> impl Iterator<Item = u64> + use<'_> {
        vector.chunks(64).map(|chunk| {
            chunk.iter().enumerate().fold(0, |word, (bit, x)| word | u64::from(x.is_sign_negative()) << bit)
        })
    }
}

impl Block {
    /// Number of vectors, including removed ones.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Keys in the order of the vectors.
    pub fn keys(&self) -> &[CacheKey] {
        &self.keys
    }

    /// Returns the vector at position `at`.
    pub fn vector(&self, shape: Shape, at: usize) -> &[f32] {
        &self.vectors[at * shape.dimensions..][..shape.dimensions]
    }

    /// Sign codes in groups. Empty when there are too few vectors for codes to help.
    pub fn codes(&self) -> &[u64] {
        &self.codes
    }

    /// Returns the position of a key's vector. Linear in the number of vectors.
    pub fn position(&self, key: CacheKey) -> Option<usize> {
        self.keys.iter().position(|k| *k == key)
    }

    /// Appends a vector to an open block.
    pub fn push(&mut self, shape: Shape, key: CacheKey, vector: &[f32]) {
        if self.keys.is_empty() {
            // Most scopes stay tiny, and a growing `Vec` starts with room for four.
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

    /// Replaces the vector at `at` of an open block by the last one. Shrinks the block when it has become much too
    /// large.
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

    /// Replaces the vector at `at` of an open block.
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

    /// Turns an open block into a sealed one, which always has codes.
    pub fn seal(&mut self, shape: Shape) {
        if self.codes.is_empty() {
            (0..self.len()).for_each(|at| self.set_code(shape, at));
        }
        self.keys.shrink_to_fit();
        self.vectors.shrink_to_fit();
        self.codes.shrink_to_fit();
        self.removed = (0..self.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
    }

    /// Whether the vector at `at` was removed. A search sees every earlier [`mark_removed`](Self::mark_removed): the
    /// lock of the scope orders them.
    pub fn is_removed(&self, at: usize) -> bool {
        self.removed.get(at / 64).is_some_and(|word| word.load(Ordering::Relaxed) >> (at % 64) & 1 == 1)
    }

    /// Removes the vector at `at` of a sealed block.
    pub fn mark_removed(&self, at: usize) {
        let bit = 1 << (at % 64);
        if self.removed[at / 64].fetch_or(bit, Ordering::Relaxed) & bit == 0 {
            self.removed_count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Number of removed vectors of a sealed block.
    pub fn removed_count(&self) -> usize {
        self.removed_count.load(Ordering::Relaxed)
    }

    /// Positions of the vectors that were not removed.
    pub fn live(&self) -> impl Iterator<Item = usize> {
        (0..self.len()).filter(|at| !self.is_removed(*at))
    }

    /// Allocated bytes.
    pub fn memory_bytes(&self) -> usize {
        self.keys.capacity() * size_of::<CacheKey>()
            + self.vectors.capacity() * size_of::<f32>()
            + (self.codes.capacity() + self.removed.len()) * size_of::<u64>()
    }
}

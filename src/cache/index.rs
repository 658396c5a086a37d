//! Nearest vectors of a scope. Knows keys and vectors, never an entry, a prompt or the store.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use crate::{
    config::IndexConfig,
    embed::Embedding,
    key::{CacheKey, Scope},
};

/// Vectors by scope. All methods are for many threads at once; none waits for a disk or the network.
pub struct Index {
    dimensions: usize,
    scopes: RwLock<HashMap<Scope, Vec<(CacheKey, Embedding)>>>,
}

/// One found vector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    pub key: CacheKey,
    /// Cosine, in [-1, 1], from full precision.
    pub similarity: f32,
}

// === impl Index ===

impl Index {
    /// An empty index of vectors with `dimensions` components.
    pub fn new(config: &IndexConfig, dimensions: usize) -> Self {
        let _ = config;
        Self { dimensions, scopes: RwLock::default() }
    }

    /// Adds a vector, or replaces the one under the same key. Returns `false`, and does nothing, when
    /// the vector has another length than the index's: it is of another model.
    pub fn insert(&self, scope: Scope, key: CacheKey, embedding: &Embedding) -> bool {
        if embedding.as_slice().len() != self.dimensions {
            return false;
        }
        self.remove(scope, key);
        let mut scopes = self.scopes.write().unwrap_or_else(PoisonError::into_inner);
        scopes.entry(scope).or_default().push((key, embedding.clone()));
        true
    }

    /// Removes a vector. Returns whether it was there; once returned, no search finds it.
    pub fn remove(&self, scope: Scope, key: CacheKey) -> bool {
        let mut scopes = self.scopes.write().unwrap_or_else(PoisonError::into_inner);
        let Some(vectors) = scopes.get_mut(&scope) else { return false };
        let before = vectors.len();
        vectors.retain(|(k, _)| *k != key);
        before > vectors.len()
    }

    /// The `k` vectors of `scope` nearest to `query`, nearest first. Costs up to half a millisecond of
    /// CPU in the largest scopes. A query of another length finds nothing.
    pub fn search(&self, scope: Scope, query: &Embedding, k: usize) -> Vec<Neighbour> {
        let scopes = self.scopes.read().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<_> = scopes
            .get(&scope)
            .into_iter()
            .flatten()
            .map(|(key, vector)| Neighbour { key: *key, similarity: vector.similarity(query) })
            .collect();
        found.sort_by(|a, b| b.similarity.total_cmp(&a.similarity));
        found.truncate(k);
        found
    }

    /// Number of vectors.
    pub fn len(&self) -> usize {
        self.scopes.read().unwrap_or_else(PoisonError::into_inner).values().map(Vec::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of vectors in one scope.
    pub fn scope_len(&self, scope: Scope) -> usize {
        self.scopes.read().unwrap_or_else(PoisonError::into_inner).get(&scope).map_or(0, Vec::len)
    }

    /// Bytes of vectors, codes, keys and graphs, for the metrics.
    pub fn memory_bytes(&self) -> usize {
        self.len() * self.dimensions * size_of::<f32>()
    }
}

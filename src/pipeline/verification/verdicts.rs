//! Verdicts that verifiers gave, so that no pair of a prompt and an entry is asked about twice.

use quick_cache::sync::Cache;

use crate::{key::CacheKey, model::FittingSet};

/// Verdicts that are remembered; the least used are forgotten first.
const PAIRS_MAX: usize = 100_000;

/// Calls that requests of the same key may join.
const CALLS_MAX: usize = 10_000;

/// What verifiers said, by prompt, entry and verifier. A better model reviews what another one said, so the verifier
/// counts.
pub(super) struct KnownVerdicts {
    pairs: Cache<[u8; 32], bool>,
    calls: Cache<[u8; 32], FittingSet>,
}

impl KnownVerdicts {
    pub fn new() -> Self {
        Self { pairs: Cache::new(PAIRS_MAX), calls: Cache::new(CALLS_MAX) }
    }

    /// Whether the answer of `entry` fits `prompt`, if the verifier said so before.
    pub fn of(&self, verifier: &str, prompt: &CacheKey, entry: &CacheKey) -> Option<bool> {
        self.pairs.get(&id(verifier, prompt, [entry]))
    }

    pub fn insert(&self, verifier: &str, prompt: &CacheKey, entry: &CacheKey, fits: bool) {
        self.pairs.insert(id(verifier, prompt, [entry]), fits);
    }

    /// Makes one call for all who ask the same at the same time. `None` if the verifier gave no verdict: then one of those
    /// who wait makes the next call.
    pub async fn join_or<'a>(
        &self,
        verifier: &str,
        prompt: &CacheKey,
        entries: impl IntoIterator<Item = &'a CacheKey>,
        call: impl Future<Output = Option<FittingSet>>,
    ) -> Option<FittingSet> {
        let id = id(verifier, prompt, entries);
        self.calls.get_or_insert_async(&id, async { call.await.ok_or(()) }).await.ok()
    }
}

fn id<'a>(verifier: &str, prompt: &CacheKey, entries: impl IntoIterator<Item = &'a CacheKey>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(prompt.as_bytes());
    for entry in entries {
        hasher.update(entry.as_bytes());
    }
    // Last, since keys all have the same length and a name has not.
    hasher.update(verifier.as_bytes());
    *hasher.finalize().as_bytes()
}

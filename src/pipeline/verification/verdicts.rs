//! Verdicts that verifiers gave, so that no pair of a prompt and an answer is asked about twice.

use quick_cache::sync::Cache;

use crate::{entry::Entry, key::CacheKey, model::FittingSet, prompt::prefix};

/// Pairs that are remembered; the least used are forgotten first.
const PAIRS_MAX: usize = 100_000;

/// Calls that requests of the same key may join.
const CALLS_MAX: usize = 10_000;

/// What verifiers said about pairs.
pub(super) struct KnownVerdicts {
    /// By verifier too: a better model reviews what another one said.
    verdicts: Cache<[u8; 32], bool>,
    /// Pairs that some verifier rejected.
    rejected: Cache<Pair, ()>,
    calls: Cache<[u8; 32], FittingSet>,
}

/// A prompt, and an answer as a verifier sees it: another answer can take the place of the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pair([u8; 32]);

impl Pair {
    /// `shown_bytes` is the part of the answer that a verifier sees.
    pub fn of(prompt: &CacheKey, entry: &Entry, shown_bytes: usize) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(prompt.as_bytes());
        hasher.update(entry.key.as_bytes());
        hasher.update(prefix(&entry.completion.content, shown_bytes).as_bytes());
        Self(*hasher.finalize().as_bytes())
    }
}

impl KnownVerdicts {
    pub fn new() -> Self {
        Self {
            verdicts: Cache::new(PAIRS_MAX),
            rejected: Cache::new(PAIRS_MAX),
            calls: Cache::new(CALLS_MAX),
        }
    }

    /// Whether the answer fits the prompt, if the verifier said so before.
    pub fn of(&self, verifier: &str, pair: Pair) -> Option<bool> {
        self.verdicts.get(&id(verifier, &[pair]))
    }

    /// Whether any verifier said that the answer does not fit the prompt.
    pub fn is_rejected(&self, pair: Pair) -> bool {
        self.rejected.get(&pair).is_some()
    }

    pub fn insert(&self, verifier: &str, pair: Pair, fits: bool) {
        self.verdicts.insert(id(verifier, &[pair]), fits);
        if !fits {
            self.rejected.insert(pair, ());
        }
    }

    /// Makes one call for all who ask the same at the same time. `None` if the verifier gave no verdict: then one of those
    /// who wait makes the next call.
    pub async fn join_or(
        &self,
        verifier: &str,
        pairs: &[Pair],
        call: impl Future<Output = Option<FittingSet>>,
    ) -> Option<FittingSet> {
        let id = id(verifier, pairs);
        self.calls.get_or_insert_async(&id, async { call.await.ok_or(()) }).await.ok()
    }
}

fn id(verifier: &str, pairs: &[Pair]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for pair in pairs {
        hasher.update(&pair.0);
    }
    // Last, since pairs all have the same length and a name has not.
    hasher.update(verifier.as_bytes());
    *hasher.finalize().as_bytes()
}

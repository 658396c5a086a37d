//! The exact lookup: memory, then the store. With `cache.stale_while_revalidate` an answer past its TTL is served
//! once more, to an exact repeat only, while a model call in the background replaces it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use super::{AdmittedRequest, Eligibility, Hit};
use crate::{cache::Cache, entry::Entry, key::CacheKey};

/// Number of stale answers remembered as served. When full, no further answer is served stale.
const SERVED_MAX: usize = 16_384;

/// Finds entries by the key of the prompt.
pub(super) struct ExactLookup {
    cache: Arc<Cache>,
    eligibility: Eligibility,
    served_stale: ServedStale,
}

/// What an exact lookup found.
pub(super) enum Exact {
    Fresh(Hit),
    /// Past its TTL; may be served if a refresh starts now.
    Stale(Arc<Entry>),
    Miss,
}

/// Stale answers that were served, so that none is served twice, whatever became of its refresh.
#[derive(Default)]
struct ServedStale {
    /// End of each entry's stale period, which also distinguishes it from its replacement. A std mutex: held for one map
    /// operation, or for removing what is over.
    until: Mutex<HashMap<CacheKey, SystemTime>>,
}

impl ExactLookup {
    pub(super) fn new(cache: Arc<Cache>, eligibility: Eligibility) -> Self {
        Self { cache, eligibility, served_stale: ServedStale::default() }
    }

    /// A fresh entry with the same key.
    pub(super) async fn get(&self, request: &AdmittedRequest) -> Option<Hit> {
        if request.cache.no_cache {
            return None;
        }
        let entry = self.cache.get(request.key).await?;
        self.eligibility.serves(request, &entry).then(|| Hit::exact(entry))
    }

    /// [`Self::get`] from memory alone, without waiting.
    pub(super) fn peek(&self, request: &AdmittedRequest) -> Option<Hit> {
        if request.cache.no_cache {
            return None;
        }
        let entry = self.cache.peek(request.key)?;
        self.eligibility.serves(request, &entry).then(|| Hit::exact(entry))
    }

    /// [`Self::get`], including an entry past its TTL that this caller may be served once.
    pub(super) async fn get_or_stale(&self, request: &AdmittedRequest) -> Exact {
        if request.cache.no_cache {
            return Exact::Miss;
        }
        match self.cache.get_or_expired(request.key).await {
            Some(entry) if self.eligibility.serves(request, &entry) => Exact::Fresh(Hit::exact(entry)),
            Some(entry) if self.may_serve_stale(request, &entry) => Exact::Stale(entry),
            _ => Exact::Miss,
        }
    }

    /// Whether [`Self::get_or_stale`] would find an entry past its TTL that was not served yet.
    pub(super) async fn would_serve_stale(&self, request: &AdmittedRequest) -> bool {
        match self.get_or_stale(request).await {
            Exact::Stale(entry) => !self.served_stale.contains(&entry),
            Exact::Fresh(_) | Exact::Miss => false,
        }
    }

    /// Marks a stale entry as served. Returns `false` when it was before, or when too many are remembered.
    pub(super) fn claim_stale(&self, entry: &Entry) -> bool {
        self.served_stale.claim(entry, SystemTime::now())
    }

    /// A caller that sets its own TTL, or lets nothing be kept, gets no stale answer.
    fn may_serve_stale(&self, request: &AdmittedRequest, entry: &Entry) -> bool {
        let now = SystemTime::now();
        let stale_for = request.stale_for().min(entry.stale_for);
        let is_stale = !entry.is_live(now) && now < entry.expires + stale_for;
        is_stale
            && !request.cache.no_store
            && request.accepts_age(entry, now)
            && self.eligibility.is_good_enough(request, entry.difficulty, entry)
    }
}

impl ServedStale {
    /// Claims the entry at `now`; only the first caller succeeds.
    fn claim(&self, entry: &Entry, now: SystemTime) -> bool {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.len() >= SERVED_MAX {
            until.retain(|_, until| *until > now);
        }
        let removed_at = entry.removed_at();
        until.len() < SERVED_MAX && until.insert(entry.key, removed_at) != Some(removed_at)
    }

    fn contains(&self, entry: &Entry) -> bool {
        let until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.get(&entry.key) == Some(&entry.removed_at())
    }
}

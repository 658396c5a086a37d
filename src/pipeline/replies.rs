//! Recent replies, and the feedback that callers gave on them.

mod recent;

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use quick_cache::sync::Cache;

use self::recent::RecentHits;
pub use self::recent::{RecentHit, Texts};
use crate::{
    entry::{Entry, EntryId},
    key::{CacheKey, Owner},
    learn::Pair,
    outcome::{Outcome, Verdict},
};

/// Maximum number of remembered replies. Feedback on older ones must name the entry.
const REPLIES_MAX: usize = 100_000;

/// Id of a reply, for feedback. Random, so that it cannot be guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(u128);

/// A remembered reply, or an entry that feedback named.
#[derive(Clone, Debug)]
pub struct Served {
    pub owner: Owner,
    pub namespace: String,
    /// `None` when feedback named the entry instead of a reply.
    pub outcome: Option<Outcome>,
    /// Model that produced the answer.
    pub model: String,
    pub tier: String,
    /// Key of the request's prompt; `None` when feedback named the entry.
    pub prompt: Option<CacheKey>,
    /// Key of the entry that answered, if an entry did.
    pub entry: Option<CacheKey>,
    /// The pair of prompts of a semantic hit, which feedback labels.
    pub pair: Option<Pair>,
}

/// Recent replies and the feedback they got.
pub struct Replies {
    served: Cache<RequestId, Served>,
    semantic: RecentHits,
    /// Feedback given, by the tenant's name, so that repeating it changes nothing. Cleared at [`REPLIES_MAX`]. A std
    /// mutex: held for a lookup or an insert, never across an await.
    given: Mutex<HashSet<(String, Subject, Verdict)>>,
}

/// Subject of feedback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    Reply(RequestId),
    Entry(EntryId),
}

impl Replies {
    /// Remembers a reply.
    pub fn remember(&self, id: RequestId, served: Served) {
        self.served.insert(id, served);
    }

    /// The reply, while it is remembered.
    pub fn get(&self, id: RequestId) -> Option<Served> {
        self.served.get(&id)
    }

    /// Remembers a semantic hit for the dashboard.
    pub fn remember_semantic(&self, hit: RecentHit) {
        self.semantic.push(hit);
    }

    /// The latest semantic hits, newest first.
    pub fn semantic(&self) -> Vec<RecentHit> {
        self.semantic.newest()
    }

    /// Whether the tenant gave contrary feedback on the subject before. Then neither can be trusted.
    pub fn is_contradicted(&self, tenant: &str, subject: Subject, verdict: Verdict) -> bool {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let has_given = |verdict| given.contains(&(tenant.to_owned(), subject, verdict));
        match verdict {
            Verdict::Up => has_given(Verdict::Down) || has_given(Verdict::WrongHit),
            Verdict::Down | Verdict::WrongHit => has_given(Verdict::Up),
            Verdict::Escalated => false,
        }
    }

    /// Records feedback; false if the tenant gave it before.
    pub fn record(&self, tenant: &str, subject: Subject, verdict: Verdict) -> bool {
        self.semantic.feedback(subject, verdict);
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if given.len() >= REPLIES_MAX {
            given.clear();
        }
        given.insert((tenant.to_owned(), subject, verdict))
    }
}

impl Default for Replies {
    fn default() -> Self {
        Self { served: Cache::new(REPLIES_MAX), semantic: RecentHits::default(), given: Mutex::default() }
    }
}

impl Served {
    /// The subject of feedback that names an entry.
    pub fn entry(entry: &Entry) -> Self {
        Self {
            owner: entry.owner.clone(),
            namespace: entry.namespace.clone(),
            outcome: None,
            model: entry.completion.model.clone(),
            tier: entry.completion.tier.clone(),
            prompt: None,
            entry: Some(entry.key),
            pair: None,
        }
    }
}

impl RequestId {
    /// A new random id.
    pub fn random() -> Self {
        Self(fastrand::u128(..))
    }

    /// Parses 32 hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok()).flatten().map(Self)
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

//! What callers say of served answers, and the memory of recent replies that makes it meaningful.

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
    outcome::Outcome,
};

/// Replies remembered; feedback on older ones must name the entry.
const REPLIES_MAX: usize = 100_000;

/// How good a served answer was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    Up,
    Down,
    /// The user went on to a person or a better model.
    Escalated,
    /// The answer belongs to another question.
    WrongHit,
}

/// Names a reply to `Complete`. Random, so that it cannot be guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(u128);

/// What a remembered reply was.
#[derive(Clone, Debug)]
pub struct Served {
    pub owner: Owner,
    pub namespace: String,
    /// `None` when it is not known, because the entry was named instead of the reply.
    pub outcome: Option<Outcome>,
    /// Who wrote the answer.
    pub model: String,
    pub tier: String,
    /// What was asked; `None` when the entry was named.
    pub prompt: Option<CacheKey>,
    /// Key of the entry that answered, if one did.
    pub entry: Option<CacheKey>,
    /// Of a semantic hit: what the feedback says something about.
    pub pair: Option<Pair>,
}

/// Recent replies and the feedback they got.
pub struct Replies {
    served: Cache<RequestId, Served>,
    semantic: RecentHits,
    /// Feedback given, by the tenant's name, so that repeating it changes nothing. Cleared when it reaches its bound.
    given: Mutex<HashSet<(String, Subject, Verdict)>>,
}

/// What feedback is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    Reply(RequestId),
    Entry(EntryId),
}

// === impl Replies ===

impl Replies {
    /// Remembers a reply.
    pub fn remember(&self, id: RequestId, served: Served) {
        self.served.insert(id, served);
    }

    /// What the reply was, while it is remembered.
    pub fn get(&self, id: RequestId) -> Option<Served> {
        self.served.get(&id)
    }

    /// Remembers a semantic hit for those who look over them.
    pub fn remember_semantic(&self, hit: RecentHit) {
        self.semantic.push(hit);
    }

    /// The last semantic hits, newest first.
    pub fn semantic(&self) -> Vec<RecentHit> {
        self.semantic.newest()
    }

    /// Whether the tenant has said something else of the subject before. Then nobody knows what it means.
    pub fn is_contradicted(&self, tenant: &str, subject: Subject, verdict: Verdict) -> bool {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let said = |verdict| given.contains(&(tenant.to_owned(), subject, verdict));
        match verdict {
            Verdict::Up => said(Verdict::Down) || said(Verdict::WrongHit),
            Verdict::Down | Verdict::WrongHit => said(Verdict::Up),
            Verdict::Escalated => false,
        }
    }

    /// Whether this feedback is new.
    pub fn record(&self, tenant: &str, subject: Subject, verdict: Verdict) -> bool {
        self.semantic.judged(subject, verdict);
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

// === impl Served ===

impl Served {
    /// When feedback names an entry.
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

// === impl RequestId ===

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

// === impl Verdict ===

impl Verdict {
    /// The label used on every surface.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Escalated => "escalated",
            Self::WrongHit => "wrong_hit",
        }
    }
}

//! What is kept: one canonical entry for unary, streamed and HTTP callers alike.

use std::{
    fmt,
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    embedding::Embedding,
    key::{CacheKey, Owner, Scope},
    model::Difficulty,
    prompt::Completion,
};

/// Names an entry to callers: the first half of its key, in hex. Two replicas that answer the same
/// prompt at once so write one entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId([u8; 16]);

/// One kept answer and what is needed to find, judge and remove it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub key: CacheKey,
    pub scope: Scope,
    pub owner: Owner,
    pub namespace: String,
    /// The model name that the caller asked for: an id, a tier or `auto`.
    pub requested_model: String,
    /// The last user text; `None` when it may only be hit exactly.
    pub text: Option<String>,
    /// Of `text`; `None` when it was not embedded.
    pub embedding: Option<Embedding>,
    /// Name of the embedder that made `embedding`; vectors of different embedders are never compared.
    pub embedder: String,
    pub completion: Completion,
    pub tags: Vec<String>,
    pub created: SystemTime,
    /// Absolute, never moved by hits.
    pub expires: SystemTime,
    /// How long past `expires` it is kept, to be served once more while it is bought anew; zero: not at all.
    pub stale_for: Duration,
    /// How hard the router judged the prompt to be; `None` when nobody asked it: the prompt named a model or
    /// a tier, or the caller got the answer by itself.
    pub difficulty: Option<Difficulty>,
    /// Set when this is a paraphrase found to have the answer of the entry under that key: then the answer is
    /// there, and `completion` has none.
    pub alias_of: Option<CacheKey>,
}

/// Which entries to remove: every criterion that is set must match.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selector {
    /// Only entries of these owners; empty: of every owner.
    pub owners: Vec<Owner>,
    pub id: Option<EntryId>,
    pub key: Option<CacheKey>,
    pub namespace: Option<String>,
    /// Matches the model that answered and the name that was asked for.
    pub model: Option<String>,
    /// An entry must bear all of them.
    pub tags: Vec<String>,
}

/// An entry near the prompt.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Whose answer would be served.
    pub entry: Arc<Entry>,
    /// What the prompt is near to, when that is a paraphrase of the entry's own text.
    pub alias: Option<Arc<Entry>>,
    /// Cosine similarity of the two texts, -1 to 1.
    pub similarity: f32,
}

// === impl EntryId ===

impl EntryId {
    /// Parses 32 hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = (text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit())).then_some(text)?;
        u128::from_str_radix(digits, 16).ok().map(|n| Self(n.to_be_bytes()))
    }

    /// Reads back [`EntryId::as_bytes`].
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The half key itself.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Range of keys that begin with this id, both ends included.
    pub fn key_range(self) -> (CacheKey, CacheKey) {
        let bound = |fill| {
            let mut bytes = [fill; 32];
            bytes[..16].copy_from_slice(&self.0);
            CacheKey::from_bytes(bytes)
        };
        (bound(0x00), bound(0xff))
    }
}

impl From<CacheKey> for EntryId {
    fn from(key: CacheKey) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&key.as_bytes()[..16]);
        Self(id)
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryId({self})")
    }
}

// === impl Entry ===

impl Entry {
    pub fn id(&self) -> EntryId {
        self.key.into()
    }

    /// Whether it may still be served at `now`.
    pub fn is_live(&self, now: SystemTime) -> bool {
        now < self.expires
    }

    /// When nobody may be served it any more, and a store removes it.
    pub fn kept_until(&self) -> SystemTime {
        self.expires.checked_add(self.stale_for).unwrap_or(self.expires)
    }

    /// Memory it takes, about: its texts and the structure around them.
    pub fn size_bytes(&self) -> u64 {
        let texts = [&self.namespace, &self.requested_model, &self.embedder, &self.completion.content]
            .map(String::len)
            .iter()
            .sum::<usize>();
        let optional = self.text.as_ref().map_or(0, String::len)
            + self.completion.tool_calls.as_ref().map_or(0, |calls| calls.to_string().len())
            + self.tags.iter().map(|tag| tag.len() + size_of::<String>()).sum::<usize>();
        (size_of::<Self>() + texts + optional) as u64
    }

    /// Time since the answer was produced; zero when the clock went back.
    pub fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.created).unwrap_or_default()
    }
}

// === impl Selector ===

impl Selector {
    /// The range of keys, both ends included, outside of which nothing matches: one key, the keys of
    /// one id, or every key.
    pub fn key_range(&self) -> RangeInclusive<CacheKey> {
        match (self.key, self.id) {
            (Some(key), _) => key..=key,
            (None, Some(id)) => {
                let (first, last) = id.key_range();
                first..=last
            }
            (None, None) => CacheKey::from_bytes([0x00; 32])..=CacheKey::from_bytes([0xff; 32]),
        }
    }

    pub fn matches(&self, entry: &Entry) -> bool {
        let Self { owners, id, key, namespace, model, tags } = self;
        let asked_or_answered =
            |model: &String| *model == entry.requested_model || *model == entry.completion.model;
        (owners.is_empty() || owners.contains(&entry.owner))
            && id.is_none_or(|id| id == entry.id())
            && key.is_none_or(|key| key == entry.key)
            && namespace.as_ref().is_none_or(|namespace| *namespace == entry.namespace)
            && model.as_ref().is_none_or(asked_or_answered)
            && tags.iter().all(|tag| entry.tags.contains(tag))
    }
}

// === impl Candidate ===

impl Candidate {
    /// The key under which it was found: the alias's, or the entry's own.
    pub fn key(&self) -> CacheKey {
        self.alias.as_ref().unwrap_or(&self.entry).key
    }

    /// What the prompt is near to.
    pub fn text(&self) -> &str {
        self.alias.as_ref().unwrap_or(&self.entry).text.as_deref().unwrap_or_default()
    }
}

//! The cached entry, its id, and the selector that invalidates entries. One canonical entry serves unary gRPC,
//! streams and HTTP.

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

/// Public id of an entry: the first half of its key, printed as 32 hex digits. Derived from the key, so two replicas
/// that answer one prompt concurrently write one entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId([u8; 16]);

/// A cached answer with everything needed to find, decide on and remove it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Exact identity of the prompt.
    pub key: CacheKey,
    /// Hash of everything in the prompt except the last user text.
    pub scope: Scope,
    /// Tenant that may read the entry.
    pub owner: Owner,
    /// Namespace of the prompt.
    pub namespace: String,
    /// Model name in the request: an id, a tier or `auto`.
    pub requested_model: String,
    /// The last user text; `None` when only exact hits may find the entry.
    pub text: Option<String>,
    /// Embedding of `text`; `None` when it was not embedded.
    pub embedding: Option<Embedding>,
    /// Name of the embedder that produced `embedding`. Vectors of different embedders are never compared.
    pub embedder: String,
    /// The answer.
    pub completion: Completion,
    /// Labels for invalidation.
    pub tags: Vec<String>,
    /// When the answer was produced.
    pub created: SystemTime,
    /// End of the TTL. Absolute: hits never move it.
    pub expires: SystemTime,
    /// Time after `expires` in which the entry may be served once more while a model produces a new answer; zero
    /// disables this.
    pub stale_for: Duration,
    /// Difficulty class that the router computed for the prompt. `None` when the prompt named a model or a tier, or
    /// when the caller provided the answer.
    pub difficulty: Option<Difficulty>,
}

/// Selects entries to remove. An entry matches when it meets every criterion that is set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selector {
    /// Owners whose entries match; empty for all owners.
    pub owners: Vec<Owner>,
    /// Id of the only entry.
    pub id: Option<EntryId>,
    /// Key of the only entry.
    pub key: Option<CacheKey>,
    /// Namespace of the entries.
    pub namespace: Option<String>,
    /// Matches the model that answered and the model name in the request.
    pub model: Option<String>,
    /// Tags that an entry must all have.
    pub tags: Vec<String>,
}

/// An entry that is similar to a prompt, and may therefore answer it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Entry whose answer would be served.
    pub entry: Arc<Entry>,
    /// Cosine similarity of the prompt and [`Candidate::text`], in [-1, 1].
    pub similarity: f32,
}

// === impl EntryId ===

impl EntryId {
    /// Parses 32 hex digits; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = (text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit())).then_some(text)?;
        u128::from_str_radix(digits, 16).ok().map(|n| Self(n.to_be_bytes()))
    }

    /// Restores an id from [`EntryId::as_bytes`].
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the first 16 bytes of the key.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Returns the lowest and the highest key that begin with this id.
    pub fn key_range(self) -> (CacheKey, CacheKey) {
        let filled = |fill| {
            let mut bytes = [fill; 32];
            bytes[..16].copy_from_slice(&self.0);
            CacheKey::from_bytes(bytes)
        };
        (filled(0x00), filled(0xff))
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
    /// Returns the id derived from the key.
    pub fn id(&self) -> EntryId {
        self.key.into()
    }

    /// Whether the TTL has not ended at `now`.
    pub fn is_live(&self, now: SystemTime) -> bool {
        now < self.expires
    }

    /// Time after which the entry is never served and stores remove it.
    pub fn removed_at(&self) -> SystemTime {
        self.expires.checked_add(self.stale_for).unwrap_or(self.expires)
    }

    /// Approximate memory in bytes: the texts and the structure around them.
    pub fn size_bytes(&self) -> u64 {
        let texts = [&self.namespace, &self.requested_model, &self.embedder, &self.completion.content]
            .map(String::len)
            .iter()
            .sum::<usize>();
        let optional = self.text.as_ref().map_or(0, String::len)
            + self.completion.tool_calls.as_ref().map_or(0, |calls| calls.to_string().len())
            + self.completion.reasoning.as_ref().map_or(0, |reasoning| reasoning.text.len())
            + self.completion.extra.size_bytes()
            + self.tags.iter().map(|tag| tag.len() + size_of::<String>()).sum::<usize>();
        (size_of::<Self>() + texts + optional) as u64
    }

    /// Time since the answer was produced; zero when the clock was set back.
    pub fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.created).unwrap_or_default()
    }
}

// === impl Selector ===

impl Selector {
    /// Returns the range of keys in which all matches lie: one key, the keys of one id, or all keys.
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

    /// Whether `entry` meets every criterion.
    pub fn matches(&self, entry: &Entry) -> bool {
        let Self { owners, id, key, namespace, model, tags } = self;
        let requested_or_answered =
            |model: &String| *model == entry.requested_model || *model == entry.completion.model;
        (owners.is_empty() || owners.contains(&entry.owner))
            && id.is_none_or(|id| id == entry.id())
            && key.is_none_or(|key| key == entry.key)
            && namespace.as_ref().is_none_or(|namespace| *namespace == entry.namespace)
            && model.as_ref().is_none_or(requested_or_answered)
            && tags.iter().all(|tag| entry.tags.contains(tag))
    }
}

// === impl Candidate ===

impl Candidate {
    /// Returns the text that is similar to the prompt.
    pub fn text(&self) -> &str {
        self.entry.text.as_deref().unwrap_or_default()
    }
}

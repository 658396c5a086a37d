//! Names of keys. Everything about one entry lies in its **partition**, the first byte of its key, which is
//! the hash tag of each name: so one script may change it whole, in a cluster too, and 256 partitions spread
//! over the slots of any cluster.
//!
//! | name | holds |
//! |---|---|
//! | `P:{a7}:e:ID` | one entry, until it expires |
//! | `P:{a7}:d` | the directory: cache keys of the partition, by expiry |
//! | `P:{a7}:n:HASH`, `…:t:HASH` | ids of one owner's entries in a namespace, with a tag, by expiry |
//! | `P:{a7}:l:ID` | who is buying this answer |
//! | `P:notes:NAME` | a note, its version before it (earlier builds kept notes without one under `P:note:NAME`) |
//! | `P:peer:REGION:reader`, `…:read` | who reads the streams of a region, and how far |
//! | `P:{sN}:changes` | stream N of changes |
//! | `P:invalidations` | the stream of invalidations |
//! | `P:lessons` | the stream of what replicas learned |

use crate::{
    entry::{Entry, EntryId, Selector},
    key::{CacheKey, Owner},
};

/// Streams that changes are spread over: few, for every replica reads all of them.
pub const STREAMS: u8 = 8;

/// Makes names that begin with the configured prefix.
#[derive(Clone)]
pub struct Keys {
    prefix: String,
}

/// The first byte of a cache key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Partition(pub u8);

/// A set of entries that can be listed without looking at others: what invalidations ask for most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facet(String);

// === impl Partition ===

impl Partition {
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map(Self)
    }

    /// The stream that tells of its changes.
    pub fn stream(self) -> u8 {
        self.0 % STREAMS
    }
}

impl From<CacheKey> for Partition {
    fn from(key: CacheKey) -> Self {
        Self(key.as_bytes()[0])
    }
}

impl From<EntryId> for Partition {
    fn from(id: EntryId) -> Self {
        Self(id.as_bytes()[0])
    }
}

// === impl Facet ===

impl Facet {
    /// Every facet that lists `entry`.
    pub fn of(entry: &Entry) -> Vec<Self> {
        let namespace = Self::namespace(&entry.owner, &entry.namespace);
        let tags = entry.tags.iter().map(|tag| Self::tag(&entry.owner, tag));
        std::iter::once(namespace).chain(tags).collect()
    }

    /// Facets that together list everything that `selector` matches; `None` when none do, so that the whole
    /// directory must be walked: without owners (which no caller's selector lacks), or by model alone. A
    /// facet for models too would cost each entry two more places for what is asked seldom.
    pub fn narrowing(selector: &Selector) -> Option<Vec<Self>> {
        let owners = Some(&selector.owners).filter(|owners| !owners.is_empty())?;
        let of = |owner| match (selector.tags.first(), &selector.namespace) {
            (Some(tag), _) => Some(Self::tag(owner, tag)),
            (None, Some(namespace)) => Some(Self::namespace(owner, namespace)),
            (None, None) => None,
        };
        owners.iter().map(of).collect()
    }

    fn namespace(owner: &Owner, namespace: &str) -> Self {
        Self::new('n', owner, namespace)
    }

    fn tag(owner: &Owner, tag: &str) -> Self {
        Self::new('t', owner, tag)
    }

    /// A hash, so that the length of names does not matter; whoever lists it compares the entries.
    fn new(kind: char, owner: &Owner, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        if let Owner::Tenant(tenant) = owner {
            hasher.update(&(tenant.len() as u64 + 1).to_le_bytes()).update(tenant.as_bytes());
        } else {
            hasher.update(&0_u64.to_le_bytes());
        }
        let hash = hasher.update(name.as_bytes()).finalize().to_hex();
        Self(format!("{kind}:{}", &hash[..16]))
    }
}

// === impl Keys ===

impl Keys {
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    pub fn entry(&self, id: EntryId) -> String {
        // Not formatted but put together: this is done for every read.
        let hex = blake3::Hash::from_bytes(id.key_range().0.as_bytes().to_owned()).to_hex();
        let hex = hex.as_str();
        [&self.prefix, ":{", &hex[..2], "}:e:", &hex[..32]].concat()
    }

    pub fn directory(&self, partition: Partition) -> String {
        self.within(partition, format_args!("d"))
    }

    pub fn facet(&self, partition: Partition, facet: &Facet) -> String {
        self.within(partition, format_args!("{}", facet.0))
    }

    pub fn place(&self, id: EntryId) -> String {
        self.within(id.into(), format_args!("l:{id}"))
    }

    /// Who reads of a region.
    pub fn reader(&self, region: &str) -> String {
        format!("{}:peer:{region}:reader", self.prefix)
    }

    /// How far a region was read.
    pub fn read(&self, region: &str) -> String {
        format!("{}:peer:{region}:read", self.prefix)
    }

    pub fn note(&self, name: &str) -> String {
        format!("{}:notes:{name}", self.prefix)
    }

    fn within(&self, partition: Partition, rest: std::fmt::Arguments<'_>) -> String {
        format!("{}:{{{:02x}}}:{rest}", self.prefix, partition.0)
    }

    pub fn changes(&self, stream: u8) -> String {
        format!("{}:{{s{stream}}}:changes", self.prefix)
    }

    pub fn invalidations(&self) -> String {
        format!("{}:invalidations", self.prefix)
    }

    pub fn lessons(&self) -> String {
        format!("{}:lessons", self.prefix)
    }
}

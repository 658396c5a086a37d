//! Names of Redis keys. Everything about an entry is in its **partition**, the first byte of its cache key, which is the
//! hash tag of each name. So one script may change an entry with all that belongs to it, also in a cluster, and the 256
//! partitions spread over the slots of any cluster.
//!
//! | name | holds |
//! |---|---|
//! | `P:{a7}:e:ID` | one entry, until it expires |
//! | `P:{a7}:d` | the directory: cache keys of the partition, by expiry |
//! | `P:{a7}:n:HASH`, `…:t:HASH` | facets: ids of an owner's entries in a namespace or with a tag, by expiry |
//! | `P:{a7}:l:ID` | the lease to answer this prompt |
//! | `P:notes:NAME` | a learner snapshot after its version (earlier builds stored one without version under `P:note:NAME`) |
//! | `P:peer:REGION:reader`, `…:read` | which replica reads the streams of a region, and its positions |
//! | `P:{sN}:changes` | stream N of changes of entries |
//! | `P:invalidations` | the stream of invalidations |
//! | `P:lessons` | the stream of learner events |

use crate::{
    entry::{Entry, EntryId, Selector},
    key::{CacheKey, Owner},
};

/// Number of streams of changes. It is small because every replica reads all of them.
pub const STREAMS: u8 = 8;

/// Builds names that begin with the configured prefix.
#[derive(Clone)]
pub struct Keys {
    prefix: String,
}

/// The first byte of a cache key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Partition(pub u8);

/// A set of ids: the entries of a namespace or with a tag, which most invalidations select.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facet(String);

impl Partition {
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map(Self)
    }

    /// The stream of its changes.
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

impl Facet {
    /// Facets that contain `entry`.
    pub fn of(entry: &Entry) -> Vec<Self> {
        let namespace = Self::namespace(&entry.owner, &entry.namespace);
        let tags = entry.tags.iter().map(|tag| Self::tag(&entry.owner, tag));
        std::iter::once(namespace).chain(tags).collect()
    }

    /// Facets that together contain every entry that `selector` matches. `None` if there are none, for a selector without
    /// owners (which no caller sends) or by model alone; then the directories must be read. A facet for models would
    /// cost each entry two more elements and is seldom needed.
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

    /// A hash bounds the length of the name. Collisions are harmless: readers compare the entries.
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

impl Keys {
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    pub fn entry(&self, id: EntryId) -> String {
        // Concatenated because formatting is slower and every read does this.
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

    pub fn lease(&self, id: EntryId) -> String {
        self.within(id.into(), format_args!("l:{id}"))
    }

    /// Reservation of the replica that reads a region.
    pub fn reader(&self, region: &str) -> String {
        format!("{}:peer:{region}:reader", self.prefix)
    }

    /// Positions up to which a region was read.
    pub fn read_positions(&self, region: &str) -> String {
        format!("{}:peer:{region}:read", self.prefix)
    }

    pub fn snapshot(&self, name: &str) -> String {
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

    pub fn learner_events(&self) -> String {
        format!("{}:lessons", self.prefix)
    }
}

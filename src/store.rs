//! Where entries outlive the process. [`Store`] is one of the crate's two traits. The store is the
//! truth; memory tier and index are caches of it.

pub mod codec;
mod embedded;
mod memory;
mod redis;

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio_util::sync::DropGuard;

pub use crate::metrics::StoreOp as Op;

use self::{embedded::EmbeddedStore, memory::MemoryStore, redis::RedisStore};
use crate::{
    config::{ServerConfig, StoreConfig, StoreKind},
    entry::{Entry, Selector},
    key::CacheKey,
};

/// A store that did not do what was asked. Never carries a prompt or an answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("store {} failed: {cause}", .op.as_str())]
pub struct StoreError {
    pub op: Op,
    pub cause: String,
}

/// Why a store cannot be opened. Each stops the start and names the path.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    #[error("store.path: cannot write to {path}: {cause}")]
    Unwritable { path: PathBuf, cause: String },
    #[error("store.path: {path} is in use by another process")]
    InUse { path: PathBuf },
    /// Made by a later version, in a layout that this one does not know.
    #[error(
        "store.path: {path} was written by a newer version of promptkeep (layout {found}, this one knows {known})"
    )]
    Newer { path: PathBuf, found: u64, known: u64 },
    #[error("store.ca_file: {path} cannot be used: {cause}")]
    CaFile { path: PathBuf, cause: String },
    #[error("store.path: {path} is damaged or not a promptkeep store: {cause}")]
    Corrupt { path: PathBuf, cause: String },
}

/// Whether [`Store::put`] waits until the entry is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Returns once the entry is queued. A full queue drops it, which is an error.
    Queued,
    /// Returns once a crash cannot lose it.
    Durable,
}

/// What [`Store::claim`] found.
pub struct Claim {
    /// `None`: another process is buying.
    pub lease: Option<Lease>,
    /// What was kept under the key meanwhile.
    pub kept: Option<Arc<Entry>>,
}

/// A purchase that no other process makes as long as this lives. Dropped once the answer was kept, or will
/// not come.
#[derive(Default)]
pub struct Lease {
    _held: Option<DropGuard>,
}

/// What another process did to a store that several share.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It kept this entry.
    Stored(Arc<Entry>),
    /// It removed what was under these keys.
    Removed(Vec<CacheKey>),
    /// It invalidated what matches: also what is on its way.
    Invalidated(Selector),
    /// What was stored or removed of late is not known: a scan tells.
    MissedEntries,
    /// What was invalidated of late is not known: nothing that was read before may be served.
    MissedInvalidations,
}

/// Which version of a note: see [`Note::of`].
pub type NoteVersion = [u8; 16];

/// A note as it was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// As the store knows it: of a damaged note it is not that of `bytes`.
    pub version: NoteVersion,
    pub bytes: Vec<u8>,
}

/// What other processes learned, as they told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Lesson {
        /// The bytes that one gave to [`Store::tell`].
        message: Vec<u8>,
        /// It was told in another region, whose notes are not kept here.
        is_far: bool,
    },
    /// Lessons went by unheard: the notes tell.
    Missed,
}

/// A durable map of entries. Writes take effect in the order in which they were called, so a removal
/// also removes what was queued before it.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The entry under `key`. One that has expired may still come: the caller checks. One that cannot be
    /// read, see [`unreadable`](Self::unreadable), is `None`. Its vector may be left out: the index has that.
    async fn get(&self, key: CacheKey) -> Result<Option<Arc<Entry>>, StoreError>;

    /// Adds the entry, or replaces the one under the same key.
    async fn put(&self, entry: Arc<Entry>, durability: Durability) -> Result<(), StoreError>;

    /// Keeps a few facts by name, beside the entries: what was learned of a namespace. They take the place of
    /// the version `over`, `None`: of nothing. Whether they did: not when another process has put others there
    /// meanwhile. A store that only one process writes to does not look.
    async fn put_note(&self, name: &str, note: Note, over: Option<NoteVersion>) -> Result<bool, StoreError>;

    /// The facts kept under `name`.
    async fn note(&self, name: &str) -> Result<Option<Note>, StoreError>;

    /// Removes what `selector` matches, durably, and returns the keys. With `dry_run` only finds them.
    async fn remove(&self, selector: &Selector, dry_run: bool) -> Result<Vec<CacheKey>, StoreError>;

    /// Up to `limit` entries with keys above `after`, in key order, for the rebuild at start. An empty
    /// page ends the scan.
    async fn scan(&self, after: Option<CacheKey>, limit: usize) -> Result<Vec<Arc<Entry>>, StoreError>;

    /// Removes entries past [`Entry::kept_until`], and those nearest to it while there are more than
    /// `max_entries`; returns the keys of at most `limit` removed ones, so that one call stays short.
    async fn expire(&self, max_entries: u64, limit: usize) -> Result<Vec<CacheKey>, StoreError>;

    /// Reserves the purchase of the answer under `key` among the processes that share the store. Granted at
    /// once where there is one process.
    async fn claim(&self, _key: CacheKey) -> Result<Claim, StoreError> {
        Ok(Claim::default())
    }

    /// Waits for what other processes did. The caller applies it and comes again; by that the store knows
    /// that it was applied. Dropping the future loses nothing. For ever where no other process writes.
    async fn changed(&self) -> Vec<Change> {
        std::future::pending().await
    }

    /// Tells other processes what this one learned; they may miss it. Whether there can be any.
    async fn tell(&self, _lesson: Vec<u8>) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Waits for what other processes tell. Dropping the future loses nothing.
    async fn heard(&self) -> Heard {
        std::future::pending().await
    }

    /// How far behind other processes this one is, by region.
    fn lags(&self) -> Vec<(String, Duration)> {
        Vec::new()
    }

    /// Number of entries, expired ones included.
    fn entries(&self) -> u64;

    /// How often, since the start, an entry was met and skipped because it is damaged or was written
    /// by a newer version.
    fn unreadable(&self) -> u64;

    /// Waits until every queued write is durable. Called at shutdown.
    async fn flush(&self) -> Result<(), StoreError>;
}

/// Name of an entry's key in Redis, the hash tag of which decides where in a cluster it lies.
pub fn redis_key(prefix: &str, key: CacheKey) -> String {
    redis::Keys::new(prefix).entry(key.into())
}

/// Opens the configured store.
///
/// # Errors
/// [`OpenError`], when the data cannot be used as it is; nothing is deleted or overwritten.
pub fn open(config: &StoreConfig) -> Result<Arc<dyn Store>, OpenError> {
    open_in(&ServerConfig::default().region, config)
}

/// The same in a region, the name of which others know.
///
/// # Errors
/// [`OpenError`].
pub fn open_in(region: &str, config: &StoreConfig) -> Result<Arc<dyn Store>, OpenError> {
    match config.kind {
        StoreKind::Memory => Ok(Arc::new(MemoryStore::new())),
        StoreKind::Redis => Ok(Arc::new(RedisStore::start(region, config)?)),
        StoreKind::Embedded => Ok(Arc::new(EmbeddedStore::open(config)?)),
    }
}

// === impl Note ===

impl Note {
    /// Of `bytes` that are whole. Its version is the first bytes of their blake3 hash.
    pub fn of(bytes: Vec<u8>) -> Self {
        let mut version = NoteVersion::default();
        version.copy_from_slice(&blake3::hash(&bytes).as_bytes()[..size_of::<NoteVersion>()]);
        Self { version, bytes }
    }
}

// === impl Claim ===

/// Granted.
impl Default for Claim {
    fn default() -> Self {
        Self { lease: Some(Lease::default()), kept: None }
    }
}

// === impl Lease ===

impl Lease {
    /// One whose end sets off `held`.
    pub fn held(held: DropGuard) -> Self {
        Self { _held: Some(held) }
    }
}

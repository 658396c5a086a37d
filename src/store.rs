//! Storage that outlives the process. [`Store`] is a trait with three implementations: `embedded` is one file, `redis` is
//! shared by replicas, `memory` is lost at exit. The store is the truth; the memory tier and the index are copies of it.

pub mod codec;
mod embedded;
mod memory;
mod redis;
mod timed;

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio_util::sync::DropGuard;

pub use self::timed::TimedStore;
use self::{embedded::EmbeddedStore, memory::MemoryStore, redis::RedisStore};
pub use crate::telemetry::metrics::StoreOp as Op;
use crate::{
    config::{StoreConfig, StoreKind},
    entry::{Entry, Selector},
    key::CacheKey,
};

/// A store call that failed. Never carries a prompt or an answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("store {} failed: {cause}", .op.as_str())]
pub struct StoreError {
    pub op: Op,
    pub cause: String,
}

/// A store that cannot be opened. Prevents the server from starting and names the path.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    #[error("store.path: cannot write to {path}: {cause}")]
    Unwritable { path: PathBuf, cause: String },
    #[error("store.path: {path} is in use by another process")]
    InUse { path: PathBuf },
    #[error(
        "store.path: {path} was written by a newer version of promptkeep (layout {found}, this one knows {known})"
    )]
    Newer { path: PathBuf, found: u64, known: u64 },
    #[error("store.ca_file: {path} cannot be used: {cause}")]
    CaFile { path: PathBuf, cause: String },
    #[error("store.path: {path} is damaged or not a promptkeep store: {cause}")]
    Corrupt { path: PathBuf, cause: String },
}

/// When [`Store::put`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Once the entry is queued. A full queue rejects it with an error.
    Queued,
    /// Once a crash cannot lose it.
    Durable,
}

/// Identifies the content of a [`Snapshot`].
pub type SnapshotVersion = [u8; 16];

/// The learned state of a namespace as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The stored version. It does not match `bytes` if they are damaged.
    pub version: SnapshotVersion,
    pub bytes: Vec<u8>,
}

/// A change that another process made to a shared store.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Stored(Arc<Entry>),
    Removed(Vec<CacheKey>),
    /// Everything that matches is invalid, including answers in flight.
    Invalidated(Selector),
    /// Stored or removed entries were missed; a scan finds them.
    MissedEntries,
    /// Invalidations were missed; nothing read before may be served.
    MissedInvalidations,
}

/// What other processes published with [`Store::publish`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LearnerEvent {
    Published {
        message: Vec<u8>,
        /// Published in another region, whose snapshots this store does not hold.
        from_other_region: bool,
    },
    /// Messages were missed; the snapshots have their content.
    Missed,
}

/// The result of [`Store::claim`].
pub struct Claim {
    /// `None` if another process holds the lease.
    pub lease: Option<Lease>,
    /// The entry that is stored under the key.
    pub kept: Option<Arc<Entry>>,
}

/// Exclusive right to answer a prompt with a model. Dropped once the answer is stored or will not come.
#[derive(Default)]
pub struct Lease {
    _held: Option<DropGuard>,
}

/// A durable map of entries, with what replicas that share it need. Writes take effect in the order of the calls, so a
/// removal also removes an entry that was queued before it.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    // === entries ===

    /// Returns the entry under `key`. It may have expired, which the caller checks. An
    /// [`unreadable`](Self::unreadable) entry is `None`. The vector may be missing: the index has it.
    async fn get(&self, key: CacheKey) -> Result<Option<Arc<Entry>>, StoreError>;

    /// Adds the entry or replaces the one under its key.
    async fn put(&self, entry: Arc<Entry>, durability: Durability) -> Result<(), StoreError>;

    /// Removes the entries that `selector` matches, durably, and returns their keys. With `dry_run` it only finds them.
    async fn remove(&self, selector: &Selector, dry_run: bool) -> Result<Vec<CacheKey>, StoreError>;

    /// Returns up to `limit` entries with keys above `after`, in key order. An empty page ends the scan.
    async fn scan(&self, after: Option<CacheKey>, limit: usize) -> Result<Vec<Arc<Entry>>, StoreError>;

    /// Removes entries past [`Entry::removed_at`] and, above `max_entries`, those closest to it. Returns their keys, at
    /// most `limit`, so that one call stays short.
    async fn expire(&self, max_entries: u64, limit: usize) -> Result<Vec<CacheKey>, StoreError>;

    /// Number of entries, expired ones included.
    fn entries(&self) -> u64;

    /// Number of times since the start that a read skipped an entry because it was damaged or written by a newer
    /// version.
    fn unreadable(&self) -> u64;

    /// Waits until every queued write is durable.
    async fn flush(&self) -> Result<(), StoreError>;

    // === snapshots ===

    /// Returns the snapshot stored under `name`.
    async fn snapshot(&self, name: &str) -> Result<Option<Snapshot>, StoreError>;

    /// Stores a snapshot in place of the version `replaces`, `None` if there was none. Returns false, and stores
    /// nothing, if another process has stored a different version since. A store with a single writer does not check.
    async fn put_snapshot(
        &self,
        name: &str,
        snapshot: Snapshot,
        replaces: Option<SnapshotVersion>,
    ) -> Result<bool, StoreError>;

    // === change feed: never yields anything where one process uses the store alone ===

    /// Waits for changes by other processes. The next call tells the store that they were applied. Cancel-safe.
    async fn changed(&self) -> Vec<Change> {
        std::future::pending().await
    }

    /// Publishes a message of the learner to the other processes, which may miss it. Returns whether the store can have
    /// other processes.
    async fn publish(&self, _message: Vec<u8>) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// Waits for the next message of another process. Cancel-safe.
    async fn learner_event(&self) -> LearnerEvent {
        std::future::pending().await
    }

    /// Replication lag by region.
    fn lags(&self) -> Vec<(String, Duration)> {
        Vec::new()
    }

    // === leases ===

    /// Requests the lease to answer the prompt of `key`. Always granted where one process uses the store alone.
    async fn claim(&self, _key: CacheKey) -> Result<Claim, StoreError> {
        Ok(Claim::default())
    }
}

/// Opens the configured store. Replicas of other regions know this one by the name `region`.
///
/// # Errors
/// [`OpenError`] if the data cannot be used as it is. Nothing is deleted or overwritten.
pub fn open(region: &str, config: &StoreConfig) -> Result<Arc<dyn Store>, OpenError> {
    match config.kind {
        StoreKind::Memory => Ok(Arc::new(MemoryStore::default())),
        StoreKind::Redis => Ok(Arc::new(RedisStore::start(region, config)?)),
        StoreKind::Embedded => Ok(Arc::new(EmbeddedStore::open(config)?)),
    }
}

impl Snapshot {
    /// A snapshot of intact `bytes`. Its version is the start of their blake3 hash.
    pub fn of(bytes: Vec<u8>) -> Self {
        let mut version = SnapshotVersion::default();
        version.copy_from_slice(&blake3::hash(&bytes).as_bytes()[..size_of::<SnapshotVersion>()]);
        Self { version, bytes }
    }
}

impl Default for Claim {
    /// A granted claim, with nothing stored under the key.
    fn default() -> Self {
        Self { lease: Some(Lease::default()), kept: None }
    }
}

impl Lease {
    /// A lease that ends when `held` is dropped.
    pub fn held(held: DropGuard) -> Self {
        Self { _held: Some(held) }
    }
}

//! A store in one file of the data folder. All redb code is here and in [`writer`].
//!
//! Writes go through a bounded queue to one thread, which commits everything that is queued in one transaction: a
//! commit costs an fsync, however many writes it holds. Reads run concurrently and see what is committed.

mod writer;

use std::{
    fs, io,
    ops::Bound,
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable, ReadableTableMetadata as _, StorageError,
    TableDefinition, TableError,
};
use tokio::task;

use self::writer::{Change, Writer};
use super::{Durability, Op, OpenError, Snapshot, SnapshotVersion, Store, StoreError, codec};
use crate::{
    config::StoreConfig,
    entry::{Entry, Selector},
    key::CacheKey,
};

/// Maps a key to the expiry, in nanoseconds since 1970, and the encoded entry. The expiry is stored beside the entry,
/// so that an undecodable entry can still be replaced and expire.
const ENTRIES: TableDefinition<&[u8; 32], (u64, &[u8])> = TableDefinition::new("entries");
/// One element per entry, so that expiring visits no entry that stays.
const BY_EXPIRY: TableDefinition<(u64, &[u8; 32]), ()> = TableDefinition::new("by_expiry");
/// Learner snapshots by name. Files of the first versions lack the table.
const SNAPSHOTS: TableDefinition<&str, &[u8]> = TableDefinition::new("notes");
/// Facts about the file, by name.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// Name of the layout of the tables in [`META`].
const LAYOUT_NAME: &str = "layout";
/// Changes when an older version can no longer use the tables.
const LAYOUT: u64 = 1;

const FILE_NAME: &str = "promptkeep.redb";

/// Bytes that redb may cache. The operating system also caches the file and the memory tier holds hot entries, so this
/// need only cover inner nodes and the writes of one transaction.
const PAGE_CACHE_BYTES: usize = 64 << 20;

/// The store in one file. Dropping it waits until the queue is written, then releases the file.
pub struct EmbeddedStore {
    writer: Writer,
    shared: Arc<Shared>,
}

/// State that reads and the writer share.
struct Shared {
    database: Database,
    /// Number of entries as of the last commit.
    entries: AtomicU64,
    /// See [`Store::unreadable`].
    unreadable: AtomicU64,
    /// Cause of the first failed transaction. It is unknown how much of it reached the disk, so every later write fails
    /// with this cause.
    poisoned: OnceLock<String>,
}

/// A failure inside a transaction, as text for the log; redb has an error type for each call.
struct Cause(String);

// === impl EmbeddedStore ===

impl EmbeddedStore {
    /// Opens the file in the folder `config.path`, and creates both if they are missing.
    ///
    /// # Errors
    /// [`OpenError`] if the file cannot be used as it is.
    pub fn open(config: &StoreConfig) -> Result<Self, OpenError> {
        let unwritable =
            |cause: io::Error| OpenError::Unwritable { path: config.path.clone(), cause: cause.to_string() };
        fs::create_dir_all(&config.path).map_err(unwritable)?;
        let path = config.path.join(FILE_NAME);
        // redb trusts its inner pages, so a damaged one may panic.
        let opened = panic::catch_unwind(AssertUnwindSafe(|| {
            let exists = path.try_exists().map_err(unwritable)?;
            let database = if exists { open_file(&path) } else { create_file(&path) };
            Self::with_database(database?, &path, config.write_queue)
        }));
        opened.unwrap_or_else(|_| Err(corrupt(&path, &"a page is damaged")))
    }

    fn with_database(database: Database, path: &Path, write_queue: usize) -> Result<Self, OpenError> {
        let layout = layout(&database).map_err(|Cause(cause)| corrupt(path, &cause))?;
        match layout {
            None => initialise(&database).map_err(|Cause(cause)| unwritable(path, &cause))?,
            Some(LAYOUT) => {}
            Some(found) => return Err(OpenError::Newer { path: path.to_owned(), found, known: LAYOUT }),
        }
        let entries = count(&database).map_err(|Cause(cause)| corrupt(path, &cause))?;
        let shared = Arc::new(Shared {
            database,
            entries: entries.into(),
            unreadable: 0.into(),
            poisoned: OnceLock::new(),
        });
        let writer = Writer::start(shared.clone(), write_queue).map_err(|e| unwritable(path, &e))?;
        Ok(Self { writer, shared })
    }

    /// Runs a read on a blocking thread. In place, a get of a cached page would take 6 µs instead of 25, but a slow
    /// disk would block every request of the thread.
    async fn read<T: Send + 'static>(
        &self,
        op: Op,
        read: impl FnOnce(&Shared) -> Result<T, Cause> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = self.shared.clone();
        let done = task::spawn_blocking(move || read(&shared)).await;
        done.unwrap_or_else(|_| Err(Cause::from("the read panicked"))).map_err(|cause| cause.of(op))
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn get(&self, key: CacheKey) -> Result<Option<Arc<Entry>>, StoreError> {
        self.read(Op::Get, move |shared| shared.get(key)).await
    }

    async fn put(&self, entry: Arc<Entry>, durability: Durability) -> Result<(), StoreError> {
        let put = Change::Put(entry);
        match durability {
            Durability::Queued => self.writer.queue(put),
            Durability::Durable => self.writer.write(put).await.map(drop),
        }
    }

    async fn remove(&self, selector: &Selector, dry_run: bool) -> Result<Vec<CacheKey>, StoreError> {
        let selector = selector.clone();
        if !dry_run {
            return self.writer.write(Change::Remove(selector)).await;
        }
        self.flush().await?;
        self.read(Op::Remove, move |shared| shared.select(&selector)).await
    }

    async fn scan(&self, after: Option<CacheKey>, limit: usize) -> Result<Vec<Arc<Entry>>, StoreError> {
        self.read(Op::Scan, move |shared| shared.scan(after, limit)).await
    }

    async fn expire(&self, max_entries: u64, limit: usize) -> Result<Vec<CacheKey>, StoreError> {
        self.writer.write(Change::Expire { max_entries, limit }).await
    }

    fn entries(&self) -> u64 {
        self.shared.entries.load(Ordering::Relaxed)
    }

    fn unreadable(&self) -> u64 {
        self.shared.unreadable.load(Ordering::Relaxed)
    }

    async fn flush(&self) -> Result<(), StoreError> {
        self.writer.write(Change::Flush).await.map(drop)
    }

    async fn snapshot(&self, name: &str) -> Result<Option<Snapshot>, StoreError> {
        let name = name.to_owned();
        Ok(self.read(Op::Get, move |shared| shared.snapshot(&name)).await?.map(Snapshot::of))
    }

    /// Queued like an entry.
    async fn put_snapshot(
        &self,
        name: &str,
        snapshot: Snapshot,
        _: Option<SnapshotVersion>,
    ) -> Result<bool, StoreError> {
        self.writer.queue(Change::Snapshot(name.to_owned(), snapshot.bytes)).map(|()| true)
    }
}

// === opening ===

fn open_file(path: &Path) -> Result<Database, OpenError> {
    let opened = Database::builder().set_cache_size(PAGE_CACHE_BYTES).create(path);
    opened.map_err(|cause| open_error(path, cause))
}

/// Creates the file under a temporary name first: redb rejects a file whose creation a crash interrupted, and a store
/// that never held anything must not prevent a start.
fn create_file(path: &Path) -> Result<Database, OpenError> {
    let making = path.with_extension("redb.new");
    let database = match open_file(&making) {
        Err(OpenError::Corrupt { .. }) => {
            // Left by such a crash. Its creator is gone, or the file would be in use.
            fs::write(&making, []).map_err(|cause| unwritable(path, &cause))?;
            open_file(&making)?
        }
        opened => opened?,
    };
    initialise(&database).map_err(|Cause(cause)| unwritable(path, &cause))?;
    // Checked under the lock on the new file: another process may have created the store meanwhile.
    if path.exists() {
        return Err(OpenError::InUse { path: path.to_owned() });
    }
    fs::rename(&making, path).and_then(|()| sync_folder(path)).map_err(|cause| unwritable(path, &cause))?;
    Ok(database)
}

/// Makes the new name durable, before any write under it is acknowledged.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if cfg!(unix) => fs::File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// Translates redb's error for the operator.
fn open_error(path: &Path, cause: DatabaseError) -> OpenError {
    match cause {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            OpenError::InUse { path: path.to_owned() }
        }
        DatabaseError::Storage(StorageError::Io(cause)) if is_damage(&cause) => corrupt(path, &cause),
        DatabaseError::Storage(StorageError::Io(cause)) => unwritable(path, &cause),
        cause => corrupt(path, &cause),
    }
}

/// Whether the file can be read but its content is wrong.
fn is_damage(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

fn corrupt(path: &Path, cause: &impl ToString) -> OpenError {
    OpenError::Corrupt { path: path.to_owned(), cause: cause.to_string() }
}

fn unwritable(path: &Path, cause: &impl ToString) -> OpenError {
    OpenError::Unwritable { path: path.to_owned(), cause: cause.to_string() }
}

/// Layout of the tables; `None` for an empty file.
fn layout(database: &Database) -> Result<Option<u64>, Cause> {
    let read = database.begin_read()?;
    if read.list_tables()?.next().is_none() {
        return Ok(None);
    }
    let layout = read.open_table(META)?.get(LAYOUT_NAME)?;
    layout.map(|layout| Some(layout.value())).ok_or_else(|| Cause::from("no layout is recorded"))
}

/// Creates every table, so that reads find them.
fn initialise(database: &Database) -> Result<(), Cause> {
    let write = database.begin_write()?;
    write.open_table(META)?.insert(LAYOUT_NAME, LAYOUT)?;
    write.open_table(ENTRIES)?;
    write.open_table(BY_EXPIRY)?;
    write.open_table(SNAPSHOTS)?;
    Ok(write.commit()?)
}

fn count(database: &Database) -> Result<u64, Cause> {
    let read = database.begin_read()?;
    read.open_table(BY_EXPIRY)?;
    Ok(read.open_table(ENTRIES)?.len()?)
}

// === impl Shared ===

impl Shared {
    fn get(&self, key: CacheKey) -> Result<Option<Arc<Entry>>, Cause> {
        let entries = self.database.begin_read()?.open_table(ENTRIES)?;
        let found = entries.get(key.as_bytes())?;
        Ok(found.and_then(|value| self.decode(value.value().1)).map(Arc::new))
    }

    fn snapshot(&self, name: &str) -> Result<Option<Vec<u8>>, Cause> {
        match self.database.begin_read()?.open_table(SNAPSHOTS) {
            Ok(snapshots) => Ok(snapshots.get(name)?.map(|snapshot| snapshot.value().to_vec())),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn scan(&self, after: Option<CacheKey>, limit: usize) -> Result<Vec<Arc<Entry>>, Cause> {
        let from = after.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_bytes()));
        let entries = self.database.begin_read()?.open_table(ENTRIES)?;
        let mut page = Vec::new();
        for element in entries.range::<&[u8; 32]>((from, Bound::Unbounded))? {
            if page.len() == limit {
                break;
            }
            page.extend(self.decode(element?.1.value().1).map(Arc::new));
        }
        Ok(page)
    }

    fn select(&self, selector: &Selector) -> Result<Vec<CacheKey>, Cause> {
        self.select_in(&self.database.begin_read()?.open_table(ENTRIES)?, selector)
    }

    /// Keys of the entries that `selector` matches.
    fn select_in(
        &self,
        entries: &impl ReadableTable<&'static [u8; 32], (u64, &'static [u8])>,
        selector: &Selector,
    ) -> Result<Vec<CacheKey>, Cause> {
        let (first, last) = selector.key_range().into_inner();
        let mut keys = Vec::new();
        for element in entries.range::<&[u8; 32]>(first.as_bytes()..=last.as_bytes())? {
            let (key, value) = element?;
            if self.decode(value.value().1).is_some_and(|entry| selector.matches(&entry)) {
                keys.push(CacheKey::from_bytes(*key.value()));
            }
        }
        Ok(keys)
    }

    /// Counts entries that cannot be decoded.
    fn decode(&self, bytes: &[u8]) -> Option<Entry> {
        let entry = codec::decode(bytes);
        if entry.is_err() {
            self.unreadable.fetch_add(1, Ordering::Relaxed);
        }
        entry.ok()
    }
}

// === impl Cause ===

impl Cause {
    fn of(self, op: Op) -> StoreError {
        StoreError { op, cause: self.0 }
    }
}

macro_rules! cause_from {
    ($($error:ty),*) => {$(
        impl From<$error> for Cause {
            fn from(error: $error) -> Self {
                Self(error.to_string())
            }
        }
    )*};
}

cause_from!(&str, redb::CommitError, redb::StorageError, redb::TableError, redb::TransactionError);

#[cfg(test)]
mod tests;

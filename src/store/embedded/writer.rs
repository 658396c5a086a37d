//! The thread that writes, and its queue.

use std::{
    io, mem,
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{SystemTime, UNIX_EPOCH},
};

use redb::{ReadableTable as _, ReadableTableMetadata as _, Table, WriteTransaction};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use super::{BY_EXPIRY, Cause, ENTRIES, SNAPSHOTS, Shared, codec};
use crate::{
    entry::{Entry, Selector},
    key::CacheKey,
    store::{Op, StoreError},
};

/// Maximum changes in one transaction, which bounds the wait for the first of them.
pub const BATCH_MAX: usize = 1024;

/// A change of the store.
pub enum Change {
    Put(Arc<Entry>),
    Snapshot(String, Vec<u8>),
    Remove(Selector),
    Expire {
        max_entries: u64,
        limit: usize,
    },
    /// Changes nothing; completes after all changes before it.
    Flush,
}

/// Cause of errors after the thread has ended.
const STOPPED: &str = "the writer stopped";

/// The keys that a change removed.
type Removed = Vec<CacheKey>;

/// A queued change, and the caller that waits until it is durable.
struct Job {
    change: Change,
    done: Option<oneshot::Sender<Result<Removed, StoreError>>>,
}

/// The sending end of the queue.
pub struct Writer {
    shared: Arc<Shared>,
    /// `None` only while dropping.
    queue: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// The tables of one transaction.
struct Tables<'t> {
    shared: &'t Shared,
    entries: Table<'t, &'static [u8; 32], (u64, &'static [u8])>,
    by_expiry: Table<'t, (u64, &'static [u8; 32]), ()>,
    snapshots: Table<'t, &'static str, &'static [u8]>,
}

impl Change {
    const fn op(&self) -> Op {
        match self {
            Self::Put(_) | Self::Snapshot(..) => Op::Put,
            Self::Remove(_) => Op::Remove,
            Self::Expire { .. } => Op::Expire,
            Self::Flush => Op::Flush,
        }
    }
}

// === impl Writer ===

impl Writer {
    /// Starts the thread with a queue of `capacity` changes.
    pub fn start(shared: Arc<Shared>, capacity: usize) -> io::Result<Self> {
        let (queue, jobs) = mpsc::channel(capacity.max(1));
        let writing = shared.clone();
        let name = "store-writer".to_owned();
        let thread = thread::Builder::new().name(name).spawn(move || write_all(&writing, jobs))?;
        Ok(Self { shared, queue: Some(queue), thread: Some(thread) })
    }

    /// Queues a change. Fails if the queue is full.
    pub fn queue(&self, change: Change) -> Result<(), StoreError> {
        let op = change.op();
        let sent = self.sender().and_then(|queue| match queue.try_send(Job { change, done: None }) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => Err(Cause::from("the write queue is full")),
            Err(TrySendError::Closed(_)) => Err(Cause::from(STOPPED)),
        });
        sent.map_err(|cause| cause.of(op))
    }

    /// Waits until `change` is durable.
    pub async fn write(&self, change: Change) -> Result<Removed, StoreError> {
        let op = change.op();
        let stopped = || Cause::from(STOPPED).of(op);
        let (done, result) = oneshot::channel();
        let queue = self.sender().map_err(|cause| cause.of(op))?;
        queue.send(Job { change, done: Some(done) }).await.map_err(|_| stopped())?;
        result.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// The queue, unless every write would fail.
    fn sender(&self) -> Result<&mpsc::Sender<Job>, Cause> {
        self.shared.check_poison()?;
        self.queue.as_ref().ok_or_else(|| Cause::from(STOPPED))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.take();
        let joined = self.thread.take().map(JoinHandle::join);
        // A panic was reported to every write since.
        drop(joined);
    }
}

// === the thread ===

/// Runs until every sender is gone and the queue is empty.
fn write_all(shared: &Shared, mut jobs: mpsc::Receiver<Job>) {
    let mut batch = Vec::new();
    while jobs.blocking_recv_many(&mut batch, BATCH_MAX) > 0 {
        write(shared, mem::take(&mut batch));
    }
}

fn write(shared: &Shared, batch: Vec<Job>) {
    let (changes, waiting): (Vec<_>, Vec<_>) = batch.into_iter().map(|job| (job.change, job.done)).unzip();
    match shared.commit_or_poison(&changes) {
        Ok(removed) => answer(waiting, removed.into_iter().map(Ok)),
        Err(Cause(cause)) => {
            answer(waiting, changes.iter().map(|change| Err(Cause(cause.clone()).of(change.op()))));
        }
    }
}

/// Callers that no longer wait are skipped.
fn answer(
    waiting: Vec<Option<oneshot::Sender<Result<Removed, StoreError>>>>,
    results: impl Iterator<Item = Result<Removed, StoreError>>,
) {
    for (done, result) in waiting.into_iter().zip(results) {
        done.map(|done| done.send(result));
    }
}

// === impl Shared ===

impl Shared {
    fn check_poison(&self) -> Result<(), Cause> {
        self.poisoned.get().map_or(Ok(()), |cause| Err(Cause(cause.clone())))
    }

    /// Commits all `changes` in order, or none of them.
    fn commit_or_poison(&self, changes: &[Change]) -> Result<Vec<Removed>, Cause> {
        self.check_poison()?;
        self.commit(changes).map_err(|Cause(cause)| {
            let cause = format!("nothing more is written since a write failed: {cause}");
            Cause(self.poisoned.get_or_init(|| cause).clone())
        })
    }

    fn commit(&self, changes: &[Change]) -> Result<Vec<Removed>, Cause> {
        let now = SystemTime::now();
        let transaction = self.database.begin_write()?;
        let mut tables = Tables::open(self, &transaction)?;
        let mut removed = Vec::with_capacity(changes.len());
        for change in changes {
            removed.push(tables.apply(change, now)?);
        }
        let entries = tables.entries.len()?;
        drop(tables);
        transaction.commit()?;
        self.entries.store(entries, Ordering::Relaxed);
        Ok(removed)
    }
}

// === impl Tables ===

impl<'t> Tables<'t> {
    fn open(shared: &'t Shared, transaction: &'t WriteTransaction) -> Result<Self, Cause> {
        let entries = transaction.open_table(ENTRIES)?;
        let by_expiry = transaction.open_table(BY_EXPIRY)?;
        let snapshots = transaction.open_table(SNAPSHOTS)?;
        Ok(Self { shared, entries, by_expiry, snapshots })
    }

    fn apply(&mut self, change: &Change, now: SystemTime) -> Result<Removed, Cause> {
        match change {
            Change::Put(entry) => self.put(entry).map(|()| Removed::new()),
            Change::Snapshot(name, snapshot) => {
                self.snapshots.insert(name.as_str(), snapshot.as_slice())?;
                Ok(Removed::new())
            }
            Change::Remove(selector) => self.remove(selector),
            Change::Expire { max_entries, limit } => self.expire(nanos(now), *max_entries, *limit),
            Change::Flush => Ok(Removed::new()),
        }
    }

    fn put(&mut self, entry: &Entry) -> Result<(), Cause> {
        let key = entry.key.as_bytes();
        let expires = nanos(entry.removed_at());
        let bytes = codec::encode(entry);
        let replaced = self.entries.insert(key, (expires, bytes.as_slice()))?.map(|old| old.value().0);
        if let Some(old) = replaced {
            self.by_expiry.remove((old, key))?;
        }
        self.by_expiry.insert((expires, key), ())?;
        Ok(())
    }

    fn remove(&mut self, selector: &Selector) -> Result<Removed, Cause> {
        let keys = self.shared.select_in(&self.entries, selector)?;
        for key in &keys {
            self.remove_key(key.as_bytes())?;
        }
        Ok(keys)
    }

    fn remove_key(&mut self, key: &[u8; 32]) -> Result<(), Cause> {
        let removed = self.entries.remove(key)?.map(|old| old.value().0);
        if let Some(expires) = removed {
            self.by_expiry.remove((expires, key))?;
        }
        Ok(())
    }

    fn expire(&mut self, now: u64, max_entries: u64, limit: usize) -> Result<Removed, Cause> {
        let mut removed = Removed::new();
        while removed.len() < limit {
            let is_full = self.entries.len()? > max_entries;
            let Some((expires, key)) = self.next_to_expire()? else { break };
            if now < expires && !is_full {
                break;
            }
            self.by_expiry.remove((expires, &key))?;
            self.entries.remove(&key)?;
            removed.push(CacheKey::from_bytes(key));
        }
        Ok(removed)
    }

    fn next_to_expire(&self) -> Result<Option<(u64, [u8; 32])>, Cause> {
        let first = self.by_expiry.first()?;
        Ok(first.map(|(element, _)| {
            let (expires, key) = element.value();
            (expires, *key)
        }))
    }
}

/// Nanoseconds since 1970; times after 2554 mean never.
fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

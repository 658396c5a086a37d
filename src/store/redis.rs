//! A store that replicas share: plain Redis or Valkey, single node or cluster, without modules.
//!
//! Every entry is a key that Redis itself expires. Writes go through a queue, so that requests need not wait for Redis,
//! and an outage loses no write that fits the queue.

mod core;
mod event;
mod follow;
mod keys;
mod lag;
mod learner_events;
mod lease;
mod link;
mod log;
mod peers;
mod queue;
mod snapshots;
mod tail;
mod unreachable;
mod value;
mod writer;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{
    core::Core,
    event::Event,
    follow::Batch,
    keys::Keys,
    learner_events::LearnerEvents,
    link::{Fault, Link, Nodes},
    peers::Peer,
    queue::{Done, Put, Queue, Write},
};
use super::{
    Change, Claim, Durability, LearnerEvent, Op, OpenError, Snapshot, SnapshotVersion, Store, StoreError,
};
use crate::{
    config::{PeerConfig, StoreConfig},
    entry::{Entry, EntryId, Selector},
    key::CacheKey,
};

/// The store that replicas share.
pub struct RedisStore {
    core: Arc<Core>,
    queue: Arc<Queue>,
    changes: Mutex<Changes>,
    learner_events: Arc<LearnerEvents>,
    /// Time for which a lease is valid without a renewal; zero disables leases.
    lease: Duration,
    /// Ends the tasks with the store.
    _tasks: DropGuard,
}

/// Changes by other replicas that wait for the cache.
struct Changes {
    invalidations: mpsc::Receiver<Batch>,
    changes: mpsc::Receiver<Batch>,
    /// Position in the log that the cache has applied once it asks for more changes.
    handed_out: Option<log::Position>,
}

/// Maximum batches that wait for the cache before reading of the streams pauses.
const BATCHES: usize = 4;

impl RedisStore {
    /// Starts to connect. An unreachable Redis does not prevent the start: until it answers, reads fail at once and writes
    /// wait.
    ///
    /// # Errors
    /// [`OpenError::CaFile`] if the certificates to trust cannot be read.
    pub fn start(region: &str, config: &StoreConfig) -> Result<Self, OpenError> {
        let ca = config.ca_file.as_deref().map(link::read_ca).transpose()?;
        let nodes =
            Nodes { urls: config.url.clone(), password_env: config.password_env.clone(), ca: ca.clone() };
        let link = Link::new(nodes, call_timeout(config));
        let core = Arc::new(Core::new(Arc::clone(&link), Keys::new(&config.key_prefix), region));
        let queue = Arc::new(Queue::new(config.write_queue));
        let stop = CancellationToken::new();
        spawn(&stop, link.keep());
        spawn(&stop, writer::write_all(Arc::clone(&core), Arc::clone(&queue)));
        spawn(&stop, writer::write_quarantined(Arc::clone(&core), Arc::clone(&queue)));
        let (send_invalidations, invalidations) = mpsc::channel(BATCHES);
        let (send_changes, changes) = mpsc::channel(BATCHES);
        spawn(&stop, follow::invalidations(Arc::clone(&core), send_invalidations));
        let learner_events = Arc::new(LearnerEvents::new());
        spawn(&stop, follow::changes(Arc::clone(&core), send_changes));
        spawn(&stop, follow::learner_events(Arc::clone(&core), Arc::clone(&learner_events)));
        for peer in &config.peers {
            let PeerConfig { region, url, password_env } = peer;
            let nodes = Nodes { urls: url.clone(), password_env: password_env.clone(), ca: ca.clone() };
            let link = Link::new(nodes, call_timeout(config));
            spawn(&stop, Arc::clone(&link).keep());
            let remote = Arc::new(Core::new(link, Keys::new(&config.key_prefix), region));
            let (local, queue) = (Arc::clone(&core), Arc::clone(&queue));
            spawn(&stop, Peer { region: region.clone(), remote, local, queue }.follow());
        }
        let changes = Mutex::new(Changes { invalidations, changes, handed_out: None });
        let (lease, tasks) = (config.lease, stop.drop_guard());
        Ok(Self { core, queue, changes, learner_events, lease, _tasks: tasks })
    }

    /// Waits until every write queued so far is done.
    async fn written(&self) -> Result<(), Fault> {
        let (done, written) = Done::new();
        self.queue.push_always(Write::Barrier(done));
        completed(written).await
    }

    async fn write(&self, entry: Arc<Entry>, durability: Durability) -> Result<(), Fault> {
        let seen = self.core.log.seen();
        match durability {
            Durability::Queued => self.queue.push(Write::Put(Put { entry, seen, done: None })),
            Durability::Durable => {
                let (done, written) = Done::new();
                self.queue.push(Write::Put(Put { entry, seen, done: Some(done) }))?;
                completed(written).await
            }
        }
    }

    async fn select(&self, selector: &Selector) -> Result<Vec<CacheKey>, Fault> {
        let mut keys = Vec::new();
        for page in self.core.candidates(selector).await?.chunks(core::PAGE) {
            let found = self.core.matching(selector, page, true).await?;
            keys.extend(found.iter().map(|found| found.entry.key));
        }
        Ok(keys)
    }

    async fn expire(&self, max_entries: u64, limit: usize) -> Result<Vec<CacheKey>, Fault> {
        let surplus = self.core.count().await?.saturating_sub(max_entries);
        let mut removed = Vec::new();
        for key in self.core.oldest(surplus, limit).await? {
            if self.core.remove_key(key).await? {
                removed.push(key);
            }
        }
        self.core.announce(removed.iter().copied(), None, |keys| Event::Removed { keys }).await;
        Ok(removed)
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn get(&self, key: CacheKey) -> Result<Option<Arc<Entry>>, StoreError> {
        let found = self.core.get(EntryId::from(key)).await.map_err(of(Op::Get))?;
        Ok(found.map(|found| found.entry).filter(|entry| entry.key == key))
    }

    async fn put(&self, entry: Arc<Entry>, durability: Durability) -> Result<(), StoreError> {
        self.write(entry, durability).await.map_err(of(Op::Put))
    }

    async fn remove(&self, selector: &Selector, dry_run: bool) -> Result<Vec<CacheKey>, StoreError> {
        let removed = async {
            if dry_run {
                self.written().await?;
                return self.select(selector).await;
            }
            let (done, removed) = Done::new();
            let pending = self.core.log.add_pending(selector.clone());
            self.queue.push_removal(selector.clone(), None, pending, done)?;
            completed(removed).await
        };
        removed.await.map_err(of(Op::Remove))
    }

    async fn scan(&self, after: Option<CacheKey>, limit: usize) -> Result<Vec<Arc<Entry>>, StoreError> {
        let found = self.core.scan(after, limit).await.map_err(of(Op::Scan))?;
        Ok(found.into_iter().map(|found| found.entry).collect())
    }

    async fn expire(&self, max_entries: u64, limit: usize) -> Result<Vec<CacheKey>, StoreError> {
        self.expire(max_entries, limit).await.map_err(of(Op::Expire))
    }

    fn entries(&self) -> u64 {
        self.core.entries.load(Ordering::Relaxed)
    }

    fn unreadable(&self) -> u64 {
        self.core.unreadable.load(Ordering::Relaxed)
    }

    async fn flush(&self) -> Result<(), StoreError> {
        self.written().await.map_err(of(Op::Flush))
    }

    async fn snapshot(&self, name: &str) -> Result<Option<Snapshot>, StoreError> {
        snapshots::get(&self.core, name).await.map_err(of(Op::Get))
    }

    async fn put_snapshot(
        &self,
        name: &str,
        snapshot: Snapshot,
        replaces: Option<SnapshotVersion>,
    ) -> Result<bool, StoreError> {
        snapshots::put(&self.core, name, &snapshot, replaces).await.map_err(of(Op::Put))
    }

    async fn changed(&self) -> Vec<Change> {
        let waiting = &mut *self.changes.lock().await;
        // This call says that the last batch was applied.
        if let Some(applied) = waiting.handed_out.take() {
            self.core.log.apply(applied);
        }
        let batch = tokio::select! {
            biased;
            Some(batch) = waiting.invalidations.recv() => batch,
            Some(batch) = waiting.changes.recv() => batch,
            else => return std::future::pending().await,
        };
        waiting.handed_out = batch.applied;
        batch.changes
    }

    async fn publish(&self, message: Vec<u8>) -> Result<bool, StoreError> {
        learner_events::publish(&self.core, None, message).await.map_err(of(Op::Publish))?;
        Ok(true)
    }

    async fn learner_event(&self) -> LearnerEvent {
        self.learner_events.next().await
    }

    fn lags(&self) -> Vec<(String, Duration)> {
        self.core.lag.all()
    }

    async fn claim(&self, key: CacheKey) -> Result<Claim, StoreError> {
        if self.lease.is_zero() {
            return Ok(Claim::default());
        }
        lease::claim(&self.core, &self.queue, key, self.lease).await.map_err(of(Op::Claim))
    }
}

/// A little shorter than requests wait, so that the link sees the missing reply before the request gives up.
fn call_timeout(config: &StoreConfig) -> Duration {
    config.timeout * 4 / 5
}

fn of(op: Op) -> impl Fn(Fault) -> StoreError {
    move |fault| StoreError { op, cause: fault.to_string() }
}

/// Waits for the result of a queued write.
async fn completed<T>(result: oneshot::Receiver<Result<T, Fault>>) -> Result<T, Fault> {
    result.await.unwrap_or_else(|_| Err(Fault::Unreachable("the writer has stopped".to_owned())))
}

/// Runs `task` as long as the store lives.
fn spawn(stop: &CancellationToken, task: impl Future<Output = ()> + Send + 'static) {
    let stop = stop.clone();
    tokio::spawn(async move { stop.run_until_cancelled(task).await });
}

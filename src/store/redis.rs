//! The store that replicas share: plain Redis or Valkey, single or cluster, without modules.
//!
//! Entries are keys of their own that Redis itself forgets when they expire. Writes go through a queue, so
//! that nobody waits for Redis who need not, and an outage loses none that the queue can hold.

mod core;
mod event;
mod follow;
mod keys;
mod lag;
mod lease;
mod lessons;
mod link;
mod log;
mod peers;
mod queue;
mod suspects;
mod tail;
mod value;
mod writer;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::keys::Keys;
use self::{
    core::Core,
    event::Event,
    follow::Batch,
    lessons::Lessons,
    link::{Fault, Link, Nodes},
    peers::Peer,
    queue::{Done, Put, Queue, Write},
};
use super::{Change, Claim, Durability, Heard, Note, NoteVersion, Op, OpenError, Store, StoreError};
use crate::{
    config::{PeerConfig, StoreConfig},
    entry::{Entry, EntryId, Selector},
    key::CacheKey,
};

/// Entries in Redis.
pub struct RedisStore {
    core: Arc<Core>,
    queue: Arc<Queue>,
    changes: Mutex<Changes>,
    lessons: Arc<Lessons>,
    /// How long a purchase stays reserved without a sign of life; zero: none is reserved.
    lease: Duration,
    /// Ends the tasks with the store.
    _tasks: DropGuard,
}

/// What other replicas told, as it comes.
struct Changes {
    invalidations: mpsc::Receiver<Batch>,
    changes: mpsc::Receiver<Batch>,
    /// The place in the log up to which the cache knows, once it comes for more.
    handed: Option<log::Position>,
}

/// Batches that wait for the cache; then the streams wait.
const BATCHES: usize = 4;

// === impl RedisStore ===

impl RedisStore {
    /// Starts connecting. A Redis that is away is no reason not to start: until it comes, its calls fail at
    /// once, and writes wait.
    ///
    /// # Errors
    /// [`OpenError::CaFile`], when the certificates to trust cannot be read.
    pub fn start(region: &str, config: &StoreConfig) -> Result<Self, OpenError> {
        let ca = config.ca_file.as_deref().map(link::read_ca).transpose()?;
        let nodes =
            Nodes { urls: config.url.clone(), password_env: config.password_env.clone(), ca: ca.clone() };
        let link = Link::new(nodes, patience(config));
        let core = Arc::new(Core::new(Arc::clone(&link), Keys::new(&config.key_prefix), region));
        let queue = Arc::new(Queue::new(config.write_queue));
        let stop = CancellationToken::new();
        spawn(&stop, link.keep());
        spawn(&stop, writer::write_all(Arc::clone(&core), Arc::clone(&queue)));
        spawn(&stop, writer::write_aside(Arc::clone(&core), Arc::clone(&queue)));
        let (send_invalidations, invalidations) = mpsc::channel(BATCHES);
        let (send_changes, changes) = mpsc::channel(BATCHES);
        spawn(&stop, follow::invalidations(Arc::clone(&core), send_invalidations));
        let lessons = Arc::new(Lessons::new());
        spawn(&stop, follow::changes(Arc::clone(&core), send_changes));
        spawn(&stop, follow::lessons(Arc::clone(&core), Arc::clone(&lessons)));
        for peer in &config.peers {
            let PeerConfig { region, url, password_env } = peer;
            let nodes = Nodes { urls: url.clone(), password_env: password_env.clone(), ca: ca.clone() };
            let link = Link::new(nodes, patience(config));
            spawn(&stop, Arc::clone(&link).keep());
            let there = Arc::new(Core::new(link, Keys::new(&config.key_prefix), region));
            let (here, queue, lessons) = (Arc::clone(&core), Arc::clone(&queue), Arc::clone(&lessons));
            spawn(&stop, Peer { region: region.clone(), there, here, queue, lessons }.follow());
        }
        let changes = Mutex::new(Changes { invalidations, changes, handed: None });
        Ok(Self { core, queue, changes, lessons, lease: config.lease, _tasks: stop.drop_guard() })
    }

    /// Waits until what is queued now was written.
    async fn written(&self) -> Result<(), Fault> {
        let (done, written) = Done::new();
        self.queue.push_always(Write::Barrier(done));
        heard(written.await)
    }

    async fn write(&self, entry: Arc<Entry>, durability: Durability) -> Result<(), Fault> {
        let seen = self.core.log.seen();
        match durability {
            Durability::Queued => self.queue.push(Write::Put(Put { entry, seen, done: None })),
            Durability::Durable => {
                let (done, written) = Done::new();
                self.queue.push(Write::Put(Put { entry, seen, done: Some(done) }))?;
                heard(written.await)
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

    async fn put_note(&self, name: &str, note: Note, over: Option<NoteVersion>) -> Result<bool, StoreError> {
        self.lessons.put_note(&self.core, name, &note, over).await.map_err(of(Op::Put))
    }

    async fn note(&self, name: &str) -> Result<Option<Note>, StoreError> {
        self.lessons.note(&self.core, name).await.map_err(of(Op::Get))
    }

    async fn remove(&self, selector: &Selector, dry_run: bool) -> Result<Vec<CacheKey>, StoreError> {
        let removed = async {
            if dry_run {
                self.written().await?;
                return self.select(selector).await;
            }
            let (done, removed) = Done::new();
            let pending = self.core.log.pend(selector.clone());
            self.queue.push_removal(selector.clone(), None, pending, done)?;
            heard(removed.await)
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

    async fn claim(&self, key: CacheKey) -> Result<Claim, StoreError> {
        if self.lease.is_zero() {
            return Ok(Claim::default());
        }
        lease::claim(&self.core, &self.queue, key, self.lease).await.map_err(of(Op::Claim))
    }

    async fn changed(&self) -> Vec<Change> {
        let mut told = self.changes.lock().await;
        // Coming for more says that what was handed out before has been applied.
        if let Some(applied) = told.handed.take() {
            self.core.log.apply(applied);
        }
        let told = &mut *told;
        let batch = tokio::select! {
            biased;
            Some(batch) = told.invalidations.recv() => batch,
            Some(batch) = told.changes.recv() => batch,
            else => return std::future::pending().await,
        };
        told.handed = batch.applied;
        batch.changes
    }

    async fn tell(&self, lesson: Vec<u8>) -> Result<bool, StoreError> {
        self.lessons.tell(&self.core, None, lesson).await.map_err(of(Op::Tell))?;
        Ok(true)
    }

    async fn heard(&self) -> Heard {
        self.lessons.heard().await
    }

    fn lags(&self) -> Vec<(String, Duration)> {
        self.core.lag.all()
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
}

/// A little less than requests wait: the link must learn that there was no reply before the request gives up.
fn patience(config: &StoreConfig) -> Duration {
    config.timeout * 4 / 5
}

fn of(op: Op) -> impl Fn(Fault) -> StoreError {
    move |fault| StoreError { op, cause: fault.to_string() }
}

/// What the writer said; it says something unless it was stopped.
fn heard<T>(told: Result<Result<T, Fault>, tokio::sync::oneshot::error::RecvError>) -> Result<T, Fault> {
    told.unwrap_or_else(|_| Err(Fault::Away("stopped".to_owned())))
}

/// Runs `task` as long as the store lives.
fn spawn(stop: &CancellationToken, task: impl Future<Output = ()> + Send + 'static) {
    let stop = stop.clone();
    tokio::spawn(async move { stop.run_until_cancelled(task).await });
}

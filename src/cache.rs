//! The cache: memory tier, index and store as one. The store is the truth; the tiers in memory are copies of it, which
//! this module keeps consistent.

mod directory;
mod invalidations;
mod maintenance;
mod tiers;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
    time::{Instant, SystemTime},
};

use tokio::{sync::Notify, time::timeout_at};

pub use self::{invalidations::Epoch, maintenance::Maintenance, tiers::Tiers};
use crate::{
    config::CacheConfig,
    embed::Embedding,
    entry::{Candidate, Entry, EntryId, Selector},
    key::{CacheKey, Scope},
    store::{Claim, Durability, Op, StoreError, TimedStore},
    telemetry::metrics::Metrics,
};

/// Every cached answer.
pub struct Cache {
    store: TimedStore,
    /// The copies in memory.
    pub tiers: Arc<Tiers>,
    /// The work that goes on in the background.
    pub maintenance: Maintenance,
}

/// The vectors that are searched: the name of their embedder and their length.
#[derive(Clone, Copy, Debug, Default)]
pub struct VectorSpace<'a> {
    pub embedder: &'a str,
    pub dimensions: usize,
}

impl Cache {
    /// A cache with an empty index, which [`Maintenance::load`] fills. `vectors` is `None` if only exact hits are
    /// served.
    pub fn new(
        config: &CacheConfig,
        store: TimedStore,
        vectors: Option<VectorSpace<'_>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let tiers = Arc::new(Tiers::new(config, vectors.unwrap_or_default(), Arc::clone(&metrics)));
        let maintenance = Maintenance {
            tiers: Arc::clone(&tiers),
            store: store.clone(),
            scanned: AtomicU64::new(0),
            loaded: AtomicBool::new(false),
            reload_wanted: Notify::new(),
            max_entries: config.max_entries,
            metrics,
        };
        Self { store, tiers, maintenance }
    }

    /// Returns the live entry under `key`. A store that fails, or takes longer than `store.timeout`,
    /// is a miss.
    pub async fn get(&self, key: CacheKey) -> Option<Arc<Entry>> {
        self.get_or_expired(key).await.filter(|entry| entry.is_live(SystemTime::now()))
    }

    /// Like [`Cache::get`], but also returns an entry past its expiry while it is stored.
    pub async fn get_or_expired(&self, key: CacheKey) -> Option<Arc<Entry>> {
        self.read_until(key, self.store.deadline()).await
    }

    async fn get_until(&self, key: CacheKey, deadline: Instant) -> Option<Arc<Entry>> {
        self.read_until(key, deadline).await.filter(|entry| entry.is_live(SystemTime::now()))
    }

    async fn read_until(&self, key: CacheKey, deadline: Instant) -> Option<Arc<Entry>> {
        if let Some(entry) = self.tiers.get(key) {
            return Some(entry);
        }
        let epoch = self.tiers.epoch();
        let entry = self.store.call_until(Op::Get, deadline, |store| store.get(key)).await;
        let entry = self.tiers.remember_read(entry.ok().flatten()?);
        if self.tiers.is_invalidated(epoch, &entry) {
            self.tiers.drop_from_memory(key);
            return None;
        }
        Some(entry)
    }

    /// Returns the live entry under `key` if it is in memory, without an await.
    pub fn peek(&self, key: CacheKey) -> Option<Arc<Entry>> {
        self.tiers.get(key).filter(|entry| entry.is_live(SystemTime::now()))
    }

    /// Up to `k` live entries of `scope`, nearest first.
    pub async fn nearest(&self, scope: Scope, embedding: &Embedding, k: usize) -> Vec<Candidate> {
        let neighbours = self.tiers.search(scope, embedding, k);
        let mut candidates = Vec::with_capacity(neighbours.len());
        // All reads share one timeout.
        let deadline = self.store.deadline();
        for near in neighbours {
            match self.get_until(near.key, deadline).await {
                Some(entry) => candidates.push(Candidate { entry, similarity: near.similarity }),
                None => self.repair(near.key, deadline).await,
            }
        }
        candidates
    }

    /// Requests the lease to answer the prompt of `key`. A store that fails, or takes longer than `store.timeout`,
    /// grants it.
    pub async fn claim(&self, key: CacheKey) -> Claim {
        let claim = self.store.call_until(Op::Claim, self.store.deadline(), |store| store.claim(key));
        claim.await.unwrap_or_default()
    }

    /// The live entry with this id.
    pub async fn find(&self, id: EntryId) -> Option<Arc<Entry>> {
        let selector = &Selector { id: Some(id), ..Selector::default() };
        let deadline = self.store.deadline();
        let keys = self.store.call_until(Op::Remove, deadline, |store| store.remove(selector, true)).await;
        self.get_until(*keys.ok()?.first()?, deadline).await
    }

    /// Stores an answer to a prompt that was received at `epoch`, unless it was invalidated since.
    ///
    /// # Errors
    /// When the store did not accept it with this `durability`. It is still served from memory.
    pub async fn keep(&self, entry: Entry, durability: Durability, epoch: Epoch) -> Result<(), StoreError> {
        if self.tiers.is_invalidated(epoch, &entry) {
            return Ok(());
        }
        let entry = Arc::new(entry);
        if let Some(embedding) = &entry.embedding {
            self.tiers.index(&entry, embedding);
        }
        self.tiers.remember(Arc::clone(&entry));
        let stored = Arc::clone(&entry);
        let put = match durability {
            // The caller waits for the end of the answer, not for the store.
            Durability::Queued => {
                let deadline = self.store.deadline();
                self.store.call_until(Op::Put, deadline, |store| store.put(stored, durability)).await
            }
            Durability::Durable => self.store.call(Op::Put, |store| store.put(stored, durability)).await,
        };
        // An invalidation between the check above and the put did not see the entry; later ones do.
        if self.tiers.is_invalidated(epoch, &entry) {
            self.undo(&entry).await;
        }
        put
    }

    /// Removes entries that `selector` matches, also while they are in flight. Returns their number.
    ///
    /// # Errors
    /// When the store failed. The entries are gone from memory, but a restart may bring them back.
    pub async fn invalidate(&self, selector: &Selector, dry_run: bool) -> Result<u64, StoreError> {
        if !dry_run {
            self.tiers.drop_matching(selector);
        }
        let removed = self.store.call(Op::Remove, |store| store.remove(selector, dry_run)).await?;
        if !dry_run {
            self.tiers.forget(&removed);
        }
        Ok(removed.len() as u64)
    }

    /// Entries in the store, and vectors in the index.
    pub fn sizes(&self) -> (u64, usize) {
        (self.store.inner().entries(), self.tiers.vectors())
    }

    /// Removes the vector of `key` if the store has no entry under it. It stays if the store fails, or if the entry has
    /// only expired.
    async fn repair(&self, key: CacheKey, deadline: Instant) {
        // Not counted: the read that found nothing was.
        let read = timeout_at(deadline.into(), self.store.inner().get(key)).await;
        if matches!(read, Ok(Ok(None))) {
            self.tiers.forget(&[key]);
        }
    }

    async fn undo(&self, entry: &Entry) {
        self.tiers.forget(&[entry.key]);
        let selector = &Selector { key: Some(entry.key), ..Selector::default() };
        // A failure is counted. The invalidation itself also removes the entry.
        let _ = self.store.call(Op::Remove, |store| store.remove(selector, false)).await;
    }
}

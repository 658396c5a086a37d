//! The cache: memory tier, store and index as one. The store is the truth; the other two are copies that this module keeps
//! consistent.

mod directory;
mod invalidations;
mod replication;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use quick_cache::{
    Weighter,
    sync::{Cache as MemoryTier, GuardResult},
};
use tokio::sync::Notify;

use self::{directory::Directory, invalidations::Invalidations};
use crate::{
    config::CacheConfig,
    embed::Embedding,
    entry::{Candidate, Entry, EntryId, Selector},
    index::Index,
    key::{CacheKey, Scope},
    store::{Claim, Durability, Op, StoreError, TimedStore},
    telemetry::metrics::Metrics,
};

pub use self::invalidations::Epoch;

/// Entries read from the store at once while the index is built.
const SCAN_PAGE: usize = 1000;

/// Pause between two progress messages of a load.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Expired entries removed by one call.
const SWEEP_PAGE: usize = 1000;

/// Pause between two sweeps. Every read checks the expiry, so a sweep only frees space.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Every cached answer.
pub struct Cache {
    memory: MemoryTier<CacheKey, Arc<Entry>, BySize>,
    store: TimedStore,
    index: Index,
    directory: Directory,
    invalidations: Invalidations,
    /// Entries read by the current or the last load.
    scanned: AtomicU64,
    /// Whether the index was loaded once.
    loaded: AtomicBool,
    /// Signals that the index must be loaded again.
    reload_wanted: Notify,
    /// Only vectors of this embedder are indexed.
    embedder: String,
    max_entries: u64,
    metrics: Arc<Metrics>,
}

/// The vectors that are searched: the name of their embedder and their length.
#[derive(Clone, Copy, Debug, Default)]
pub struct VectorSpace<'a> {
    pub embedder: &'a str,
    pub dimensions: usize,
}

#[derive(Clone)]
struct BySize;

impl Cache {
    /// A cache with an empty index, which [`Cache::load`] fills. `vectors` is `None` if only exact hits are served.
    pub fn new(
        config: &CacheConfig,
        store: TimedStore,
        vectors: Option<VectorSpace<'_>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let VectorSpace { embedder, dimensions } = vectors.unwrap_or_default();
        // Sizes the first allocation only; the weight is bounded.
        let expected_entries = usize::try_from(config.max_memory / 4096).unwrap_or(usize::MAX).min(100_000);
        Self {
            memory: MemoryTier::with_weighter(expected_entries, config.max_memory, BySize),
            store,
            index: Index::new(&config.index, dimensions),
            directory: Directory::default(),
            invalidations: Invalidations::default(),
            scanned: AtomicU64::new(0),
            loaded: AtomicBool::new(false),
            reload_wanted: Notify::new(),
            embedder: embedder.to_owned(),
            max_entries: config.max_entries,
            metrics,
        }
    }

    /// Returns the live entry under `key`, following an alias. A store that fails, or takes longer than `store.timeout`,
    /// is a miss.
    pub async fn get(&self, key: CacheKey) -> Option<Arc<Entry>> {
        self.get_or_expired(key).await.filter(|entry| entry.is_live(SystemTime::now()))
    }

    /// Like [`Cache::get`], but also returns an entry past its expiry while it is stored.
    pub async fn get_or_expired(&self, key: CacheKey) -> Option<Arc<Entry>> {
        let deadline = self.store.deadline();
        let entry = self.read_until(key, deadline).await?;
        match entry.alias_of {
            None => Some(entry),
            Some(target) if entry.is_live(SystemTime::now()) => self.target_until(target, deadline).await,
            Some(_) => None,
        }
    }

    /// Returns the entry stored under the key itself, live or not, without following an alias.
    pub async fn get_unresolved(&self, key: CacheKey) -> Option<Arc<Entry>> {
        self.read_until(key, self.store.deadline()).await
    }

    async fn get_until(&self, key: CacheKey, deadline: Instant) -> Option<Arc<Entry>> {
        self.read_until(key, deadline).await.filter(|entry| entry.is_live(SystemTime::now()))
    }

    /// The entry of an alias, live or not. Never another alias.
    async fn target_until(&self, target: CacheKey, deadline: Instant) -> Option<Arc<Entry>> {
        self.read_until(target, deadline).await.filter(|entry| entry.alias_of.is_none())
    }

    async fn read_until(&self, key: CacheKey, deadline: Instant) -> Option<Arc<Entry>> {
        if let Some(entry) = self.memory.get(&key) {
            return Some(entry);
        }
        let epoch = self.epoch();
        let entry = self.store.call_until(Op::Get, deadline, |store| store.get(key)).await;
        let entry = self.remember_read(entry.ok().flatten()?);
        if self.is_invalidated(epoch, &entry) {
            self.memory.remove(&key);
            return None;
        }
        Some(entry)
    }

    /// Returns the live entry under `key` if it is in memory, without an await.
    pub fn peek(&self, key: CacheKey) -> Option<Arc<Entry>> {
        let live = |key| self.memory.get(&key).filter(|entry| entry.is_live(SystemTime::now()));
        let entry = live(key)?;
        entry.alias_of.map_or(Some(entry), |target| live(target).filter(|entry| entry.alias_of.is_none()))
    }

    /// Up to `k` live entries of `scope`, nearest first.
    pub async fn nearest(&self, scope: Scope, embedding: &Embedding, k: usize) -> Vec<Candidate> {
        let started = Instant::now();
        let neighbours = self.index.search(scope, embedding, k);
        self.metrics.search(started);
        let mut candidates = Vec::with_capacity(neighbours.len());
        // All reads share one timeout.
        let deadline = self.store.deadline();
        for near in neighbours {
            match self.get_until(near.key, deadline).await {
                Some(found) => candidates.extend(self.candidate(found, near.similarity, deadline).await),
                None => self.repair(near.key, near.key, deadline).await,
            }
        }
        candidates
    }

    /// Resolves a found entry to the one whose answer it stands for.
    async fn candidate(&self, found: Arc<Entry>, similarity: f32, deadline: Instant) -> Option<Candidate> {
        let Some(target) = found.alias_of else {
            return Some(Candidate { entry: found, alias: None, similarity });
        };
        let entry = self.target_until(target, deadline).await;
        let entry = entry.filter(|entry| entry.is_live(SystemTime::now()));
        if entry.is_none() {
            self.repair(found.key, target, deadline).await;
        }
        Some(Candidate { entry: entry?, alias: Some(found), similarity })
    }

    /// Requests the lease to answer the prompt of `key`. A store that fails, or takes longer than `store.timeout`,
    /// grants it.
    pub async fn claim(&self, key: CacheKey) -> Claim {
        let claim = self.store.call_until(Op::Claim, self.store.deadline(), |store| store.claim(key));
        let mut claim = claim.await.unwrap_or_default();
        if claim.kept.as_ref().is_some_and(|entry| entry.alias_of.is_some()) {
            claim.kept = self.get(key).await;
        }
        claim
    }

    /// The live entry with this id.
    pub async fn find(&self, id: EntryId) -> Option<Arc<Entry>> {
        let selector = &Selector { id: Some(id), ..Selector::default() };
        let deadline = self.store.deadline();
        let keys = self.store.call_until(Op::Remove, deadline, |store| store.remove(selector, true)).await;
        self.get_until(*keys.ok()?.first()?, deadline).await
    }

    /// Whether anything is indexed under `scope`.
    pub fn has_scope(&self, scope: Scope) -> bool {
        self.index.scope_len(scope) > 0
    }

    /// The current epoch. Earlier invalidations do not affect entries that are read or requested from now on.
    pub fn epoch(&self) -> Epoch {
        self.invalidations.epoch()
    }

    /// Whether the entry was invalidated after `epoch`.
    pub fn is_invalidated(&self, epoch: Epoch, entry: &Entry) -> bool {
        self.invalidations.since(epoch, entry)
    }

    /// Stores an answer to a prompt that was received at `epoch`, unless it was invalidated since.
    ///
    /// # Errors
    /// When the store did not accept it with this `durability`. It is still served from memory.
    pub async fn keep(&self, entry: Entry, durability: Durability, epoch: Epoch) -> Result<(), StoreError> {
        if self.is_invalidated(epoch, &entry) {
            return Ok(());
        }
        let entry = Arc::new(entry);
        if let Some(embedding) = &entry.embedding {
            self.index(&entry, embedding);
        }
        self.remember(Arc::clone(&entry));
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
        if self.is_invalidated(epoch, &entry) {
            self.undo(&entry).await;
        }
        put
    }

    /// Removes entries that `selector` matches, also while they are in flight. If it selects an alias, its entry is
    /// removed too. Returns the number of entries, aliases included.
    ///
    /// # Errors
    /// When the store failed. The entries are gone from memory, but a restart may bring them back.
    pub async fn invalidate(&self, selector: &Selector, dry_run: bool) -> Result<u64, StoreError> {
        let target = self.alias_target(selector).await?;
        let mut removed = self.remove(selector, dry_run).await?;
        if target.is_some() {
            let selector = Selector { id: None, key: target, ..selector.clone() };
            removed += self.remove(&selector, dry_run).await?;
        }
        Ok(removed)
    }

    /// The entry of the alias that `selector` selects by key or id.
    async fn alias_target(&self, selector: &Selector) -> Result<Option<CacheKey>, StoreError> {
        let key = match (selector.key, selector.id) {
            (None, Some(_)) => {
                self.store.call(Op::Remove, |store| store.remove(selector, true)).await?.first().copied()
            }
            (key, _) => key,
        };
        let Some(key) = key else { return Ok(None) };
        let entry = match self.memory.get(&key) {
            Some(entry) => Some(entry),
            None => self.store.call(Op::Get, |store| store.get(key)).await?,
        };
        Ok(entry.and_then(|entry| entry.alias_of))
    }

    /// Removes the alias under `key`. An entry of its own stays.
    ///
    /// # Errors
    /// When the store failed. The alias is gone from memory, but a restart may bring it back.
    pub async fn remove_alias(&self, key: CacheKey) -> Result<(), StoreError> {
        let found = self.get_until(key, self.store.deadline()).await;
        if found.is_some_and(|entry| entry.alias_of.is_some()) {
            self.remove(&Selector { key: Some(key), ..Selector::default() }, false).await?;
        }
        Ok(())
    }

    async fn remove(&self, selector: &Selector, dry_run: bool) -> Result<u64, StoreError> {
        if !dry_run {
            self.drop_matching(selector);
        }
        let removed = self.store.call(Op::Remove, |store| store.remove(selector, dry_run)).await?;
        if !dry_run {
            self.forget(&removed);
        }
        Ok(removed.len() as u64)
    }

    /// Drops matching entries from memory and marks those in flight.
    fn drop_matching(&self, selector: &Selector) {
        self.invalidations.push(selector.clone());
        self.memory.retain(|_, entry| !selector.matches(entry));
    }

    /// Loads the index from the store; returns the number of vectors. Exact hits and insertions continue meanwhile.
    ///
    /// # Errors
    /// When the store cannot be read to its end. What was read stays indexed.
    pub async fn load(&self) -> Result<usize, StoreError> {
        let mut after = None;
        let mut vectors = 0;
        let mut reported = Instant::now();
        self.scanned.store(0, Ordering::Relaxed);
        loop {
            let epoch = self.epoch();
            let page = self.store.call(Op::Scan, |store| store.scan(after, SCAN_PAGE)).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key);
            vectors += page.iter().filter(|entry| self.index_stored(entry, epoch)).count();
            self.scanned.fetch_add(page.len() as u64, Ordering::Relaxed);
            if reported.elapsed() >= PROGRESS_EVERY {
                reported = Instant::now();
                let (entries, read) = (self.store.inner().entries(), self.scanned.load(Ordering::Relaxed));
                tracing::info!(read, entries, vectors, "loading the index");
            }
            // Indexing a page takes a while, so other tasks run in between.
            tokio::task::yield_now().await;
        }
        self.loaded.store(true, Ordering::Release);
        Ok(vectors)
    }

    /// Whether [`Cache::load`] has completed once.
    pub fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    /// Removes expired entries for ever.
    pub async fn sweep(&self) {
        let mut every = tokio::time::interval(SWEEP_EVERY);
        loop {
            every.tick().await;
            while self.sweep_once().await == SWEEP_PAGE {}
        }
    }

    /// Removes some expired or surplus entries; returns their number.
    pub async fn sweep_once(&self) -> usize {
        let expired = self.store.call(Op::Expire, |store| store.expire(self.max_entries, SWEEP_PAGE));
        let removed = expired.await.unwrap_or_default();
        self.forget(&removed);
        removed.len()
    }

    /// Share of the entries that the load has read; 1 once it has completed.
    pub fn loaded_share(&self) -> f64 {
        if self.is_loaded() {
            return 1.0;
        }
        // Entries stored meanwhile count too, and are already in the index.
        let entries = self.store.inner().entries().max(1);
        (self.scanned.load(Ordering::Relaxed) as f64 / entries as f64).min(1.0)
    }

    /// Waits until every queued entry is durable.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.store.call(Op::Flush, |store| store.flush()).await
    }

    /// Entries in the store, and vectors in the index.
    pub fn sizes(&self) -> (u64, usize) {
        (self.store.inner().entries(), self.index.len())
    }

    /// Bytes used by the memory tier and by the index.
    pub fn memory(&self) -> (u64, usize) {
        (self.memory.weight(), self.index.memory_bytes())
    }

    /// Replication lag by region; empty if no other process shares the store.
    pub fn lags(&self) -> Vec<(String, Duration)> {
        self.store.inner().lags()
    }

    /// Sets the metrics of memory and of replication.
    pub fn report(&self) {
        self.metrics.replication(self.loaded_share(), &self.lags());
        let (memory_tier, index) = self.memory();
        self.metrics.memory(memory_tier, index);
    }

    /// Puts an entry into the memory tier.
    fn remember(&self, entry: Arc<Entry>) {
        let entry = without_vector(entry);
        self.memory.insert(entry.key, entry);
    }

    /// Puts an entry that was read from the store into the memory tier, unless a newer one is there. An expired entry is
    /// left out, because it would hide one that another replica stores.
    fn remember_read(&self, entry: Arc<Entry>) -> Arc<Entry> {
        let entry = without_vector(entry);
        if !entry.is_live(SystemTime::now()) {
            return entry;
        }
        match self.memory.get_value_or_guard(&entry.key, Some(Duration::ZERO)) {
            GuardResult::Value(newer) => newer,
            GuardResult::Guard(guard) => {
                // Fails if a newer one was inserted since.
                let _ = guard.insert(Arc::clone(&entry));
                entry
            }
            GuardResult::Timeout => entry,
        }
    }

    /// Indexes an entry unless it has expired, was embedded otherwise or was invalidated; returns whether it did.
    fn index_stored(&self, entry: &Entry, epoch: Epoch) -> bool {
        let Some(embedding) = &entry.embedding else { return false };
        if entry.embedder != self.embedder || !entry.is_live(SystemTime::now()) {
            return false;
        }
        self.index(entry, embedding);
        let is_invalidated = self.is_invalidated(epoch, entry);
        if is_invalidated {
            self.forget(&[entry.key]);
        }
        !is_invalidated
    }

    /// Inserts into the directory first, so that every indexed vector can be removed.
    fn index(&self, entry: &Entry, embedding: &Embedding) {
        self.directory.insert(entry.key, entry.scope);
        self.index.insert(entry.scope, entry.key, embedding);
    }

    fn forget(&self, removed: &[CacheKey]) {
        for key in removed {
            self.memory.remove(key);
            if let Some(scope) = self.directory.remove(*key) {
                self.index.remove(scope, *key);
            }
        }
    }

    /// Removes the vector of `key` if the store has no entry under `missing`. It stays if the store fails, or if the entry
    /// has only expired.
    async fn repair(&self, key: CacheKey, missing: CacheKey, deadline: Instant) {
        if let Ok(None) = self.store.call_until(Op::Get, deadline, |store| store.get(missing)).await {
            self.forget(&[key]);
        }
    }

    async fn undo(&self, entry: &Entry) {
        self.forget(&[entry.key]);
        let selector = &Selector { key: Some(entry.key), ..Selector::default() };
        // A failure is counted. The invalidation itself also removes the entry.
        let _ = self.store.call(Op::Remove, |store| store.remove(selector, false)).await;
    }
}

/// Drops the vector, which is in the index and larger than most answers.
fn without_vector(entry: Arc<Entry>) -> Arc<Entry> {
    if entry.embedding.is_none() {
        return entry;
    }
    let mut entry = Arc::unwrap_or_clone(entry);
    entry.embedding = None;
    Arc::new(entry)
}

impl Weighter<CacheKey, Arc<Entry>> for BySize {
    fn weight(&self, _: &CacheKey, entry: &Arc<Entry>) -> u64 {
        entry.size_bytes()
    }
}

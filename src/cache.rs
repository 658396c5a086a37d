//! Memory tier, store and index as one cache. The store is the truth; the other two are copies of it
//! that this module keeps in step.

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
    metrics::Metrics,
    stats::Ledger,
    store::{Claim, Durability, Op, Store, StoreError},
};

pub use self::invalidations::Epoch;

/// Entries read from the store at once while the index is built.
const SCAN_PAGE: usize = 1000;

/// Pause between two lines of the log about a load under way.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Expired entries removed at once.
const SWEEP_PAGE: usize = 1000;

/// Pause between two sweeps. Expiry is checked at every read, so this only frees space.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Every kept answer.
pub struct Cache {
    memory: MemoryTier<CacheKey, Arc<Entry>, BySize>,
    store: Arc<dyn Store>,
    /// How long a request waits for the store before it goes on without.
    store_timeout: Duration,
    index: Index,
    directory: Directory,
    invalidations: Invalidations,
    /// Entries read so far by the load under way, or by the last one.
    scanned: AtomicU64,
    /// Whether the index was built once.
    loaded: AtomicBool,
    /// Told when it should be built again.
    is_stale: Notify,
    /// Only vectors of this embedder are searched.
    embedder: String,
    max_entries: u64,
    metrics: Arc<Metrics>,
    ledger: Arc<Ledger>,
}

#[derive(Clone)]
struct BySize;

// === impl Cache ===

impl Cache {
    /// An empty index over `store`; [`Cache::load`] fills it. `vectors`: the name of the embedder whose
    /// vectors will be searched, and their length; `None` when none will.
    pub fn new(
        config: &CacheConfig,
        (store, store_timeout): (Arc<dyn Store>, Duration),
        vectors: Option<(&str, usize)>,
        metrics: Arc<Metrics>,
        ledger: Arc<Ledger>,
    ) -> Self {
        let (embedder, dimensions) = vectors.unwrap_or_default();
        // Only sizes the first allocation; the bound is the weight.
        let expected_entries = usize::try_from(config.max_memory / 4096).unwrap_or(usize::MAX).min(100_000);
        Self {
            memory: MemoryTier::with_weighter(expected_entries, config.max_memory, BySize),
            store,
            store_timeout,
            index: Index::new(&config.index, dimensions),
            directory: Directory::default(),
            invalidations: Invalidations::default(),
            scanned: AtomicU64::new(0),
            loaded: AtomicBool::new(false),
            is_stale: Notify::new(),
            embedder: embedder.to_owned(),
            max_entries: config.max_entries,
            metrics,
            ledger,
        }
    }

    /// The live entry under `key`, or the one that `key` is another name of. A store that fails, or takes longer
    /// than `store.timeout`, is a miss.
    pub async fn get(&self, key: CacheKey) -> Option<Arc<Entry>> {
        self.get_kept(key).await.filter(|entry| entry.is_live(SystemTime::now()))
    }

    /// The same, also past its expiry for as long as it is kept.
    pub async fn get_kept(&self, key: CacheKey) -> Option<Arc<Entry>> {
        let until = self.patience();
        let entry = self.read_until(key, until).await?;
        match entry.alias_of {
            None => Some(entry),
            Some(target) if entry.is_live(SystemTime::now()) => {
                self.read_until(target, until).await.filter(|entry| entry.alias_of.is_none())
            }
            Some(_) => None,
        }
    }

    async fn get_until(&self, key: CacheKey, until: Instant) -> Option<Arc<Entry>> {
        self.read_until(key, until).await.filter(|entry| entry.is_live(SystemTime::now()))
    }

    async fn read_until(&self, key: CacheKey, until: Instant) -> Option<Arc<Entry>> {
        if let Some(entry) = self.memory.get(&key) {
            return Some(entry);
        }
        let epoch = self.epoch();
        let entry = self.timed(Op::Get, in_time(Op::Get, until, self.store.get(key)));
        let entry = self.remember_read(entry.await.ok().flatten()?);
        if self.invalidations.since(epoch, &entry) {
            self.memory.remove(&key);
            return None;
        }
        Some(entry)
    }

    /// The live entry under `key` if it is in memory: the check that costs no await.
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
        // One wait for all of them.
        let until = self.patience();
        for near in neighbours {
            match self.get_until(near.key, until).await {
                Some(found) => candidates.extend(self.candidate(found, near.similarity, until).await),
                None => self.repair(near.key, near.key, until).await,
            }
        }
        candidates
    }

    /// Reserves the purchase of the answer under `key`. A store that fails, or takes longer than
    /// `store.timeout`, grants it.
    pub async fn claim(&self, key: CacheKey) -> Claim {
        let claim = in_time(Op::Claim, self.patience(), self.store.claim(key));
        let mut claim = self.timed(Op::Claim, claim).await.unwrap_or_default();
        if claim.kept.as_ref().is_some_and(|entry| entry.alias_of.is_some()) {
            claim.kept = self.get(key).await;
        }
        claim
    }

    /// What was found, with the answer that it stands for.
    async fn candidate(&self, found: Arc<Entry>, similarity: f32, until: Instant) -> Option<Candidate> {
        let Some(target) = found.alias_of else {
            return Some(Candidate { entry: found, alias: None, similarity });
        };
        let entry = self.get_until(target, until).await.filter(|entry| entry.alias_of.is_none());
        if entry.is_none() {
            self.repair(found.key, target, until).await;
        }
        Some(Candidate { entry: entry?, alias: Some(found), similarity })
    }

    /// The live entry with this id.
    pub async fn find(&self, id: EntryId) -> Option<Arc<Entry>> {
        let selector = Selector { id: Some(id), ..Selector::default() };
        let until = self.patience();
        let find = in_time(Op::Remove, until, self.store.remove(&selector, true));
        let keys = self.timed(Op::Remove, find).await.ok()?;
        self.get_until(*keys.first()?, until).await
    }

    /// Whether anything is indexed under `scope`.
    pub fn knows(&self, scope: Scope) -> bool {
        self.index.scope_len(scope) > 0
    }

    /// What was invalidated up to now does not concern what is read or asked from here on.
    pub fn epoch(&self) -> Epoch {
        self.invalidations.epoch()
    }

    /// Keeps an answer to a question asked at `epoch`, unless it was invalidated meanwhile.
    ///
    /// # Errors
    /// When the store did not take it as `durability` asks; it is served from memory all the same.
    pub async fn keep(&self, entry: Entry, durability: Durability, epoch: Epoch) -> Result<(), StoreError> {
        if self.invalidations.since(epoch, &entry) {
            return Ok(());
        }
        let entry = Arc::new(entry);
        if let Some(embedding) = &entry.embedding {
            self.index(&entry, embedding);
        }
        self.remember(Arc::clone(&entry));
        let put = self.store.put(Arc::clone(&entry), durability);
        let put = match durability {
            // Callers wait for the end of the answer, not for the store.
            Durability::Queued => self.timed(Op::Put, in_time(Op::Put, self.patience(), put)).await,
            Durability::Durable => self.timed(Op::Put, put).await,
        };
        // An invalidation that came between the check above and the put did not see the entry; one that
        // comes from here on does.
        if self.invalidations.since(epoch, &entry) {
            self.undo(&entry).await;
        }
        put
    }

    /// Removes what `selector` matches, and what is being bought at this moment with it; of a prompt that is
    /// another name of an entry, that entry too. Returns the number of entries, such names included.
    ///
    /// # Errors
    /// When the store failed: gone from memory, but a restart may bring it back.
    pub async fn invalidate(&self, selector: &Selector, dry_run: bool) -> Result<u64, StoreError> {
        let target = self.other_name(selector).await?;
        let named = self.remove(selector, dry_run).await?;
        match target {
            Some(target) => {
                let selector = Selector { id: None, key: Some(target), ..selector.clone() };
                Ok(named + self.remove(&selector, dry_run).await?)
            }
            None => Ok(named),
        }
    }

    /// The entry that the one which `selector` names is another name of.
    async fn other_name(&self, selector: &Selector) -> Result<Option<CacheKey>, StoreError> {
        let key = match (selector.key, selector.id) {
            (Some(key), _) => Some(key),
            (None, Some(_)) => {
                self.timed(Op::Remove, self.store.remove(selector, true)).await?.first().copied()
            }
            (None, None) => None,
        };
        let Some(key) = key else { return Ok(None) };
        match self.memory.get(&key) {
            Some(entry) => Ok(entry.alias_of),
            None => Ok(self.timed(Op::Get, self.store.get(key)).await?.and_then(|entry| entry.alias_of)),
        }
    }

    /// Whether the entry was invalidated after `epoch`.
    pub fn is_invalidated(&self, epoch: Epoch, entry: &Entry) -> bool {
        self.invalidations.since(epoch, entry)
    }

    /// What is kept under the key itself, live or not, whatever it is another name of.
    pub async fn under(&self, key: CacheKey) -> Option<Arc<Entry>> {
        self.read_until(key, self.patience()).await
    }

    /// Makes the prompt under `key` no longer another name of an entry; an entry of its own stays.
    ///
    /// # Errors
    /// When the store failed: gone from memory, but a restart may bring it back.
    pub async fn part(&self, key: CacheKey) -> Result<(), StoreError> {
        let found = self.get_until(key, self.patience()).await;
        if found.is_some_and(|entry| entry.alias_of.is_some()) {
            self.remove(&Selector { key: Some(key), ..Selector::default() }, false).await?;
        }
        Ok(())
    }

    async fn remove(&self, selector: &Selector, dry_run: bool) -> Result<u64, StoreError> {
        if !dry_run {
            self.drop_matching(selector);
        }
        let removed = self.timed(Op::Remove, self.store.remove(selector, dry_run)).await?;
        if !dry_run {
            self.forget(&removed);
        }
        Ok(removed.len() as u64)
    }

    /// From memory, and for answers on their way.
    fn drop_matching(&self, selector: &Selector) {
        self.invalidations.push(selector.clone());
        self.memory.retain(|_, entry| !selector.matches(entry));
    }

    /// Builds the index from the store. Exact hits are served meanwhile, and insertions go on.
    ///
    /// # Errors
    /// When the store cannot be read to its end: what was read stays indexed.
    pub async fn load(&self) -> Result<usize, StoreError> {
        let mut after = None;
        let mut vectors = 0;
        let mut told = Instant::now();
        self.scanned.store(0, Ordering::Relaxed);
        loop {
            let epoch = self.epoch();
            let page = self.timed(Op::Scan, self.store.scan(after, SCAN_PAGE)).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key);
            vectors += page.iter().filter(|entry| self.index_stored(entry, epoch)).count();
            self.scanned.fetch_add(page.len() as u64, Ordering::Relaxed);
            if told.elapsed() >= PROGRESS_EVERY {
                told = Instant::now();
                let (entries, read) = (self.store.entries(), self.scanned.load(Ordering::Relaxed));
                tracing::info!(read, entries, vectors, "loading the index");
            }
            // A page takes a while to index; others run in between.
            tokio::task::yield_now().await;
        }
        self.loaded.store(true, Ordering::Release);
        Ok(vectors)
    }

    /// Whether [`Cache::load`] came to its end.
    pub fn loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    /// Frees what expired, for ever.
    pub async fn sweep(&self) {
        let mut every = tokio::time::interval(SWEEP_EVERY);
        loop {
            every.tick().await;
            while self.sweep_once().await == SWEEP_PAGE {}
        }
    }

    /// Frees some of what expired or is too much; returns how many entries.
    pub async fn sweep_once(&self) -> usize {
        let expired = self.timed(Op::Expire, self.store.expire(self.max_entries, SWEEP_PAGE)).await;
        let removed = expired.unwrap_or_default();
        self.forget(&removed);
        removed.len()
    }

    /// Share of the entries that the index was built from: 1 once all were read.
    pub fn loaded_share(&self) -> f64 {
        if self.loaded() {
            return 1.0;
        }
        // What was stored since counts among the entries, and is in the index all the same.
        let entries = self.store.entries().max(1);
        (self.scanned.load(Ordering::Relaxed) as f64 / entries as f64).min(1.0)
    }

    /// Waits until everything kept is durable.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.timed(Op::Flush, self.store.flush()).await
    }

    /// Entries in the store, and vectors in the index.
    pub fn sizes(&self) -> (u64, usize) {
        (self.store.entries(), self.index.len())
    }

    /// Bytes held by the memory tier and by the index.
    pub fn memory(&self) -> (u64, usize) {
        (self.memory.weight(), self.index.memory_bytes())
    }

    /// How far this process is behind others that share the store, by region; empty when nobody does.
    pub fn lags(&self) -> Vec<(String, Duration)> {
        self.store.lags()
    }

    /// Sets the metrics of memory and of replication.
    pub fn report(&self) {
        self.metrics.replication(self.loaded_share(), &self.lags());
        let (memory_tier, index) = self.memory();
        self.metrics.memory(memory_tier, index);
    }

    /// When a request that reads the store from now on goes on without.
    fn patience(&self) -> Instant {
        Instant::now() + self.store_timeout
    }

    /// Puts an entry into the memory tier.
    fn remember(&self, entry: Arc<Entry>) {
        let entry = without_vector(entry);
        self.memory.insert(entry.key, entry);
    }

    /// The same for an entry that was read from the store: a newer one may have come to memory meanwhile,
    /// and one past its expiry would hide what another replica puts into the store.
    fn remember_read(&self, entry: Arc<Entry>) -> Arc<Entry> {
        let entry = without_vector(entry);
        if !entry.is_live(SystemTime::now()) {
            return entry;
        }
        match self.memory.get_value_or_guard(&entry.key, Some(Duration::ZERO)) {
            GuardResult::Value(newer) => newer,
            GuardResult::Guard(place) => {
                // Refused when a newer one was put there since.
                let _ = place.insert(Arc::clone(&entry));
                entry
            }
            GuardResult::Timeout => entry,
        }
    }

    /// Whether the entry was put into the index: live, of this embedder, not invalidated meanwhile.
    fn index_stored(&self, entry: &Entry, epoch: Epoch) -> bool {
        let Some(embedding) = &entry.embedding else { return false };
        if entry.embedder != self.embedder || !entry.is_live(SystemTime::now()) {
            return false;
        }
        self.index(entry, embedding);
        let gone = self.invalidations.since(epoch, entry);
        if gone {
            self.forget(&[entry.key]);
        }
        !gone
    }

    /// The directory first: a vector that is found is always one that can be removed.
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

    /// The vector of `key` without the answer under `missing` repairs itself; one whose store is down, or which
    /// is only expired, stays.
    async fn repair(&self, key: CacheKey, missing: CacheKey, until: Instant) {
        if let Ok(None) = in_time(Op::Get, until, self.store.get(missing)).await {
            self.forget(&[key]);
        }
    }

    async fn undo(&self, entry: &Entry) {
        self.forget(&[entry.key]);
        let selector = Selector { key: Some(entry.key), ..Selector::default() };
        // The error is counted; the entry is also marked by the invalidation itself.
        let _ = self.timed(Op::Remove, self.store.remove(&selector, false)).await;
    }

    async fn timed<T>(
        &self,
        op: Op,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let started = Instant::now();
        let result = call.await;
        self.metrics.store(op, started, result.is_err());
        result.inspect_err(|error| {
            self.ledger.store_error();
            tracing::warn!(op = op.as_str(), %error, "store failed");
        })
    }
}

/// The vector is in the index, and takes more memory than most answers.
fn without_vector(entry: Arc<Entry>) -> Arc<Entry> {
    if entry.embedding.is_none() {
        return entry;
    }
    let mut entry = Arc::unwrap_or_clone(entry);
    entry.embedding = None;
    Arc::new(entry)
}

/// What a request waits for.
async fn in_time<T>(
    op: Op,
    until: Instant,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let done = tokio::time::timeout_at(until.into(), call).await;
    done.unwrap_or_else(|_| Err(StoreError { op, cause: "no reply within store.timeout".to_owned() }))
}

impl Weighter<CacheKey, Arc<Entry>> for BySize {
    fn weight(&self, _: &CacheKey, entry: &Arc<Entry>) -> u64 {
        entry.size_bytes()
    }
}

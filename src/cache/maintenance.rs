//! Keeps the tiers up to date in the background: loads the index, applies changes by other replicas, removes expired
//! entries, and reports sizes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{Epoch, Tiers};
use crate::{
    store::{Change, Op, StoreError, TimedStore},
    telemetry::metrics::Metrics,
};

/// Entries read from the store at once while the index is built.
const SCAN_PAGE: usize = 1000;

/// Pause between two progress messages of a load.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Expired entries removed by one call.
const SWEEP_PAGE: usize = 1000;

/// Pause between two sweeps. Every read checks the expiry, so a sweep only frees space.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Changes applied before other tasks get a turn.
const CHANGES_AT_ONCE: usize = 32;

/// The background work of a cache.
pub struct Maintenance {
    pub(super) tiers: Arc<Tiers>,
    pub(super) store: TimedStore,
    /// Entries read by the current or the last load.
    pub(super) scanned: AtomicU64,
    /// Whether the index was loaded once.
    pub(super) loaded: AtomicBool,
    /// Signals that the index must be loaded again.
    pub(super) reload_wanted: Notify,
    pub(super) max_entries: u64,
    pub(super) metrics: Arc<Metrics>,
}

impl Maintenance {
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
            let epoch = self.tiers.epoch();
            let page = self.store.call(Op::Scan, |store| store.scan(after, SCAN_PAGE)).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key);
            vectors += page.iter().filter(|entry| self.tiers.index_stored(entry, epoch)).count();
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

    /// Whether [`Maintenance::load`] has completed once.
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
        self.tiers.forget(&removed);
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

    /// Replication lag by region; empty if no other process shares the store.
    pub fn lags(&self) -> Vec<(String, Duration)> {
        self.store.inner().lags()
    }

    /// Applies changes by other replicas for ever. Idle where one process uses the store alone.
    pub async fn follow(&self) {
        loop {
            // Invalidations from now on also apply to the changes.
            let epoch = self.tiers.epoch();
            for (n, change) in self.store.inner().changed().await.into_iter().enumerate() {
                self.apply(change, epoch);
                if n % CHANGES_AT_ONCE == CHANGES_AT_ONCE - 1 {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    fn apply(&self, change: Change, epoch: Epoch) {
        match change {
            Change::Stored(entry) => self.tiers.apply_stored(&entry, epoch),
            Change::Removed(keys) => self.tiers.forget(&keys),
            Change::Invalidated(selector) => self.tiers.drop_matching(&selector),
            Change::MissedInvalidations => {
                self.tiers.invalidate_all();
                self.reload_wanted.notify_one();
            }
            Change::MissedEntries => self.reload_wanted.notify_one(),
        }
    }

    /// Returns once the index must be loaded again because changes were missed.
    pub async fn wait_until_stale(&self) {
        self.reload_wanted.notified().await;
    }

    /// Waits until every queued entry is durable.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.store.call(Op::Flush, |store| store.flush()).await
    }

    /// Sets the metrics of memory and of replication.
    pub fn report(&self) {
        self.metrics.replication(self.loaded_share(), &self.lags());
        let (memory_tier, index) = self.tiers.memory();
        self.metrics.memory(memory_tier, index);
    }
}

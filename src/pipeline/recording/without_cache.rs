//! What the requests of this process would have cost without a cache.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Nanodollars, so that an atomic integer holds them.
#[derive(Clone, Default)]
pub(super) struct WithoutCache(Arc<AtomicU64>);

impl WithoutCache {
    /// Adds what a call cost or would have cost.
    pub(super) fn add(&self, usd: f64) {
        // A float becomes the nearest integer in range.
        self.0.fetch_add((usd * 1e9) as u64, Ordering::Relaxed);
    }

    pub(super) fn usd(&self) -> f64 {
        self.0.load(Ordering::Relaxed) as f64 / 1e9
    }
}

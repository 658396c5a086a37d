//! A token bucket in one atomic: requests per second, with a burst of one second's worth.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Bucket of `per_second` tokens, at least one, that refills evenly.
///
/// Kept as the time at which the bucket will be full again ("generic cell rate algorithm"): a request
/// moves it one interval on, and is refused when that would lie further ahead than a full bucket allows.
pub(super) struct RateLimit {
    per_second: f64,
    /// Nanoseconds in which one token comes back.
    interval: u64,
    /// Nanoseconds in which an empty bucket fills.
    capacity: u64,
    /// What `full_at` counts from.
    born: Instant,
    full_at: AtomicU64,
}

impl RateLimit {
    /// `per_second` is positive; the configuration checks it.
    pub fn new(per_second: f64) -> Self {
        let interval = Duration::from_secs_f64(per_second.recip()).as_nanos() as u64;
        let capacity = interval.saturating_mul(per_second.max(1.0) as u64);
        Self { per_second, interval, capacity, born: Instant::now(), full_at: AtomicU64::new(0) }
    }

    pub fn per_second(&self) -> f64 {
        self.per_second
    }

    /// Takes a token, or says when there will be one.
    pub fn admit(&self, now: Instant) -> Result<(), Duration> {
        let now = now.saturating_duration_since(self.born).as_nanos() as u64;
        let latest = now.saturating_add(self.capacity);
        let take = |full_at: u64| {
            let next = full_at.max(now).saturating_add(self.interval);
            (next <= latest).then_some(next)
        };
        // Relaxed: the bucket guards no other memory.
        match self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => Ok(()),
            Err(full_at) => {
                let next = full_at.max(now).saturating_add(self.interval);
                Err(Duration::from_nanos(next - latest))
            }
        }
    }
}

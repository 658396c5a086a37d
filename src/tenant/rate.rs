//! Rate limit: a token bucket in one atomic, with a burst of one second's requests.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Token bucket of `per_second` tokens, rounded down but at least one, that refills evenly.
///
/// The state is the time at which the bucket will be full again ("generic cell rate algorithm"). A request moves
/// that time ahead by one interval, and is refused when it would lie further ahead than an empty bucket's.
pub(super) struct RateLimit {
    per_second: f64,
    /// Nanoseconds in which one token is refilled.
    interval: u64,
    /// Nanoseconds in which an empty bucket is refilled.
    capacity: u64,
    /// Origin of `full_at`.
    created: Instant,
    /// Nanoseconds since `created` at which the bucket is full.
    full_at: AtomicU64,
}

impl RateLimit {
    /// `per_second` must be positive, which the configuration checks.
    pub fn new(per_second: f64) -> Self {
        let interval = Duration::from_secs_f64(per_second.recip()).as_nanos() as u64;
        let capacity = interval.saturating_mul(per_second.max(1.0) as u64);
        Self { per_second, interval, capacity, created: Instant::now(), full_at: AtomicU64::new(0) }
    }

    pub fn per_second(&self) -> f64 {
        self.per_second
    }

    /// Takes a token, or fails with the time until there is one.
    pub fn admit(&self, now: Instant) -> Result<(), Duration> {
        let now = now.saturating_duration_since(self.created).as_nanos() as u64;
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

//! Partitions of a cluster that do not answer. A master that hangs concerns its own keys only, so each of its partitions
//! is marked, and calls of requests for it fail at once except for one per second.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::keys::Partition;

/// Pause between two calls that try a partition.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// The partitions that do not answer at present.
pub struct Unreachable {
    started: Instant,
    /// By partition, milliseconds since `started` at which the next call may try it; 0 if it is reachable.
    next_try: [AtomicU64; 256],
}

impl Unreachable {
    pub fn new() -> Self {
        Self { started: Instant::now(), next_try: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Whether a call may try the partition. The first call after the pause may, and starts another pause.
    pub fn may_try(&self, partition: Partition) -> bool {
        let next_try = self.of(partition);
        let known = next_try.load(Ordering::Relaxed);
        if known == 0 {
            return true;
        }
        let now = self.millis(Duration::ZERO);
        let next = self.millis(TRY_EVERY);
        now >= known && next_try.compare_exchange(known, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    pub fn has(&self, partition: Partition) -> bool {
        self.of(partition).load(Ordering::Relaxed) > 0
    }

    /// Marks the partition if a call for it `failed` without a reply.
    pub fn record(&self, partition: Partition, failed: bool) {
        let next = if failed { self.millis(TRY_EVERY) } else { 0 };
        self.of(partition).store(next, Ordering::Relaxed);
    }

    fn of(&self, partition: Partition) -> &AtomicU64 {
        &self.next_try[usize::from(partition.0)]
    }

    /// Milliseconds from the start to `later` from now.
    fn millis(&self, later: Duration) -> u64 {
        u64::try_from((self.started.elapsed() + later).as_millis()).unwrap_or(u64::MAX)
    }
}

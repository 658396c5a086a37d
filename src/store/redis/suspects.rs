//! Which parts of a cluster do not answer. A master that hangs concerns its own keys only, so they are set
//! aside one partition at a time: of the calls of requests for such a one, all but one a second fail at once.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::keys::Partition;

/// How long a partition is set aside after a call for it had no reply.
const ASIDE: Duration = Duration::from_secs(1);

/// The partitions that are set aside.
pub struct Suspects {
    started: Instant,
    /// By partition, until when: milliseconds since the start.
    until: [AtomicU64; 256],
}

// === impl Suspects ===

impl Suspects {
    pub fn new() -> Self {
        Self { started: Instant::now(), until: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Whether a call may try. The first after the time is over may, and sets it aside again for the others.
    pub fn may_try(&self, partition: Partition) -> bool {
        let until = &self.until[usize::from(partition.0)];
        let known = until.load(Ordering::Relaxed);
        if known == 0 {
            return true;
        }
        let now = self.now();
        let next = now + ASIDE.as_millis() as u64;
        now >= known && until.compare_exchange(known, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Whether it is set aside, until a call for it has a reply.
    pub fn is_suspect(&self, partition: Partition) -> bool {
        self.until[usize::from(partition.0)].load(Ordering::Relaxed) > 0
    }

    /// A call for it had no reply.
    pub fn suspect(&self, partition: Partition) {
        let until = self.now() + ASIDE.as_millis() as u64;
        self.until[usize::from(partition.0)].store(until, Ordering::Relaxed);
    }

    /// A call for it had one.
    pub fn clear(&self, partition: Partition) {
        self.until[usize::from(partition.0)].store(0, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

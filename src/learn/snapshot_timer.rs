//! When a namespace's next snapshot is due.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::namespace::lock;

/// What was learned since the last snapshot, and when that was written.
#[derive(Default)]
pub(super) struct SnapshotTimer {
    /// Time of the last snapshot; `None` before the first, or if a rejected pair must be saved at once.
    saved: Mutex<Option<Instant>>,
    /// Something was learned since the last snapshot.
    is_unsaved: AtomicBool,
}

impl SnapshotTimer {
    pub(super) fn set_unsaved(&self) {
        self.is_unsaved.store(true, Ordering::Relaxed);
    }

    pub(super) fn save_at_once(&self) {
        *lock(&self.saved) = None;
        self.set_unsaved();
    }

    /// Returns true, once, if a snapshot is due: something was learned and the last one is `every` old. A namespace that
    /// was only read must not overwrite what another replica learned since.
    pub(super) fn claim(&self, now: Instant, every: Duration) -> bool {
        let mut saved = lock(&self.saved);
        let is_time = saved.is_none_or(|saved| now.duration_since(saved) >= every);
        let due = is_time && self.is_unsaved.swap(false, Ordering::Relaxed);
        if due {
            *saved = Some(now);
        }
        due
    }
}

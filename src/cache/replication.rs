//! Applies changes by other replicas to the memory tier and the index. Idle where one process uses the store alone.

use std::sync::Arc;

use super::{Cache, Entry, Epoch, Selector};
use crate::store::Change;

/// Changes applied before other tasks get a turn.
const AT_ONCE: usize = 32;

impl Cache {
    /// Applies changes for ever.
    pub async fn follow(&self) {
        loop {
            // Invalidations from now on also apply to the changes.
            let epoch = self.epoch();
            for (n, change) in self.store.inner().changed().await.into_iter().enumerate() {
                self.apply(change, epoch);
                if n % AT_ONCE == AT_ONCE - 1 {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Returns once the index must be loaded again because changes were missed.
    pub async fn wait_until_stale(&self) {
        self.reload_wanted.notified().await;
    }

    fn apply(&self, change: Change, epoch: Epoch) {
        match change {
            Change::Stored(entry) => self.apply_stored(&entry, epoch),
            Change::Removed(keys) => self.forget(&keys),
            Change::Invalidated(selector) => self.drop_matching(&selector),
            Change::MissedInvalidations => {
                // Every answer in flight counts as invalidated too. The index stays: its results are read from the
                // store.
                self.invalidations.push(Selector::default());
                self.memory.clear();
                self.reload_wanted.notify_one();
            }
            Change::MissedEntries => self.reload_wanted.notify_one(),
        }
    }

    /// Indexes the entry and replaces an older one in memory. An entry that no request used here stays out of memory.
    fn apply_stored(&self, entry: &Arc<Entry>, epoch: Epoch) {
        let older = self.memory.peek(&entry.key).is_some_and(|known| known.created <= entry.created);
        self.index_stored(entry, epoch);
        if older {
            self.remember(Arc::clone(entry));
            if self.is_invalidated(epoch, entry) {
                self.memory.remove(&entry.key);
            }
        }
    }
}

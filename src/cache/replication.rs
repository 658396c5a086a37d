//! What other replicas did to the store, taken over into memory tier and index. Where no other process
//! writes to the store, nothing here ever runs.

use std::sync::Arc;

use super::{Cache, Entry, Epoch, Selector};
use crate::store::Change;

/// Changes taken over before other tasks have a turn.
const AT_ONCE: usize = 32;

// === impl Cache ===

impl Cache {
    /// Takes over what others change, for ever.
    pub async fn follow(&self) {
        loop {
            // What is invalidated here from now on also concerns what comes.
            let epoch = self.epoch();
            for (n, change) in self.store.changed().await.into_iter().enumerate() {
                self.take_over(change, epoch);
                if n % AT_ONCE == AT_ONCE - 1 {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Returns once the index should be built again: changes of others went by unheard.
    pub async fn stale(&self) {
        self.is_stale.notified().await;
    }

    fn take_over(&self, change: Change, epoch: Epoch) {
        match change {
            Change::Stored(entry) => self.take_over_entry(&entry, epoch),
            Change::Removed(keys) => self.forget(&keys),
            Change::Invalidated(selector) => self.drop_matching(&selector),
            Change::MissedInvalidations => {
                // Every answer on its way counts as invalidated too. The index may stay: what it finds is
                // read from the store again.
                self.invalidations.push(Selector::default());
                self.memory.clear();
                self.is_stale.notify_one();
            }
            Change::MissedEntries => self.is_stale.notify_one(),
        }
    }

    /// Into the index, and in place of an older one in memory: what nobody asked for here need not be there.
    fn take_over_entry(&self, entry: &Arc<Entry>, epoch: Epoch) {
        let older = self.memory.peek(&entry.key).is_some_and(|known| known.created <= entry.created);
        self.index_stored(entry, epoch);
        if older {
            self.remember(Arc::clone(entry));
            if self.invalidations.since(epoch, entry) {
                self.memory.remove(&entry.key);
            }
        }
    }
}

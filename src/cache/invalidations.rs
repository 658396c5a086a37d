//! Recent invalidations, so that an answer that is in flight when its namespace is invalidated is not stored.

use std::{
    collections::VecDeque,
    sync::{PoisonError, RwLock},
};

use crate::entry::{Entry, Selector};

/// Maximum invalidations that are remembered. Older requests count as invalidated, which costs an entry but never a wrong
/// answer.
const REMEMBERED_MAX: usize = 1024;

/// A point in the sequence of invalidations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(u64);

/// The most recent invalidations, numbered.
#[derive(Default)]
pub(super) struct Invalidations {
    /// A std lock: held for a push or a short walk, never across an await.
    recent: RwLock<Recent>,
}

#[derive(Default)]
struct Recent {
    /// Number of invalidations so far.
    count: u64,
    /// The latest, oldest first.
    selectors: VecDeque<Selector>,
}

impl Invalidations {
    pub(super) fn epoch(&self) -> Epoch {
        Epoch(self.recent.read().unwrap_or_else(PoisonError::into_inner).count)
    }

    pub(super) fn push(&self, selector: Selector) {
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        recent.count += 1;
        recent.selectors.push_back(selector);
        if recent.selectors.len() > REMEMBERED_MAX {
            recent.selectors.pop_front();
        }
    }

    /// Whether `entry`, requested or read at `epoch`, was invalidated after it.
    pub(super) fn since(&self, Epoch(epoch): Epoch, entry: &Entry) -> bool {
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        let unseen = usize::try_from(recent.count - epoch).unwrap_or(usize::MAX);
        if unseen > recent.selectors.len() {
            return true;
        }
        recent.selectors.iter().rev().take(unseen).any(|selector| selector.matches(entry))
    }
}

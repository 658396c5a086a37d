//! The queue of writes to Redis. They take effect in order. While Redis is unreachable they wait, up to a bound.
//!
//! If only a part of a cluster does not answer, its writes are **quarantined** so that the others continue: the newest
//! put of each key, and removals that are already in the log. Quarantined writes may run in any order: every put carries
//! the position that its writer had seen, and a removal spares entries that were written after it.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, oneshot};

use super::{
    event::Origin,
    lease::Reservation,
    link::Fault,
    log::{Pending, Position},
};
use crate::{
    entry::{Entry, Selector},
    key::CacheKey,
};

/// Maximum removals that may wait. Puts are dropped first to make room: a lost put costs a model call, a lost removal a
/// wrong answer.
const REMOVALS_MAX: usize = 1024;

/// Cause of the error when the queue is full.
pub const FULL: &str = "the write queue is full";

/// Cause of the error when a write is quarantined.
pub const QUARANTINED: &str = "this part of the cluster does not answer";

/// A queued write.
pub enum Write {
    Put(Put),
    Remove {
        selector: Selector,
        /// Set if another region invalidated.
        origin: Option<Origin>,
        /// Its position in the log, once Redis has accepted it.
        logged: Option<Position>,
        /// Held until this replica has read the log up to there.
        pending: Option<Pending>,
        done: Done<Vec<CacheKey>>,
    },
    /// Ends a lease.
    Release(Reservation),
    /// Changes nothing; completes after all writes before it.
    Barrier(Done<()>),
}

/// An entry to store.
pub struct Put {
    pub entry: Arc<Entry>,
    /// The last invalidation that the cache had applied when it passed the entry on.
    pub seen: Position,
    pub done: Option<Done<()>>,
}

/// The caller that waits for a write. It gets the result of the first attempt; a failed write is retried without it.
pub struct Done<T>(Option<oneshot::Sender<Result<T, Fault>>>);

/// The queue of writes.
pub struct Queue {
    /// A std mutex: held for a short scan, never across an await.
    state: Mutex<State>,
    /// Maximum writes that wait in order. Half as many may be quarantined besides, so that an unreachable part of a
    /// cluster takes no room from the others.
    max: usize,
    pushed: Notify,
    quarantine_filled: Notify,
}

#[derive(Default)]
struct State {
    writes: VecDeque<Write>,
    quarantined: VecDeque<Write>,
    /// Keys of the quarantined puts.
    quarantined_keys: HashSet<CacheKey>,
    /// Keys of the quarantined puts that are being retried.
    retried_keys: HashSet<CacheKey>,
    /// Number of quarantined writes that are being retried.
    retried: usize,
}

impl Queue {
    pub fn new(max: usize) -> Self {
        Self { state: Mutex::default(), max, pushed: Notify::new(), quarantine_filled: Notify::new() }
    }

    /// Queues a write. Fails if the queue is full.
    pub fn push(&self, write: Write) -> Result<(), Fault> {
        let mut state = self.lock();
        if state.writes.len() >= self.max {
            return Err(Fault::Unreachable(FULL.to_owned()));
        }
        state.writes.push_back(write);
        self.pushed.notify_one();
        Ok(())
    }

    /// Queues a write even if the queue is full.
    pub fn push_always(&self, write: Write) {
        self.lock().writes.push_back(write);
        self.pushed.notify_one();
    }

    /// Queues a removal. If the queue is full, its oldest put is dropped.
    pub fn push_removal(
        &self,
        selector: Selector,
        origin: Option<Origin>,
        pending: Pending,
        done: Done<Vec<CacheKey>>,
    ) -> Result<(), Fault> {
        let mut state = self.lock();
        let all = state.writes.iter().chain(&state.quarantined);
        let removals = all.filter(|write| matches!(write, Write::Remove { .. })).count();
        if removals >= REMOVALS_MAX {
            // The rejected removal may match any put, so none may be written.
            state.writes.retain(|write| !matches!(write, Write::Put(_)));
            state.quarantined.retain(|write| !matches!(write, Write::Put(_)));
            state.quarantined_keys.clear();
            return Err(Fault::Unreachable(FULL.to_owned()));
        }
        if state.writes.len() >= self.max {
            drop_oldest_put(&mut state.writes);
        }
        let pending = Some(pending);
        state.writes.push_back(Write::Remove { selector, origin, logged: None, pending, done });
        self.pushed.notify_one();
        Ok(())
    }

    /// Waits for writes and takes them: up to `max` puts of different keys, or one write of another kind.
    pub async fn take(&self, max: usize) -> Vec<Write> {
        loop {
            let taken = self.lock().take(max);
            if !taken.is_empty() {
                return taken;
            }
            self.pushed.notified().await;
        }
    }

    /// Fails all waiting callers and drops the writes that must not be retried. Returns once there are new writes.
    pub async fn fail_waiting(&self, fault: &Fault) {
        self.lock().writes.retain_mut(|write| write.fail(fault));
        self.pushed.notified().await;
    }

    /// Quarantines writes that are newer than those already there. If there is no room, the oldest puts are dropped.
    pub fn quarantine(&self, writes: Vec<Write>) {
        let mut state = self.lock();
        for write in writes {
            let key = write.put_key();
            if key.is_some_and(|key| !state.quarantined_keys.insert(key)) {
                state.quarantined.retain(|older| older.put_key() != key);
            }
            state.quarantined.push_back(write);
        }
        state.bound_quarantine(self.max / 2);
        self.quarantine_filled.notify_one();
    }

    /// Whether a put of the key is quarantined or being retried.
    pub fn has_quarantined(&self, key: CacheKey) -> bool {
        let state = self.lock();
        state.retried_keys.contains(&key) || state.quarantined_keys.contains(&key)
    }

    /// Whether no write is quarantined or being retried.
    pub fn is_quarantine_empty(&self) -> bool {
        let state = self.lock();
        state.quarantined.is_empty() && state.retried == 0
    }

    /// Waits for quarantined writes and takes up to `max` to retry them. The caller ends with [`Queue::retried`].
    pub async fn take_quarantined(&self, max: usize) -> Vec<Write> {
        loop {
            let taken = self.lock().take_quarantined(max);
            if !taken.is_empty() {
                return taken;
            }
            self.quarantine_filled.notified().await;
        }
    }

    /// Ends a retry and puts the failed writes last, except puts that were replaced meanwhile.
    pub fn retried(&self, failed: Vec<Write>) {
        let mut state = self.lock();
        state.retried_keys.clear();
        state.retried = 0;
        for write in failed {
            if write.put_key().is_none_or(|key| state.quarantined_keys.insert(key)) {
                state.quarantined.push_back(write);
            }
        }
        state.bound_quarantine(self.max / 2);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic cannot interrupt an operation on the queues.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, max: usize) -> Vec<Write> {
        let mut keys = HashSet::new();
        let is_new_put = |write: &&Write| matches!(write, Write::Put(put) if keys.insert(put.entry.key));
        let puts = self.writes.iter().take(max).take_while(is_new_put).count();
        let count = puts.max(1).min(self.writes.len());
        self.writes.drain(..count).collect()
    }

    fn take_quarantined(&mut self, max: usize) -> Vec<Write> {
        let count = max.min(self.quarantined.len());
        let taken: Vec<_> = self.quarantined.drain(..count).collect();
        self.retried_keys = taken.iter().filter_map(Write::put_key).collect();
        self.quarantined_keys.retain(|key| !self.retried_keys.contains(key));
        self.retried = count;
        taken
    }

    /// Drops the oldest puts while more than `max` writes are quarantined.
    fn bound_quarantine(&mut self, max: usize) {
        while self.quarantined.len() > max.max(1) {
            let Some(key) = drop_oldest_put(&mut self.quarantined) else { return };
            self.quarantined_keys.remove(&key);
            tracing::debug!("a write was dropped: too many are quarantined");
        }
    }
}

/// Drops the oldest put and returns its key.
fn drop_oldest_put(writes: &mut VecDeque<Write>) -> Option<CacheKey> {
    let at = writes.iter().position(|write| matches!(write, Write::Put(_)))?;
    writes.remove(at)?.put_key()
}

impl Write {
    /// The key of an entry to store.
    pub fn put_key(&self) -> Option<CacheKey> {
        match self {
            Self::Put(put) => Some(put.entry.key),
            Self::Remove { .. } | Self::Release(_) | Self::Barrier(_) => None,
        }
    }

    /// Fails the caller that waits; returns whether the write is to be retried.
    pub fn fail(&mut self, fault: &Fault) -> bool {
        match self {
            Self::Put(put) => put.done.iter_mut().for_each(|done| done.complete(Err(fault.clone()))),
            Self::Remove { done, .. } => done.complete(Err(fault.clone())),
            Self::Barrier(done) => {
                done.complete(Err(fault.clone()));
                return false;
            }
            // It expires by itself.
            Self::Release(_) => return false,
        }
        !matches!(fault, Fault::Rejected(_))
    }
}

impl<T> Done<T> {
    /// Returns the sender and the receiver of the result.
    pub fn new() -> (Self, oneshot::Receiver<Result<T, Fault>>) {
        let (done, result) = oneshot::channel();
        (Self(Some(done)), result)
    }

    /// Sends the result, unless one was sent before.
    pub fn complete(&mut self, result: Result<T, Fault>) {
        if let Some(done) = self.0.take() {
            // The caller may have stopped waiting.
            let _ = done.send(result);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::codec;

    fn put(n: u8) -> Write {
        let entry = codec::decode(include_bytes!("../codec/testdata/entry-v4.bin")).unwrap();
        let entry = Arc::new(Entry { key: CacheKey::from_bytes([n; 32]), ..entry });
        Write::Put(Put { entry, seen: Position::default(), done: None })
    }

    /// While one master of a cluster was unreachable, its writes filled the queue and those of others were rejected.
    #[tokio::test]
    async fn quarantined_writes_take_no_room_from_others() {
        let queue = Queue::new(4);
        queue.quarantine((0..10).map(put).collect());
        for n in 20..24 {
            assert!(queue.push(put(n)).is_ok());
        }
        assert!(queue.push(put(24)).is_err());
        // The newest quarantined writes stay, also when a retry fails.
        assert!(!queue.has_quarantined(CacheKey::from_bytes([7; 32])));
        let retried = queue.take_quarantined(10).await;
        assert_eq!(
            retried.iter().filter_map(Write::put_key).map(|key| key.as_bytes()[0]).collect::<Vec<_>>(),
            [8, 9]
        );
        queue.quarantine(vec![put(10)]);
        queue.retried(retried);
        assert_eq!(queue.take_quarantined(10).await.len(), 2);
    }
}

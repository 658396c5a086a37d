//! Writes that wait for Redis. They take effect in the order in which they came; while Redis is away they stay,
//! up to the bound, and are done when it is back.
//!
//! Where only a part of a cluster does not answer, its writes are set **aside**, so that the others go on: puts,
//! of each key the newest, and removals that are in the log already. What is there may be done in any order: every
//! put bears how far its writer knew the log, and a removal spares what was written after it.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, oneshot};

use super::{
    event::Origin,
    lease::Place,
    link::Fault,
    log::{Pending, Position},
};
use crate::{
    entry::{Entry, Selector},
    key::CacheKey,
};

/// Removals that may wait. Each outlasts puts, for which it makes room: a lost put costs a purchase, a lost
/// removal a wrong answer.
const REMOVALS_MAX: usize = 1024;

/// Told to the writer of a put that had no room.
pub const FULL: &str = "the write queue is full";

/// Told to whoever waits for a write that was set aside.
pub const ASIDE: &str = "this part of the cluster does not answer";

/// One write.
pub enum Write {
    Put(Put),
    Remove {
        selector: Selector,
        /// The region that invalidated; `None`: our own.
        origin: Option<Origin>,
        /// Its place in the log, once Redis has taken it.
        begun: Option<Position>,
        /// Until this replica has read that there.
        pending: Option<Pending>,
        done: Done<Vec<CacheKey>>,
    },
    /// Frees the place of a purchase.
    Leave(Place),
    /// Changes nothing; done when all before it is.
    Barrier(Done<()>),
}

/// An entry to keep.
pub struct Put {
    pub entry: Arc<Entry>,
    /// The last invalidation that the cache had applied when it gave the entry.
    pub seen: Position,
    pub done: Option<Done<()>>,
}

/// Who waits for a write. Gone after its first attempt; a write that failed by then is tried on.
pub struct Done<T>(Option<oneshot::Sender<Result<T, Fault>>>);

/// The queue.
pub struct Queue {
    /// A std mutex: held for a short walk, never across an await.
    state: Mutex<State>,
    /// Most writes that wait in their order. Half as many may be aside, so that a part of a cluster that does
    /// not answer takes no room from the others.
    max: usize,
    pushed: Notify,
    put_aside: Notify,
}

#[derive(Default)]
struct State {
    writes: VecDeque<Write>,
    aside: VecDeque<Write>,
    /// Keys of the puts that are aside.
    aside_keys: HashSet<CacheKey>,
    /// Keys of those that were aside and are being tried.
    trying: HashSet<CacheKey>,
    /// All that are being tried.
    tried_at_once: usize,
}

// === impl Queue ===

impl Queue {
    pub fn new(max: usize) -> Self {
        Self { state: Mutex::default(), max, pushed: Notify::new(), put_aside: Notify::new() }
    }

    /// Takes a write that can be lost, unless there is no room.
    pub fn push(&self, write: Write) -> Result<(), Fault> {
        let mut state = self.lock();
        if state.writes.len() >= self.max {
            return Err(Fault::Away(FULL.to_owned()));
        }
        state.writes.push_back(write);
        self.pushed.notify_one();
        Ok(())
    }

    /// Takes a write that takes no room.
    pub fn push_always(&self, write: Write) {
        self.lock().writes.push_back(write);
        self.pushed.notify_one();
    }

    /// Takes a removal. What it matches need not be written before; and when there is no room, the oldest
    /// puts make it.
    pub fn push_removal(
        &self,
        selector: Selector,
        origin: Option<Origin>,
        pending: Pending,
        done: Done<Vec<CacheKey>>,
    ) -> Result<(), Fault> {
        let mut state = self.lock();
        let all = state.writes.iter().chain(&state.aside);
        let removals = all.filter(|write| matches!(write, Write::Remove { .. })).count();
        if removals >= REMOVALS_MAX {
            // Nothing that waits is known to be valid any more.
            state.writes.retain(|write| !matches!(write, Write::Put(_)));
            state.aside.retain(|write| !matches!(write, Write::Put(_)));
            state.aside_keys.clear();
            return Err(Fault::Away(FULL.to_owned()));
        }
        if state.writes.len() >= self.max {
            state.drop_oldest_put();
        }
        let pending = Some(pending);
        state.writes.push_back(Write::Remove { selector, origin, begun: None, pending, done });
        self.pushed.notify_one();
        Ok(())
    }

    /// Waits for writes and takes them: up to `most` puts of unlike keys, or one of another kind.
    pub async fn take(&self, most: usize) -> Vec<Write> {
        loop {
            let taken = self.take_now(most);
            if !taken.is_empty() {
                return taken;
            }
            self.pushed.notified().await;
        }
    }

    /// Tells everyone who waits that it will be later; what can be lost to nobody goes. Returns once there
    /// are others to tell.
    pub async fn put_off(&self, fault: &Fault) {
        self.lock().writes.retain_mut(|write| write.put_off(fault));
        self.pushed.notified().await;
    }

    /// Sets writes aside that came after all that are there. When there is no room, the oldest puts make it.
    pub fn set_aside(&self, writes: Vec<Write>) {
        let mut state = self.lock();
        for write in writes {
            let key = write.put_key();
            if key.is_some_and(|key| !state.aside_keys.insert(key)) {
                state.aside.retain(|older| older.put_key() != key);
            }
            state.aside.push_back(write);
        }
        state.drop_aside_over((self.max / 2).max(1));
        self.put_aside.notify_one();
    }

    /// Whether a put of the key is aside, or is being tried.
    pub fn has_aside(&self, key: CacheKey) -> bool {
        let state = self.lock();
        state.trying.contains(&key) || state.aside_keys.contains(&key)
    }

    /// Whether nothing is aside, nor being tried.
    pub fn is_whole(&self) -> bool {
        let state = self.lock();
        state.aside.is_empty() && state.tried_at_once == 0
    }

    /// Waits until something is aside, and takes up to `most` writes of it to try them. Whoever does says
    /// [`Queue::tried`].
    pub async fn take_aside(&self, most: usize) -> Vec<Write> {
        loop {
            let taken = self.lock().take_aside(most);
            if !taken.is_empty() {
                return taken;
            }
            self.put_aside.notified().await;
        }
    }

    /// Those that were tried and failed come last, unless something newer has come.
    pub fn tried(&self, failed: Vec<Write>) {
        let mut state = self.lock();
        state.trying.clear();
        state.tried_at_once = 0;
        for write in failed {
            if write.put_key().is_none_or(|key| state.aside_keys.insert(key)) {
                state.aside.push_back(write);
            }
        }
        state.drop_aside_over((self.max / 2).max(1));
    }

    fn take_now(&self, most: usize) -> Vec<Write> {
        let mut state = self.lock();
        let mut keys = HashSet::new();
        let unlike_put = |write: &&Write| matches!(write, Write::Put(put) if keys.insert(put.entry.key));
        let together = state.writes.iter().take(most).take_while(unlike_put).count();
        let count = together.max(1).min(state.writes.len());
        state.writes.drain(..count).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic between two operations leaves whole writes behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn take_aside(&mut self, most: usize) -> Vec<Write> {
        let count = most.min(self.aside.len());
        let taken: Vec<_> = self.aside.drain(..count).collect();
        self.trying = taken.iter().filter_map(Write::put_key).collect();
        self.aside_keys.retain(|key| !self.trying.contains(key));
        self.tried_at_once = count;
        taken
    }

    /// Makes room in the order, if there is a put.
    fn drop_oldest_put(&mut self) {
        if let Some(at) = oldest_put(&self.writes) {
            self.writes.remove(at);
        }
    }

    /// Makes room aside, as far as there are puts.
    fn drop_aside_over(&mut self, max: usize) {
        while self.aside.len() > max {
            let Some(put) = oldest_put(&self.aside).and_then(|at| self.aside.remove(at)) else { return };
            if let Some(key) = put.put_key() {
                self.aside_keys.remove(&key);
            }
            tracing::debug!("a write was dropped: too many are aside");
        }
    }
}

fn oldest_put(writes: &VecDeque<Write>) -> Option<usize> {
    writes.iter().position(|write| matches!(write, Write::Put(_)))
}

// === impl Write ===

impl Write {
    /// The key of an entry to keep.
    pub fn put_key(&self) -> Option<CacheKey> {
        match self {
            Self::Put(put) => Some(put.entry.key),
            Self::Remove { .. } | Self::Leave(_) | Self::Barrier(_) => None,
        }
    }

    /// Tells who waits for it of a fault, and whether it should be tried again.
    pub fn put_off(&mut self, fault: &Fault) -> bool {
        let again = !matches!(fault, Fault::Wrong(_));
        match self {
            Self::Put(Put { done: Some(done), .. }) => done.tell(Err(fault.clone())),
            Self::Put(_) => {}
            Self::Remove { done, .. } => done.tell(Err(fault.clone())),
            Self::Barrier(done) => {
                done.tell(Err(fault.clone()));
                return false;
            }
            // It is freed by time.
            Self::Leave(_) => return false,
        }
        again
    }
}

// === impl Done ===

impl<T> Done<T> {
    /// With the end that hears of it.
    pub fn new() -> (Self, oneshot::Receiver<Result<T, Fault>>) {
        let (done, result) = oneshot::channel();
        (Self(Some(done)), result)
    }

    /// Tells who waits, if it was not told before.
    pub fn tell(&mut self, result: Result<T, Fault>) {
        if let Some(done) = self.0.take() {
            // It may have stopped waiting.
            let _ = done.send(result);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::{
        key::{Owner, Scope},
        model::Usage,
        prompt::{Completion, FinishReason},
    };

    fn put(n: u8) -> Write {
        let entry = Entry {
            key: CacheKey::from_bytes([n; 32]),
            scope: Scope::from_bytes([1; 32]),
            owner: Owner::Shared,
            namespace: String::new(),
            requested_model: "auto".to_owned(),
            text: None,
            embedding: None,
            embedder: String::new(),
            completion: Completion {
                content: String::new(),
                tool_calls: None,
                finish_reason: FinishReason::Stop,
                model: String::new(),
                tier: String::new(),
                usage: Usage::default(),
            },
            tags: Vec::new(),
            created: UNIX_EPOCH,
            expires: UNIX_EPOCH,
            stale_for: Duration::ZERO,
            difficulty: None,
            alias_of: None,
        };
        Write::Put(Put { entry: Arc::new(entry), seen: Position::default(), done: None })
    }

    /// While one master of a cluster was away, its writes filled the queue, and those of all others were refused.
    #[tokio::test]
    async fn what_is_aside_takes_no_room_from_others() {
        let queue = Queue::new(4);
        queue.set_aside((0..10).map(put).collect());
        for n in 20..24 {
            assert!(queue.push(put(n)).is_ok());
        }
        assert!(queue.push(put(24)).is_err());
        // The newest of those aside are left, also when they are tried and fail.
        assert!(!queue.has_aside(CacheKey::from_bytes([7; 32])));
        let tried = queue.take_aside(10).await;
        assert_eq!(
            tried.iter().filter_map(Write::put_key).map(|key| key.as_bytes()[0]).collect::<Vec<_>>(),
            [8, 9]
        );
        queue.set_aside(vec![put(10)]);
        queue.tried(tried);
        assert_eq!(queue.take_aside(10).await.len(), 2);
    }
}

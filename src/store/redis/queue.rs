//! Writes that wait for Redis. They take effect in the order in which they came; while Redis is away they stay,
//! up to the bound, and are done when it is back.

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
    cache::entry::{Entry, Selector},
    key::CacheKey,
};

/// Removals that may wait. Each outlasts puts, for which it makes room: a lost put costs a purchase, a lost
/// removal a wrong answer.
const REMOVALS_MAX: usize = 1024;

/// Told to the writer of a put that had no room.
pub const FULL: &str = "the write queue is full";

/// One write.
pub enum Write {
    Put(Put),
    Note {
        name: String,
        note: Vec<u8>,
    },
    Remove {
        selector: Selector,
        /// The region that invalidated; `None`: our own.
        origin: Option<Origin>,
        _pending: Pending,
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
    writes: Mutex<VecDeque<Write>>,
    /// Most writes in it.
    max: usize,
    pushed: Notify,
}

// === impl Queue ===

impl Queue {
    pub fn new(max: usize) -> Self {
        Self { writes: Mutex::default(), max, pushed: Notify::new() }
    }

    /// Takes a write that can be lost, unless there is no room.
    pub fn push(&self, write: Write) -> Result<(), Fault> {
        let mut writes = self.lock();
        if writes.len() >= self.max {
            return Err(Fault::Away(FULL.to_owned()));
        }
        writes.push_back(write);
        self.pushed.notify_one();
        Ok(())
    }

    /// Takes a write that takes no room.
    pub fn push_always(&self, write: Write) {
        self.lock().push_back(write);
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
        let mut writes = self.lock();
        let removals = writes.iter().filter(|write| matches!(write, Write::Remove { .. })).count();
        if removals >= REMOVALS_MAX {
            // Nothing that waits is known to be valid any more.
            writes.retain(|write| !matches!(write, Write::Put(_)));
            return Err(Fault::Away(FULL.to_owned()));
        }
        if writes.len() >= self.max
            && let Some(oldest) = writes.iter().position(|write| matches!(write, Write::Put(_)))
        {
            writes.remove(oldest);
        }
        writes.push_back(Write::Remove { selector, origin, _pending: pending, done });
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
        self.lock().retain_mut(|write| write.put_off(fault));
        self.pushed.notified().await;
    }

    fn take_now(&self, most: usize) -> Vec<Write> {
        let mut writes = self.lock();
        let mut keys = HashSet::new();
        let unlike_put = |write: &&Write| matches!(write, Write::Put(put) if keys.insert(put.entry.key));
        let together = writes.iter().take(most).take_while(unlike_put).count();
        let count = together.max(1).min(writes.len());
        writes.drain(..count).collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Write>> {
        // A panic between two operations leaves whole writes behind.
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Write ===

impl Write {
    /// The key of an entry to keep.
    pub fn put_key(&self) -> Option<CacheKey> {
        match self {
            Self::Put(put) => Some(put.entry.key),
            Self::Note { .. } | Self::Remove { .. } | Self::Leave(_) | Self::Barrier(_) => None,
        }
    }

    /// Tells who waits for it of a fault, and whether it should be tried again.
    pub fn put_off(&mut self, fault: &Fault) -> bool {
        let again = !matches!(fault, Fault::Wrong(_));
        match self {
            Self::Put(Put { done: Some(done), .. }) => done.tell(Err(fault.clone())),
            Self::Put(_) | Self::Note { .. } => {}
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

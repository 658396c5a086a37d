//! A copy of the log of invalidations. Every replica appends to one stream in Redis, whose ids number the invalidations,
//! and every entry is stored with the last number that its writer had applied. An entry is invalid if an invalidation
//! with a higher number matches it, wherever and whenever it was written: also if it was in flight when it was
//! invalidated, or waited in the queue of a replica without contact.
//!
//! These numbers replace generation counters per namespace. They work for every selector and need no counter for each
//! namespace that ever existed.

use std::{
    collections::VecDeque,
    fmt,
    str::FromStr,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::entry::{Entry, Selector};

/// Maximum invalidations in the stream and in this copy. An entry older than all of them has met each: an invalidation
/// also deletes what matches, so only writes in flight depend on the log.
pub const RECORDS_MAX: usize = 8192;

/// The id of an element of a Redis stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Milliseconds since 1970 on the clock of Redis.
    pub ms: u64,
    pub n: u64,
}

/// This replica's copy of the log of invalidations.
#[derive(Default)]
pub struct Log {
    /// A std lock: held for a short scan, never across an await.
    state: RwLock<State>,
    /// Position up to which the stream was read.
    read: watch::Sender<Position>,
}

struct Record {
    position: Position,
    selector: Selector,
    source: Source,
}

/// An invalidation that Redis has not accepted yet. Dropped once it is in the log or has failed.
pub struct Pending {
    log: Arc<Log>,
    number: u64,
}

/// The replica that invalidated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// This replica, at this time. Its cache has applied the invalidation.
    Own(Instant),
    Other,
}

#[derive(Default)]
struct State {
    /// Sorted by position.
    records: VecDeque<Record>,
    /// Invalidations of this replica that Redis has not accepted yet. They already apply to reads.
    pending: Vec<(u64, Selector)>,
    /// Number of the last pending invalidation.
    last_pending: u64,
    /// Position up to which the cache has applied invalidations of other replicas.
    applied: Position,
}

impl Log {
    /// Adds an invalidation. Returns whether it is a new one of another replica.
    pub fn add(&self, position: Position, selector: Selector, source: Source) -> bool {
        let record = Record { position, selector, source };
        let mut state = self.write();
        let at = state.records.partition_point(|known| known.position < position);
        if state.records.get(at).is_some_and(|known| known.position == position) {
            return false;
        }
        state.records.insert(at, record);
        if state.records.len() > RECORDS_MAX {
            state.records.pop_front();
        }
        source == Source::Other
    }

    /// Applies an invalidation to reads from now on, before Redis has accepted it.
    pub fn add_pending(self: &Arc<Self>, selector: Selector) -> Pending {
        let mut state = self.write();
        state.last_pending += 1;
        let number = state.last_pending;
        state.pending.push((number, selector));
        Pending { log: Arc::clone(self), number }
    }

    /// Whether a pending invalidation, or one after `seen`, matches `entry`.
    pub fn invalidates(&self, entry: &Entry, seen: Position) -> bool {
        let state = self.read();
        state.pending.iter().any(|(_, selector)| selector.matches(entry)) || state.matches(entry, seen, false)
    }

    /// Whether an invalidation after `seen` that Redis has accepted matches `entry`. With `by_others` only those of other
    /// replicas count.
    pub fn has_invalidated(&self, entry: &Entry, seen: Position, by_others: bool) -> bool {
        self.read().matches(entry, seen, by_others)
    }

    /// Invalidations that this replica appended within the last `time`.
    pub fn own(&self, time: Duration) -> Vec<Selector> {
        let state = self.read();
        let is_recent = |source| matches!(source, Source::Own(at) if at.elapsed() < time);
        let own = state.records.iter().filter(|record| is_recent(record.source));
        own.map(|record| record.selector.clone()).collect()
    }

    /// Position to store with an entry that is written now: as far as the stream was read, unless the cache has not yet
    /// applied the invalidations of other replicas up to there.
    pub fn seen(&self) -> Position {
        let (state, read) = (self.read(), *self.read.borrow());
        let mut later = state.records.iter().rev().take_while(|record| record.position > state.applied);
        let is_behind = later.any(|record| record.position <= read && record.source == Source::Other);
        if is_behind { state.applied } else { read }
    }

    /// Records that the stream was read up to `position`.
    pub fn advance(&self, position: Position) {
        self.read.send_replace(position);
    }

    /// Waits until the stream was read up to `position`.
    pub async fn reached(&self, position: Position) {
        // The sender lives as long as the log.
        let _ = self.read.subscribe().wait_for(|read| *read >= position).await;
    }

    /// Records that the cache has applied everything up to `position`.
    pub fn apply(&self, position: Position) {
        self.write().applied = position;
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        // A panic cannot interrupt an operation on the records.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn matches(&self, entry: &Entry, seen: Position, by_others: bool) -> bool {
        let counts = |record: &&Record| !by_others || record.source == Source::Other;
        let mut later = self.records.iter().rev().take_while(|record| record.position > seen).filter(counts);
        later.any(|record| record.selector.matches(entry))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.log.write().pending.retain(|(number, _)| *number != self.number);
    }
}

impl Position {
    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.ms) << 64 | u128::from(self.n)).to_be_bytes()
    }

    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let both = u128::from_be_bytes(bytes);
        Self { ms: (both >> 64) as u64, n: both as u64 }
    }
}

impl FromStr for Position {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (ms, n) = text.split_once('-').ok_or(())?;
        Ok(Self { ms: ms.parse().map_err(|_| ())?, n: n.parse().map_err(|_| ())? })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.n)
    }
}

//! The log of invalidations, as this replica knows it. Every replica appends to one stream in Redis, whose
//! ids number the invalidations; every entry is kept with the last number that its writer had applied. An
//! entry that an invalidation with a higher number matches is dead, wherever and whenever it was written:
//! also one that was on its way when it was invalidated, or waited in the queue of a replica that was cut off.
//!
//! These numbers take the place of a generation counter for each namespace: they do the same for every
//! selector, and need no counter for each namespace that there ever was.

use std::{
    collections::VecDeque,
    fmt,
    str::FromStr,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::entry::{Entry, Selector};

/// Invalidations in the stream, and in this copy. An entry older than all of them was met by each: whoever
/// invalidates deletes what matches, and only writes that were under way then depend on the log.
pub const RECORDS_MAX: usize = 8192;

/// An id of a stream in Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Milliseconds since 1970 on the clock of Redis.
    pub ms: u64,
    pub n: u64,
}

/// The copy of the log.
#[derive(Default)]
pub struct Log {
    /// A std lock: held for a short walk, never across an await.
    state: RwLock<State>,
    /// Up to where the stream was read.
    read: watch::Sender<Position>,
}

struct Record {
    position: Position,
    selector: Selector,
    source: Source,
}

/// An invalidation that waits for Redis. Dropped once it was done, or cannot be.
pub struct Pending {
    log: Arc<Log>,
    number: u64,
}

/// Who invalidated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// This replica, at this time; its cache knew before.
    Own(Instant),
    Other,
}

#[derive(Default)]
struct State {
    /// By position.
    records: VecDeque<Record>,
    /// Invalidations of this replica that Redis has not taken yet: nothing that they match is read from it.
    pending: Vec<(u64, Selector)>,
    /// Numbers them.
    pended: u64,
    /// Up to where the cache has applied those of others.
    applied: Position,
}

// === impl Log ===

impl Log {
    /// Takes up an invalidation. Whether it is one of another replica that is news.
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

    /// Minds an invalidation from now on, before Redis has heard of it.
    pub fn pend(self: &Arc<Self>, selector: Selector) -> Pending {
        let mut state = self.write();
        state.pended += 1;
        let number = state.pended;
        state.pending.push((number, selector));
        Pending { log: Arc::clone(self), number }
    }

    /// Whether an invalidation after `seen`, or one that waits, matches `entry`.
    pub fn voids(&self, entry: &Entry, seen: Position) -> bool {
        let state = self.read();
        if state.pending.iter().any(|(_, selector)| selector.matches(entry)) {
            return true;
        }
        let mut later = state.records.iter().rev().take_while(|record| record.position > seen);
        later.any(|record| record.selector.matches(entry))
    }

    /// Whether an invalidation after `seen` that Redis has taken matches `entry`; with `by_others`, one of another
    /// replica.
    pub fn voided(&self, entry: &Entry, seen: Position, by_others: bool) -> bool {
        let state = self.read();
        let counts = |record: &&Record| !by_others || record.source == Source::Other;
        let mut later = state.records.iter().rev().take_while(|record| record.position > seen).filter(counts);
        later.any(|record| record.selector.matches(entry))
    }

    /// What this replica appended within the last `time`.
    pub fn own(&self, time: Duration) -> Vec<Selector> {
        let state = self.read();
        let is_recent = |source| matches!(source, Source::Own(at) if at.elapsed() < time);
        let own = state.records.iter().filter(|record| is_recent(record.source));
        own.map(|record| record.selector.clone()).collect()
    }

    /// What an entry that is kept now is marked with: as far as was read, unless the cache does not know yet
    /// what others invalidated by then.
    pub fn seen(&self) -> Position {
        let (state, read) = (self.read(), *self.read.borrow());
        let is_new = |record: &Record| record.position > state.applied && record.position <= read;
        let news = state.records.iter().rev().take_while(|record| record.position > state.applied);
        let is_behind = news.into_iter().any(|record| is_new(record) && record.source == Source::Other);
        if is_behind { state.applied } else { read }
    }

    /// The stream was read up to here.
    pub fn advance(&self, position: Position) {
        self.read.send_replace(position);
    }

    /// Waits until the stream was read up to `position`.
    pub async fn reached(&self, position: Position) {
        // The sender lives as long as the log.
        let _ = self.read.subscribe().wait_for(|read| *read >= position).await;
    }

    /// The cache has applied everything up to here.
    pub fn apply(&self, position: Position) {
        self.write().applied = position;
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        // A panic between two operations leaves the records whole.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Pending ===

impl Drop for Pending {
    fn drop(&mut self) {
        self.log.write().pending.retain(|(number, _)| *number != self.number);
    }
}

// === impl Position ===

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

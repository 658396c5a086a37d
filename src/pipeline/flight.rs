//! Single-flight: identical concurrent misses share one answer.
//!
//! The leader of a flight produces the answer, in a task of its own. Every caller, including the one that opened the
//! flight, is a follower that sees every event from the first on. So a flight outlives the caller that opened it.
//! Knows neither cache nor upstream.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::error::Error;

/// Flights in progress by key; requests with equal keys share a flight. `P` is a piece of the answer, `E` its end.
pub struct Flights<K, P, E> {
    /// A std mutex, held for one map operation and never across an await.
    open: Mutex<HashMap<K, watch::Sender<Progress<P, E>>>>,
}

/// Everything that a flight's leader has sent so far.
#[derive(Debug)]
struct Progress<P, E> {
    pieces: Vec<P>,
    end: Option<Result<E, Error>>,
}

/// Result of [`Flights::join`].
pub enum Joined<K: Eq + Hash, P, E> {
    /// The flight is new: the caller must run the leader.
    Lead(Leader<K, P, E>, Follower<P, E>),
    /// The flight was already open.
    Follow(Follower<P, E>),
}

/// Producer of the answer. Dropping it without an end fails the flight with an internal error, so that no follower
/// waits forever.
pub struct Leader<K: Eq + Hash, P, E> {
    flights: Arc<Flights<K, P, E>>,
    key: K,
    progress: watch::Sender<Progress<P, E>>,
}

/// Receiver of the answer.
pub struct Follower<P, E> {
    progress: watch::Receiver<Progress<P, E>>,
    /// Number of pieces received so far.
    position: usize,
}

/// One event of a flight.
#[derive(Debug)]
pub enum Event<P, E> {
    Piece(P),
    /// The end. No event follows.
    End(Result<E, Error>),
}

// === impl Flights ===

impl<K: Eq + Hash + Clone, P, E> Flights<K, P, E> {
    /// Joins the flight of `key`, or opens one.
    pub fn join(self: &Arc<Self>, key: K) -> Joined<K, P, E> {
        let mut open = self.lock();
        if let Some(progress) = open.get(&key) {
            return Joined::Follow(Follower::new(progress));
        }
        let progress = watch::Sender::new(Progress { pieces: Vec::new(), end: None });
        let follower = Follower::new(&progress);
        open.insert(key.clone(), progress.clone());
        Joined::Lead(Leader { flights: Arc::clone(self), key, progress }, follower)
    }
}

impl<K: Eq + Hash, P, E> Flights<K, P, E> {
    /// Joins the flight of `key` if there is one.
    pub fn follow(&self, key: &K) -> Option<Follower<P, E>> {
        self.lock().get(key).map(Follower::new)
    }
}

impl<K, P, E> Flights<K, P, E> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, watch::Sender<Progress<P, E>>>> {
        // Ignores poisoning: no code panics while it holds the lock.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, P, E> Default for Flights<K, P, E> {
    fn default() -> Self {
        Self { open: Mutex::default() }
    }
}

// === impl Leader ===

impl<K: Eq + Hash, P, E> Leader<K, P, E> {
    /// Sends a piece to every follower.
    pub fn push(&self, piece: P) {
        self.progress.send_modify(|progress| progress.pieces.push(piece));
    }

    /// Ends the flight. Later requests open a new one, so an answer that they should find must be cached before.
    pub fn end(self, end: Result<E, Error>) {
        self.close(end);
    }

    /// Returns once the flight has no followers, and closes it so that nobody can join.
    pub async fn abandoned(&self) {
        loop {
            self.progress.closed().await;
            let mut open = self.flights.lock();
            // A follower may have joined since `closed` returned; under the lock none can.
            if self.progress.receiver_count() == 0 {
                open.remove(&self.key);
                // Marks the flight as ended, so that dropping this leader does not remove the key again: from now on
                // it may belong to another flight.
                self.progress.send_modify(|progress| progress.end = Some(Err(Error::internal("abandoned"))));
                return;
            }
        }
    }

    fn close(&self, end: Result<E, Error>) {
        self.flights.lock().remove(&self.key);
        self.progress.send_modify(|progress| progress.end = Some(end));
    }
}

impl<K: Eq + Hash, P, E> Drop for Leader<K, P, E> {
    fn drop(&mut self) {
        if self.progress.borrow().end.is_none() {
            self.close(Err(Error::internal("the leader of a flight was dropped without an end")));
        }
    }
}

// === impl Follower ===

impl<P, E> Follower<P, E> {
    fn new(progress: &watch::Sender<Progress<P, E>>) -> Self {
        Self { progress: progress.subscribe(), position: 0 }
    }
}

impl<P: Clone, E: Clone> Follower<P, E> {
    /// Returns the next piece, or the end. Cancel-safe: a cancelled call loses no event.
    pub async fn next(&mut self) -> Event<P, E> {
        loop {
            if let Some(event) = self.ready() {
                return event;
            }
            if self.progress.changed().await.is_err() {
                let lost = || Event::End(Err(Error::internal("flight without an end")));
                return self.ready().unwrap_or_else(lost);
            }
        }
    }

    fn ready(&mut self) -> Option<Event<P, E>> {
        let progress = self.progress.borrow_and_update();
        if let Some(piece) = progress.pieces.get(self.position) {
            self.position += 1;
            return Some(Event::Piece(piece.clone()));
        }
        progress.end.clone().map(Event::End)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    type Text = &'static str;
    type TextFlights = Flights<u8, Text, Text>;

    fn lead(flights: &Arc<TextFlights>) -> (Leader<u8, Text, Text>, Follower<Text, Text>) {
        match flights.join(1) {
            Joined::Lead(leader, follower) => (leader, follower),
            Joined::Follow(_) => panic!("a flight is open"),
        }
    }

    fn follow(flights: &Arc<TextFlights>) -> Follower<Text, Text> {
        match flights.join(1) {
            Joined::Follow(follower) => follower,
            Joined::Lead(..) => panic!("no flight is open"),
        }
    }

    async fn all(mut follower: Follower<Text, Text>) -> (Vec<Text>, Result<Text, Error>) {
        let mut pieces = Vec::new();
        loop {
            match follower.next().await {
                Event::Piece(piece) => pieces.push(piece),
                Event::End(end) => return (pieces, end),
            }
        }
    }

    #[tokio::test]
    async fn a_late_follower_receives_the_answer_from_its_beginning() {
        let flights = Arc::new(TextFlights::default());
        let (leader, first) = lead(&flights);
        leader.push("a");
        leader.push("b");
        let late = follow(&flights);
        leader.push("c");
        leader.end(Ok("done"));
        for follower in [first, late] {
            let (pieces, end) = all(follower).await;
            assert_eq!(pieces, ["a", "b", "c"]);
            assert_eq!(end.unwrap(), "done");
        }
        assert!(flights.lock().is_empty());
    }

    #[tokio::test]
    async fn dropping_the_leader_fails_its_followers() {
        let flights = Arc::new(TextFlights::default());
        let (leader, follower) = lead(&flights);
        drop(leader);
        assert!(matches!(all(follower).await.1, Err(Error::Internal { .. })));
        assert!(flights.lock().is_empty());
    }

    #[tokio::test]
    async fn a_flight_is_abandoned_when_the_last_follower_leaves() {
        let flights = Arc::new(TextFlights::default());
        let (leader, first) = lead(&flights);
        let second = follow(&flights);
        drop(first);
        let mut abandoned = Box::pin(leader.abandoned());
        assert!(abandoned.as_mut().now_or_never().is_none());
        drop(second);
        abandoned.await;
        assert!(flights.lock().is_empty());
        assert!(matches!(flights.join(1), Joined::Lead(..)));
    }

    /// An abandoned leader once removed its key from the map a second time when it was dropped. By then the key could
    /// belong to the next caller's flight, which nobody could join any more.
    #[tokio::test]
    async fn an_abandoned_leader_does_not_close_the_next_flight() {
        let flights = Arc::new(TextFlights::default());
        let (abandoned, follower) = lead(&flights);
        drop(follower);
        abandoned.abandoned().await;
        let (_next, _follower) = lead(&flights);
        drop(abandoned);
        assert!(matches!(flights.join(1), Joined::Follow(_)));
    }
}

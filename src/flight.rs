//! One answer in the making, and everybody who waits for it.
//!
//! Identical concurrent misses share a flight: its leader runs once, in a task of its own, and everyone,
//! the caller that started it included, follows from the first event. A flight outlives the caller
//! that started it for as long as somebody waits. Knows neither cache nor upstream.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::error::Error;

/// The flights under way, by what makes two requests the same. `P` is a piece of the answer, `E` its
/// end.
pub struct Flights<K, P, E> {
    /// A std mutex: held for one map operation, never across an await.
    under_way: Mutex<HashMap<K, watch::Sender<Progress<P, E>>>>,
}

/// How far a flight is.
#[derive(Debug)]
struct Progress<P, E> {
    pieces: Vec<P>,
    end: Option<Result<E, Error>>,
}

/// What [`Flights::join`] found.
pub enum Joined<K: Eq + Hash, P, E> {
    /// Nobody is answering this yet: the caller must run the leader.
    Lead(Leader<K, P, E>, Follower<P, E>),
    Follow(Follower<P, E>),
}

/// The one that produces the answer. Dropped early, it ends the flight with an internal error, so that
/// nobody waits for ever.
pub struct Leader<K: Eq + Hash, P, E> {
    flights: Arc<Flights<K, P, E>>,
    key: K,
    progress: watch::Sender<Progress<P, E>>,
}

/// One that waits for the answer.
pub struct Follower<P, E> {
    progress: watch::Receiver<Progress<P, E>>,
    /// Pieces seen so far.
    position: usize,
}

/// What a follower sees next.
#[derive(Debug)]
pub enum Event<P, E> {
    Piece(P),
    /// The end; no event follows.
    End(Result<E, Error>),
}

// === impl Flights ===

impl<K: Eq + Hash + Clone, P, E> Flights<K, P, E> {
    /// Joins the flight of `key`, or opens it.
    pub fn join(self: &Arc<Self>, key: K) -> Joined<K, P, E> {
        let mut under_way = self.lock();
        if let Some(progress) = under_way.get(&key) {
            return Joined::Follow(Follower::new(progress));
        }
        let progress = watch::Sender::new(Progress { pieces: Vec::new(), end: None });
        let follower = Follower::new(&progress);
        under_way.insert(key.clone(), progress.clone());
        Joined::Lead(Leader { flights: Arc::clone(self), key, progress }, follower)
    }
}

impl<K: Eq + Hash, P, E> Flights<K, P, E> {
    /// Follows the flight of `key`, if it is under way.
    pub fn follow(&self, key: &K) -> Option<Follower<P, E>> {
        self.lock().get(key).map(Follower::new)
    }
}

impl<K, P, E> Flights<K, P, E> {
    /// Number of flights under way.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nothing is being answered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, watch::Sender<Progress<P, E>>>> {
        // A panic between two map operations leaves the map whole.
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, P, E> Default for Flights<K, P, E> {
    fn default() -> Self {
        Self { under_way: Mutex::default() }
    }
}

// === impl Leader ===

impl<K: Eq + Hash, P, E> Leader<K, P, E> {
    /// Hands a piece to everyone who waits.
    pub fn push(&self, piece: P) {
        self.progress.send_modify(|progress| progress.pieces.push(piece));
    }

    /// Ends the flight. Later requests open a new one, so whatever they should find must be kept before.
    pub fn end(self, end: Result<E, Error>) {
        self.close(end);
    }

    /// Returns once nobody waits any more, with the flight closed to newcomers.
    pub async fn abandoned(&self) {
        loop {
            self.progress.closed().await;
            let mut under_way = self.flights.lock();
            // Under the lock nobody joins; somebody may have between `closed` and here.
            if self.progress.receiver_count() == 0 {
                under_way.remove(&self.key);
                // Marks it as closed, so that dropping this leader leaves the key alone: from here on it
                // may be another flight's.
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
            self.close(Err(Error::internal("the answering task ended without an end")));
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
    /// The next piece, from the first on, or the end. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Event<P, E> {
        loop {
            if let Some(event) = self.ready() {
                return event;
            }
            if self.progress.changed().await.is_err() {
                return self
                    .ready()
                    .unwrap_or_else(|| Event::End(Err(Error::internal("flight without an end"))));
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
    use super::*;

    type Texts = Flights<u8, &'static str, &'static str>;

    fn lead(
        flights: &Arc<Texts>,
    ) -> (Leader<u8, &'static str, &'static str>, Follower<&'static str, &'static str>) {
        match flights.join(1) {
            Joined::Lead(leader, follower) => (leader, follower),
            Joined::Follow(_) => panic!("a flight is under way"),
        }
    }

    fn follow(flights: &Arc<Texts>) -> Follower<&'static str, &'static str> {
        match flights.join(1) {
            Joined::Follow(follower) => follower,
            Joined::Lead(..) => panic!("no flight is under way"),
        }
    }

    async fn all(
        mut follower: Follower<&'static str, &'static str>,
    ) -> (Vec<&'static str>, Result<&'static str, Error>) {
        let mut pieces = Vec::new();
        loop {
            match follower.next().await {
                Event::Piece(piece) => pieces.push(piece),
                Event::End(end) => return (pieces, end),
            }
        }
    }

    #[tokio::test]
    async fn a_late_joiner_sees_the_answer_from_its_beginning() {
        let flights = Arc::new(Texts::default());
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
        assert!(flights.is_empty());
    }

    #[tokio::test]
    async fn a_leader_that_vanishes_fails_its_followers_instead_of_hanging_them() {
        let flights = Arc::new(Texts::default());
        let (leader, follower) = lead(&flights);
        drop(leader);
        assert!(matches!(all(follower).await.1, Err(Error::Internal { .. })));
        assert!(flights.is_empty());
    }

    #[tokio::test]
    async fn it_is_abandoned_only_when_the_last_follower_left() {
        let flights = Arc::new(Texts::default());
        let (leader, first) = lead(&flights);
        let second = follow(&flights);
        drop(first);
        let mut abandoned = Box::pin(leader.abandoned());
        assert!(futures_ready(&mut abandoned).await.is_none());
        drop(second);
        abandoned.await;
        assert!(flights.is_empty());
        assert!(matches!(flights.join(1), Joined::Lead(..)));
    }

    /// A leader that was abandoned removed its key from the map, and once more when it was dropped. By then
    /// the key could belong to the next caller's flight, which nobody could join any more.
    #[tokio::test]
    async fn an_abandoned_leader_leaves_the_next_flight_alone() {
        let flights = Arc::new(Texts::default());
        let (abandoned, follower) = lead(&flights);
        drop(follower);
        abandoned.abandoned().await;
        let (_next, _follower) = lead(&flights);
        drop(abandoned);
        assert!(matches!(flights.join(1), Joined::Follow(_)));
    }

    /// The future's value when it is ready at once.
    async fn futures_ready<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
        tokio::select! {
            biased;
            value = future => Some(value),
            () = std::future::ready(()) => None,
        }
    }
}

//! Other regions. Each has its own Redis; this region reads the streams of its peers and writes nothing there. It copies
//! their entries unless it has one under the key, applies their invalidations, and publishes their learner events to its
//! own replicas.
//!
//! One replica of a region does this for each peer. It stores its positions in its own Redis, so that another replica
//! can continue from there. Only what a region stored or invalidated itself is copied from it; copies are marked with
//! their region, so nothing goes round in circles.
//!
//! An entry of a peer may be older than an invalidation here that the peer had not read, say during a partition. The log
//! of the peer says how much it had read: every invalidation that it copied from here stands there with its position
//! here. So the entry is stored here as one whose writer had seen that much, and is invalid from the start if any later
//! invalidation matches. No clocks are compared.

use std::{collections::HashMap, sync::Arc, time::Duration};

use redis::cmd;
use tokio::time::sleep;

use super::{
    core::{BACKGROUND_TIMEOUT, Core, Found, PAGE, Readiness},
    event::{Event, Message, Origin},
    keys::STREAMS,
    lag::Part,
    learner_events,
    lease::Reservation,
    link::Fault,
    log::{Position, Source},
    queue::{Done, Queue},
    tail::{self, Tail, Update},
};
use crate::entry::EntryId;

/// Time for which the reader's reservation is valid without a renewal.
const RESERVED: Duration = Duration::from_secs(5);

/// Pause between two attempts to become the reader, and after a fault.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Fields of the stored positions of invalidations and learner events. Streams of changes have their numbers.
const LOG: &str = "log";
const LEARNER_EVENTS: &str = "lessons";

/// A peer region.
pub struct Peer {
    pub region: String,
    /// Redis of the peer.
    pub remote: Arc<Core>,
    /// Redis of this region.
    pub local: Arc<Core>,
    pub queue: Arc<Queue>,
}

/// Streams of a peer that are being read.
struct Reading {
    invalidations: Tail,
    changes: Tail,
    learner_events: Tail,
    known_here: KnownHere,
}

/// Invalidations of this region that the peer has copied: their positions in its log and in ours.
#[derive(Default)]
struct KnownHere(Vec<(Position, Position)>);

impl Peer {
    /// Reads the peer for ever, while no other replica does.
    pub async fn follow(self) {
        let reservation = Reservation::new(self.local.keys.reader(&self.region), &self.local);
        loop {
            self.local.link.up().await;
            match reservation.acquire(&self.local, RESERVED).await {
                Ok(true) => {
                    self.local.lag.begin(&self.region);
                    let fault = self.read(&reservation).await;
                    tracing::info!(region = self.region, fault = ?fault.err(), "reading of a region was interrupted");
                    // Without this it expires by itself.
                    let _ = reservation.release(&self.local).await;
                }
                Ok(false) => self.local.lag.forget(&self.region),
                Err(_) => {}
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    /// Reads until a fault, or until another replica holds the reservation.
    async fn read(&self, reservation: &Reservation) -> Result<(), Fault> {
        let mut reading = self.open().await?;
        while reservation.renew(&self.local, RESERVED).await? {
            let Reading { invalidations, changes, learner_events, known_here } = &mut reading;
            let before = invalidations.position();
            let (invalidated, changed, learned) = tokio::join!(
                invalidations.read(&self.remote),
                changes.read(&self.remote),
                learner_events.read(&self.remote)
            );
            let messages = match invalidated? {
                Update::Messages(messages) => messages,
                Update::Missed => {
                    tracing::warn!(region = self.region, "invalidations of a region may have been missed");
                    let mut messages = self.log_messages().await?;
                    messages.retain(|(position, _)| *position > before);
                    messages
                }
            };
            self.apply_invalidations(known_here, messages).await?;
            match changed? {
                Update::Messages(messages) => self.copy(known_here, messages).await?,
                Update::Missed => self.copy_all(reservation, known_here).await?,
            }
            // Missed learner events are not recovered: this region learns from its own answers.
            if let Update::Messages(messages) = learned? {
                self.forward_learner_events(messages).await?;
            }
            self.store_positions(&reading).await?;
            let lag = &self.local.lag;
            lag.record(&self.region, Part::Invalidations, reading.invalidations.caught_up);
            lag.record(&self.region, Part::Changes, reading.changes.caught_up);
        }
        Ok(())
    }

    /// Continues from the positions of the last reader. The first reader copies everything.
    async fn open(&self) -> Result<Reading, Fault> {
        let mut read = cmd("HGETALL");
        read.arg(self.local.keys.read_positions(&self.region));
        let stored: HashMap<String, String> = self.local.link.call_within(BACKGROUND_TIMEOUT, &read).await?;
        let position = |name: &str| stored.get(name).and_then(|at| at.parse().ok());
        let invalidations = self.tail(self.remote.keys.invalidations(), position(LOG)).await?;
        let events = self.tail(self.remote.keys.learner_events(), position(LEARNER_EVENTS)).await?;
        let streams = (0..STREAMS).map(|stream| self.remote.keys.changes(stream)).collect();
        // The default position is no longer in any stream, so that everything is copied.
        let positions =
            (0..STREAMS).map(|stream| position(&stream.to_string()).unwrap_or_default()).collect();
        let mut known_here = KnownHere::default();
        for (position, message) in self.log_messages().await? {
            self.record(&mut known_here, position, &message);
        }
        self.remote.readiness.send_replace(Readiness { log: true, changes: true, failed: false });
        let changes = Tail::from(streams, positions);
        Ok(Reading { invalidations, changes, learner_events: events.of_learner_events(), known_here })
    }

    async fn tail(&self, stream: String, position: Option<Position>) -> Result<Tail, Fault> {
        match position {
            Some(position) => Ok(Tail::from(vec![stream], vec![position])),
            None => Tail::at_end(&self.remote, vec![stream], true).await,
        }
    }

    /// Every message in the peer's log of invalidations.
    async fn log_messages(&self) -> Result<Vec<(Position, Message)>, Fault> {
        let stream = self.remote.keys.invalidations();
        let entries = tail::range(&self.remote.link, cmd("XRANGE").arg(&stream).arg("-").arg("+")).await?;
        let messages = entries.iter().filter_map(|e| Some((e.id.parse().ok()?, Message::read(&e.map)?)));
        Ok(messages.collect())
    }

    /// Records a message of the peer's log. Returns whether the peer itself invalidated.
    fn record(&self, known_here: &mut KnownHere, position: Position, message: &Message) -> bool {
        let Event::Invalidated { matching } = &message.event else { return false };
        if let Some(selector) = matching.clone().selector() {
            self.remote.log.add(position, selector, Source::Other);
        }
        if let Some(origin) = message.origin.as_ref().filter(|origin| origin.region == self.local.region) {
            known_here.0.push((position, origin.at));
        }
        message.origin.is_none()
    }

    /// Invalidates here what the peer invalidated.
    async fn apply_invalidations(
        &self,
        known_here: &mut KnownHere,
        messages: Vec<(Position, Message)>,
    ) -> Result<(), Fault> {
        for (position, message) in messages {
            if !self.record(known_here, position, &message) {
                continue;
            }
            let Event::Invalidated { matching } = message.event else { continue };
            let Some(selector) = matching.selector() else { continue };
            let origin = Origin { region: self.region.clone(), at: position };
            let (done, removed) = Done::new();
            let pending = self.local.log.add_pending(selector.clone());
            self.queue.push_removal(selector, Some(origin), pending, done)?;
            super::completed(removed).await?;
        }
        Ok(())
    }

    /// Publishes the peer's learner events to the replicas here.
    async fn forward_learner_events(&self, messages: Vec<(Position, Message)>) -> Result<(), Fault> {
        for (_, message) in messages.into_iter().filter(|(_, message)| message.origin.is_none()) {
            if let Event::Learned { message } = message.event {
                learner_events::publish(&self.local, Some(self.origin()), message).await?;
            }
        }
        Ok(())
    }

    /// Copies entries that the peer stored.
    async fn copy(&self, known_here: &KnownHere, messages: Vec<(Position, Message)>) -> Result<(), Fault> {
        let mut ids = Vec::new();
        for (_, message) in messages.into_iter().filter(|(_, message)| message.origin.is_none()) {
            if let Event::Stored { keys } = message.event {
                ids.extend(keys.into_iter().map(|key| EntryId::from(key.0)));
            }
        }
        ids.sort_unstable();
        ids.dedup();
        for page in ids.chunks(PAGE) {
            self.keep(known_here, self.remote.get_all(page).await?).await?;
        }
        Ok(())
    }

    /// Copies all entries of the peer.
    async fn copy_all(&self, reservation: &Reservation, known_here: &KnownHere) -> Result<(), Fault> {
        tracing::info!(region = self.region, "copying all entries of a region");
        let mut after = None;
        loop {
            let found = self.remote.scan(after, PAGE).await?;
            let Some(last) = found.last() else { return Ok(()) };
            after = Some(last.entry.key);
            self.keep(known_here, found).await?;
            if !reservation.renew(&self.local, RESERVED).await? {
                return Err(Fault::Unreachable("another replica reads the region".to_owned()));
            }
        }
    }

    /// Stores entries whose keys have no valid entry here.
    async fn keep(&self, known_here: &KnownHere, found: Vec<Found>) -> Result<(), Fault> {
        let ids: Vec<_> = found.iter().map(|found| found.entry.id()).collect();
        let known: Vec<_> = self.local.get_all(&ids).await?.iter().map(|found| found.entry.key).collect();
        let mut kept = Vec::new();
        for Found { entry, seen, .. } in found {
            let seen = known_here.seen(seen);
            if known.contains(&entry.key) || self.local.log.invalidates(&entry, seen) {
                continue;
            }
            self.local.put(&entry, seen, BACKGROUND_TIMEOUT).await?;
            kept.push(entry.key);
        }
        let origin = self.origin();
        self.local.announce(kept.into_iter(), Some(&origin), |keys| Event::Stored { keys }).await;
        Ok(())
    }

    /// Marks copies of the peer's entries and learner events.
    fn origin(&self) -> Origin {
        Origin { region: self.region.clone(), at: Position::default() }
    }

    async fn store_positions(&self, reading: &Reading) -> Result<(), Fault> {
        let mut store = cmd("HSET");
        store
            .arg(self.local.keys.read_positions(&self.region))
            .arg(LOG)
            .arg(reading.invalidations.position().to_string())
            .arg(LEARNER_EVENTS)
            .arg(reading.learner_events.position().to_string());
        for (stream, position) in reading.changes.positions().iter().enumerate() {
            store.arg(stream).arg(position.to_string());
        }
        self.local.link.call_within(BACKGROUND_TIMEOUT, &store).await
    }
}

impl KnownHere {
    /// How much of our log the writer of an entry had seen that had seen the peer's log up to `remote`.
    fn seen(&self, remote: Position) -> Position {
        let last = self.0.iter().rev().find(|(there, _)| *there <= remote);
        last.map(|(_, here)| *here).unwrap_or_default()
    }
}

//! Other regions. Each has a Redis of its own; this one reads the streams of the others, and writes nothing
//! there. What they bought is kept here too unless something is there already; what they invalidated is
//! invalidated here; what they learned is told to the replicas here.
//!
//! One replica of a region does this for each peer, and notes in its own Redis how far it has read, so that
//! another goes on from there. Only what a region bought or invalidated by itself is taken from it: what it
//! took from others is marked with their names, so nothing can go round in circles.
//!
//! An entry of a peer may be older than an invalidation here that the peer had not heard of, say during a
//! partition. How much it had heard of is in its own log: every invalidation that it took from here stands
//! there with its position here. So the entry is kept here as one whose writer had seen that much and no
//! more, and dead from the start if anything later matches it. No clocks are compared.

use std::{collections::HashMap, sync::Arc, time::Duration};

use redis::cmd;
use tokio::time::sleep;

use super::{
    core::{BACKGROUND_PATIENCE, Core, Found, Opened, PAGE},
    event::{Event, Message, Origin},
    keys::STREAMS,
    lag::Part,
    lease::Place,
    lessons::Lessons,
    link::Fault,
    log::{Position, Source},
    queue::{Done, Queue},
    tail::{self, News, Tail},
};
use crate::entry::EntryId;

/// How long the place of a reader stays its own without a sign of life.
const PLACE: Duration = Duration::from_secs(5);

/// Pause between two attempts: to take the place, or after a fault.
const AGAIN: Duration = Duration::from_secs(1);

/// Fields of the noted places that invalidations and lessons have; the streams of changes have their numbers.
const LOG: &str = "log";
const LESSONS: &str = "lessons";

/// Another region.
pub struct Peer {
    pub region: String,
    /// Its Redis.
    pub there: Arc<Core>,
    /// Our own.
    pub here: Arc<Core>,
    pub queue: Arc<Queue>,
    pub lessons: Arc<Lessons>,
}

/// What is read of it.
struct Reading {
    invalidations: Tail,
    changes: Tail,
    lessons: Tail,
    /// Invalidations of ours in its log: where they stand there, and where here.
    ours: Vec<(Position, Position)>,
}

// === impl Peer ===

impl Peer {
    /// Reads for as long as no other replica does.
    pub async fn follow(self) {
        let place = Place::new(self.here.keys.reader(&self.region), &self.here);
        loop {
            self.here.link.up().await;
            match place.take(&self.here, PLACE).await {
                Ok(true) => {
                    self.here.lag.begin(&self.region);
                    let fault = self.read(&place).await;
                    tracing::info!(region = self.region, fault = ?fault.err(), "reading of a region was interrupted");
                    // Freed by time otherwise.
                    let _ = place.leave(&self.here).await;
                }
                Ok(false) => self.here.lag.forget(&self.region),
                Err(_) => {}
            }
            sleep(AGAIN).await;
        }
    }

    /// Reads until a fault, or until another replica has the place.
    async fn read(&self, place: &Place) -> Result<(), Fault> {
        let mut reading = self.open().await?;
        while place.hold(&self.here, PLACE).await? {
            let Reading { invalidations, changes, lessons, .. } = &mut reading;
            let before = invalidations.position();
            let (invalidated, changed, learned) = tokio::join!(
                invalidations.read(&self.there),
                changes.read(&self.there),
                lessons.read(&self.there)
            );
            match invalidated? {
                News::Messages(messages) => self.carry(&mut reading.ours, messages).await?,
                News::Missed => {
                    tracing::warn!(region = self.region, "invalidations of a region may have been missed");
                    let mut messages = self.log_entries().await?;
                    messages.retain(|(position, _)| *position > before);
                    self.carry(&mut reading.ours, messages).await?;
                }
            }
            match changed? {
                News::Messages(messages) => self.take(&reading.ours, messages).await?,
                News::Missed => self.take_all(place, &reading.ours).await?,
            }
            // What is missed of it is learned here, from the answers that are bought here.
            if let News::Messages(messages) = learned? {
                self.tell_on(messages).await?;
            }
            self.note(&reading).await?;
            self.here.lag.note(&self.region, Part::Invalidations, reading.invalidations.caught_up);
            self.here.lag.note(&self.region, Part::Changes, reading.changes.caught_up);
        }
        Ok(())
    }

    /// Goes on where the last reader was; the first takes everything that is there.
    async fn open(&self) -> Result<Reading, Fault> {
        let mut read = cmd("HGETALL");
        read.arg(self.here.keys.read(&self.region));
        let noted: HashMap<String, String> = self.here.link.call_within(BACKGROUND_PATIENCE, &read).await?;
        let place = |name: &str| noted.get(name).and_then(|at| at.parse().ok());
        let log = vec![self.there.keys.invalidations()];
        let invalidations = match place(LOG) {
            Some(position) => Tail::from(log, vec![position]),
            None => Tail::at_end(&self.there, log, true).await?,
        };
        let learned = vec![self.there.keys.lessons()];
        let lessons = match place(LESSONS) {
            Some(position) => Tail::from(learned, vec![position]),
            None => Tail::at_end(&self.there, learned, true).await?,
        };
        let streams = (0..STREAMS).map(|stream| self.there.keys.changes(stream)).collect();
        // Without a place it is one that is gone, so that everything is read.
        let positions = (0..STREAMS).map(|stream| place(&stream.to_string()).unwrap_or_default()).collect();
        let ours = self.read_log().await?;
        self.there.opened.send_replace(Opened { log: true, changes: true, failed: false });
        let (changes, lessons) = (Tail::from(streams, positions), lessons.of_lessons());
        Ok(Reading { invalidations, changes, lessons, ours })
    }

    async fn log_entries(&self) -> Result<Vec<(Position, Message)>, Fault> {
        let stream = self.there.keys.invalidations();
        let entries = tail::range(&self.there.link, cmd("XRANGE").arg(&stream).arg("-").arg("+")).await?;
        let messages = entries.iter().filter_map(|e| Some((e.id.parse().ok()?, Message::read(&e.map)?)));
        Ok(messages.collect())
    }

    /// Reads its whole log: what makes its entries dead there, and what it knows of ours.
    async fn read_log(&self) -> Result<Vec<(Position, Position)>, Fault> {
        let mut ours = Vec::new();
        for (position, message) in self.log_entries().await? {
            self.hear(&mut ours, position, &message);
        }
        Ok(ours)
    }

    /// Notes one entry of its log; returns whether it invalidated by itself.
    fn hear(&self, ours: &mut Vec<(Position, Position)>, position: Position, message: &Message) -> bool {
        let Event::Invalidated { matching } = &message.event else { return false };
        if let Some(selector) = matching.clone().selector() {
            self.there.log.add(position, selector, Source::Other);
        }
        match &message.origin {
            Some(origin) if origin.region == self.here.region => {
                ours.push((position, origin.at));
                false
            }
            Some(_) => false,
            None => true,
        }
    }

    /// Invalidates here what was invalidated there.
    async fn carry(
        &self,
        ours: &mut Vec<(Position, Position)>,
        messages: Vec<(Position, Message)>,
    ) -> Result<(), Fault> {
        for (position, message) in messages {
            if !self.hear(ours, position, &message) {
                continue;
            }
            let Event::Invalidated { matching } = message.event else { continue };
            let Some(selector) = matching.selector() else { continue };
            let origin = Origin { region: self.region.clone(), at: position };
            let (done, removed) = Done::new();
            let pending = self.here.log.pend(selector.clone());
            self.queue.push_removal(selector, Some(origin), pending, done)?;
            super::heard(removed.await)?;
        }
        Ok(())
    }

    /// Tells the replicas here what was learned there.
    async fn tell_on(&self, messages: Vec<(Position, Message)>) -> Result<(), Fault> {
        for (_, message) in messages.into_iter().filter(|(_, message)| message.origin.is_none()) {
            if let Event::Learned { lesson } = message.event {
                self.lessons.tell(&self.here, Some(self.origin()), lesson).await?;
            }
        }
        Ok(())
    }

    /// Keeps what was bought there.
    async fn take(
        &self,
        ours: &[(Position, Position)],
        messages: Vec<(Position, Message)>,
    ) -> Result<(), Fault> {
        let mut ids = Vec::new();
        for (_, message) in messages.into_iter().filter(|(_, message)| message.origin.is_none()) {
            if let Event::Stored { keys } = message.event {
                ids.extend(keys.into_iter().map(|key| EntryId::from(key.0)));
            }
        }
        ids.sort_unstable();
        ids.dedup();
        for page in ids.chunks(PAGE) {
            self.keep(ours, self.there.get_all(page).await?).await?;
        }
        Ok(())
    }

    /// Keeps everything that is there.
    async fn take_all(&self, place: &Place, ours: &[(Position, Position)]) -> Result<(), Fault> {
        tracing::info!(region = self.region, "taking over everything that a region has");
        let mut after = None;
        loop {
            let found = self.there.scan(after, PAGE).await?;
            let Some(last) = found.last() else { return Ok(()) };
            after = Some(last.entry.key);
            self.keep(ours, found).await?;
            if !place.hold(&self.here, PLACE).await? {
                return Err(Fault::Away("another replica has the place".to_owned()));
            }
        }
    }

    /// Keeps entries, where nothing that lives is under their keys.
    async fn keep(&self, ours: &[(Position, Position)], found: Vec<Found>) -> Result<(), Fault> {
        let ids: Vec<_> = found.iter().map(|found| found.entry.id()).collect();
        let known: Vec<_> = self.here.get_all(&ids).await?.iter().map(|found| found.entry.key).collect();
        let mut kept = Vec::new();
        for Found { entry, seen, .. } in found {
            let seen = seen_here(ours, seen);
            if known.contains(&entry.key) || self.here.log.voids(&entry, seen) {
                continue;
            }
            self.here.put(&entry, seen, BACKGROUND_PATIENCE).await?;
            kept.push(entry.key);
        }
        let origin = self.origin();
        self.here.announce(kept.into_iter(), Some(&origin), |keys| Event::Stored { keys }).await;
        Ok(())
    }

    /// Marks what is taken from it.
    fn origin(&self) -> Origin {
        Origin { region: self.region.clone(), at: Position::default() }
    }

    async fn note(&self, reading: &Reading) -> Result<(), Fault> {
        let mut note = cmd("HSET");
        note.arg(self.here.keys.read(&self.region))
            .arg(LOG)
            .arg(reading.invalidations.position().to_string())
            .arg(LESSONS)
            .arg(reading.lessons.position().to_string());
        for (stream, position) in reading.changes.positions().iter().enumerate() {
            note.arg(stream).arg(position.to_string());
        }
        self.here.link.call_within(BACKGROUND_PATIENCE, &note).await
    }
}

/// How much of our log the writer of an entry there had seen.
fn seen_here(ours: &[(Position, Position)], seen_there: Position) -> Position {
    let heard = ours.iter().rev().find(|(there, _)| *there <= seen_there);
    heard.map(|(_, here)| *here).unwrap_or_default()
}

//! Tasks that read the streams of the region: invalidations, which must not wait behind anything, changes of entries,
//! and learner events.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use redis::cmd;
use tokio::{sync::mpsc, time::sleep};

use super::{
    core::{Core, PAGE},
    event::{Event, Message},
    keys::STREAMS,
    lag::Part,
    learner_events::LearnerEvents,
    link::Fault,
    log::{Position, Source},
    tail::{self, Tail, Update},
};
use crate::{
    entry::{Entry, EntryId, Selector},
    store::{Change, LearnerEvent},
};

/// Pause before reading again after a fault.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Pause before opening streams again that Redis refused.
const REFUSED_PAUSE: Duration = Duration::from_secs(2);

/// Age of the oldest own invalidation that a replica repeats to a Redis that lost its data.
const REPEATED: Duration = Duration::from_secs(600);

/// Longest time without contact after which a replica keeps its memory when Redis has lost its data. The other replicas
/// repeat invalidations that are at most this old.
const NO_CONTACT_MAX: Duration = REPEATED.checked_div(2).expect("not by zero");

/// Changes for the cache.
pub struct Batch {
    pub changes: Vec<Change>,
    /// Position in the log up to which the cache has applied invalidations once it has applied the changes.
    pub applied: Option<Position>,
}

/// Reads invalidations for ever.
pub async fn invalidations(core: Arc<Core>, batches: mpsc::Sender<Batch>) {
    let stream = core.keys.invalidations();
    let mut tail = loop {
        core.link.up().await;
        match open_log(&core, &stream).await {
            Ok(tail) => break tail,
            Err(fault) => pause_after(&core, &fault).await,
        }
    };
    // Nothing in memory or index can be older.
    core.log.apply(tail.position());
    core.log.advance(tail.position());
    core.readiness.send_modify(|readiness| readiness.log = true);
    loop {
        let last_contact = tail.caught_up;
        let changes = match next(&core, &mut tail).await {
            Update::Messages(messages) => {
                let invalidation = |(at, message)| invalidation(&core, at, message);
                record(&core, messages.into_iter().filter_map(invalidation).collect())
            }
            Update::Missed => recover(&core, &stream, last_contact).await,
        };
        core.lag.record(&core.region, Part::Invalidations, tail.caught_up);
        core.log.advance(tail.position());
        let applied = Some(tail.position());
        if !changes.is_empty() && batches.send(Batch { changes, applied }).await.is_err() {
            return;
        }
    }
}

async fn open_log(core: &Core, stream: &str) -> Result<Tail, Fault> {
    let tail = Tail::at_end(core, vec![stream.to_owned()], false).await?;
    record(core, read_log(core, stream).await?);
    Ok(tail)
}

/// Pauses before opening streams again. If Redis refuses them, reads fail meanwhile instead of waiting.
async fn pause_after(core: &Core, fault: &Fault) {
    if !matches!(fault, Fault::Unreachable(_)) {
        tracing::warn!(%fault, "the streams of other replicas cannot be read");
        core.readiness.send_modify(|readiness| readiness.failed = true);
        sleep(REFUSED_PAUSE).await;
    }
    sleep(RETRY_PAUSE).await;
}

/// Reads what is new, again after a fault.
async fn next(core: &Core, tail: &mut Tail) -> Update {
    loop {
        match tail.read(core).await {
            Ok(update) => return update,
            Err(fault) => {
                tracing::debug!(%fault, "a stream is read again");
                core.link.up().await;
                sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// Reads every invalidation of the stream.
async fn read_log(core: &Core, stream: &str) -> Result<Vec<(Position, Selector, Source)>, Fault> {
    let entries = tail::range(&core.link, cmd("XRANGE").arg(stream).arg("-").arg("+")).await?;
    let messages =
        entries.iter().filter_map(|entry| Some((entry.id.parse().ok()?, Message::read(&entry.map)?)));
    Ok(messages.filter_map(|(position, message)| invalidation(core, position, message)).collect())
}

fn invalidation(core: &Core, position: Position, message: Message) -> Option<(Position, Selector, Source)> {
    let is_own = is_own(core, &message);
    let Event::Invalidated { matching } = message.event else { return None };
    let source = if is_own { Source::Own(Instant::now()) } else { Source::Other };
    Some((position, matching.selector()?, source))
}

/// Whether the event comes from the cache of this replica. Events that this replica copied from another region do not:
/// its cache must apply them.
fn is_own(core: &Core, message: &Message) -> bool {
    message.replica == core.replica && message.origin.is_none()
}

/// Recovers from missed invalidations, again after a fault: the stream says only once that some were missed.
async fn recover(core: &Core, stream: &str, last_contact: Instant) -> Vec<Change> {
    let mut own = core.log.own(REPEATED);
    loop {
        match try_recover(core, stream, &mut own, last_contact).await {
            Ok(changes) => return changes,
            Err(fault) => {
                tracing::debug!(%fault, "the log of invalidations is read again");
                core.link.up().await;
                sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// Reads the log anew. If the stream was trimmed, anything in memory may be invalid. If Redis lost its data, every
/// replica repeats its recent invalidations, `own`, and drops its memory only if it had no contact for longer than that.
async fn try_recover(
    core: &Core,
    stream: &str,
    own: &mut Vec<Selector>,
    last_contact: Instant,
) -> Result<Vec<Change>, Fault> {
    let log = read_log(core, stream).await?;
    let was_trimmed = tail::was_trimmed(&core.link, stream).await?;
    // First, so that reads obey the invalidations of others while this replica repeats its own.
    let mut changes = record(core, log);
    if !was_trimmed {
        tracing::warn!("redis lost invalidations: this replica repeats its recent ones");
        while let Some(selector) = own.last() {
            core.invalidate(selector, None).await?;
            own.pop();
        }
    }
    if was_trimmed || last_contact.elapsed() > NO_CONTACT_MAX {
        tracing::warn!("invalidations were missed: everything in memory is dropped");
        changes.insert(0, Change::MissedInvalidations);
    }
    Ok(changes)
}

/// Adds invalidations to the log, which later reads of Redis obey. Returns those that the cache does not know.
fn record(core: &Core, invalidations: Vec<(Position, Selector, Source)>) -> Vec<Change> {
    let is_new = |(position, selector, source): &(Position, Selector, Source)| {
        core.log.add(*position, selector.clone(), *source)
    };
    let new = invalidations.into_iter().filter(is_new);
    new.map(|(_, selector, _)| Change::Invalidated(selector)).collect()
}

/// Reads changes of entries for ever.
pub async fn changes(core: Arc<Core>, batches: mpsc::Sender<Batch>) {
    let streams: Vec<String> = (0..STREAMS).map(|stream| core.keys.changes(stream)).collect();
    let mut tail = loop {
        core.link.up().await;
        match Tail::at_end(&core, streams.clone(), false).await {
            Ok(tail) => break tail,
            Err(fault) => pause_after(&core, &fault).await,
        }
    };
    core.readiness.send_modify(|readiness| readiness.changes = true);
    loop {
        let changes = match next(&core, &mut tail).await {
            Update::Messages(messages) => resolve(&core, messages).await,
            Update::Missed => {
                tracing::warn!("changes of other replicas were missed: the index is loaded again");
                vec![Change::MissedEntries]
            }
        };
        core.lag.record(&core.region, Part::Changes, tail.caught_up);
        if !changes.is_empty() && batches.send(Batch { changes, applied: None }).await.is_err() {
            return;
        }
    }
}

/// Translates events for the cache. Stored entries are read now and follow removals, so a key that was removed and
/// stored again is there.
async fn resolve(core: &Core, messages: Vec<(Position, Message)>) -> Vec<Change> {
    let (mut stored, mut removed) = (Vec::new(), Vec::new());
    for (_, message) in messages.into_iter().filter(|(_, message)| !is_own(core, message)) {
        match message.event {
            Event::Stored { keys } => stored.extend(keys.into_iter().map(|key| EntryId::from(key.0))),
            Event::Removed { keys } => removed.extend(keys.into_iter().map(|key| key.0)),
            Event::Invalidated { .. } | Event::Learned { .. } | Event::Opened => {}
        }
    }
    stored.sort_unstable();
    stored.dedup();
    let mut changes = Vec::new();
    if !removed.is_empty() {
        changes.push(Change::Removed(removed));
    }
    for page in stored.chunks(PAGE) {
        changes.extend(read(core, page).await.into_iter().map(Change::Stored));
    }
    changes
}

/// Reads learner events for ever.
pub async fn learner_events(core: Arc<Core>, events: Arc<LearnerEvents>) {
    let stream = core.keys.learner_events();
    let mut tail = loop {
        core.link.up().await;
        match Tail::at_end(&core, vec![stream.clone()], false).await {
            Ok(tail) => break tail.of_learner_events(),
            Err(_) => sleep(REFUSED_PAUSE).await,
        }
    };
    // Namespaces that were loaded before the stream was open may have missed messages.
    events.push(LearnerEvent::Missed);
    loop {
        let Update::Messages(messages) = next(&core, &mut tail).await else {
            events.push(LearnerEvent::Missed);
            continue;
        };
        for (_, message) in messages.into_iter().filter(|(_, message)| !is_own(&core, message)) {
            let from_other_region = message.origin.is_some();
            if let Event::Learned { message } = message.event {
                events.push(LearnerEvent::Published { message, from_other_region });
            }
        }
    }
}

/// Reads entries, however long Redis takes: the streams announce each only once.
async fn read(core: &Core, ids: &[EntryId]) -> Vec<Arc<Entry>> {
    loop {
        match core.get_all(ids).await {
            Ok(found) => return found.into_iter().map(|found| found.entry).collect(),
            Err(Fault::Rejected(cause)) => {
                tracing::warn!(cause, "changed entries cannot be read");
                return Vec::new();
            }
            Err(Fault::Unreachable(_) | Fault::Refused(_)) => {
                core.link.up().await;
                sleep(RETRY_PAUSE).await;
            }
        }
    }
}

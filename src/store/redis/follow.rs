//! The tasks that listen to the other replicas: one to invalidations, which must not wait behind anything,
//! one to changes of entries, one to what was learned.

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
    lessons::Lessons,
    link::Fault,
    log::{Position, Source},
    tail::{self, News, Tail},
};
use crate::{
    entry::{Entry, EntryId, Selector},
    store::{Change, Heard},
};

/// Pause before listening again after a fault.
const AGAIN: Duration = Duration::from_millis(100);

/// The same where Redis refuses.
const OPEN_AGAIN: Duration = Duration::from_secs(2);

/// How far back a replica repeats its own invalidations to a Redis that lost its data.
const REPEATED: Duration = Duration::from_secs(600);

/// How long a replica may have been out of touch when Redis loses its data, and keep what it has in memory:
/// what others invalidated meanwhile they then repeat.
const OUT_OF_TOUCH_MAX: Duration = REPEATED.checked_div(2).expect("not by zero");

/// Changes for the cache, and the place in the log that they lead to.
pub struct Batch {
    pub changes: Vec<Change>,
    /// To be noted once the changes were applied.
    pub applied: Option<Position>,
}

/// Listens to invalidations, for ever.
pub async fn invalidations(core: Arc<Core>, batches: mpsc::Sender<Batch>) {
    let stream = core.keys.invalidations();
    let mut tail = loop {
        core.link.up().await;
        match open_log(&core, &stream).await {
            Ok(tail) => break tail,
            Err(fault) => not_opened(&core, &fault).await,
        }
    };
    // Nothing that memory or index could hold is older.
    core.log.apply(tail.position());
    core.log.advance(tail.position());
    core.opened.send_modify(|opened| opened.log = true);
    loop {
        let batch = match heard(&core, &mut tail, &stream).await {
            Ok(batch) => batch,
            Err(fault) => {
                tracing::debug!(%fault, "listening to invalidations again");
                core.link.up().await;
                sleep(AGAIN).await;
                continue;
            }
        };
        core.lag.note(&core.region, Part::Invalidations, tail.caught_up);
        core.log.advance(tail.position());
        if !batch.changes.is_empty() && batches.send(batch).await.is_err() {
            return;
        }
    }
}

async fn open_log(core: &Core, stream: &str) -> Result<Tail, Fault> {
    let tail = Tail::at_end(core, vec![stream.to_owned()], false).await?;
    take_up(core, read_log(core, stream).await?);
    Ok(tail)
}

/// A Redis that is away is waited for; one that cannot be listened to is not, and not read either.
async fn not_opened(core: &Core, fault: &Fault) {
    if !matches!(fault, Fault::Away(_)) {
        tracing::warn!(%fault, "other replicas cannot be heard");
        core.opened.send_modify(|opened| opened.failed = true);
        sleep(OPEN_AGAIN).await;
    }
    sleep(AGAIN).await;
}

/// Every invalidation in the stream.
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

/// Whether the cache of this replica did it. What it took from another region its cache has not heard of.
fn is_own(core: &Core, message: &Message) -> bool {
    message.replica == core.replica && message.origin.is_none()
}

/// The next invalidations.
async fn heard(core: &Core, tail: &mut Tail, stream: &str) -> Result<Batch, Fault> {
    let in_touch = tail.caught_up;
    let news = match tail.read(core).await? {
        News::Messages(messages) => {
            messages.into_iter().filter_map(|(at, message)| invalidation(core, at, message)).collect()
        }
        News::Missed => return missed(core, tail, stream, in_touch).await,
    };
    Ok(Batch { changes: take_up(core, news), applied: Some(tail.position()) })
}

/// The stream no longer has what was read last. Either it was trimmed meanwhile: then anything in memory may
/// have been invalidated. Or Redis lost its data: then every replica repeats what it invalidated of late,
/// and this one drops its memory only if it was out of touch for longer than that.
async fn missed(core: &Core, tail: &Tail, stream: &str, in_touch: Instant) -> Result<Batch, Fault> {
    let mut changes = take_up(core, read_log(core, stream).await?);
    let was_trimmed = tail::was_trimmed(&core.link, stream).await?;
    if was_trimmed || in_touch.elapsed() > OUT_OF_TOUCH_MAX {
        tracing::warn!("invalidations were missed: everything in memory is dropped");
        changes.insert(0, Change::MissedInvalidations);
    }
    if !was_trimmed {
        tracing::warn!("redis lost invalidations: the latest of this replica are repeated");
        for selector in core.log.own(REPEATED) {
            core.invalidate(&selector, None).await?;
        }
    }
    Ok(Batch { changes, applied: Some(tail.position()) })
}

/// Notes invalidations in the log, so that reads of Redis mind them from here on; returns those that the
/// cache does not know.
fn take_up(core: &Core, heard: Vec<(Position, Selector, Source)>) -> Vec<Change> {
    let mut changes = Vec::new();
    for (position, selector, source) in heard {
        if core.log.add(position, selector.clone(), source) {
            changes.push(Change::Invalidated(selector));
        }
    }
    changes
}

/// Listens to changes of entries, for ever.
pub async fn changes(core: Arc<Core>, batches: mpsc::Sender<Batch>) {
    let streams: Vec<String> = (0..STREAMS).map(|stream| core.keys.changes(stream)).collect();
    let mut tail = loop {
        core.link.up().await;
        match Tail::at_end(&core, streams.clone(), false).await {
            Ok(tail) => break tail,
            Err(fault) => not_opened(&core, &fault).await,
        }
    };
    core.opened.send_modify(|opened| opened.changes = true);
    loop {
        let changes = match tail.read(&core).await {
            Ok(News::Messages(messages)) => resolve(&core, messages).await,
            Ok(News::Missed) => {
                tracing::warn!("changes of other replicas were missed: the index is read anew");
                vec![Change::MissedEntries]
            }
            Err(fault) => {
                tracing::debug!(%fault, "listening to changes again");
                core.link.up().await;
                sleep(AGAIN).await;
                continue;
            }
        };
        core.lag.note(&core.region, Part::Changes, tail.caught_up);
        if !changes.is_empty() && batches.send(Batch { changes, applied: None }).await.is_err() {
            return;
        }
    }
}

/// Turns what others told into what the cache should do. Entries that were stored are read now, so they
/// come after removals: a key that was removed and stored again is there.
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

/// Listens to what others learned, for ever.
pub async fn lessons(core: Arc<Core>, lessons: Arc<Lessons>) {
    let stream = core.keys.lessons();
    let mut tail = loop {
        core.link.up().await;
        match Tail::at_end(&core, vec![stream.clone()], false).await {
            Ok(tail) => break tail.of_lessons(),
            Err(_) => sleep(OPEN_AGAIN).await,
        }
    };
    // What was told before may have gone by a namespace that was opened before.
    lessons.hear(Heard::Missed);
    loop {
        match tail.read(&core).await {
            Ok(News::Messages(messages)) => {
                for (_, message) in messages.into_iter().filter(|(_, message)| !is_own(&core, message)) {
                    let is_far = message.origin.is_some();
                    if let Event::Learned { lesson: message } = message.event {
                        lessons.hear(Heard::Lesson { message, is_far });
                    }
                }
            }
            Ok(News::Missed) => lessons.hear(Heard::Missed),
            Err(fault) => {
                tracing::debug!(%fault, "listening to lessons again");
                core.link.up().await;
                sleep(AGAIN).await;
            }
        }
    }
}

/// The entries that are there, however long Redis takes: the streams tell of each only once.
async fn read(core: &Core, ids: &[EntryId]) -> Vec<Arc<Entry>> {
    loop {
        match core.get_all(ids).await {
            Ok(found) => return found.into_iter().map(|found| found.entry).collect(),
            Err(Fault::Wrong(cause)) => {
                tracing::warn!(cause, "changed entries cannot be read");
                return Vec::new();
            }
            Err(Fault::Away(_) | Fault::Refused(_)) => {
                core.link.up().await;
                sleep(AGAIN).await;
            }
        }
    }
}

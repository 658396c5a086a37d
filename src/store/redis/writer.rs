//! Tasks that perform the queued writes.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use super::{
    core::{BACKGROUND_TIMEOUT, CLUSTER_TIMEOUT, Core, PAGE},
    event::Event,
    keys::Partition,
    link::Fault,
    log::Position,
    queue::{Put, QUARANTINED, Queue, Write},
};
use crate::{entry::Selector, key::CacheKey};

/// Puts sent at once.
const BATCH: usize = 128;

/// First and last backoff between attempts while Redis answers but refuses; it doubles in between.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Maximum wait for this replica to read its own invalidation from the stream.
const READ_BACK_TIMEOUT: Duration = Duration::from_millis(500);

/// The turn of a write.
#[derive(Clone, Copy, PartialEq)]
enum Turn {
    /// In order: all writes before it are done or quarantined.
    First,
    /// After a quarantine.
    Retry,
}

/// Performs writes in order for ever.
pub async fn write_all(core: Arc<Core>, queue: Arc<Queue>) {
    loop {
        let batch = queue.take(BATCH).await;
        let mut batch = skip_unreachable(&core, &queue, batch);
        let (mut pause, last) = BACKOFF;
        while let Some(fault) = attempt(&core, &queue, &mut batch, Turn::First).await {
            quarantine(&core, &queue, &mut batch);
            if batch.is_empty() {
                break;
            }
            let backoff = async {
                sleep(pause).await;
                core.link.up().await;
            };
            // Callers that arrive meanwhile need not wait for Redis.
            let fail_waiting = async {
                loop {
                    queue.fail_waiting(&fault).await;
                }
            };
            tokio::select! {
                () = backoff => {}
                () = fail_waiting => {}
            }
            pause = (pause * 2).min(last);
        }
    }
}

/// Retries quarantined writes for ever.
pub async fn write_quarantined(core: Arc<Core>, queue: Arc<Queue>) {
    let (first, last) = BACKOFF;
    let mut pause = first;
    loop {
        let mut batch = queue.take_quarantined(BATCH).await;
        let tried = batch.len();
        attempt(&core, &queue, &mut batch, Turn::Retry).await;
        pause = if batch.len() < tried { first } else { (pause * 2).min(last) };
        let is_done = batch.is_empty();
        queue.retried(batch);
        if !is_done {
            sleep(pause).await;
            core.link.up().await;
        }
    }
}

/// Quarantines the writes of unreachable partitions and returns the others.
fn skip_unreachable(core: &Core, queue: &Queue, batch: Vec<Write>) -> Vec<Write> {
    let is_unreachable = |write: &Write| {
        write.put_key().is_some_and(|key| core.link.is_unreachable(key.into()) || queue.has_quarantined(key))
    };
    let (mut unreachable, mut others): (Vec<_>, Vec<_>) = batch.into_iter().partition(is_unreachable);
    if !unreachable.is_empty() {
        quarantine(core, queue, &mut unreachable);
        others.append(&mut unreachable);
    }
    others
}

/// Quarantines writes that failed on a cluster, except those that all later writes must wait for.
fn quarantine(core: &Core, queue: &Queue, batch: &mut Vec<Write>) {
    if !core.link.is_cluster() {
        return;
    }
    let can_wait = |write: &mut Write| match write {
        Write::Put(put) => {
            // The log as it is known at its turn in the queue applies to the put from now on.
            let known = core.log.seen();
            let is_invalid = core.log.has_invalidated(&put.entry, put.seen, true);
            put.seen = if is_invalid { put.seen } else { known };
            true
        }
        Write::Remove { logged, .. } => logged.is_some(),
        Write::Release(_) | Write::Barrier(_) => false,
    };
    let mut writes: Vec<_> = batch.extract_if(.., can_wait).collect();
    let fault = Fault::Unreachable(QUARANTINED.to_owned());
    for write in &mut writes {
        write.fail(&fault);
    }
    queue.quarantine(writes);
}

/// Tries each write. Leaves those to retry in the batch and returns the fault of one of them.
async fn attempt(core: &Arc<Core>, queue: &Queue, batch: &mut Vec<Write>, turn: Turn) -> Option<Fault> {
    let writes: Vec<_> = batch.iter_mut().map(|write| perform(core, queue, write, turn)).collect();
    let results = join_all(writes).await;
    let done = batch.iter().zip(&results).filter(|(_, result)| result.is_ok());
    core.announce(done.filter_map(|(write, _)| write.put_key()), None, |keys| Event::Stored { keys }).await;
    let mut retried = None;
    let mut results = results.into_iter();
    batch.retain_mut(|write| {
        let Some(Err(fault)) = results.next() else { return false };
        let retry = write.fail(&fault);
        if retry {
            retried = Some(fault);
        } else if !matches!(write, Write::Barrier(_)) {
            tracing::error!(%fault, "a write was dropped");
        }
        retry
    });
    retried
}

async fn perform(core: &Arc<Core>, queue: &Queue, write: &mut Write, turn: Turn) -> Result<(), Fault> {
    match write {
        Write::Put(put) => {
            keep(core, put, turn).await?;
            put.done.iter_mut().for_each(|done| done.complete(Ok(())));
        }
        Write::Remove { selector, origin, logged, pending, done } => {
            let position = match *logged {
                Some(position) => position,
                None => *logged.insert(core.invalidate(selector, origin.clone()).await?),
            };
            // Entries that are written here from now on must not count as older. If the stream cannot be read, they do,
            // which costs these entries.
            if pending.is_some() && timeout(READ_BACK_TIMEOUT, core.log.reached(position)).await.is_ok() {
                *pending = None;
            }
            done.complete(Ok(remove(core, selector, position).await?));
        }
        Write::Release(reservation) => reservation.release(core).await?,
        Write::Barrier(_) if !queue.is_quarantine_empty() => {
            return Err(Fault::Unreachable(QUARANTINED.to_owned()));
        }
        Write::Barrier(done) => done.complete(Ok(())),
    }
    Ok(())
}

async fn keep(core: &Core, put: &Put, turn: Turn) -> Result<(), Fault> {
    let Put { entry, seen, .. } = put;
    // In order, the invalidations of this replica were queued before the entry, so the entry is newer than they are.
    let (is_invalid, seen) = match turn {
        Turn::First => (core.log.has_invalidated(entry, *seen, true), core.log.seen()),
        Turn::Retry => (core.log.has_invalidated(entry, *seen, false), *seen),
    };
    if is_invalid {
        return Ok(());
    }
    let others_wait = turn == Turn::First && core.link.is_cluster();
    let wait = if others_wait { CLUSTER_TIMEOUT } else { BACKGROUND_TIMEOUT };
    let kept = core.put(entry, seen, wait).await;
    core.link.record_reply(Partition::from(entry.key), kept.as_ref().err());
    kept
}

/// Removes matching entries whose writer had not seen the removal.
async fn remove(core: &Arc<Core>, selector: &Selector, position: Position) -> Result<Vec<CacheKey>, Fault> {
    let mut removed = Vec::new();
    for page in core.candidates(selector).await?.chunks(PAGE) {
        let mut found = core.matching(selector, page, false).await?;
        found.retain(|found| found.seen < position);
        core.remove_all(&found).await?;
        core.announce(found.iter().map(|found| found.entry.key), None, |keys| Event::Removed { keys }).await;
        removed.extend(found.iter().map(|found| found.entry.key));
    }
    Ok(removed)
}

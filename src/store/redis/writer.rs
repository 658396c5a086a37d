//! The tasks that do what waits in the queue.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use super::{
    core::{BACKGROUND_PATIENCE, CLUSTER_PATIENCE, Core, PAGE},
    event::Event,
    keys::Partition,
    link::Fault,
    log::Position,
    queue::{ASIDE, Put, Queue, Write},
};
use crate::{entry::Selector, key::CacheKey};

/// Puts sent at once.
const BATCH: usize = 128;

/// Pauses between two attempts while Redis answers but refuses: the first, doubling up to the last.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Longest wait for one's own invalidation to come back.
const READ_PATIENCE: Duration = Duration::from_millis(500);

/// Writes in their order, for ever.
pub async fn write_all(core: Arc<Core>, queue: Arc<Queue>) {
    loop {
        let batch = queue.take(BATCH).await;
        let mut batch = go_by(&core, &queue, batch);
        let (mut pause, last) = AGAIN;
        while let Some(fault) = attempt(&core, &queue, &mut batch, Turn::First).await {
            set_aside(&core, &queue, &mut batch);
            if batch.is_empty() {
                break;
            }
            let again = async {
                sleep(pause).await;
                core.link.up().await;
            };
            tokio::select! {
                () = again => {}
                () = put_off(&queue, &fault) => {}
            }
            pause = (pause * 2).min(last);
        }
    }
}

/// Tries what was set aside, for ever.
pub async fn write_aside(core: Arc<Core>, queue: Arc<Queue>) {
    let (first, last) = AGAIN;
    let mut pause = first;
    loop {
        let mut batch = queue.take_aside(BATCH).await;
        let tried = batch.len();
        attempt(&core, &queue, &mut batch, Turn::Aside).await;
        pause = if batch.len() < tried { first } else { (pause * 2).min(last) };
        let is_done = batch.is_empty();
        queue.tried(batch);
        if !is_done {
            sleep(pause).await;
            core.link.up().await;
        }
    }
}

/// Whose turn a write has.
#[derive(Clone, Copy, PartialEq)]
enum Turn {
    /// All before it are done or aside.
    First,
    /// It was set aside.
    Aside,
}

/// For as long as Redis is away: whoever comes need not wait for it.
async fn put_off(queue: &Queue, fault: &Fault) {
    loop {
        queue.put_off(fault).await;
    }
}

/// Sets those aside whose part of the cluster is known not to answer, and returns the others.
fn go_by(core: &Core, queue: &Queue, batch: Vec<Write>) -> Vec<Write> {
    let is_aside = |write: &Write| {
        write.put_key().is_some_and(|key| core.link.is_suspect(key.into()) || queue.has_aside(key))
    };
    let (mut aside, others): (Vec<_>, Vec<_>) = batch.into_iter().partition(is_aside);
    if !aside.is_empty() {
        set_aside(core, queue, &mut aside);
    }
    others.into_iter().chain(aside).collect()
}

/// Sets those aside that failed on a cluster, but for what all others have to wait for.
fn set_aside(core: &Core, queue: &Queue, batch: &mut Vec<Write>) {
    if !core.link.is_cluster() {
        return;
    }
    let can_wait = |write: &mut Write| match write {
        Write::Put(put) => {
            // From here on it is judged by how far the log was known when its turn came.
            let known = core.log.seen();
            let is_dead = core.log.voided(&put.entry, put.seen, true);
            put.seen = if is_dead { put.seen } else { known };
            true
        }
        Write::Remove { begun, .. } => begun.is_some(),
        Write::Leave(_) | Write::Barrier(_) => false,
    };
    let mut aside: Vec<_> = batch.extract_if(.., can_wait).collect();
    let fault = Fault::Away(ASIDE.to_owned());
    for write in &mut aside {
        write.put_off(&fault);
    }
    queue.set_aside(aside);
}

/// Tries each write, and leaves those that may succeed later, with the fault of one of them.
async fn attempt(core: &Core, queue: &Queue, batch: &mut Vec<Write>, turn: Turn) -> Option<Fault> {
    let writes: Vec<_> = batch.iter_mut().map(|write| one(core, queue, write, turn)).collect();
    let results = join_all(writes).await;
    let done = batch.iter().zip(&results).filter(|(_, result)| result.is_ok());
    core.announce(done.filter_map(|(write, _)| write.put_key()), None, |keys| Event::Stored { keys }).await;
    let mut later = None;
    let mut results = results.into_iter();
    batch.retain_mut(|write| {
        let Some(Err(fault)) = results.next() else { return false };
        let again = write.put_off(&fault);
        if again {
            later = Some(fault);
        } else if !matches!(write, Write::Barrier(_)) {
            tracing::error!(%fault, "a write was dropped");
        }
        again
    });
    later
}

async fn one(core: &Core, queue: &Queue, write: &mut Write, turn: Turn) -> Result<(), Fault> {
    match write {
        Write::Put(put) => {
            keep(core, put, turn).await?;
            if let Some(done) = &mut put.done {
                done.tell(Ok(()));
            }
        }
        Write::Remove { selector, origin, begun, pending, done } => {
            let position = match *begun {
                Some(position) => position,
                None => *begun.insert(core.invalidate(selector, origin.clone()).await?),
            };
            // What is kept here from now on must not count as older. The stream is read at once; a fault of its
            // reader costs those entries, no more.
            if pending.is_some() && timeout(READ_PATIENCE, core.log.reached(position)).await.is_ok() {
                *pending = None;
            }
            done.tell(Ok(remove(core, selector, position).await?));
        }
        Write::Leave(place) => place.leave(core).await?,
        Write::Barrier(_) if !queue.is_whole() => return Err(Fault::Away(ASIDE.to_owned())),
        Write::Barrier(done) => done.tell(Ok(())),
    }
    Ok(())
}

async fn keep(core: &Core, put: &Put, turn: Turn) -> Result<(), Fault> {
    let Put { entry, seen, .. } = put;
    // What this replica invalidated before its turn came before in the queue, so the entry is newer.
    let (is_dead, seen) = match turn {
        Turn::First => (core.log.voided(entry, *seen, true), core.log.seen()),
        Turn::Aside => (core.log.voided(entry, *seen, false), *seen),
    };
    if is_dead {
        return Ok(());
    }
    let in_a_hurry = turn == Turn::First && core.link.is_cluster();
    let wait = if in_a_hurry { CLUSTER_PATIENCE } else { BACKGROUND_PATIENCE };
    let kept = core.put(entry, seen, wait).await;
    core.link.judge(Partition::from(entry.key), kept.as_ref().err());
    kept
}

/// Removes what matches and was not written after the place of the removal in the log.
async fn remove(core: &Core, selector: &Selector, position: Position) -> Result<Vec<CacheKey>, Fault> {
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

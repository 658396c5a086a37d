//! The task that does what waits in the queue.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use redis::cmd;
use tokio::time::{sleep, timeout};

use super::{
    core::{BACKGROUND_PATIENCE, Core, PAGE},
    event::{Event, Origin},
    link::Fault,
    queue::{Put, Queue, Write},
};
use crate::{cache::entry::Selector, key::CacheKey};

/// Puts sent at once.
const BATCH: usize = 128;

/// Pauses between two attempts while Redis answers but refuses: the first, doubling up to the last.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Longest wait for one's own invalidation to come back.
const READ_PATIENCE: Duration = Duration::from_millis(500);

/// Writes for ever.
pub async fn write_all(core: Arc<Core>, queue: Arc<Queue>) {
    loop {
        let mut batch = queue.take(BATCH).await;
        let (mut pause, last) = AGAIN;
        while let Some(fault) = attempt(&core, &mut batch).await {
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

/// For as long as Redis is away: whoever comes need not wait for it.
async fn put_off(queue: &Queue, fault: &Fault) {
    loop {
        queue.put_off(fault).await;
    }
}

/// Tries each write, and leaves those that may succeed later, with the fault of one of them.
async fn attempt(core: &Core, batch: &mut Vec<Write>) -> Option<Fault> {
    let writes: Vec<_> = batch.iter_mut().map(|write| one(core, write)).collect();
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
        } else {
            tracing::error!(%fault, "a write was dropped");
        }
        again
    });
    later
}

async fn one(core: &Core, write: &mut Write) -> Result<(), Fault> {
    match write {
        Write::Put(Put { entry, seen, done }) => {
            // What this replica invalidated meanwhile came before in the queue, so the entry is newer.
            if !core.log.voided_by_others(entry, *seen) {
                core.put(entry, core.log.seen()).await?;
            }
            if let Some(done) = done {
                done.tell(Ok(()));
            }
        }
        Write::Note { name, note } => {
            let command = cmd("SET").arg(core.keys.note(name)).arg(&*note).clone();
            core.link.call_within::<()>(BACKGROUND_PATIENCE, &command).await?;
        }
        Write::Remove { selector, origin, done, .. } => {
            done.tell(Ok(remove(core, selector, origin.clone()).await?))
        }
        Write::Leave(place) => place.leave(core).await?,
        Write::Barrier(done) => done.tell(Ok(())),
    }
    Ok(())
}

async fn remove(core: &Core, selector: &Selector, origin: Option<Origin>) -> Result<Vec<CacheKey>, Fault> {
    // First, so that what others write from here on without knowing of it is dead.
    let position = core.invalidate(selector, origin).await?;
    let mut removed = Vec::new();
    for page in core.candidates(selector).await?.chunks(PAGE) {
        let found = core.matching(selector, page, false).await?;
        core.remove_all(&found).await?;
        core.announce(found.iter().map(|found| found.entry.key), None, |keys| Event::Removed { keys }).await;
        removed.extend(found.iter().map(|found| found.entry.key));
    }
    // What is kept here from now on must not count as older. The stream is read at once; a fault of its
    // reader costs those entries, no more.
    let _ = timeout(READ_PATIENCE, core.log.reached(position)).await;
    Ok(removed)
}

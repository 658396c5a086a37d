//! One purchase per fleet: who is about to buy an answer says so in Redis, for as long as it shows signs of
//! life. It frees the place only after its answer was written, so that whoever takes it next finds that.

use std::{sync::Arc, time::Duration};

use redis::{Cmd, cmd};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    core::{BACKGROUND_PATIENCE, Core},
    link::{Fault, Script},
    queue::{Queue, Write},
};
use crate::{
    entry::EntryId,
    key::CacheKey,
    store::{Claim, Lease},
};

/// Signs of life within the time that a place stays without one.
const SIGNS: u32 = 3;

/// Keeps or frees a place that is still one's own. KEYS: the place. ARGV: one's own mark, milliseconds or 0.
const HOLD: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then return redis.call('DEL', KEYS[1]) end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])";

/// A place that was taken.
pub struct Place {
    name: String,
    mark: String,
    script: Script,
}

/// Takes the place of `key` if it is free, for `time`; and looks for the entry, which whoever had the place
/// before may have kept: one round trip for both.
pub async fn claim(
    core: &Arc<Core>,
    queue: &Arc<Queue>,
    key: CacheKey,
    time: Duration,
) -> Result<Claim, Fault> {
    let id = EntryId::from(key);
    let place = Place::new(core.keys.place(id), core);
    let take = place.taking(time);
    let (taken, found) = tokio::join!(core.link.call::<Option<String>>(id.into(), &take), core.get(id));
    let kept = found?.map(|found| found.entry).filter(|entry| entry.key == key);
    let lease = taken?.map(|_| {
        let held = CancellationToken::new();
        tokio::spawn(hold(Arc::clone(core), Arc::clone(queue), place, time, held.clone()));
        Lease::held(held.drop_guard())
    });
    Ok(Claim { lease, kept })
}

/// Shows signs of life until `done`, then leaves the place behind what was written before.
async fn hold(core: Arc<Core>, queue: Arc<Queue>, place: Place, time: Duration, done: CancellationToken) {
    let living = async {
        loop {
            sleep(time / SIGNS).await;
            if let Err(fault) = place.hold(&core, time).await {
                tracing::debug!(%fault, "a purchase could not be kept reserved");
            }
        }
    };
    done.run_until_cancelled(living).await;
    queue.push_always(Write::Leave(place));
}

// === impl Place ===

impl Place {
    /// A place by its key, with a mark of one's own.
    pub fn new(name: String, core: &Core) -> Self {
        Self { name, mark: format!("{}:{:x}", core.replica, fastrand::u64(..)), script: Script::new(HOLD) }
    }

    /// Takes it if it is free; whether it was.
    pub async fn take(&self, core: &Core, time: Duration) -> Result<bool, Fault> {
        let taken: Option<String> = core.link.call_within(BACKGROUND_PATIENCE, &self.taking(time)).await?;
        Ok(taken.is_some())
    }

    /// Keeps it for `time` from now on; whether it was still one's own.
    pub async fn hold(&self, core: &Core, time: Duration) -> Result<bool, Fault> {
        let time = millis(time).to_string();
        let keys = [self.name.clone()];
        let arguments = [self.mark.as_bytes(), time.as_bytes()];
        let held: u64 = core.link.run(BACKGROUND_PATIENCE, &self.script, &keys, &arguments).await?;
        Ok(held > 0)
    }

    /// Frees it, if it is still one's own.
    pub async fn leave(&self, core: &Core) -> Result<(), Fault> {
        self.hold(core, Duration::ZERO).await.map(drop)
    }

    fn taking(&self, time: Duration) -> Cmd {
        cmd("SET").arg(&self.name).arg(&self.mark).arg("NX").arg("PX").arg(millis(time)).clone()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

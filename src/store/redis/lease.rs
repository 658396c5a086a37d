//! Leases: one replica per fleet answers a prompt with a model. The leaseholder reserves a key in Redis, renews the
//! reservation while it works, and releases it only after its answer was written, so that the next holder finds the
//! answer.

use std::{sync::Arc, time::Duration};

use redis::{Cmd, cmd};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    core::{BACKGROUND_TIMEOUT, Core},
    link::{Fault, Script},
    queue::{Queue, Write},
};
use crate::{
    entry::EntryId,
    key::CacheKey,
    store::{Claim, Lease},
};

/// Renewals within the time for which a reservation is valid.
const RENEWALS: u32 = 3;

/// Renews or deletes a reservation that is still held. KEYS: its key. ARGV: the holder's token, milliseconds or 0.
const HOLD: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then return redis.call('DEL', KEYS[1]) end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])";

/// A key in Redis that one process holds for a limited time.
pub struct Reservation {
    key: String,
    /// Distinguishes the holder from others.
    token: String,
    script: Script,
}

/// Reserves `key` for `time` if it is free, and reads the entry that an earlier leaseholder may have stored. Costs one
/// round trip.
pub async fn claim(
    core: &Arc<Core>,
    queue: &Arc<Queue>,
    key: CacheKey,
    time: Duration,
) -> Result<Claim, Fault> {
    let id = EntryId::from(key);
    let reservation = Reservation::new(core.keys.lease(id), core);
    let acquire = reservation.acquire_command(time);
    let (acquired, found) = tokio::join!(core.link.call::<Option<String>>(id.into(), &acquire), core.get(id));
    let kept = found?.map(|found| found.entry).filter(|entry| entry.key == key);
    let lease = acquired?.map(|_| {
        let held = CancellationToken::new();
        tokio::spawn(hold(Arc::clone(core), Arc::clone(queue), reservation, time, held.clone()));
        Lease::held(held.drop_guard())
    });
    Ok(Claim { lease, kept })
}

/// Renews until `done`, then queues the release behind the writes of the leaseholder.
async fn hold(
    core: Arc<Core>,
    queue: Arc<Queue>,
    reservation: Reservation,
    time: Duration,
    done: CancellationToken,
) {
    let renewing = async {
        loop {
            sleep(time / RENEWALS).await;
            if let Err(fault) = reservation.renew(&core, time).await {
                tracing::debug!(%fault, "a lease could not be renewed");
            }
        }
    };
    done.run_until_cancelled(renewing).await;
    queue.push_always(Write::Release(reservation));
}

impl Reservation {
    pub fn new(key: String, core: &Core) -> Self {
        Self { key, token: format!("{}:{:x}", core.replica, fastrand::u64(..)), script: Script::new(HOLD) }
    }

    /// Reserves the key if it is free; returns whether it was.
    pub async fn acquire(&self, core: &Core, time: Duration) -> Result<bool, Fault> {
        let acquired: Option<String> =
            core.link.call_within(BACKGROUND_TIMEOUT, &self.acquire_command(time)).await?;
        Ok(acquired.is_some())
    }

    /// Extends the reservation to `time` from now; returns whether it was still held.
    pub async fn renew(&self, core: &Core, time: Duration) -> Result<bool, Fault> {
        let time = time.as_millis().to_string();
        let keys = [self.key.clone()];
        let arguments = [self.token.as_bytes(), time.as_bytes()];
        let held: u64 = core.link.run(BACKGROUND_TIMEOUT, &self.script, &keys, &arguments).await?;
        Ok(held > 0)
    }

    /// Frees the key if it is still held.
    pub async fn release(&self, core: &Core) -> Result<(), Fault> {
        self.renew(core, Duration::ZERO).await.map(drop)
    }

    fn acquire_command(&self, time: Duration) -> Cmd {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        cmd("SET").arg(&self.key).arg(&self.token).arg("NX").arg("PX").arg(millis).clone()
    }
}

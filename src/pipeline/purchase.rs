//! One purchase per fleet: replicas that share a store let one of them buy.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{Asked, Pipeline};
use crate::{entry::Entry, store::Lease};

/// Pauses between two looks for what another replica is buying: the first, doubling up to the last.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));

/// Whether to buy.
pub(super) enum Reserved {
    /// Nobody else buys while the lease lives.
    Buy(Lease),
    /// Another replica has kept the answer.
    Kept(Arc<Entry>),
}

// === impl Pipeline ===

impl Pipeline {
    /// Reserves the purchase, or waits, within the caller's deadline, for the replica that has: for its
    /// answer, or until it has failed or died. A store that cannot be asked reserves nothing and delays
    /// nobody.
    pub(super) async fn reserve(&self, asked: &Asked) -> Reserved {
        if asked.cache.no_cache || asked.cache.no_store {
            return Reserved::Buy(Lease::default());
        }
        let (mut pause, last) = LOOK_AGAIN;
        loop {
            let claim = self.cache.claim(asked.key).await;
            if let Some(entry) = claim.kept.filter(|entry| self.serves(asked, entry)) {
                return Reserved::Kept(entry);
            }
            if let Some(lease) = claim.lease {
                return Reserved::Buy(lease);
            }
            let next = Instant::now() + pause;
            if next >= asked.deadline {
                // The purchase will say that time is up.
                return Reserved::Buy(Lease::default());
            }
            sleep_until(next).await;
            pause = (pause * 2).min(last);
        }
    }
}

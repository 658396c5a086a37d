//! Replication lag: how long ago this replica had read every event of a region.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A reader without lag catches up at least this often, so anything shorter counts as no lag.
const STEP: Duration = Duration::from_secs(1);

/// The streams of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Invalidations,
    Changes,
}

/// Time at which this replica last caught up, by region and part.
#[derive(Default)]
pub struct Lag(Mutex<BTreeMap<(String, Part), Instant>>);

impl Lag {
    pub fn record(&self, region: &str, part: Part, caught_up: Instant) {
        self.lock().insert((region.to_owned(), part), caught_up);
    }

    /// Starts the lag of a region that this replica has not read yet.
    pub fn begin(&self, region: &str) {
        let mut lag = self.lock();
        for part in [Part::Invalidations, Part::Changes] {
            lag.entry((region.to_owned(), part)).or_insert_with(Instant::now);
        }
    }

    /// Drops the lag of a region that another replica reads now.
    pub fn forget(&self, region: &str) {
        self.lock().retain(|(known, _), _| known != region);
    }

    /// Lag of the slower part of each region.
    pub fn all(&self) -> Vec<(String, Duration)> {
        let mut worst: BTreeMap<String, Duration> = BTreeMap::new();
        for ((region, _), caught_up) in &*self.lock() {
            let lag = Some(caught_up.elapsed()).filter(|lag| *lag >= STEP).unwrap_or_default();
            let known = worst.entry(region.clone()).or_default();
            *known = lag.max(*known);
        }
        worst.into_iter().collect()
    }

    /// A panic cannot interrupt a map operation.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, Part), Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

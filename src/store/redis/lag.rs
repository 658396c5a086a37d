//! How far this replica is behind what others tell.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A healthy reader hears of the end of its streams this often at least; less is no lag.
const STEP: Duration = Duration::from_secs(1);

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Invalidations,
    Changes,
}

/// By region and part, when everything that there was had been read.
#[derive(Default)]
pub struct Lag(Mutex<BTreeMap<(String, Part), Instant>>);

// === impl Lag ===

impl Lag {
    pub fn note(&self, region: &str, part: Part, caught_up: Instant) {
        let mut lag = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lag.insert((region.to_owned(), part), caught_up);
    }

    /// Another replica reads of this region now.
    pub fn forget(&self, region: &str) {
        let mut lag = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lag.retain(|(known, _), _| known != region);
    }

    /// By region, the time since both parts were read to their ends; zero while they are in step.
    pub fn all(&self) -> Vec<(String, Duration)> {
        let lag = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut worst: BTreeMap<&str, Duration> = BTreeMap::new();
        for ((region, _), caught_up) in &*lag {
            let behind = caught_up.elapsed();
            let behind = if behind < STEP { Duration::ZERO } else { behind };
            let known = worst.entry(region).or_default();
            *known = behind.max(*known);
        }
        worst.into_iter().map(|(region, behind)| (region.to_owned(), behind)).collect()
    }
}

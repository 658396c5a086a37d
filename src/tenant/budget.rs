//! Limit on spending per UTC day.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

const DAY_SECONDS: u64 = 24 * 60 * 60;

/// US dollars spent on one day.
#[derive(Default)]
struct Spending {
    /// Days since 1970-01-01, in UTC.
    day: u64,
    usd: f64,
}

/// A limit and today's spending. In memory only: a restart resets the spending.
pub(super) struct Budget {
    usd_per_day: Option<f64>,
    /// Shared with the budget that a reload replaces, so that calls in flight during the reload are counted. A std
    /// mutex, held for an addition and never across an await.
    spending: Arc<Mutex<Spending>>,
}

impl Budget {
    pub fn new(usd_per_day: Option<f64>) -> Self {
        Self { usd_per_day, spending: Arc::default() }
    }

    /// A new limit that shares this budget's spending.
    pub fn with_limit(&self, usd_per_day: Option<f64>) -> Self {
        Self { usd_per_day, spending: Arc::clone(&self.spending) }
    }

    /// The limit, if there is one.
    pub fn usd_per_day(&self) -> Option<f64> {
        self.usd_per_day
    }

    /// Fails with the time until the next day if today's budget is spent.
    pub fn check(&self, now: SystemTime) -> Result<(), Duration> {
        match self.usd_per_day {
            Some(limit) if self.spent_on_day_of(now) >= limit => Err(until_next_day(now)),
            _ => Ok(()),
        }
    }

    pub fn spend(&self, now: SystemTime, usd: f64) {
        let today = day(now);
        let mut spending = self.lock();
        if today > spending.day {
            *spending = Spending { day: today, usd: 0.0 };
        }
        spending.usd += usd;
    }

    /// Spending of the day of `now`. After a clock is set back a day, this still reports the later day's spending.
    pub fn spent_on_day_of(&self, now: SystemTime) -> f64 {
        let spending = self.lock();
        if day(now) > spending.day { 0.0 } else { spending.usd }
    }

    /// Ignores poisoning: no panic can happen between writing the two numbers.
    fn lock(&self) -> MutexGuard<'_, Spending> {
        self.spending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn since_epoch(now: SystemTime) -> Duration {
    now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn day(now: SystemTime) -> u64 {
    since_epoch(now).as_secs() / DAY_SECONDS
}

fn until_next_day(now: SystemTime) -> Duration {
    Duration::from_secs((day(now) + 1) * DAY_SECONDS).saturating_sub(since_epoch(now))
}

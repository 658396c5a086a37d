//! What verifications cost and take, and how many more are affordable.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::config::VerifyConfig;

/// Seconds that a verification is thought to take before any has been timed.
const FIRST_SECONDS: f64 = 0.5;

/// Weight of a new time in the mean.
const TIME_WEIGHT: f64 = 0.05;

const MINUTE: Duration = Duration::from_secs(60);

/// A std mutex: held for a few additions, never across an await.
#[derive(Clone, Default)]
pub(super) struct Spend(Arc<Mutex<Sums>>);

struct Sums {
    usd: f64,
    /// Mean of recent verifications.
    seconds: f64,
    /// Begin of the current minute, and the verifications in it.
    minute: Option<(Instant, usize)>,
}

impl Spend {
    /// Whether one more verification is within `max_per_minute` and `max_share_of_spend`, and counts it if so.
    /// `without_cache` is what the requests so far would have cost without a cache, in US dollars.
    pub(super) fn allows(&self, config: &VerifyConfig, without_cache: f64, now: Instant) -> bool {
        let mut sums = self.lock();
        if sums.usd > config.start_usd + config.max_share_of_spend * without_cache {
            return false;
        }
        let (since, count) =
            sums.minute.filter(|(since, _)| now.duration_since(*since) < MINUTE).unwrap_or((now, 0));
        let is_within = count < config.max_per_minute;
        sums.minute = Some((since, count + usize::from(is_within)));
        is_within
    }

    /// Adds the cost of a call and its time.
    pub(super) fn add(&self, usd: f64, time: Duration) {
        let mut sums = self.lock();
        sums.usd += usd;
        sums.seconds += TIME_WEIGHT * (time.as_secs_f64() - sums.seconds);
    }

    /// Expected seconds of a verification.
    pub(super) fn seconds(&self) -> f64 {
        self.lock().seconds
    }

    fn lock(&self) -> MutexGuard<'_, Sums> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Sums {
    fn default() -> Self {
        Self { usd: 0.0, seconds: FIRST_SECONDS, minute: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verifications_end_with_the_money_and_with_the_minute() {
        let config = VerifyConfig { max_per_minute: 2, ..VerifyConfig::default() };
        let (spend, now) = (Spend::default(), Instant::now());
        assert!(spend.allows(&config, 0.0, now));
        assert!(spend.allows(&config, 0.0, now));
        assert!(!spend.allows(&config, 0.0, now));
        assert!(spend.allows(&config, 0.0, now + MINUTE));
        spend.add(config.start_usd + 0.01, MINUTE);
        assert!(!spend.allows(&config, 0.0, now + MINUTE));
        assert!(spend.allows(&config, 1.0, now + MINUTE));
    }

    #[test]
    fn the_mean_time_follows_the_calls() {
        let spend = Spend::default();
        assert_eq!(spend.seconds(), FIRST_SECONDS);
        (0..200).for_each(|_| spend.add(0.0, Duration::from_millis(20)));
        assert!((spend.seconds() - 0.02).abs() < 0.001);
    }
}

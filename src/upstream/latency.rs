//! Latency of a model's first token, learned from its recent calls.

use std::{sync::Mutex, time::Duration};

/// Recent calls of one model. The mutex is held at most while a bounded number of samples is sorted.
#[derive(Debug, Default)]
pub(super) struct Latency(Mutex<Samples>);

#[derive(Debug, Default)]
struct Samples {
    /// Ring buffer; `next` is the oldest sample once it is full.
    recent: Vec<Duration>,
    next: usize,
    since_update: usize,
    slow: Option<Duration>,
}

/// Samples kept: enough for a 95th percentile, few enough to forget a bad quarter of an hour.
const SAMPLES: usize = 200;
/// Samples needed before a percentile is more than noise.
const SAMPLES_MIN: usize = 20;
/// Samples between two computations of the percentiles.
const UPDATE_EVERY: usize = 10;
/// Upper bound of "slow", as a multiple of the median. A model that stalls on more than 5 % of its calls has
/// a slow 95th percentile, which alone would never start a hedge when it is needed most.
const MEDIANS_MAX: u32 = 4;
/// Lower bound of "slow": below it scheduling noise dominates, and a hedge gains nothing worth its cost.
const SLOW_MIN: Duration = Duration::from_millis(50);

// === impl Latency ===

impl Latency {
    /// Records the time to a first token, or the time after which the call was given up.
    pub fn record(&self, took: Duration) {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).record(took);
    }

    /// Time after which a first token is late; `None` until enough calls were recorded.
    pub fn slow(&self) -> Option<Duration> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).slow
    }
}

// === impl Samples ===

impl Samples {
    fn record(&mut self, took: Duration) {
        if self.recent.len() < SAMPLES {
            self.recent.push(took);
        } else {
            self.recent[self.next] = took;
            self.next = (self.next + 1) % SAMPLES;
        }
        self.since_update += 1;
        if self.recent.len() >= SAMPLES_MIN && self.since_update >= UPDATE_EVERY {
            self.since_update = 0;
            self.slow = Some(self.compute_slow());
        }
    }

    fn compute_slow(&self) -> Duration {
        let mut sorted = self.recent.clone();
        sorted.sort_unstable();
        let p95 = sorted[(sorted.len() * 95).div_ceil(100) - 1];
        let median = sorted[sorted.len() / 2];
        p95.min(median * MEDIANS_MAX).max(SLOW_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn learned(samples: impl IntoIterator<Item = u64>) -> Option<Duration> {
        let latency = Latency::default();
        samples.into_iter().for_each(|n| latency.record(ms(n)));
        latency.slow()
    }

    #[test]
    fn nothing_is_learned_from_too_few_calls() {
        assert_eq!(learned([100; SAMPLES_MIN - 1]), None);
    }

    #[test]
    fn the_95th_percentile_is_learned() {
        assert_eq!(learned(101..=200), Some(ms(195)));
    }

    #[test]
    fn a_model_that_often_stalls_is_slow_at_a_multiple_of_its_median() {
        assert_eq!(learned((0..100).map(|n| if n % 5 == 0 { 9000 } else { 100 })), Some(ms(400)));
    }

    #[test]
    fn old_calls_are_forgotten() {
        let history = std::iter::repeat_n(5000, SAMPLES).chain(std::iter::repeat_n(100, SAMPLES));
        assert_eq!(learned(history), Some(ms(100)));
    }

    #[test]
    fn a_fast_model_is_not_hedged_for_scheduling_noise() {
        assert_eq!(learned([1; 50]), Some(SLOW_MIN));
    }
}

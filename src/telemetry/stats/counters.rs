//! Sums over requests, over the calls of one model, and over latencies.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;

use super::{CallPurpose, ModelStats, Observation, Percentiles, Verifications};
use crate::{
    model::{Attempt, AttemptReason, AttemptResult, Usage},
    outcome::{Approval, Outcome},
};

/// Longest latency that can be recorded, in microseconds; longer ones count as this one.
const LATENCY_MAX_US: u64 = 600_000_000;

/// Sums over requests.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// By [`Outcome`].
    pub requests: [u64; Outcome::ALL.len()],
    /// By the reason's label.
    pub misses: BTreeMap<&'static str, u64>,
    pub cost_usd: f64,
    pub saved_usd: f64,
    /// Cost of all answers at the hot tier's price.
    pub hot_tier_usd: f64,
    /// What the requests would have cost without a cache.
    pub without_cache_usd: f64,
    pub verifications: Verifications,
    /// Answers served past their TTL.
    pub stale: u64,
    /// By [`Outcome`].
    pub latency: [Latencies; Outcome::ALL.len()],
    /// By [`Outcome`].
    pub first_token: [Latencies; Outcome::ALL.len()],
    /// Time until an answer started: see [`Observation::wait`].
    pub wait: Latencies,
    /// Answers that started later than the objective.
    pub late: u64,
}

/// A distribution of latencies. It allocates with its first value: about 1.5 KB for one significant digit, 12 KB for
/// two. With no digits it records nothing.
#[derive(Clone, Debug)]
pub struct Latencies {
    digits: u8,
    /// In microseconds.
    histogram: Option<Box<Histogram<u32>>>,
}

impl Counters {
    /// Share of requests answered without a model call of their own; 0 when there were none.
    pub fn hit_ratio(&self) -> f64 {
        let answered = self.answered();
        if answered == 0 { 0.0 } else { self.count(Outcome::is_hit) as f64 / answered as f64 }
    }

    /// Requests that got an answer or a miss: the denominator of ratios.
    pub fn answered(&self) -> u64 {
        self.count(Outcome::counts_for_hit_ratio)
    }

    fn count(&self, wanted: fn(Outcome) -> bool) -> u64 {
        Outcome::ALL.iter().filter(|o| wanted(**o)).map(|o| self.requests[*o as usize]).sum()
    }

    /// Empty counters whose latencies have this many significant digits.
    pub(super) fn with_digits(digits: u8) -> Self {
        let one = || Latencies { digits, histogram: None };
        let latencies = || std::array::from_fn(|_| one());
        Self { latency: latencies(), first_token: latencies(), wait: one(), ..Self::default() }
    }

    pub(super) fn request(&mut self, seen: &Observation<'_>, objective: Duration) {
        let outcome = seen.outcome as usize;
        self.requests[outcome] += 1;
        self.saved_usd += seen.saved_usd;
        self.hot_tier_usd += seen.hot_tier_usd;
        self.without_cache_usd += seen.gross_usd;
        if seen.approval == Some(Approval::Verified) {
            self.verifications.hit(seen.gross_usd);
        }
        self.stale += u64::from(seen.is_stale);
        self.latency[outcome].record(seen.elapsed);
        if let Some(first_token) = seen.first_token {
            self.first_token[outcome].record(first_token);
        }
        if let Some(reason) = seen.reason {
            *self.misses.entry(reason.as_str()).or_default() += 1;
        }
        if seen.outcome.counts_for_hit_ratio() {
            self.wait.record(seen.wait());
            self.late += u64::from(seen.wait() > objective);
        }
    }

    /// Adds the cost of an upstream call.
    pub(super) fn attempt(&mut self, attempt: &Attempt, purpose: CallPurpose) {
        let usd = attempt.usage.cost_usd;
        self.cost_usd += usd;
        if attempt.reason == AttemptReason::Verify {
            self.verifications.cost_usd += usd;
        }
        if purpose == CallPurpose::Answer {
            self.without_cache_usd += usd;
        }
    }

    /// The sum of both.
    pub fn plus(mut self, other: &Self) -> Self {
        for outcome in Outcome::ALL.map(|o| o as usize) {
            self.requests[outcome] += other.requests[outcome];
            self.latency[outcome].add(&other.latency[outcome]);
            self.first_token[outcome].add(&other.first_token[outcome]);
        }
        for (reason, n) in &other.misses {
            *self.misses.entry(reason).or_default() += n;
        }
        self.cost_usd += other.cost_usd;
        self.saved_usd += other.saved_usd;
        self.hot_tier_usd += other.hot_tier_usd;
        self.without_cache_usd += other.without_cache_usd;
        self.verifications.add(&other.verifications);
        self.wait.add(&other.wait);
        self.late += other.late;
        self.stale += other.stale;
        self
    }
}

impl ModelStats {
    pub(super) fn attempt(&mut self, attempt: &Attempt) {
        let Usage { prompt_tokens, completion_tokens, cost_usd, .. } = attempt.usage;
        self.calls += u64::from(attempt.result.is_call());
        self.errors += u64::from(attempt.result.is_call() && attempt.result != AttemptResult::Ok);
        self.prompt_tokens = self.prompt_tokens.saturating_add(prompt_tokens);
        self.completion_tokens = self.completion_tokens.saturating_add(completion_tokens);
        self.cost_usd += cost_usd;
    }
}

impl Latencies {
    fn record(&mut self, elapsed: Duration) {
        if self.digits == 0 {
            return;
        }
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(LATENCY_MAX_US);
        self.histogram().saturating_record(micros.clamp(1, LATENCY_MAX_US));
    }

    fn add(&mut self, other: &Self) {
        if let Some(other) = &other.histogram {
            // All histograms have equal bounds, so it cannot fail.
            let _ = self.histogram().add(other.as_ref());
        }
    }

    /// The percentiles that reports show; all zero without values.
    pub fn percentiles(&self) -> Percentiles {
        let [p50_ms, p99_ms, p999_ms] = [0.5, 0.99, 0.999].map(|quantile| self.quantile_ms(quantile));
        let count = self.histogram.as_ref().map_or(0, |histogram| histogram.len());
        Percentiles { count, p50_ms, p99_ms, p999_ms }
    }

    fn quantile_ms(&self, quantile: f64) -> f64 {
        self.histogram.as_ref().map_or(0.0, |histogram| histogram.value_at_quantile(quantile) as f64 / 1000.0)
    }

    fn histogram(&mut self) -> &mut Histogram<u32> {
        let digits = self.digits;
        let empty =
            || Histogram::new_with_bounds(1, LATENCY_MAX_US, digits).expect("the bounds are valid constants");
        self.histogram.get_or_insert_with(|| Box::new(empty()))
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self { digits: 2, histogram: None }
    }
}

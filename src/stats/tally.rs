//! Sums: over some requests, over the calls of one model, and of latencies.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;

use super::Observation;
use crate::{
    model::{Attempt, AttemptResult, Usage},
    outcome::Outcome,
};

/// Longest latency told apart, in microseconds.
const LATENCY_MAX_US: u64 = 600_000_000;

/// Sums over some requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// By [`Outcome`].
    pub requests: [u64; Outcome::ALL.len()],
    /// By the reason's label.
    pub misses: BTreeMap<&'static str, u64>,
    pub cost_usd: f64,
    pub saved_usd: f64,
    /// What the same answers would have cost, had the hot tier written every one of them.
    pub hot_tier_usd: f64,
    /// Answers served past their TTL.
    pub stale: u64,
    /// Microseconds by [`Outcome`].
    pub latency: [Latencies; Outcome::ALL.len()],
    /// Microseconds by [`Outcome`].
    pub first_token: [Latencies; Outcome::ALL.len()],
    /// Until an answer began: see [`Observation::wait`].
    pub wait: Latencies,
    /// Answers that began later than the objective allows.
    pub late: u64,
}

/// Sums over the calls of one model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelTally {
    pub tier: String,
    pub calls: u64,
    pub errors: u64,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    pub cost_usd: f64,
}

/// A distribution of latencies; takes memory (1.5 KB a significant digit of 1, 12 KB of 2) with its
/// first value. Of no digits it holds none.
#[derive(Clone, Debug)]
pub struct Latencies {
    digits: u8,
    histogram: Option<Box<Histogram<u32>>>,
}

// === impl Tally ===

impl Tally {
    /// Share of requests answered without a model call of their own; 0 when there were none.
    pub fn hit_ratio(&self) -> f64 {
        share(self.counted(Outcome::is_hit), self.answered())
    }

    /// Requests that asked for an answer and got one, or a miss: what a hit ratio is a share of.
    pub fn answered(&self) -> u64 {
        self.counted(Outcome::counts_for_hit_ratio)
    }

    /// Share of answers that began later than the objective allows; 0 when there were none.
    pub fn late_share(&self) -> f64 {
        share(self.late, self.answered())
    }

    fn counted(&self, wanted: fn(Outcome) -> bool) -> u64 {
        Outcome::ALL.iter().filter(|o| wanted(**o)).map(|o| self.requests[*o as usize]).sum()
    }

    /// Whose latencies have so many significant digits.
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

    /// Both together.
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
        self.wait.add(&other.wait);
        self.late += other.late;
        self.stale += other.stale;
        self
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

// === impl ModelTally ===

impl ModelTally {
    pub(super) fn of_tier(tier: &str) -> Self {
        Self { tier: tier.to_owned(), ..Self::default() }
    }

    pub(super) fn attempt(&mut self, attempt: &Attempt) {
        let Usage { prompt_tokens, completion_tokens, cost_usd, .. } = attempt.usage;
        self.calls += 1;
        self.errors += u64::from(attempt.result != AttemptResult::Ok);
        self.prompt_tokens += prompt_tokens;
        self.completion_tokens += completion_tokens;
        self.cost_usd += cost_usd;
    }
}

// === impl Latencies ===

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
            // Equal ranges by construction, so it cannot fail.
            let _ = self.histogram().add(other.as_ref());
        }
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.histogram.as_ref().map_or(0, |histogram| histogram.len())
    }

    /// The `quantile` (0 to 1) in milliseconds; 0 when there is no value.
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
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

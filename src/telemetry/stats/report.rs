//! The server's numbers as `GetStats`, the dashboard and `promptkeep stats` report them.

use std::{collections::BTreeMap, time::Duration};

use serde::{Serialize, Serializer};

use super::{Counters, Latencies, VerificationStats, VerifierErrors};
use crate::{decide::learner::WrongHits, outcome::Outcome};

/// Numbers of the whole server, of one tenant or of one namespace.
#[derive(Clone, Debug, Serialize)]
pub struct Stats {
    #[serde(rename = "uptime_seconds", serialize_with = "seconds")]
    pub uptime: Duration,
    /// Time that the sums cover.
    #[serde(rename = "window_seconds", serialize_with = "seconds")]
    pub window: Duration,
    /// Time within which 99 % of answers should start.
    #[serde(rename = "slo_p99_seconds", serialize_with = "seconds")]
    pub objective: Duration,
    #[serde(flatten)]
    pub sums: Sums,
    /// By the reason's label.
    pub misses_by_reason: BTreeMap<String, u64>,
    /// Since the start.
    pub models: Vec<ModelStats>,
    /// Since the start, by verdict.
    pub feedback: BTreeMap<String, u64>,
    /// Failed store operations since the start.
    pub store_errors: u64,
    #[serde(flatten)]
    pub sizes: Sizes,
    /// Measured share of wrong semantic hits, over all time.
    pub wrong_hits: WrongHits,
    pub verifier_errors: VerifierErrors,
}

/// Sums over the requests of a window. The maps are keyed by the outcome's label.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sums {
    pub requests: BTreeMap<String, u64>,
    /// Share of requests answered without a model call of their own; 0 when there were none.
    pub hit_ratio: f64,
    pub cost_usd: f64,
    pub saved_usd: f64,
    /// Cost of all answers at the hot tier's price.
    pub hot_tier_usd: f64,
    pub latency: BTreeMap<String, Percentiles>,
    /// Only streamed answers.
    pub first_token: BTreeMap<String, Percentiles>,
    /// Time until an answer started.
    pub wait: Percentiles,
    /// Answers that started later than the objective.
    pub late_answers: u64,
    /// Answers served past their TTL.
    pub stale_served: u64,
    pub verification: VerificationStats,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Number of values.
    pub count: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
}

/// Sums over the calls of one model.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ModelStats {
    pub model: String,
    pub tier: String,
    pub calls: u64,
    pub errors: u64,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    pub cost_usd: f64,
}

/// Current sizes of the store and the index.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Sizes {
    pub entries: u64,
    pub index_vectors: u64,
}

impl Sums {
    /// Requests that got an answer or a miss: the denominator of ratios.
    pub fn answered(&self) -> u64 {
        let answered = Outcome::ALL.into_iter().filter(|outcome| outcome.counts_for_hit_ratio());
        answered.filter_map(|outcome| self.requests.get(outcome.as_str())).sum()
    }

    /// Share of answers that started later than the objective; 0 when there were none.
    pub fn late_share(&self) -> f64 {
        self.late_answers as f64 / self.answered().max(1) as f64
    }
}

impl From<&Counters> for Sums {
    fn from(counters: &Counters) -> Self {
        let requests = Outcome::ALL.into_iter().zip(counters.requests);
        Self {
            requests: requests.map(|(outcome, n)| (outcome.as_str().to_owned(), n)).collect(),
            hit_ratio: counters.hit_ratio(),
            cost_usd: counters.cost_usd,
            saved_usd: counters.saved_usd,
            hot_tier_usd: counters.hot_tier_usd,
            latency: by_outcome(&counters.latency),
            first_token: by_outcome(&counters.first_token),
            wait: counters.wait.percentiles(),
            late_answers: counters.late,
            stale_served: counters.stale,
            verification: counters.into(),
        }
    }
}

/// The percentiles of the outcomes that occurred.
fn by_outcome(latencies: &[Latencies]) -> BTreeMap<String, Percentiles> {
    let all = Outcome::ALL.into_iter().zip(latencies.iter().map(Latencies::percentiles));
    all.filter(|(_, at)| at.count > 0).map(|(outcome, at)| (outcome.as_str().to_owned(), at)).collect()
}

fn seconds<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(duration.as_secs_f64())
}

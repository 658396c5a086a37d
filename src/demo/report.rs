//! What a replay showed: how requests were answered, how fast, for how much, and, by the traffic's
//! ground truth, whether rightly. Serializes for machines and displays for people.

mod judge;
mod learned;
mod text;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{
    config::ModelConfig,
    demo::{
        record::{Record, Replayed},
        simulated_upstream,
        traffic::Traffic,
    },
    model::Tier,
    outcome::Outcome,
};

pub use judge::{Pair, SameWords, Verdicts};
pub use learned::{Block, Learned, block_starts};

/// Ten minutes: beyond every deadline of the demo.
const LATENCY_MAX_MICROS: u64 = 600_000_000;

/// Everything that one replay showed.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub requests: usize,
    /// Distinct namespaces among the requests.
    pub applications: usize,
    pub elapsed_seconds: f64,
    /// Share of requests answered without a model call of their own, 0 to 1.
    pub hit_ratio: f64,
    /// Only outcomes that occurred.
    pub outcomes: Vec<OutcomeLine>,
    /// Requests by why the cache did not answer, most frequent first.
    pub misses: Vec<Count>,
    /// Failed requests by gRPC code, most frequent first.
    pub failures: Vec<Count>,
    pub money: Money,
    /// `None` when nothing was asked that it could have learned from.
    pub learned: Option<Learned>,
    pub truth: Verdicts,
}

/// Requests of one outcome.
#[derive(Clone, Debug, Serialize)]
pub struct OutcomeLine {
    pub outcome: &'static str,
    pub requests: usize,
    /// Of all requests, 0 to 1.
    pub share: f64,
    /// Until the whole answer was there.
    pub latency: Percentiles,
    /// Of streamed answers; `None` when none was streamed.
    pub first_token: Option<Percentiles>,
}

/// Milliseconds, measured by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// A name and how often it occurred.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Count {
    pub name: String,
    pub count: usize,
}

/// US dollars, from simulated token counts at the catalog's prices.
#[derive(Clone, Debug, Serialize)]
pub struct Money {
    /// Paid for model calls.
    pub spent_usd: f64,
    /// By the server's account: what the hits would have cost.
    pub saved_usd: f64,
    /// What every request would have cost at the hot tier, without a cache.
    pub hot_only_usd: f64,
    /// The model of the hot tier.
    pub hot_model: String,
}

// === impl Report ===

impl Report {
    /// Judges a replay of `traffic`.
    pub fn new(traffic: &Traffic, replayed: &Replayed, elapsed: Duration) -> Self {
        let Replayed { records, measured } = replayed;
        let hits = records.iter().filter(|record| record.outcome.is_hit()).count();
        Self {
            requests: records.len(),
            applications: traffic.applications(),
            elapsed_seconds: elapsed.as_secs_f64(),
            hit_ratio: share(hits, records.len()),
            outcomes: outcome_lines(records),
            misses: counts(records, Record::is_miss),
            failures: counts(records, |record| record.outcome == Outcome::Error),
            money: Money::of(records),
            learned: Learned::of(traffic, records, measured),
            truth: Verdicts::of(traffic, records),
        }
    }
}

fn outcome_lines(records: &[Record]) -> Vec<OutcomeLine> {
    let line = |outcome: Outcome| {
        let of_kind: Vec<_> = records.iter().filter(|record| record.outcome == outcome).collect();
        let latency = Percentiles::of(of_kind.iter().map(|record| record.latency))?;
        Some(OutcomeLine {
            outcome: outcome.as_str(),
            requests: of_kind.len(),
            share: share(of_kind.len(), records.len()),
            latency,
            first_token: Percentiles::of(of_kind.iter().filter_map(|record| record.first_token)),
        })
    };
    Outcome::ALL.into_iter().filter_map(line).collect()
}

/// Counts the reasons of the records that `which` selects.
fn counts(records: &[Record], which: impl Fn(&Record) -> bool) -> Vec<Count> {
    let mut by_name = BTreeMap::<&str, usize>::new();
    for record in records.iter().filter(|record| which(record)) {
        *by_name.entry(&record.reason).or_default() += 1;
    }
    let mut counts: Vec<_> =
        by_name.into_iter().map(|(name, count)| Count { name: name.to_owned(), count }).collect();
    counts.sort_by_key(|count| std::cmp::Reverse(count.count));
    counts
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

// === impl Percentiles ===

impl Percentiles {
    /// `None` of nothing.
    fn of(times: impl Iterator<Item = Duration>) -> Option<Self> {
        let mut histogram =
            Histogram::<u64>::new_with_bounds(1, LATENCY_MAX_MICROS, 3).expect("valid bounds");
        for time in times {
            histogram.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        }
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        (!histogram.is_empty()).then(|| Self { p50_ms: at(0.5), p99_ms: at(0.99) })
    }
}

// === impl Money ===

impl Money {
    fn of(records: &[Record]) -> Self {
        let hot = hot_model();
        let at_hot = |record: &Record| {
            record.usage.prompt_tokens as f64 * hot.input_usd_per_mtok / 1e6
                + record.usage.completion_tokens as f64 * hot.output_usd_per_mtok / 1e6
        };
        Self {
            spent_usd: records.iter().filter(|r| r.is_miss()).map(|r| r.usage.cost_usd).sum(),
            saved_usd: records.iter().map(|r| r.saved_usd).sum(),
            hot_only_usd: records.iter().map(at_hot).sum(),
            hot_model: hot.id,
        }
    }
}

fn hot_model() -> ModelConfig {
    let models = simulated_upstream::models();
    models.into_iter().find(|model| model.tier == Tier::Hot).expect("the simulated catalog has a hot tier")
}

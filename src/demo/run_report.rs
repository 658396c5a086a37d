//! The report of `demo`: outcomes, latency, money, the learning curve, and the comparison with the ground truth.
//! Serializes for machines and displays for people.

mod text;
mod verifier;

#[cfg(test)]
mod tests;

pub use self::verifier::VerifierReport;

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{
    demo::{
        exchange::{Exchange, Run},
        grading::Grades,
        learning_curve::LearningCurve,
        simulated_upstream,
        traffic::Traffic,
    },
    model::Tier,
    offline::report::{by_frequency, count, share},
    outcome::Outcome,
};

/// Ten minutes: beyond every deadline of the demo.
const LATENCY_MAX_MICROS: u64 = 600_000_000;

/// What a run of the demo served, saved and got wrong.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub requests: usize,
    /// Distinct namespaces of the requests.
    pub applications: usize,
    pub elapsed_seconds: f64,
    /// Share of requests answered without a model call of their own, 0 to 1.
    pub hit_ratio: f64,
    /// Only outcomes that occurred.
    pub outcomes: Vec<OutcomeLine>,
    /// Requests by the reason why a model was called, most frequent first.
    pub misses: Vec<Count>,
    /// Failed requests by gRPC code, most frequent first.
    pub failures: Vec<Count>,
    pub money: Money,
    pub verifier: VerifierReport,
    /// `None` if the traffic has nothing to learn from.
    pub learned: Option<LearningCurve>,
    pub truth: Grades,
}

/// Requests of one outcome.
#[derive(Clone, Debug, Serialize)]
pub struct OutcomeLine {
    pub outcome: &'static str,
    pub requests: usize,
    /// Share of all requests, 0 to 1.
    pub share: f64,
    /// Time to the end of the answer.
    pub latency: Percentiles,
    /// Of streamed answers; `None` if none was streamed.
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
    /// Price of the model calls that answered requests.
    pub spent_usd: f64,
    /// Price of the verifications.
    pub verifications_usd: f64,
    /// Price of the calls that hits avoided, computed by the server.
    pub saved_usd: f64,
    /// Price of every request at the hot tier, without a cache.
    pub hot_only_usd: f64,
    /// The model of the hot tier.
    pub hot_model: String,
}

impl Report {
    pub(super) fn new(traffic: &Traffic, run: &Run, elapsed: Duration) -> Self {
        let exchanges = &run.exchanges;
        let hits = exchanges.iter().filter(|exchange| exchange.outcome.is_hit()).count();
        Self {
            requests: exchanges.len(),
            applications: traffic.applications(),
            elapsed_seconds: elapsed.as_secs_f64(),
            hit_ratio: share(hits, exchanges.len()),
            outcomes: Outcome::ALL.iter().filter_map(|&of| OutcomeLine::new(of, exchanges)).collect(),
            misses: reasons(exchanges, Exchange::called_model),
            failures: reasons(exchanges, |exchange| exchange.outcome == Outcome::Error),
            money: Money::new(exchanges, run.verifications.cost_usd),
            verifier: VerifierReport::new(traffic, run),
            learned: LearningCurve::new(traffic, run),
            truth: Grades::new(traffic, exchanges),
        }
    }
}

/// Counts the reasons of the exchanges that `which` selects.
fn reasons(exchanges: &[Exchange], which: impl Fn(&Exchange) -> bool) -> Vec<Count> {
    let reasons = exchanges.iter().filter(|exchange| which(exchange)).map(|exchange| &exchange.reason);
    let counts = by_frequency(count(reasons)).into_iter();
    counts.map(|(name, count)| Count { name: name.clone(), count }).collect()
}

impl OutcomeLine {
    /// Returns `None` if no exchange had the outcome.
    fn new(outcome: Outcome, exchanges: &[Exchange]) -> Option<Self> {
        let of_kind: Vec<_> = exchanges.iter().filter(|exchange| exchange.outcome == outcome).collect();
        Some(Self {
            outcome: outcome.as_str(),
            requests: of_kind.len(),
            share: share(of_kind.len(), exchanges.len()),
            latency: Percentiles::new(of_kind.iter().map(|exchange| exchange.latency))?,
            first_token: Percentiles::new(of_kind.iter().filter_map(|exchange| exchange.first_token)),
        })
    }
}

impl Percentiles {
    /// Returns `None` without times.
    fn new(times: impl Iterator<Item = Duration>) -> Option<Self> {
        let mut histogram =
            Histogram::<u64>::new_with_bounds(1, LATENCY_MAX_MICROS, 3).expect("valid bounds");
        for time in times {
            histogram.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        }
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        (!histogram.is_empty()).then(|| Self { p50_ms: at(0.5), p99_ms: at(0.99) })
    }
}

impl Money {
    fn new(exchanges: &[Exchange], verifications_usd: f64) -> Self {
        let mut models = simulated_upstream::models().into_iter();
        let hot = models.find(|model| model.tier == Tier::Hot).expect("the simulated catalog has a hot tier");
        let at_hot = |exchange: &Exchange| {
            exchange.usage.prompt_tokens as f64 * hot.input_usd_per_mtok / 1e6
                + exchange.usage.completion_tokens as f64 * hot.output_usd_per_mtok / 1e6
        };
        let called = exchanges.iter().filter(|exchange| exchange.called_model());
        Self {
            spent_usd: called.map(|exchange| exchange.usage.cost_usd).sum(),
            verifications_usd,
            saved_usd: exchanges.iter().map(|exchange| exchange.saved_usd).sum(),
            hot_only_usd: exchanges.iter().map(at_hot).sum(),
            hot_model: hot.id,
        }
    }
}

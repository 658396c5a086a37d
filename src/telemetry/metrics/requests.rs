//! Metrics of requests: outcomes, times, savings, feedback.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

use super::{
    Metrics, Rpc, Shed,
    register::{Dollars, FloatGauge, family, seconds_by, single},
};
use crate::{
    decide::reuse::NoReuse,
    outcome::{MissReason, Outcome, Verdict},
    telemetry::stats::Observation,
};

/// One metric by [`Outcome`].
type ByOutcome<M> = [M; Outcome::ALL.len()];

/// The arrays are indexed by [`Rpc`] and [`Outcome`], so that a request needs no label lookup.
pub(super) struct Requests {
    requests: [ByOutcome<Counter>; Rpc::ALL.len()],
    request_seconds: [ByOutcome<Histogram>; Rpc::ALL.len()],
    first_token_seconds: ByOutcome<Histogram>,
    saved_usd: ByOutcome<Dollars>,
    hot_tier_usd: Dollars,
    late_answers: Counter,
    slo_seconds: FloatGauge,
    semantic_misses: Family<ReasonLabel, Counter>,
    bound_prompts: Family<ReasonLabel, Counter>,
    shed: Family<ReasonLabel, Counter>,
    refreshes: Family<ResultLabel, Counter>,
    feedback: Family<FeedbackLabels, Counter>,
    embedding_inputs: Family<OutcomeLabel, Counter>,
    embedding_saved_usd: Dollars,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    rpc: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FeedbackLabels {
    verdict: &'static str,
    outcome: &'static str,
    model: String,
    tier: String,
}

impl Requests {
    pub fn register(to: &mut Registry) -> Self {
        let requests = family(to, "requests", "Requests by call and outcome");
        let request_seconds = seconds_by(to, "request_seconds", "Time to the complete answer");
        let first_token_seconds =
            seconds_by(to, "first_token_seconds", "Time to the first token of a streamed answer");
        let saved_usd = family(to, "saved_usd", "US dollars saved by hits, by outcome");
        let label = |outcome: Outcome| OutcomeLabel { outcome: outcome.as_str() };
        let labels =
            |rpc: Rpc, outcome: Outcome| RequestLabels { rpc: rpc.as_str(), outcome: outcome.as_str() };
        let shed: Family<ReasonLabel, Counter> = family(to, "shed", "Requests shed at a limit, by limit");
        // A counter that appears with its first event hides that event from every rate.
        for limit in Shed::ALL {
            drop(shed.get_or_create(&ReasonLabel { reason: limit.as_str() }));
        }
        Self {
            requests: Rpc::ALL.map(|rpc| Outcome::ALL.map(|o| requests.get_or_create_owned(&labels(rpc, o)))),
            request_seconds: Rpc::ALL
                .map(|rpc| Outcome::ALL.map(|o| request_seconds.get_or_create_owned(&labels(rpc, o)))),
            first_token_seconds: Outcome::ALL.map(|o| first_token_seconds.get_or_create_owned(&label(o))),
            saved_usd: Outcome::ALL.map(|o| saved_usd.get_or_create_owned(&label(o))),
            hot_tier_usd: single(
                to,
                "hot_tier_usd",
                "Cost of all answers at the hot tier's price, in US dollars",
            ),
            late_answers: single(to, "late_answers", "Answers that started later than slo_seconds"),
            slo_seconds: single(to, "slo_seconds", "Time within which 99 % of answers should start"),
            semantic_misses: family(to, "semantic_misses", "Requests without a semantic hit, by reason"),
            bound_prompts: family(to, "bound_prompts", "Personal or time-dependent prompts, by reason"),
            shed,
            refreshes: family(to, "refreshes", "Revalidations of answers served past their TTL"),
            feedback: family(to, "feedback", "Feedback on served answers"),
            embedding_inputs: family(to, "embedding_inputs", "Inputs of requests for embeddings, by outcome"),
            embedding_saved_usd: single(to, "embedding_saved_usd", "US dollars saved by kept embeddings"),
        }
    }

    pub fn set_objective(&self, slo: Duration) {
        self.slo_seconds.set(slo.as_secs_f64());
    }
}

impl Metrics {
    /// Counts a finished request.
    pub fn request(&self, rpc: Rpc, outcome: Outcome, elapsed: Duration) {
        self.requests.requests[rpc as usize][outcome as usize].inc();
        self.requests.request_seconds[rpc as usize][outcome as usize].observe(elapsed.as_secs_f64());
    }

    /// Records the time to the first token of a streamed answer.
    pub fn first_token(&self, outcome: Outcome, elapsed: Duration) {
        self.requests.first_token_seconds[outcome as usize].observe(elapsed.as_secs_f64());
    }

    /// Adds what a hit saved.
    pub fn saved(&self, outcome: Outcome, usd: f64) {
        self.requests.saved_usd[outcome as usize].inc_by(usd);
    }

    /// Adds the cost of an answer at the hot tier's price.
    pub fn at_hot_tier(&self, usd: f64) {
        self.requests.hot_tier_usd.inc_by(usd);
    }

    /// Counts an answer that started later than `objective`.
    pub fn late_answer(&self, seen: &Observation<'_>, objective: Duration) {
        if seen.outcome.counts_for_hit_ratio() && seen.wait() > objective {
            self.requests.late_answers.inc();
        }
    }

    /// Counts a request without a semantic hit.
    pub fn semantic_miss(&self, reason: MissReason) {
        self.requests.semantic_misses.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc();
    }

    /// Counts a personal or time-dependent prompt.
    pub fn not_reusable(&self, reason: NoReuse) {
        self.requests.bound_prompts.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc();
    }

    /// Counts the inputs of a request for embeddings, and what those saved that were kept.
    pub fn embedded(&self, kept: usize, new: usize, saved_usd: f64) {
        for (outcome, inputs) in [(Outcome::Exact, kept), (Outcome::Upstream, new)] {
            let label = OutcomeLabel { outcome: outcome.as_str() };
            self.requests.embedding_inputs.get_or_create(&label).inc_by(inputs as u64);
        }
        self.requests.embedding_saved_usd.inc_by(saved_usd);
    }

    /// Counts a request that was shed.
    pub fn shed(&self, limit: Shed) {
        self.requests.shed.get_or_create(&ReasonLabel { reason: limit.as_str() }).inc();
    }

    /// Counts the revalidation of an answer that was served past its TTL, when its upstream call has ended.
    pub fn refresh(&self, is_replaced: bool) {
        let result = if is_replaced { "ok" } else { "failed" };
        self.requests.refreshes.get_or_create(&ResultLabel { result }).inc();
    }

    /// Counts feedback on an answer. `model`: id and tier of the model that produced it, if the catalog has it.
    pub fn feedback(&self, verdict: Verdict, outcome: Option<Outcome>, model: Option<(&str, &str)>) {
        let outcome = outcome.map_or("unknown", Outcome::as_str);
        let (model, tier) = model.unwrap_or_default();
        let (model, tier) = (model.to_owned(), tier.to_owned());
        let labels = FeedbackLabels { verdict: verdict.as_str(), outcome, model, tier };
        self.requests.feedback.get_or_create(&labels).inc();
    }
}

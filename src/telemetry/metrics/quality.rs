//! Metrics of answer quality: labels, verifications, and the measured share of wrong semantic hits.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::{
    LabelLoss, LabelOrigin, LabelWay, Metrics,
    register::{Dollars, FloatGauge, family, seconds, single},
};
use crate::{
    decide::learner::{LabelCounts, WrongHits},
    model::VerifierReply,
    telemetry::stats::{Rate, VerifierErrors},
};

/// Evidence from which a label says something.
const EVIDENCE_MIN: f32 = 0.25;

pub(super) struct Quality {
    labels: Family<LearnedLabels, Counter>,
    labels_dropped: Family<LossLabel, Counter>,
    labels_shared: Family<WayLabel, Counter>,
    verifications: Family<VerificationLabel, Counter>,
    verification_seconds: Histogram,
    verification_cost_usd: Dollars,
    verified_hits: Counter,
    verified_saved_usd: Dollars,
    verifier_false_yes: Interval,
    verifier_false_no: Interval,
    false_hit_rate: FloatGauge,
    false_hit_rate_low: FloatGauge,
    false_hit_rate_high: FloatGauge,
    false_hit_checks: Gauge,
    false_hit_labels: Family<SourceLabel, Gauge>,
    max_wrong_hits: FloatGauge,
    fresh_scope_namespaces: Family<FieldLabel, Gauge>,
}

/// Gauges of an estimated rate and the ends of its interval.
struct Interval {
    rate: FloatGauge,
    low: FloatGauge,
    high: FloatGauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LearnedLabels {
    origin: &'static str,
    says: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FieldLabel {
    field: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LossLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabel {
    source: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WayLabel {
    way: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerificationLabel {
    verdict: &'static str,
}

impl Quality {
    pub fn register(to: &mut Registry) -> Self {
        let labels_dropped = family(
            to,
            "labels_dropped",
            "Pairs not learned from, because of overload or a tenant's quota of feedback",
        );
        for loss in LabelLoss::ALL {
            // Shows each series from the start.
            let _ = labels_dropped.get_or_create(&LossLabel { reason: loss.as_str() });
        }
        let verifications = family(
            to,
            "verifications",
            "Verifications by a model which kept answers fit a new question, by verdict",
        );
        for verdict in VerifierReply::LABELS {
            let _ = verifications.get_or_create(&VerificationLabel { verdict });
        }
        Self {
            labels: family(to, "labels", "Pairs of prompts whose answers were compared or verified"),
            labels_dropped,
            labels_shared: family(
                to,
                "labels_shared",
                "Labels published to other replicas or received from them",
            ),
            verifications,
            verification_seconds: seconds(to, "verification_seconds", "Time of a verification by a model"),
            verification_cost_usd: single(
                to,
                "verification_cost_usd",
                "US dollars spent on verifications by a model",
            ),
            verified_hits: single(to, "verified_hits", "Hits that a verifier approved"),
            verified_saved_usd: single(
                to,
                "verified_saved_usd",
                "US dollars saved by hits that a verifier approved, before the cost of verifications",
            ),
            verifier_false_yes: Interval::register(
                to,
                "verifier_false_yes",
                "Estimated share of wrong answers that the verifier approves",
            ),
            verifier_false_no: Interval::register(
                to,
                "verifier_false_no",
                "Estimated share of right answers that the verifier rejects",
            ),
            false_hit_rate: single(
                to,
                "false_hit_rate",
                "Estimated share of wrong answers among semantic hits",
            ),
            false_hit_rate_low: single(to, "false_hit_rate_low", "Lower end of its 95 % interval"),
            false_hit_rate_high: single(to, "false_hit_rate_high", "Upper end of its 95 % interval"),
            false_hit_checks: single(to, "false_hit_checks", "Semantic hits audited for the estimate"),
            false_hit_labels: family(
                to,
                "false_hit_labels",
                "Completed audits by what judged them: a comparison of answers, a verifier or feedback",
            ),
            max_wrong_hits: single(to, "max_wrong_hits", "Largest share that cache.max_wrong_hits allows"),
            fresh_scope_namespaces: family(
                to,
                "fresh_scope_namespaces",
                "Namespaces whose every conversation has a scope of its own, by the field that differs",
            ),
        }
    }

    pub fn set_verifier_errors(&self, errors: VerifierErrors) {
        self.verifier_false_yes.set(errors.false_yes);
        self.verifier_false_no.set(errors.false_no);
    }

    pub fn set_wrong_hits(&self, estimate: WrongHits, max_wrong_hits: f32) {
        self.false_hit_rate.set(estimate.rate.into());
        self.false_hit_rate_low.set(estimate.low.into());
        self.false_hit_rate_high.set(estimate.high.into());
        self.false_hit_checks.set(estimate.checks.cast_signed());
        let LabelCounts { comparison, verifier, feedback } = estimate.labels;
        for (source, count) in [("comparison", comparison), ("verifier", verifier), ("feedback", feedback)] {
            self.false_hit_labels.get_or_create(&SourceLabel { source }).set(count.cast_signed());
        }
        self.max_wrong_hits.set(max_wrong_hits.into());
    }
}

impl Interval {
    fn register(to: &mut Registry, name: &str, help: &str) -> Self {
        Self {
            rate: single(to, name, help),
            low: single(to, &format!("{name}_low"), "Lower end of its 90 % interval"),
            high: single(to, &format!("{name}_high"), "Upper end of its 90 % interval"),
        }
    }

    fn set(&self, Rate { rate, low, high }: Rate) {
        self.rate.set(rate.into());
        self.low.set(low.into());
        self.high.set(high.into());
    }
}

impl Metrics {
    /// Sets the number of namespaces without shared scopes, by the field that differs; called before each scrape.
    pub fn fresh_scopes(&self, fields: impl Iterator<Item = (&'static str, usize)>) {
        for (field, namespaces) in fields {
            let gauge = self.quality.fresh_scope_namespaces.get_or_create(&FieldLabel { field });
            gauge.set(namespaces.try_into().unwrap_or(i64::MAX));
        }
    }

    /// Counts a pair about which this evidence, a log-likelihood ratio, was found.
    pub fn label(&self, origin: LabelOrigin, evidence: f32) {
        let says = match evidence {
            e if e > EVIDENCE_MIN => "same",
            e if e < -EVIDENCE_MIN => "different",
            _ => "unsure",
        };
        self.quality.labels.get_or_create(&LearnedLabels { origin: origin.as_str(), says }).inc();
    }

    /// Counts pairs that were not learned from.
    pub fn labels_dropped(&self, loss: LabelLoss, pairs: usize) {
        self.quality.labels_dropped.get_or_create(&LossLabel { reason: loss.as_str() }).inc_by(pairs as u64);
    }

    /// Counts labels that replicas share.
    pub fn labels_shared(&self, way: LabelWay, labels: usize) {
        if labels > 0 {
            self.quality.labels_shared.get_or_create(&WayLabel { way: way.as_str() }).inc_by(labels as u64);
        }
    }

    /// Counts a verification by a model.
    pub fn verification(&self, reply: VerifierReply) {
        self.quality.verifications.get_or_create(&VerificationLabel { verdict: reply.as_str() }).inc();
    }

    /// Records the time of a verification whose model was called.
    pub fn verification_took(&self, time: Duration) {
        self.quality.verification_seconds.observe(time.as_secs_f64());
    }

    /// Adds the cost of a verification.
    pub fn verification_cost(&self, usd: f64) {
        self.quality.verification_cost_usd.inc_by(usd);
    }

    /// Counts a hit that a verifier approved, which saved `usd` before the cost of verifications.
    pub fn verified_hit(&self, usd: f64) {
        self.quality.verified_hits.inc();
        self.quality.verified_saved_usd.inc_by(usd);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A series that appears with its first event hides that event from every rate.
    #[test]
    fn verifications_are_exported_from_the_start() {
        let metrics = Metrics::new();
        let text = metrics.encode();
        for verdict in ["yes", "no", "nonsense", "unavailable", "timeout", "skipped"] {
            let line = format!("promptkeep_verifications_total{{verdict=\"{verdict}\"}} 0\n");
            assert!(text.contains(&line), "{verdict}");
        }
        metrics.verification(VerifierReply::TimedOut);
        metrics.verification_took(Duration::from_millis(800));
        metrics.verification_cost(0.25);
        metrics.verified_hit(0.5);
        let text = metrics.encode();
        for line in [
            "promptkeep_verifications_total{verdict=\"timeout\"} 1\n",
            "promptkeep_verification_seconds_sum 0.8\n",
            "promptkeep_verification_cost_usd_total 0.25\n",
            "promptkeep_verified_hits_total 1\n",
            "promptkeep_verified_saved_usd_total 0.5\n",
        ] {
            assert!(text.contains(line), "{line}");
        }
    }
}

//! The server's numbers as a proto message, and back for the command line.

use std::time::Duration;

use super::proto;
use crate::{
    decide::learner::{LabelCounts, WrongHits},
    telemetry::stats::{
        ModelStats, Percentiles, Rate, Sizes, Stats, Sums, VerificationStats, VerifierErrors,
    },
};

impl From<Stats> for proto::GetStatsResponse {
    fn from(stats: Stats) -> Self {
        let Stats { sums, sizes, wrong_hits, .. } = stats;
        Self {
            uptime: stats.uptime.try_into().ok(),
            window: stats.window.try_into().ok(),
            requests: sums.requests.into_iter().collect(),
            hit_ratio: sums.hit_ratio,
            misses_by_reason: stats.misses_by_reason.into_iter().collect(),
            cost_usd: sums.cost_usd,
            saved_usd: sums.saved_usd,
            latency: convert(sums.latency),
            first_token: convert(sums.first_token),
            models: stats.models.into_iter().map(proto::ModelStats::from).collect(),
            entries: sizes.entries,
            index_vectors: sizes.index_vectors,
            feedback: stats.feedback.into_iter().collect(),
            store_errors: stats.store_errors,
            hot_tier_usd: sums.hot_tier_usd,
            wait: Some(sums.wait.into()),
            slo_p99: stats.objective.try_into().ok(),
            late_answers: sums.late_answers,
            wrong_hits: Some(proto::WrongHits {
                rate: wrong_hits.rate.into(),
                low: wrong_hits.low.into(),
                high: wrong_hits.high.into(),
                checked: wrong_hits.checks,
                compared: wrong_hits.labels.comparison,
                verified: wrong_hits.labels.verifier,
                reported: wrong_hits.labels.feedback,
            }),
            stale_served: sums.stale_served,
            verification: Some(verification(sums.verification, stats.verifier_errors)),
        }
    }
}

impl From<proto::GetStatsResponse> for Stats {
    fn from(stats: proto::GetStatsResponse) -> Self {
        let wrong_hits = stats.wrong_hits.unwrap_or_default();
        let verification = stats.verification.unwrap_or_default();
        Self {
            uptime: duration(stats.uptime),
            window: duration(stats.window),
            objective: duration(stats.slo_p99),
            sums: Sums {
                requests: stats.requests.into_iter().collect(),
                hit_ratio: stats.hit_ratio,
                cost_usd: stats.cost_usd,
                saved_usd: stats.saved_usd,
                hot_tier_usd: stats.hot_tier_usd,
                latency: convert(stats.latency),
                first_token: convert(stats.first_token),
                wait: stats.wait.unwrap_or_default().into(),
                late_answers: stats.late_answers,
                stale_served: stats.stale_served,
                verification: VerificationStats::from(&verification),
            },
            misses_by_reason: stats.misses_by_reason.into_iter().collect(),
            models: stats.models.into_iter().map(ModelStats::from).collect(),
            feedback: stats.feedback.into_iter().collect(),
            store_errors: stats.store_errors,
            sizes: Sizes { entries: stats.entries, index_vectors: stats.index_vectors },
            wrong_hits: WrongHits {
                rate: wrong_hits.rate as f32,
                low: wrong_hits.low as f32,
                high: wrong_hits.high as f32,
                checks: wrong_hits.checked,
                labels: LabelCounts {
                    comparison: wrong_hits.compared,
                    verifier: wrong_hits.verified,
                    feedback: wrong_hits.reported,
                },
            },
            verifier_errors: VerifierErrors::from(&verification),
        }
    }
}

fn verification(sums: VerificationStats, errors: VerifierErrors) -> proto::VerificationStats {
    let VerifierErrors { false_yes, false_no, verdicts } = errors;
    proto::VerificationStats {
        asked: sums.asked,
        yes: sums.yes,
        no: sums.no,
        nonsense: sums.nonsense,
        unavailable: sums.unavailable,
        timeouts: sums.timeouts,
        skipped: sums.skipped,
        cost_usd: sums.cost_usd,
        share_of_spend: sums.share_of_spend,
        hits: sums.hits,
        saved_usd: sums.saved_usd,
        false_yes: false_yes.rate.into(),
        false_yes_low: false_yes.low.into(),
        false_yes_high: false_yes.high.into(),
        false_no: false_no.rate.into(),
        false_no_low: false_no.low.into(),
        false_no_high: false_no.high.into(),
        verdicts,
    }
}

impl From<&proto::VerificationStats> for VerificationStats {
    fn from(from: &proto::VerificationStats) -> Self {
        Self {
            asked: from.asked,
            yes: from.yes,
            no: from.no,
            nonsense: from.nonsense,
            unavailable: from.unavailable,
            timeouts: from.timeouts,
            skipped: from.skipped,
            cost_usd: from.cost_usd,
            share_of_spend: from.share_of_spend,
            hits: from.hits,
            saved_usd: from.saved_usd,
        }
    }
}

impl From<&proto::VerificationStats> for VerifierErrors {
    fn from(from: &proto::VerificationStats) -> Self {
        let rate =
            |rate: f64, low: f64, high: f64| Rate { rate: rate as f32, low: low as f32, high: high as f32 };
        Self {
            false_yes: rate(from.false_yes, from.false_yes_low, from.false_yes_high),
            false_no: rate(from.false_no, from.false_no_low, from.false_no_high),
            verdicts: from.verdicts,
        }
    }
}

fn duration(duration: Option<prost_types::Duration>) -> Duration {
    duration.and_then(|duration| duration.try_into().ok()).unwrap_or_default()
}

fn convert<A, B: From<A>, To: FromIterator<(String, B)>>(from: impl IntoIterator<Item = (String, A)>) -> To {
    from.into_iter().map(|(label, value)| (label, value.into())).collect()
}

/// Converts both ways between two structs with equal fields.
macro_rules! convert_fields {
    ($ours:ident { $($field:ident),* }) => {
        impl From<$ours> for proto::$ours {
            fn from($ours { $($field),* }: $ours) -> Self {
                Self { $($field),* }
            }
        }

        impl From<proto::$ours> for $ours {
            fn from(proto::$ours { $($field),* }: proto::$ours) -> Self {
                Self { $($field),* }
            }
        }
    };
}

convert_fields!(Percentiles { count, p50_ms, p99_ms, p999_ms });
convert_fields!(ModelStats { model, tier, calls, errors, prompt_tokens, completion_tokens, cost_usd });

//! The server's numbers as a proto message, and back for the command line.

use std::time::Duration;

use super::proto;
use crate::{
    decide::learner::{LabelCounts, WrongHits},
    telemetry::stats::{ModelStats, Percentiles, Sizes, Stats, Sums},
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
        }
    }
}

impl From<proto::GetStatsResponse> for Stats {
    fn from(stats: proto::GetStatsResponse) -> Self {
        let wrong_hits = stats.wrong_hits.unwrap_or_default();
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

//! `promptkeep stats`: the statistics of a running server, in the terminal.

use std::{
    collections::HashMap,
    fmt::{Display, Write as _},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use tonic::{Request, metadata::MetadataValue};

use crate::{
    grpc::proto::{
        GetStatsRequest, GetStatsResponse, ModelStats, Percentiles, WrongHits,
        prompt_cache_client::PromptCacheClient,
    },
    offline::report::{Percent, Table, share},
};

/// Pause between two prints of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// Clears the screen and moves to its top.
const CLEAR: &str = "\x1b[2J\x1b[H";

const OUTCOMES: Table = Table { label: 12, cells: &[10, 12, 12, 12, 14, 12] };

#[derive(Debug, Args)]
pub(super) struct Stats {
    /// gRPC address of the server
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:50051")]
    server: String,
    /// API key of a tenant, if the server has tenants
    #[arg(long, value_name = "KEY", env = "PROMPTKEEP_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Print again every two seconds
    #[arg(long)]
    watch: bool,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

impl Stats {
    pub async fn run(self) -> anyhow::Result<()> {
        let server = &self.server;
        let connect = PromptCacheClient::connect(super::url(server)).await;
        let mut client = connect.with_context(|| format!("no server answers at {server}"))?;
        loop {
            let reply = client.get_stats(request(self.api_key.as_deref())?).await;
            let stats = reply.map_err(|s| super::refusal(server, s.code(), s.message()))?.into_inner();
            if self.json {
                println!("{}", json(&stats));
            } else {
                println!("{}{}", if self.watch { CLEAR } else { "" }, text(&stats));
            }
            if !self.watch {
                return Ok(());
            }
            tokio::time::sleep(WATCH_EVERY).await;
        }
    }
}

fn request(key: Option<&str>) -> anyhow::Result<Request<GetStatsRequest>> {
    let mut request = Request::new(GetStatsRequest::default());
    if let Some(key) = key {
        let value: MetadataValue<_> =
            format!("Bearer {key}").parse().context("the API key has strange characters")?;
        request.metadata_mut().insert("authorization", value);
    }
    Ok(request)
}

fn text(stats: &GetStatsResponse) -> String {
    [head(stats), wrong_hits(stats), objective(stats), outcomes(stats), misses(stats), models(stats)].concat()
}

fn head(stats: &GetStatsResponse) -> String {
    let GetStatsResponse { hit_ratio, cost_usd, saved_usd, hot_tier_usd, .. } = stats;
    let uptime = seconds(stats.uptime);
    let requests: u64 = stats.requests.values().sum();
    let feedback = |verdict: &str| stats.feedback.get(verdict).copied().unwrap_or_default();
    format!(
        "up {uptime:.0} s   requests {requests}   hit ratio {}\n\
         spent ${cost_usd:.4}   saved ${saved_usd:.4}   hot tier for everything ${hot_tier_usd:.4}\n\
         entries {}   vectors {}   store errors {}\n\
         thumbs up {}   down {}   escalated {}   wrong hits reported {}\n",
        Percent(*hit_ratio),
        stats.entries,
        stats.index_vectors,
        stats.store_errors,
        feedback("up"),
        feedback("down"),
        feedback("escalated"),
        feedback("wrong_hit"),
    )
}

fn wrong_hits(stats: &GetStatsResponse) -> String {
    let WrongHits { rate, low, high, checked } = stats.wrong_hits.unwrap_or_default();
    if checked == 0 {
        return "wrong semantic hits: none checked yet\n".to_owned();
    }
    let (rate, low, high) = (Percent(rate), 100.0 * low, Percent(high));
    format!("wrong semantic hits {rate}   95 % interval {low:.1} to {high}   checked {checked}\n")
}

fn objective(stats: &GetStatsResponse) -> String {
    let Percentiles { p50_ms, p99_ms, p999_ms, count } = stats.wait.unwrap_or_default();
    // The objective allows one late answer in a hundred.
    let used = 100.0 * share(stats.late_answers as usize, count as usize);
    format!(
        "answers begin after p50 {p50_ms:.2}   p99 {p99_ms:.2}   p99.9 {p999_ms:.2} ms   objective p99 < {:.0} ms   \
         error budget used {}\n",
        seconds(stats.slo_p99) * 1e3,
        Percent(used),
    )
}

fn outcomes(stats: &GetStatsResponse) -> String {
    let millis = |ms: f64| format!("{ms:.2}");
    let columns: [&dyn Display; 6] =
        [&"requests", &"p50 ms", &"p99 ms", &"p99.9 ms", &"1st token p50", &"p99"];
    let mut out = format!("\n{}\n", OUTCOMES.line("outcome", &columns));
    for (outcome, n) in sorted(&stats.requests).into_iter().filter(|(_, n)| **n > 0) {
        let at = stats.latency.get(outcome).copied().unwrap_or_default();
        let [p50, p99, p999] = [at.p50_ms, at.p99_ms, at.p999_ms].map(millis);
        let first = stats.first_token.get(outcome).map(|at| [at.p50_ms, at.p99_ms].map(millis));
        let [first_p50, first_p99] = first.unwrap_or_default();
        let line = OUTCOMES.line(outcome, &[n, &p50, &p99, &p999, &first_p50, &first_p99]);
        let _ = writeln!(out, "{line}");
    }
    out
}

fn misses(stats: &GetStatsResponse) -> String {
    if stats.misses_by_reason.is_empty() {
        return String::new();
    }
    let mut out = "\nnot a semantic hit because of\n".to_owned();
    for (reason, n) in sorted(&stats.misses_by_reason) {
        let _ = writeln!(out, "{reason:<24}{n:>10}");
    }
    out
}

fn models(stats: &GetStatsResponse) -> String {
    let mut out = String::new();
    for ModelStats { model, tier, calls, errors, prompt_tokens, completion_tokens, cost_usd } in &stats.models
    {
        let _ = writeln!(
            out,
            "\n{model} ({tier}): {calls} calls, {errors} errors, {prompt_tokens} + {completion_tokens} tokens, \
             ${cost_usd:.4}"
        );
    }
    out
}

fn json(stats: &GetStatsResponse) -> serde_json::Value {
    let by_outcome = |all: &HashMap<String, Percentiles>| -> serde_json::Map<_, _> {
        all.iter().map(|(outcome, at)| (outcome.clone(), percentiles(at))).collect()
    };
    let WrongHits { rate, low, high, checked } = stats.wrong_hits.unwrap_or_default();
    let models: Vec<_> = stats.models.iter().map(model).collect();
    json!({
        "uptime_seconds": seconds(stats.uptime),
        "requests": stats.requests,
        "hit_ratio": stats.hit_ratio,
        "misses_by_reason": stats.misses_by_reason,
        "cost_usd": stats.cost_usd,
        "saved_usd": stats.saved_usd,
        "hot_tier_usd": stats.hot_tier_usd,
        "latency": by_outcome(&stats.latency),
        "first_token": by_outcome(&stats.first_token),
        "wait": percentiles(&stats.wait.unwrap_or_default()),
        "slo_p99_seconds": seconds(stats.slo_p99),
        "late_answers": stats.late_answers,
        "wrong_hits": { "rate": rate, "low": low, "high": high, "checked": checked },
        "models": models,
        "feedback": stats.feedback,
        "entries": stats.entries,
        "index_vectors": stats.index_vectors,
        "store_errors": stats.store_errors,
    })
}

fn percentiles(of: &Percentiles) -> serde_json::Value {
    let Percentiles { p50_ms, p99_ms, p999_ms, count } = of;
    json!({ "p50_ms": p50_ms, "p99_ms": p99_ms, "p999_ms": p999_ms, "count": count })
}

fn model(of: &ModelStats) -> serde_json::Value {
    let ModelStats { model, tier, calls, errors, prompt_tokens, completion_tokens, cost_usd } = of;
    json!({
        "model": model,
        "tier": tier,
        "calls": calls,
        "errors": errors,
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "cost_usd": cost_usd,
    })
}

fn seconds(duration: Option<prost_types::Duration>) -> f64 {
    let exact = duration.and_then(|duration| Duration::try_from(duration).ok());
    exact.unwrap_or_default().as_secs_f64()
}

/// Sorts by name, because protobuf maps have no order.
fn sorted(map: &HashMap<String, u64>) -> Vec<(&String, &u64)> {
    let mut pairs: Vec<_> = map.iter().collect();
    pairs.sort();
    pairs
}

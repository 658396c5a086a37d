//! `promptkeep stats`: the numbers of a running server in the terminal.

use std::{collections::HashMap, fmt::Write as _, process::ExitCode, time::Duration};

use anyhow::Context as _;
use serde_json::json;
use tonic::{Request, metadata::MetadataValue};

use crate::grpc::proto::{
    GetStatsRequest, GetStatsResponse, ModelStats, Percentiles, WrongHits,
    prompt_cache_client::PromptCacheClient,
};

/// Pause between two prints of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// Clears the screen and moves to its top.
const CLEAR: &str = "\x1b[2J\x1b[H";

pub(super) async fn run(
    server: &str,
    key: Option<String>,
    watch: bool,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let connect = PromptCacheClient::connect(super::url(server)).await;
    let mut client = connect.with_context(|| format!("no server answers at {server}"))?;
    loop {
        let reply = client.get_stats(request(key.as_deref())?).await;
        let stats = reply.map_err(|s| super::refusal(server, s.code(), s.message()))?.into_inner();
        let text = if as_json { json(&stats).to_string() } else { text(&stats) };
        if watch && !as_json {
            print!("{CLEAR}");
        }
        println!("{text}");
        if !watch {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(WATCH_EVERY).await;
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
        "up {uptime:.0} s   requests {requests}   hit ratio {:.1} %\n\
         spent ${cost_usd:.4}   saved ${saved_usd:.4}   hot tier for everything ${hot_tier_usd:.4}\n\
         entries {}   vectors {}   store errors {}\n\
         thumbs up {}   down {}   escalated {}   wrong hits reported {}\n",
        hit_ratio * 100.0,
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
    let [rate, low, high] = [rate, low, high].map(|share| share * 100.0);
    format!("wrong semantic hits {rate:.1} %   95 % interval {low:.1} to {high:.1} %   checked {checked}\n")
}

fn objective(stats: &GetStatsResponse) -> String {
    let Percentiles { p50_ms, p99_ms, p999_ms, count } = stats.wait.unwrap_or_default();
    // One answer of a hundred may be late.
    let used = if count == 0 { 0.0 } else { stats.late_answers as f64 / count as f64 / 0.01 };
    format!(
        "answers begin after p50 {p50_ms:.2}   p99 {p99_ms:.2}   p99.9 {p999_ms:.2} ms   objective p99 < {:.0} ms   \
         error budget used {:.1} %\n",
        seconds(stats.slo_p99) * 1e3,
        used * 100.0,
    )
}

fn outcomes(stats: &GetStatsResponse) -> String {
    let mut out = format!(
        "\n{:<12}{:>10}{:>12}{:>12}{:>12}{:>14}{:>12}\n",
        "outcome", "requests", "p50 ms", "p99 ms", "p99.9 ms", "1st token p50", "p99"
    );
    for (outcome, n) in sorted(&stats.requests).into_iter().filter(|(_, n)| **n > 0) {
        let at = stats.latency.get(outcome).copied().unwrap_or_default();
        let _ = write!(out, "{outcome:<12}{n:>10}{:>12.2}{:>12.2}{:>12.2}", at.p50_ms, at.p99_ms, at.p999_ms);
        if let Some(first) = stats.first_token.get(outcome) {
            let _ = write!(out, "{:>14.2}{:>12.2}", first.p50_ms, first.p99_ms);
        }
        out.push('\n');
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

/// Maps of the wire have no order of their own.
fn sorted(map: &HashMap<String, u64>) -> Vec<(&String, &u64)> {
    let mut pairs: Vec<_> = map.iter().collect();
    pairs.sort();
    pairs
}

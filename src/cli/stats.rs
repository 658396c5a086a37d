//! `promptkeep stats`: the numbers of a running server in the terminal.

use std::{fmt::Write as _, process::ExitCode, time::Duration};

use anyhow::Context as _;
use serde_json::json;
use tonic::{Request, metadata::MetadataValue};

use crate::grpc::proto::{GetStatsRequest, GetStatsResponse, prompt_cache_client::PromptCacheClient};

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
    let connect = PromptCacheClient::connect(server.to_owned()).await;
    let mut client = connect.with_context(|| format!("no server answers at {server}"))?;
    loop {
        let stats = client.get_stats(request(key.as_deref())?).await?.into_inner();
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
    let mut out = String::new();
    let uptime = stats.uptime.map_or(0, |uptime| uptime.seconds);
    let requests: u64 = stats.requests.values().sum();
    let _ = writeln!(out, "up {uptime} s   requests {requests}   hit ratio {:.1} %", stats.hit_ratio * 100.0);
    let _ = writeln!(out, "spent ${:.4}   saved ${:.4}", stats.cost_usd, stats.saved_usd);
    let _ = writeln!(
        out,
        "entries {}   vectors {}   store errors {}",
        stats.entries, stats.index_vectors, stats.store_errors
    );
    let _ = writeln!(
        out,
        "\n{:<12}{:>10}{:>12}{:>12}{:>12}",
        "outcome", "requests", "p50 ms", "p99 ms", "p99.9 ms"
    );
    for (outcome, n) in sorted(&stats.requests).into_iter().filter(|(_, n)| **n > 0) {
        let at = stats.latency.get(outcome).copied().unwrap_or_default();
        let _ =
            writeln!(out, "{outcome:<12}{n:>10}{:>12.2}{:>12.2}{:>12.2}", at.p50_ms, at.p99_ms, at.p999_ms);
    }
    if !stats.misses_by_reason.is_empty() {
        let _ = writeln!(out, "\nnot a semantic hit because of");
    }
    for (reason, n) in sorted(&stats.misses_by_reason) {
        let _ = writeln!(out, "{reason:<24}{n:>10}");
    }
    for model in &stats.models {
        let _ = writeln!(
            out,
            "\n{} ({}): {} calls, {} errors, {} + {} tokens, ${:.4}",
            model.model,
            model.tier,
            model.calls,
            model.errors,
            model.prompt_tokens,
            model.completion_tokens,
            model.cost_usd
        );
    }
    out
}

fn json(stats: &GetStatsResponse) -> serde_json::Value {
    let latency: serde_json::Map<_, _> = stats
        .latency
        .iter()
        .map(|(outcome, at)| {
            (
                outcome.clone(),
                json!({ "p50_ms": at.p50_ms, "p99_ms": at.p99_ms, "p999_ms": at.p999_ms, "count": at.count }),
            )
        })
        .collect();
    json!({
        "uptime_seconds": stats.uptime.map_or(0, |uptime| uptime.seconds),
        "requests": stats.requests,
        "hit_ratio": stats.hit_ratio,
        "misses_by_reason": stats.misses_by_reason,
        "cost_usd": stats.cost_usd,
        "saved_usd": stats.saved_usd,
        "latency": latency,
        "entries": stats.entries,
        "index_vectors": stats.index_vectors,
        "store_errors": stats.store_errors,
    })
}

/// Maps of the wire have no order of their own.
fn sorted(map: &std::collections::HashMap<String, u64>) -> Vec<(&String, &u64)> {
    let mut pairs: Vec<_> = map.iter().collect();
    pairs.sort();
    pairs
}

//! `promptkeep stats`: prints the numbers of a running server.

use std::{
    fmt::{Display, Write as _},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use tonic::{Request, metadata::MetadataValue};

use crate::{
    decide::learner::{LabelCounts, WrongHits},
    grpc::proto::{GetStatsRequest, prompt_cache_client::PromptCacheClient},
    offline::report::{Percent, Table},
    telemetry::stats::{ModelStats, Percentiles, Rate, Stats, VerificationStats, VerifierErrors},
};

/// Pause between two prints of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// Clears the screen and moves the cursor to its top.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Share of answers that the objective allows to be late.
const LATE_ALLOWED: f64 = 0.01;

const OUTCOMES: Table = Table { label: 12, cells: &[10, 12, 12, 12, 14, 12] };

#[derive(Debug, Args)]
pub(super) struct PrintStats {
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

impl PrintStats {
    pub async fn run(self) -> anyhow::Result<()> {
        let server = &self.server;
        let connect = PromptCacheClient::connect(super::url(server)).await;
        let mut client = connect.with_context(|| format!("no server answers at {server}"))?;
        loop {
            let reply = client.get_stats(request(self.api_key.as_deref())?).await;
            let reply = reply.map_err(|s| super::refusal(server, s.code(), s.message()))?;
            let stats = Stats::from(reply.into_inner());
            let text = if self.json { serde_json::to_string(&stats)? } else { text(&stats) };
            if self.watch && !self.json {
                print!("{CLEAR}");
            }
            println!("{text}");
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
            format!("Bearer {key}").parse().context("the API key has invalid characters")?;
        request.metadata_mut().insert("authorization", value);
    }
    Ok(request)
}

fn text(stats: &Stats) -> String {
    [
        head(stats),
        wrong_hits(stats),
        verification(stats),
        objective(stats),
        outcomes(stats),
        misses(stats),
        models(stats),
    ]
    .concat()
}

fn head(stats: &Stats) -> String {
    let Stats { sums, sizes, store_errors, .. } = stats;
    let requests: u64 = sums.requests.values().sum();
    let feedback = |verdict: &str| stats.feedback.get(verdict).copied().unwrap_or_default();
    format!(
        "up {:.0} s   requests {requests}   hit ratio {}\n\
         spent ${:.4}   saved ${:.4}   hot tier for everything ${:.4}\n\
         entries {}   vectors {}   store errors {store_errors}\n\
         thumbs up {}   down {}   escalated {}   wrong hits reported {}\n",
        stats.uptime.as_secs_f64(),
        Percent(sums.hit_ratio),
        sums.cost_usd,
        sums.saved_usd,
        sums.hot_tier_usd,
        sizes.entries,
        sizes.index_vectors,
        feedback("up"),
        feedback("down"),
        feedback("escalated"),
        feedback("wrong_hit"),
    )
}

fn wrong_hits(stats: &Stats) -> String {
    let WrongHits { rate, low, high, checks, labels } = stats.wrong_hits;
    if checks == 0 {
        return "wrong semantic hits: none checked yet\n".to_owned();
    }
    let [rate, low, high] = [rate, low, high].map(|share| share * 100.0);
    let LabelCounts { comparison, verifier, feedback } = labels;
    format!(
        "wrong semantic hits {rate:.1} %   95 % interval {low:.1} to {high:.1} %   checked {checks} (compared \
         {comparison}, verified {verifier}, reported {feedback})\n"
    )
}

fn verification(stats: &Stats) -> String {
    let VerificationStats { asked, yes, no, timeouts, skipped, .. } = stats.sums.verification;
    if asked + skipped == 0 {
        return "verifier: not asked yet\n".to_owned();
    }
    let VerificationStats { nonsense, unavailable, cost_usd, share_of_spend, hits, saved_usd, .. } =
        stats.sums.verification;
    format!(
        "verifier asked {asked}   yes {yes}   no {no}   late {timeouts}   unavailable {unavailable}   nonsense \
         {nonsense}   skipped {skipped}\n\
         verifier cost ${cost_usd:.4}   {} of the bill without a cache   its {hits} hits saved ${saved_usd:.4}\n{}",
        Percent(share_of_spend),
        verifier_errors(&stats.verifier_errors),
    )
}

fn verifier_errors(VerifierErrors { false_yes, false_no, verdicts }: &VerifierErrors) -> String {
    if *verdicts == 0 {
        return "verifier errors: not measured yet\n".to_owned();
    }
    let rate = |Rate { rate, low, high }: &Rate| {
        let [rate, low, high] = [rate, low, high].map(|share| share * 100.0);
        format!("{rate:.1} % ({low:.1} to {high:.1})")
    };
    format!(
        "verifier false yes {}   false no {}   90 % intervals, from {verdicts} verdicts\n",
        rate(false_yes),
        rate(false_no)
    )
}

fn objective(stats: &Stats) -> String {
    let Percentiles { p50_ms, p99_ms, p999_ms, .. } = stats.sums.wait;
    format!(
        "answers begin after p50 {p50_ms:.2}   p99 {p99_ms:.2}   p99.9 {p999_ms:.2} ms   objective p99 < {:.0} ms   \
         error budget used {}\n",
        stats.objective.as_secs_f64() * 1e3,
        Percent(stats.sums.late_share() / LATE_ALLOWED),
    )
}

fn outcomes(stats: &Stats) -> String {
    let millis = |ms: f64| format!("{ms:.2}");
    let columns: [&dyn Display; 6] =
        [&"requests", &"p50 ms", &"p99 ms", &"p99.9 ms", &"1st token p50", &"p99"];
    let mut out = format!("\n{}\n", OUTCOMES.line("outcome", &columns));
    for (outcome, n) in stats.sums.requests.iter().filter(|(_, n)| **n > 0) {
        let at = stats.sums.latency.get(outcome).copied().unwrap_or_default();
        let [p50, p99, p999] = [at.p50_ms, at.p99_ms, at.p999_ms].map(millis);
        let first = stats.sums.first_token.get(outcome).map(|at| [at.p50_ms, at.p99_ms].map(millis));
        let [first_p50, first_p99] = first.unwrap_or_default();
        let line = OUTCOMES.line(outcome, &[n, &p50, &p99, &p999, &first_p50, &first_p99]);
        let _ = writeln!(out, "{line}");
    }
    out
}

fn misses(stats: &Stats) -> String {
    if stats.misses_by_reason.is_empty() {
        return String::new();
    }
    let mut out = "\nnot a semantic hit because of\n".to_owned();
    for (reason, n) in &stats.misses_by_reason {
        let _ = writeln!(out, "{reason:<24}{n:>10}");
    }
    out
}

fn models(stats: &Stats) -> String {
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

//! Overhead of the upstream path, and the gain from hedging, both against stubs on the loopback in the same run. Run with
//! `cargo bench --bench upstream`.

#[path = "upstream/stub.rs"]
mod stub;

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use promptkeep::{
    config::{HedgeAfter, ModelConfig, ProviderConfig, RoutingConfig, UpstreamConfig},
    model::{AttemptReason, Tier},
    prompt::{Message, Prompt, Role},
    upstream::{UpstreamRequest, UpstreamSettings, Upstreams},
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};

use stub::Stub;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Measured calls of the overhead part, after as many for warm-up.
const CALLS: usize = 3000;
/// Calls of the hedging part.
const HEDGED_CALLS: usize = 4000;
/// Concurrent callers of the hedging part.
const CALLERS: usize = 8;
const TIMEOUT: Duration = Duration::from_secs(30);

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        overhead().await?;
        hedging().await
    })
}

/// Alternates direct calls and calls through promptkeep, so that other load affects both.
async fn overhead() -> Result<(), Failure> {
    let stub = Stub::start(stub::Pace::AT_ONCE).await?;
    let upstreams = upstreams(&[&stub], HedgeAfter::Never)?;
    let prompt = prompt();
    let client = reqwest::Client::new();
    let mut times = Histograms::default();
    let mut direct_times = Histograms::default();
    for call in 0..2 * CALLS {
        let direct = direct(&client, &stub.base_url(), &prompt).await?;
        let ours = through(&upstreams, &prompt).await?.0;
        if call >= CALLS {
            direct_times.record(direct)?;
            times.record(ours)?;
        }
    }
    println!("overhead, {CALLS} calls each, 20 tokens, microseconds        p50      p99");
    direct_times.print("direct");
    times.print("through promptkeep");
    let added = |ours: &Histogram<u64>, direct: &Histogram<u64>| {
        ours.value_at_quantile(0.5) as f64 - direct.value_at_quantile(0.5) as f64
    };
    println!(
        "added at p50: {:.0} us to the first token, {:.0} us to the end\n",
        added(&times.first_token, &direct_times.first_token),
        added(&times.whole, &direct_times.whole)
    );
    Ok(())
}

/// Calls two models that both stall on 5 % of their calls, without and with hedging.
async fn hedging() -> Result<(), Failure> {
    println!(
        "hedging, {HEDGED_CALLS} calls by {CALLERS} callers, 5 % stall for 1 s, milliseconds to the first token"
    );
    let mut p99s = Vec::new();
    for (name, setting) in [("off", HedgeAfter::Never), ("on", HedgeAfter::Learned)] {
        let stubs = [Stub::start(stub::Pace::STALLING).await?, Stub::start(stub::Pace::STALLING).await?];
        let upstreams = upstreams(&[&stubs[0], &stubs[1]], setting)?;
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let upstreams = upstreams.clone();
            callers.spawn(async move {
                let (prompt, mut calls) = (prompt(), Vec::new());
                for _ in 0..HEDGED_CALLS / CALLERS {
                    calls.push(through(&upstreams, &prompt).await?);
                }
                Ok::<_, Failure>(calls)
            });
        }
        let (mut times, mut extra) = (Histograms::default(), 0);
        while let Some(calls) = callers.join_next().await {
            for (one, hedges) in calls?? {
                times.record(one)?;
                extra += hedges;
            }
        }
        let ms = |quantile| times.first_token.value_at_quantile(quantile) as f64 / 1e3;
        let extra = 100.0 * extra as f64 / HEDGED_CALLS as f64;
        println!(
            "{name:4} p50 {:7.1}  p95 {:7.1}  p99 {:7.1}  extra calls {extra:.2} %",
            ms(0.5),
            ms(0.95),
            ms(0.99)
        );
        p99s.push(ms(0.99));
    }
    println!("p99 is {:.1} times lower with hedging", p99s[0] / p99s[1]);
    Ok(())
}

/// Times of one call, to the first token and to the end.
type Times = (Duration, Duration);

async fn through(upstreams: &Upstreams, prompt: &Prompt) -> Result<(Times, usize), Failure> {
    let started = Instant::now();
    let mut answer = upstreams.open(UpstreamRequest::new(prompt, started + TIMEOUT)).await?;
    let first_token = started.elapsed();
    while answer.next().await?.is_some() {}
    let whole = started.elapsed();
    let (_, attempts) = answer.finish();
    // Both attempts are reported, whichever of them wins.
    let hedges = attempts.iter().filter(|attempt| attempt.reason == AttemptReason::Hedge).count();
    Ok(((first_token, whole), hedges))
}

/// Calls the provider without promptkeep: sends the request, waits for the first text and reads to the end.
async fn direct(client: &reqwest::Client, base_url: &str, prompt: &Prompt) -> Result<Times, Failure> {
    let started = Instant::now();
    let body = serde_json::json!({
        "model": "model-0",
        "messages": [{ "role": "user", "content": prompt.messages[0].content }],
        "stream": true,
    });
    let mut response = client.post(format!("{base_url}/chat/completions")).json(&body).send().await?;
    let (mut first_token, mut seen) = (None, Vec::new());
    while let Some(bytes) = timeout_at(started + TIMEOUT, response.chunk()).await?? {
        seen.extend_from_slice(&bytes);
        if first_token.is_none() && seen.windows(9).any(|bytes| bytes == b"\"content\"") {
            first_token = Some(started.elapsed());
        }
        if seen.ends_with(b"data: [DONE]\n\n") {
            break;
        }
    }
    let whole = started.elapsed();
    while response.chunk().await?.is_some() {}
    Ok((first_token.ok_or("no text")?, whole))
}

struct Histograms {
    first_token: Histogram<u64>,
    whole: Histogram<u64>,
}

impl Default for Histograms {
    fn default() -> Self {
        let histogram = || Histogram::new(3).expect("three digits are allowed");
        Self { first_token: histogram(), whole: histogram() }
    }
}

impl Histograms {
    fn record(&mut self, (first_token, whole): Times) -> Result<(), Failure> {
        self.first_token.record(u64::try_from(first_token.as_micros())?)?;
        self.whole.record(u64::try_from(whole.as_micros())?)?;
        Ok(())
    }

    fn print(&self, name: &str) {
        for (part, histogram) in [("first token", &self.first_token), ("whole answer", &self.whole)] {
            let at = |quantile| histogram.value_at_quantile(quantile);
            println!("{name:20} {part:14} {:>28} {:>8}", at(0.5), at(0.99));
        }
    }
}

fn prompt() -> Prompt {
    let content = "How do I change the delivery address of my order?".to_owned();
    let message = Message::new(Role::User, content);
    Prompt {
        namespace: "default".to_owned(),
        model: "model-0".to_owned(),
        messages: vec![message],
        temperature: None,
        top_p: None,
        max_tokens: None,
        stop: Vec::new(),
        seed: None,
        response_format: None,
        tools: None,
        tool_choice: None,
        vary: BTreeMap::new(),
        extra: Default::default(),
        ignored: Default::default(),
    }
}

fn upstreams(stubs: &[&Stub], hedge_after: HedgeAfter) -> Result<Upstreams, Failure> {
    let provider = |(number, stub): (usize, &&Stub)| ProviderConfig {
        name: format!("provider-{number}"),
        base_url: stub.base_url(),
        region: "local".to_owned(),
        ..ProviderConfig::default()
    };
    let model = |number: usize| ModelConfig {
        id: format!("model-{number}"),
        provider: format!("provider-{number}"),
        served_as: None,
        tier: Tier::Cold,
        input_usd_per_mtok: 1.0,
        output_usd_per_mtok: 1.0,
        context_window: 100_000,
        ..ModelConfig::default()
    };
    let providers: Vec<_> = stubs.iter().enumerate().map(provider).collect();
    let models: Vec<_> = (0..stubs.len()).map(model).collect();
    Ok(Upstreams::new(UpstreamSettings {
        providers: &providers,
        models: &models,
        routing: &RoutingConfig::default(),
        upstream: &UpstreamConfig { hedge_after, ..UpstreamConfig::default() },
        region: "local",
        embedder: "",
    })?)
}

//! Everything that the page shows at one moment, as JSON.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use super::{
    super::Door,
    chart::{Chart, Range},
};
use crate::{
    decide::learner::WrongHits,
    feedback::RecentHit,
    key::Owner,
    model::{ModelState, ProviderState},
    outcome::Outcome,
    stats::{Latencies, ModelTally, Tally},
};

/// Lines of the table of hits.
const HITS_MAX: usize = 50;

/// Lines of the table of namespaces.
const NAMESPACES_MAX: usize = 10;

#[derive(Debug, Serialize)]
pub(super) struct Snapshot {
    /// Seconds since 1970.
    at: f64,
    version: &'static str,
    region: String,
    mode: &'static str,
    uptime_seconds: f64,
    slo_seconds: f64,
    /// Model whose prices `hot_tier_usd` goes by.
    hot_model: Option<String>,
    windows: Windows,
    chart: Chart,
    quality: Quality,
    models: Vec<Model>,
    store: Store,
    namespaces: Vec<Namespace>,
    shows_prompts: bool,
    hits: Vec<Hit>,
}

#[derive(Debug, Serialize)]
struct Windows {
    now: Window,
    quarter: Window,
    hour: Window,
    day: Window,
    total: Window,
}

/// Sums over a stretch of time.
#[derive(Debug, Serialize)]
struct Window {
    /// That the window covers: not more than the server is up.
    seconds: f64,
    requests: BTreeMap<&'static str, u64>,
    /// What the ratios are shares of.
    answered: u64,
    hit_ratio: f64,
    cost_usd: f64,
    saved_usd: f64,
    hot_tier_usd: f64,
    late: u64,
    late_share: f64,
    wait: Percentiles,
    latency: BTreeMap<&'static str, Percentiles>,
    first_token: BTreeMap<&'static str, Percentiles>,
    misses: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Serialize)]
struct Percentiles {
    count: u64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
}

/// What is known of how good the answers were, since the start.
#[derive(Debug, Serialize)]
struct Quality {
    /// The measured share of wrong answers among semantic hits; `None` while nothing measures it.
    false_hits: Option<Estimate>,
    /// The share that `cache.max_wrong_hits` allows.
    max_wrong_hits: f32,
    feedback: BTreeMap<&'static str, u64>,
}

/// With its 95 % interval.
#[derive(Debug, Serialize)]
struct Estimate {
    rate: f32,
    low: f32,
    high: f32,
    /// Hits that were checked.
    checked: u64,
}

#[derive(Debug, Default, Serialize)]
struct Model {
    model: String,
    tier: String,
    calls: u64,
    errors: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
    cost_usd: f64,
    /// The providers that offer it; empty when the catalog has it no more.
    offers: Vec<Offer>,
}

#[derive(Debug, Serialize)]
struct Offer {
    provider: String,
    region: String,
    breaker: &'static str,
    is_up: bool,
}

#[derive(Debug, Serialize)]
struct Store {
    entries: u64,
    vectors: u64,
    errors: u64,
    memory_bytes: u64,
    index_bytes: usize,
    /// Share of the entries that the index was built from: 1 once all were read.
    index_loaded: f64,
    /// By region, the seconds since everything that it told had been read: 0 while in step. Our own is
    /// among them, for its other replicas; empty when nobody shares the store.
    replication_lag: BTreeMap<String, f64>,
}

#[derive(Debug, Serialize)]
struct Namespace {
    name: String,
    answered: u64,
    hit_ratio: f64,
    cost_usd: f64,
    saved_usd: f64,
}

#[derive(Debug, Serialize)]
struct Hit {
    /// For the wrong-hit button.
    id: String,
    /// Seconds since 1970.
    at: f64,
    tenant: Option<String>,
    namespace: String,
    entry: String,
    similarity: f32,
    confidence: f32,
    saved_usd: f64,
    asked: Option<String>,
    matched: Option<String>,
    verdict: Option<&'static str>,
}

// === impl Snapshot ===

impl Snapshot {
    pub fn take(door: &Door, range: Range) -> Self {
        let (pipeline, ledger) = (&door.pipeline, door.pipeline.statistics.ledger());
        let settings = pipeline.settings();
        let stats = pipeline.statistics.of_server(None, None);
        let (memory_bytes, index_bytes) = door.cache.memory();
        let has_tenants = settings.tenants.have_keys();
        Self {
            at: unix_seconds(SystemTime::now()),
            version: env!("CARGO_PKG_VERSION"),
            region: door.dashboard.region.clone(),
            mode: settings.cache.mode.as_str(),
            uptime_seconds: stats.uptime.as_secs_f64(),
            slo_seconds: ledger.objective().as_secs_f64(),
            hot_model: door.upstreams.hot_model(),
            windows: Windows::of(door, Window::of(&stats.tally, stats.window)),
            chart: Chart::of(ledger, range),
            quality: Quality {
                false_hits: Estimate::of(stats.wrong_hits),
                max_wrong_hits: settings.cache.max_wrong_hits,
                feedback: stats.feedback,
            },
            models: models(door, stats.models),
            store: Store {
                entries: stats.sizes.entries,
                vectors: stats.sizes.index_vectors,
                errors: stats.store_errors,
                memory_bytes,
                index_bytes,
                index_loaded: door.cache.loaded_share(),
                replication_lag: seconds_by_region(door.cache.lags()),
            },
            namespaces: ledger.largest_namespaces(NAMESPACES_MAX).into_iter().map(Namespace::from).collect(),
            shows_prompts: settings.show_prompts,
            hits: hits(pipeline.feedback.recent_semantic(), has_tenants),
        }
    }
}

impl Windows {
    fn of(door: &Door, total: Window) -> Self {
        let last = |minutes: u64| {
            let stats = door.pipeline.statistics.of_server(Some(Duration::from_secs(minutes * 60)), None);
            Window::of(&stats.tally, stats.window)
        };
        Self { now: last(5), quarter: last(15), hour: last(60), day: last(24 * 60), total }
    }
}

impl Window {
    fn of(tally: &Tally, covered: Duration) -> Self {
        let by_outcome = |latencies: &[Latencies]| {
            let all = Outcome::ALL.into_iter().zip(latencies);
            let seen = all.filter(|(_, latencies)| latencies.count() > 0);
            seen.map(|(outcome, latencies)| (outcome.as_str(), latencies.into())).collect()
        };
        Self {
            seconds: covered.as_secs_f64(),
            requests: Outcome::ALL.into_iter().map(|o| (o.as_str(), tally.requests[o as usize])).collect(),
            answered: tally.answered(),
            hit_ratio: tally.hit_ratio(),
            cost_usd: tally.cost_usd,
            saved_usd: tally.saved_usd,
            hot_tier_usd: tally.hot_tier_usd,
            late: tally.late,
            late_share: tally.late_share(),
            wait: (&tally.wait).into(),
            latency: by_outcome(&tally.latency),
            first_token: by_outcome(&tally.first_token),
            misses: tally.misses.clone(),
        }
    }
}

impl From<&Latencies> for Percentiles {
    fn from(of: &Latencies) -> Self {
        let [p50_ms, p99_ms, p999_ms] = [0.5, 0.99, 0.999].map(|quantile| of.quantile_ms(quantile));
        Self { count: of.count(), p50_ms, p99_ms, p999_ms }
    }
}

impl Estimate {
    fn of(WrongHits { rate, low, high, checks }: WrongHits) -> Option<Self> {
        (checks > 0).then_some(Self { rate, low, high, checked: checks })
    }
}

impl From<(String, Tally)> for Namespace {
    fn from((name, tally): (String, Tally)) -> Self {
        Self {
            name,
            answered: tally.answered(),
            hit_ratio: tally.hit_ratio(),
            cost_usd: tally.cost_usd,
            saved_usd: tally.saved_usd,
        }
    }
}

/// The catalog's models in its order, then those that only the ledger remembers.
fn models(door: &Door, mut called: BTreeMap<String, ModelTally>) -> Vec<Model> {
    let (states, providers) = (door.upstreams.model_states(), door.upstreams.provider_states());
    let mut models: Vec<Model> = Vec::new();
    for line in door.upstreams.models() {
        if !models.iter().any(|have| have.model == line.id) {
            let tally = called.remove(&line.id).unwrap_or_default();
            let offers = offers(&line.id, &states, &providers);
            models.push(Model { tier: line.tier.as_str().to_owned(), offers, ..Model::new(line.id, tally) });
        }
    }
    models.extend(called.into_iter().map(|(id, tally)| Model::new(id, tally)));
    models
}

fn offers(model: &str, states: &[ModelState], providers: &[ProviderState]) -> Vec<Offer> {
    let of_model = states.iter().filter(|state| state.model == model);
    of_model
        .filter_map(|state| {
            let provider = providers.iter().find(|provider| provider.name == state.provider)?;
            Some(Offer {
                provider: provider.name.clone(),
                region: provider.region.clone(),
                breaker: state.breaker.as_str(),
                is_up: provider.is_up,
            })
        })
        .collect()
}

impl Model {
    fn new(model: String, tally: ModelTally) -> Self {
        let ModelTally { tier, calls, errors, prompt_tokens, completion_tokens, cost_usd } = tally;
        Self { model, tier, calls, errors, prompt_tokens, completion_tokens, cost_usd, offers: Vec::new() }
    }
}

fn hits(recent: Vec<RecentHit>, has_tenants: bool) -> Vec<Hit> {
    let hit = |hit: RecentHit| {
        let (asked, matched) = hit.texts.map(|texts| (texts.asked, texts.matched)).unzip();
        Hit {
            id: hit.id.to_string(),
            at: unix_seconds(hit.at),
            tenant: has_tenants.then(|| match hit.owner {
                Owner::Tenant(name) => name,
                Owner::Shared => "shared".to_owned(),
            }),
            namespace: hit.namespace,
            entry: hit.entry.to_string(),
            similarity: hit.similarity,
            confidence: hit.confidence,
            saved_usd: hit.saved_usd,
            asked,
            matched,
            verdict: hit.verdict.map(|verdict| verdict.as_str()),
        }
    };
    recent.into_iter().take(HITS_MAX).map(hit).collect()
}

fn seconds_by_region(lags: Vec<(String, Duration)>) -> BTreeMap<String, f64> {
    lags.into_iter().map(|(region, lag)| (region, lag.as_secs_f64())).collect()
}

fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

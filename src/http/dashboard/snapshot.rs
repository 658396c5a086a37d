//! The JSON snapshot behind everything that the dashboard shows.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use super::{
    super::Api,
    chart::{Chart, Range},
};
use crate::{
    decide::learner::WrongHits,
    key::Owner,
    model::{ModelState, ProviderState},
    pipeline::{Pipeline, RecentHit},
    telemetry::stats::{Counters, ModelStats, Stats, Sums, VerifierErrors},
};

/// Rows of the table of hits.
const HITS_MAX: usize = 50;

/// Rows of the table of namespaces.
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
    /// Model whose prices `hot_tier_usd` uses.
    hot_model: Option<String>,
    windows: Windows,
    chart: Chart,
    quality: Quality,
    models: Vec<Model>,
    store: Store,
    namespaces: Vec<Namespace>,
    fresh_scopes: Vec<FreshScope>,
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

#[derive(Debug, Serialize)]
struct Window {
    /// Time covered: at most the server's uptime.
    seconds: f64,
    /// The denominator of the ratios.
    answered: u64,
    late_share: f64,
    misses: BTreeMap<String, u64>,
    #[serde(flatten)]
    sums: Sums,
}

/// Quality of the answers since the start.
#[derive(Debug, Serialize)]
struct Quality {
    /// Measured share of wrong answers among semantic hits; `None` before the first audit.
    false_hits: Option<WrongHits>,
    /// Largest share that `cache.max_wrong_hits` allows.
    max_wrong_hits: f32,
    feedback: BTreeMap<String, u64>,
    verifier_errors: VerifierErrors,
}

#[derive(Debug, Serialize)]
struct Model {
    #[serde(flatten)]
    stats: ModelStats,
    /// The providers that offer it; empty when the catalog no longer has it.
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
    /// Fraction of the entries loaded into the index: 1 when all are.
    index_loaded: f64,
    /// By region, the seconds since this replica was in step with its events; 0 while it is. Includes our own region,
    /// for its other replicas; empty when no replicas share the store.
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

/// A namespace whose every conversation has a scope of its own.
#[derive(Debug, Serialize)]
struct FreshScope {
    namespace: String,
    /// The field that differs.
    field: String,
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

impl Snapshot {
    pub fn take(api: &Api, range: Range) -> Self {
        let (pipeline, ledger) = (&api.pipeline, api.pipeline.statistics.ledger());
        let settings = pipeline.settings();
        let stats = pipeline.statistics.of_server(None, None);
        let (memory_bytes, index_bytes) = api.cache.tiers.memory();
        let has_tenants = settings.tenants.have_keys();
        Self {
            at: unix_seconds(SystemTime::now()),
            version: env!("CARGO_PKG_VERSION"),
            region: api.dashboard.region.clone(),
            mode: settings.cache.mode.as_str(),
            uptime_seconds: stats.uptime.as_secs_f64(),
            slo_seconds: ledger.objective().as_secs_f64(),
            hot_model: api.upstreams.hot_model(),
            windows: Windows::of(pipeline, &stats),
            chart: Chart::of(ledger, range),
            quality: Quality {
                false_hits: Some(stats.wrong_hits).filter(|measured| measured.checks > 0),
                max_wrong_hits: settings.cache.max_wrong_hits,
                feedback: stats.feedback,
                verifier_errors: stats.verifier_errors,
            },
            models: models(api, stats.models),
            store: Store {
                entries: stats.sizes.entries,
                vectors: stats.sizes.index_vectors,
                errors: stats.store_errors,
                memory_bytes,
                index_bytes,
                index_loaded: api.cache.maintenance.loaded_share(),
                replication_lag: seconds_by_region(api.cache.maintenance.lags()),
            },
            namespaces: ledger.largest_namespaces(NAMESPACES_MAX).into_iter().map(Namespace::from).collect(),
            fresh_scopes: fresh_scopes(pipeline),
            shows_prompts: settings.show_prompts,
            hits: hits(pipeline.feedback.recent_semantic(), has_tenants),
        }
    }
}

impl Windows {
    fn of(pipeline: &Pipeline, total: &Stats) -> Self {
        let last = |minutes: u64| {
            Window::from(&pipeline.statistics.of_server(Some(Duration::from_secs(minutes * 60)), None))
        };
        Self { now: last(5), quarter: last(15), hour: last(60), day: last(24 * 60), total: total.into() }
    }
}

impl From<&Stats> for Window {
    fn from(stats: &Stats) -> Self {
        Self {
            seconds: stats.window.as_secs_f64(),
            answered: stats.sums.answered(),
            late_share: stats.sums.late_share(),
            misses: stats.misses_by_reason.clone(),
            sums: stats.sums.clone(),
        }
    }
}

impl From<(String, Counters)> for Namespace {
    fn from((name, counters): (String, Counters)) -> Self {
        Self {
            name,
            answered: counters.answered(),
            hit_ratio: counters.hit_ratio(),
            cost_usd: counters.cost_usd,
            saved_usd: counters.saved_usd,
        }
    }
}

fn fresh_scopes(pipeline: &Pipeline) -> Vec<FreshScope> {
    let fresh = pipeline.statistics.fresh_scopes().into_iter().take(NAMESPACES_MAX);
    fresh.map(|fresh| FreshScope { namespace: fresh.namespace, field: fresh.field.to_string() }).collect()
}

/// The catalog's models in its order, then models that only the ledger has.
fn models(api: &Api, mut called: Vec<ModelStats>) -> Vec<Model> {
    let (states, providers) = (api.upstreams.model_states(), api.upstreams.provider_states());
    let mut models: Vec<Model> = Vec::new();
    for line in api.upstreams.models() {
        if models.iter().any(|have| have.stats.model == line.id) {
            continue;
        }
        let at = called.iter().position(|stats| stats.model == line.id);
        let stats = at.map(|at| called.remove(at)).unwrap_or_default();
        let offers = offers(&line.id, &states, &providers);
        models.push(Model {
            stats: ModelStats { tier: line.tier.as_str().to_owned(), model: line.id, ..stats },
            offers,
        });
    }
    models.extend(called.into_iter().map(|stats| Model { stats, offers: Vec::new() }));
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

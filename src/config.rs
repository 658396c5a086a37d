//! The configuration, as the components take it: each gets its own section, none the whole.
//!
//! Reading goes in steps, each a file: `tree` turns TOML and environment variables into one tree that
//! remembers where every value was written, `load` reads the tree through `section` and `value` into
//! the structs below, `check` looks for names that lead nowhere. All of them collect problems and go on.

mod check;
mod defaults;
mod load;
mod problem;
mod reload;
mod report;
mod section;
mod tree;
mod value;

#[cfg(test)]
mod tests;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

pub use self::{
    load::process_env,
    problem::{ConfigErrors, Place, Problem},
    reload::changed_needs_restart,
    report::{Report, check_file},
};
use crate::{
    decide::{self, Policy, learner::Budget},
    model::Tier,
    prompt::CacheControl,
    tenant::ApiKeyHash,
};
pub use crate::{
    embed::{EmbeddingConfig, EmbeddingKind, Precision},
    index::{IndexConfig, IndexKind},
    prompt::Keep,
};

/// Everything `promptkeep.toml` can say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    pub server: ServerConfig,
    pub store: StoreConfig,
    pub embedding: EmbeddingConfig,
    pub cache: CacheConfig,
    pub routing: RoutingConfig,
    pub upstream: UpstreamConfig,
    pub dashboard: DashboardConfig,
    pub telemetry: TelemetryConfig,
    /// Empty: every caller is the tenant `default`, without a key.
    pub tenants: Vec<TenantConfig>,
    pub providers: Vec<ProviderConfig>,
    pub models: Vec<ModelConfig>,
}

/// `[server]`
#[derive(Clone, Debug, PartialEq)]
pub struct ServerConfig {
    pub grpc_listen: SocketAddr,
    pub http_listen: SocketAddr,
    /// Name of this deployment's region; providers of the same region are nearest.
    pub region: String,
    /// Largest request, in bytes.
    pub max_request: usize,
    /// Requests under way at once; more are shed.
    pub max_in_flight: usize,
    /// How long a shutdown waits for requests under way.
    pub shutdown_grace: Duration,
    /// Debugging only: prompts may appear in replies of `Explain` and logs.
    pub log_prompts: bool,
}

/// `[store]`
#[derive(Clone, Debug, PartialEq)]
pub struct StoreConfig {
    pub kind: StoreKind,
    /// Folder of the embedded store.
    pub path: PathBuf,
    /// Redis: one node, or several nodes of a cluster, as `redis://host:port` (`rediss://` for TLS).
    pub url: Vec<String>,
    /// Redis: environment variable that holds the password; empty: none is sent.
    pub password_env: String,
    /// Redis, with `rediss://`: file with the certificates (PEM) of the authorities that are trusted, also for
    /// peers; `None`: the system's.
    pub ca_file: Option<PathBuf>,
    /// Redis: what the name of every key begins with. Deployments with the same prefix share one cache.
    pub key_prefix: String,
    /// Redis: how long a purchase stays reserved for one replica without a sign of life from it; zero: each
    /// replica buys for itself.
    pub lease: Duration,
    /// Redis: other regions, whose answers and invalidations are taken over.
    pub peers: Vec<PeerConfig>,
    /// Writes queued before the store; more are dropped and counted.
    pub write_queue: usize,
    /// How long a request waits for a read of the store, or for a write that need not be durable; then it
    /// goes on as if the store had failed.
    pub timeout: Duration,
}

/// One `[[store.peers]]`: the Redis of another region, which is only read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerConfig {
    /// Its `server.region`.
    pub region: String,
    /// One node, or several of a cluster.
    pub url: Vec<String>,
    /// Environment variable that holds the password; empty: none is sent.
    pub password_env: String,
}

/// Which [`Store`](crate::store::Store) is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    Embedded,
    Redis,
    Memory,
}

/// `[cache]`
#[derive(Clone, Debug, PartialEq)]
pub struct CacheConfig {
    pub mode: Mode,
    /// Lowest cosine similarity of a semantic hit in mode `static`.
    pub min_similarity: f32,
    /// Modes `bounded` and `shadow`: wrong answers as a share of all requests.
    pub max_error_rate: f32,
    /// The same as a share of the semantic hits. Both hold.
    pub max_wrong_hits: f32,
    /// Least share of the semantic hits that is checked against a bought answer.
    pub audit_rate: f32,
    pub keep: Keep,
    /// Life of an answer that is kept with care.
    pub careful_ttl: Duration,
    /// Default and longest life of an entry.
    pub ttl: Duration,
    /// Most of that life, as a share, that an entry is short of, so that those kept together do not expire
    /// together.
    pub ttl_jitter: f64,
    /// How long past its expiry an answer is served once more, while it is bought anew; zero: not at all.
    pub stale_while_revalidate: Duration,
    /// An answer may be served where the router would now ask a higher tier than the one that gave it.
    pub serve_lower_tier: bool,
    /// Bytes of the memory tier.
    pub max_memory: u64,
    /// Entries in the store; beyond, those nearest their expiry go.
    pub max_entries: u64,
    pub index: IndexConfig,
    pub learning: LearningConfig,
    pub namespaces: Vec<NamespaceCache>,
}

/// One `[[cache.namespaces]]`: what differs for one namespace. `None`: as in `[cache]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamespaceCache {
    pub namespace: String,
    pub mode: Option<Mode>,
    pub max_error_rate: Option<f32>,
    pub max_wrong_hits: Option<f32>,
    pub keep: Option<Keep>,
    pub stale_while_revalidate: Option<Duration>,
}

/// How a near-duplicate is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Exact hits only.
    Exact,
    /// Guards and a fixed similarity.
    Static,
    /// By what was learned from the namespace's own traffic, inside two error budgets.
    Bounded,
    /// Learns and decides as `bounded` does and counts it, but serves exact hits only.
    Shadow,
}

/// `[cache.learning]`
#[derive(Clone, Debug, PartialEq)]
pub struct LearningConfig {
    /// Namespaces held in memory, about 1 MB each when they have seen much; the others are read again when
    /// they are asked in.
    pub max_namespaces: usize,
    /// Answers that may be compared at once; more are not learned from.
    pub max_comparisons: usize,
    /// Share of the comparisons in which a model is asked too, 0 to 1. It costs a call.
    pub judge_rate: f32,
    /// That model: an id, or a tier.
    pub judge: String,
    /// Longest wait for it.
    pub judge_timeout: Duration,
    /// Judgements waited for at once; more are left out.
    pub max_judgements: usize,
}

/// `[routing]`
#[derive(Clone, Debug, PartialEq)]
pub struct RoutingConfig {
    /// Model name used when a prompt has none: an id, a tier or `auto`.
    pub default: String,
    /// Tiers tried in this order.
    pub fallback: Vec<Tier>,
    /// A prompt that names a model may be answered by another when that one fails.
    pub fallback_named: bool,
    /// Tier of an `auto` prompt that is judged easy, moderate, hard.
    pub easy: Tier,
    pub moderate: Tier,
    pub hard: Tier,
    /// Who judges the difficulty of an `auto` prompt: `local`, or the id of a model that is asked.
    pub classifier: String,
    /// Longest wait for that model; then `local` judges.
    pub classifier_timeout: Duration,
    /// How long its verdict on a prompt holds.
    pub classifier_ttl: Duration,
    /// Verdicts remembered.
    pub classifier_cache: usize,
    pub namespaces: Vec<NamespaceRouting>,
}

/// One `[[routing.namespaces]]`: what differs for one namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamespaceRouting {
    pub namespace: String,
    /// What `auto` means here: a model id or a tier; `None`: the router judges.
    pub auto: Option<String>,
    /// Replaces `routing.fallback`.
    pub fallback: Option<Vec<Tier>>,
}

/// `[upstream]`
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamConfig {
    /// Whole time for an answer when the caller sets no deadline.
    pub timeout: Duration,
    pub connect_timeout: Duration,
    /// From the request to the first token, for one attempt.
    pub first_token_timeout: Duration,
    /// Between two tokens.
    pub idle_timeout: Duration,
    /// Most retries of one model in one request.
    pub retries: u32,
    /// Longest wait before the first retry, at least half of which is waited; doubles with each further
    /// one.
    pub retry_backoff: Duration,
    /// Longest wait between retries, also of a `Retry-After` while another model is left.
    pub retry_backoff_max: Duration,
    /// Retries as a share of requests, over time.
    pub retry_budget: f64,
    pub hedge_after: HedgeAfter,
    /// Hedged attempts as a share of requests, over time.
    pub hedge_budget: f64,
    /// Failures among the last ten calls of a model at a provider that set it aside.
    pub breaker_failures: u32,
    /// How long it is set aside at first; doubles with every failed probe, up to a minute.
    pub breaker_cooldown: Duration,
    /// Between two health checks of a provider; zero: none.
    pub health_interval: Duration,
    /// Longest wait for one health check.
    pub health_timeout: Duration,
    /// Largest answer, in bytes.
    pub max_answer: usize,
    /// When nobody waits any more: finish the answer for the cache instead of cancelling it.
    pub finish_abandoned: bool,
}

/// When a second attempt starts beside one that has no first token yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HedgeAfter {
    /// `"p95"`: at the model's own 95th percentile, as observed.
    Learned,
    /// A duration.
    Fixed(Duration),
    /// `"off"`
    Never,
}

/// `[dashboard]`
#[derive(Clone, Debug, PartialEq)]
pub struct DashboardConfig {
    /// 99 of 100 answers are to begin within this time: the first token of a stream, any other answer as a
    /// whole.
    pub slo_p99: Duration,
    /// The table of recent semantic hits shows the two prompts. Off, they are not even remembered for it.
    pub show_prompts: bool,
    /// SHA-256 of the operator's key, which the page then asks for. Loading also sets it from the variable
    /// that `api_key_env` names.
    pub api_key_sha256: Option<ApiKeyHash>,
    /// Environment variable that holds the operator's key, instead of its hash in the file; else empty.
    pub api_key_env: String,
}

/// `[telemetry]`
#[derive(Clone, Debug, PartialEq)]
pub struct TelemetryConfig {
    /// Collector that spans are sent to, by OTLP over gRPC, such as `http://127.0.0.1:4317`; empty: none are
    /// made.
    pub otlp_endpoint: String,
    /// Share of the requests that are traced, of those whose caller has not decided that.
    pub trace_share: f64,
    pub log_format: LogFormat,
}

/// How the lines of the log are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    /// One object a line.
    Json,
}

/// `[[tenants]]`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TenantConfig {
    pub name: String,
    /// SHA-256 of the API key. Loading also sets it from the variable that `api_key_env` names, so it is
    /// always there in a loaded configuration.
    pub api_key_sha256: Option<ApiKeyHash>,
    /// Environment variable that holds the API key, instead of its hash in the file; else empty.
    pub api_key_env: String,
    /// Requests per second; `None`: no limit.
    pub rate_limit: Option<f64>,
    /// Spending on upstream models per UTC day, US dollars; `None`: no limit.
    pub budget_usd_per_day: Option<f64>,
    /// Namespaces whose entries are common to all tenants that list them.
    pub shared_namespaces: Vec<String>,
}

/// One line of `providers`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProviderConfig {
    pub name: String,
    /// API root of the OpenAI dialect, such as `https://api.openai.com/v1`.
    pub base_url: String,
    /// Environment variable that holds the API key; empty: none is sent.
    pub api_key_env: String,
    /// Where it runs; when left out, `server.region`.
    pub region: String,
}

/// One line of `models`.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub id: String,
    /// Name of a provider.
    pub provider: String,
    /// The provider's own name for it; `None`: the same as `id`.
    pub served_as: Option<String>,
    pub tier: Tier,
    pub input_usd_per_mtok: f64,
    pub output_usd_per_mtok: f64,
    /// Tokens of prompt and completion together.
    pub context_window: u64,
}

// === impl CacheConfig ===

impl CacheConfig {
    /// `cache.stale_while_revalidate` where this namespace says nothing else.
    pub fn stale_while_revalidate(&self, namespace: &str) -> Duration {
        let own = self.own(namespace).and_then(|own| own.stale_while_revalidate);
        own.unwrap_or(self.stale_while_revalidate)
    }

    /// `cache.mode` where this namespace says nothing else.
    pub fn mode(&self, namespace: &str) -> Mode {
        self.own(namespace).and_then(|own| own.mode).unwrap_or(self.mode)
    }

    /// `cache.max_error_rate` and `cache.max_wrong_hits` where this namespace says nothing else.
    pub fn budget(&self, namespace: &str) -> Budget {
        let own = self.own(namespace);
        Budget {
            max_error_rate: own.and_then(|own| own.max_error_rate).unwrap_or(self.max_error_rate),
            max_wrong_hits: own.and_then(|own| own.max_wrong_hits).unwrap_or(self.max_wrong_hits),
        }
    }

    /// `cache.keep` where this namespace says nothing else.
    pub fn keep(&self, namespace: &str) -> Keep {
        self.own(namespace).and_then(|own| own.keep).unwrap_or(self.keep)
    }

    /// How a request of this namespace is decided: the stricter of the server's and the caller's limits.
    pub fn policy(&self, namespace: &str, control: &CacheControl) -> Policy {
        let wanted = control.min_similarity.unwrap_or(0.0);
        match self.mode(namespace) {
            _ if control.exact_only => Policy::Exact,
            Mode::Exact => Policy::Exact,
            Mode::Static => Policy::Static { min_similarity: self.min_similarity.max(wanted) },
            mode @ (Mode::Bounded | Mode::Shadow) => {
                let mut budget = self.budget(namespace);
                budget.max_error_rate = budget.max_error_rate.min(control.max_error_rate.unwrap_or(1.0));
                let shadow = mode == Mode::Shadow;
                Policy::Bounded(decide::Bounds {
                    budget,
                    min_similarity: wanted.max(decide::BOUNDED_SIMILARITY_MIN),
                    // Shadow hits are not served, so auditing each of them costs no extra call.
                    audit_rate: if shadow { 1.0 } else { self.audit_rate },
                    shadow,
                })
            }
        }
    }

    /// Whether every namespace is answered by exact repeats alone: then there is nothing to embed.
    pub fn is_exact(&self) -> bool {
        self.mode == Mode::Exact
            && self.namespaces.iter().all(|own| own.mode.is_none_or(|m| m == Mode::Exact))
    }

    /// What differs for this namespace.
    fn own(&self, namespace: &str) -> Option<&NamespaceCache> {
        self.namespaces.iter().find(|own| own.namespace == namespace)
    }
}

// === impl Mode ===

impl Mode {
    /// The name in the configuration and in `Explain`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Static => "static",
            Self::Bounded => "bounded",
            Self::Shadow => "shadow",
        }
    }
}

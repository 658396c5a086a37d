//! Configuration: one struct per section of `promptkeep.toml`, so that a component receives its own section only.
//!
//! `tree` merges the TOML file and the environment into one tree of values with their locations, `load` reads
//! that tree through `section` and `value` into the structs below, and `check` validates what spans several keys.
//! Each step collects every problem instead of stopping at the first.

mod api_key;
mod check;
mod defaults;
mod limits;
mod load;
mod problem;
mod reload;
mod report;
mod section;
mod tree;
mod value;
mod verify;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

pub use self::{
    api_key::ApiKeyHash,
    limits::LimitsConfig,
    load::process_env,
    problem::{ConfigErrors, Location, Problem},
    reload::changed_needs_restart,
    report::{Report, check_file},
    verify::{PromptFile, VerifyConfig, VerifyMode},
};
use crate::{
    decide::{self, Policy, learner::Budget},
    model::Tier,
    prompt::CacheControl,
};
pub use crate::{
    embed::{EmbeddingConfig, EmbeddingKind, Precision},
    index::{IndexConfig, IndexKind},
    prompt::Keep,
};

/// The whole configuration.
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
    /// When empty, every caller is the tenant `default` and needs no key.
    pub tenants: Vec<TenantConfig>,
    pub providers: Vec<ProviderConfig>,
    pub models: Vec<ModelConfig>,
}

/// `[server]`
#[derive(Clone, Debug, PartialEq)]
pub struct ServerConfig {
    pub grpc_listen: SocketAddr,
    pub http_listen: SocketAddr,
    /// Whether a port may listen beyond loopback although no tenants are configured, so that everyone who reaches it may
    /// use it.
    pub allow_open: bool,
    /// Host names by which the HTTP port may be addressed. Addresses and `localhost` always may. When empty, a port
    /// beyond loopback may be addressed by any name.
    pub allowed_hosts: Vec<String>,
    /// Region of this deployment; providers in it are preferred.
    pub region: String,
    /// Maximum size of a request in bytes.
    pub max_request: usize,
    /// Maximum number of requests in flight; further requests are shed.
    pub max_in_flight: usize,
    /// Maximum time a shutdown waits for requests in flight.
    pub shutdown_grace: Duration,
    pub limits: LimitsConfig,
}

/// `[store]`
#[derive(Clone, Debug, PartialEq)]
pub struct StoreConfig {
    pub kind: StoreKind,
    /// Directory of the embedded store.
    pub path: PathBuf,
    /// Redis: one node, or several nodes of a cluster, as `redis://host:port` (`rediss://` for TLS).
    pub url: Vec<String>,
    /// Redis: environment variable with the password. When empty, no password is sent.
    pub password_env: String,
    /// Redis with `rediss://`: PEM file with the trusted certificate authorities, for peers too. `None` trusts
    /// the system's.
    pub ca_file: Option<PathBuf>,
    /// Redis: prefix of every key. Deployments with equal prefixes share one cache.
    pub key_prefix: String,
    /// Redis: how long a replica's reservation of an upstream call lasts without renewal. Zero disables
    /// reservations, so replicas may call a model for identical prompts.
    pub lease: Duration,
    /// Redis: other regions whose answers and invalidations are copied.
    pub peers: Vec<PeerConfig>,
    /// Maximum number of queued writes; further writes are dropped and counted.
    pub write_queue: usize,
    /// Maximum time a request waits for a read, or for a write that need not be durable. After that the request
    /// continues as if the store had failed.
    pub timeout: Duration,
}

/// One `[[store.peers]]`: the Redis of another region, which is only read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerConfig {
    /// The peer's `server.region`.
    pub region: String,
    /// One node, or several nodes of a cluster.
    pub url: Vec<String>,
    /// Environment variable with the password. When empty, no password is sent.
    pub password_env: String,
}

/// Implementation of the store.
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
    /// Mode `static`: minimum cosine similarity of a semantic hit.
    pub min_similarity: f32,
    /// Modes `bounded` and `shadow`: largest fraction of all requests that may get a wrong answer.
    pub max_error_rate: f32,
    /// Modes `bounded` and `shadow`: largest fraction of semantic hits that may be wrong. Both limits hold.
    pub max_wrong_hits: f32,
    /// Smallest fraction of semantic hits that is audited, which means compared with an upstream answer.
    pub audit_rate: f32,
    pub keep: Keep,
    /// Longest TTL of an entry whose prompt is personal or time-dependent, with `keep = "careful"`.
    pub careful_ttl: Duration,
    /// Default and longest TTL of an entry.
    pub ttl: Duration,
    /// Largest fraction of the TTL that jitter may remove, so that entries stored together do not expire together.
    pub ttl_jitter: f64,
    /// How long after its expiry an entry may be served once more, to an exact repeat, while an upstream call
    /// refreshes it. Zero disables this.
    pub stale_while_revalidate: Duration,
    /// Whether an entry may be served that a lower tier answered than the router would call now.
    pub serve_lower_tier: bool,
    /// Further fields of a request that the answer does not depend on: sent to the model, not part of the key.
    pub ignore_fields: Vec<String>,
    /// Whether the token counts of a hit are 0 in the usage of HTTP replies, so that callers do not count them twice.
    pub zero_hit_usage: bool,
    /// Maximum size of the memory tier in bytes.
    pub max_memory: u64,
    /// Maximum number of entries in the store; above it, the entries closest to expiry are removed.
    pub max_entries: u64,
    pub index: IndexConfig,
    pub learning: LearningConfig,
    pub verify: VerifyConfig,
    pub namespaces: Vec<NamespaceCache>,
}

/// One `[[cache.namespaces]]`: overrides for one namespace. `None` keeps the value of `[cache]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamespaceCache {
    pub namespace: String,
    pub mode: Option<Mode>,
    pub max_error_rate: Option<f32>,
    pub max_wrong_hits: Option<f32>,
    pub keep: Option<Keep>,
    pub stale_while_revalidate: Option<Duration>,
    pub verify: Option<VerifyMode>,
}

/// How the cache decides whether a near-duplicate is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Serves exact hits only.
    Exact,
    /// Requires a fixed similarity and passing every guard.
    Static,
    /// Learns from the namespace's own traffic and stays within two error budgets.
    Bounded,
    /// Learns, decides and counts like `Bounded`, but serves exact hits only.
    Shadow,
}

/// `[cache.learning]`
#[derive(Clone, Debug, PartialEq)]
pub struct LearningConfig {
    /// Maximum number of namespace learners in memory, about 1 MB each after much traffic. Others are loaded
    /// from the store when a request needs them.
    pub max_namespaces: usize,
    /// Maximum number of answer comparisons in flight; further ones are skipped and teach nothing.
    pub max_comparisons: usize,
    /// Maximum verdicts per hour that one tenant may teach one namespace by feedback. Further ones are counted, and
    /// reported pairs are rejected, but they teach nothing.
    pub feedback_per_hour: usize,
}

/// `[routing]`
#[derive(Clone, Debug, PartialEq)]
pub struct RoutingConfig {
    /// Model for prompts that name none: a model id, a tier or `auto`.
    pub default: String,
    /// Fallback tiers in the order in which they are tried.
    pub fallback: Vec<Tier>,
    /// Whether another model may answer a prompt when the model that it names fails.
    pub fallback_named: bool,
    /// Tier of easy `auto` prompts.
    pub easy: Tier,
    /// Tier of moderate `auto` prompts.
    pub moderate: Tier,
    /// Tier of hard `auto` prompts.
    pub hard: Tier,
    /// Classifier of an `auto` prompt's difficulty: `local`, or a model id.
    pub classifier: String,
    /// Timeout of a classifier model, after which `local` classifies.
    pub classifier_timeout: Duration,
    /// How long a classifier model's result for a prompt is reused.
    pub classifier_ttl: Duration,
    /// Maximum number of remembered classifier results.
    pub classifier_cache: usize,
    pub namespaces: Vec<NamespaceRouting>,
}

/// One `[[routing.namespaces]]`: overrides for one namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamespaceRouting {
    pub namespace: String,
    /// Model id or tier that `auto` means in this namespace. `None` lets the classifier choose the tier.
    pub auto: Option<String>,
    /// Replaces `routing.fallback`.
    pub fallback: Option<Vec<Tier>>,
}

/// `[upstream]`
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamConfig {
    /// Timeout of a whole answer when the caller sets no deadline.
    pub timeout: Duration,
    /// Timeout of opening a connection.
    pub connect_timeout: Duration,
    /// Maximum time from the request to the first token of one attempt.
    pub first_token_timeout: Duration,
    /// Maximum time between two tokens.
    pub idle_timeout: Duration,
    /// Maximum number of retries of one model within one request.
    pub retries: u32,
    /// Longest backoff before the first retry; doubles with each further retry. Jitter removes up to half of it.
    pub retry_backoff: Duration,
    /// Longest backoff between retries. A longer `Retry-After` moves on to the next model, if there is one.
    pub retry_backoff_max: Duration,
    /// Retries as a fraction of requests, over time.
    pub retry_budget: f64,
    pub hedge_after: HedgeAfter,
    /// Hedged attempts as a fraction of requests, over time.
    pub hedge_budget: f64,
    /// Failures among a model's last ten calls at one provider that open its breaker.
    pub breaker_failures: u32,
    /// Time a breaker stays open at first; doubles with every failed probe, up to a minute.
    pub breaker_cooldown: Duration,
    /// How long a provider that refused the server's key or account, or a model that its provider does not have, is
    /// tried after all others.
    pub quarantine: Duration,
    /// Time between two health checks of a provider. Zero disables them.
    pub health_interval: Duration,
    /// Timeout of one health check.
    pub health_timeout: Duration,
    /// Maximum size of an answer in bytes.
    pub max_answer: usize,
    /// Whether an answer that every caller has abandoned is completed for the cache instead of cancelled.
    pub finish_abandoned: bool,
}

/// When a second attempt starts beside one without a first token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HedgeAfter {
    /// `"p95"`: the observed 95th percentile of the model's own time to first token.
    Learned,
    /// A duration.
    Fixed(Duration),
    /// `"off"`
    Never,
}

/// `[dashboard]`
#[derive(Clone, Debug, PartialEq)]
pub struct DashboardConfig {
    /// Latency objective: 99 of 100 requests get the first token of a stream, or a whole unary answer, within
    /// this time.
    pub slo_p99: Duration,
    /// Whether the table of recent semantic hits shows both prompts. When off, they are not kept in memory either.
    pub show_prompts: bool,
    /// SHA-256 of the operator's key, which the page asks for when it is set. Loading fills it from `api_key_env`.
    pub api_key_sha256: Option<ApiKeyHash>,
    /// Environment variable with the operator's key, as an alternative to `api_key_sha256`.
    pub api_key_env: String,
}

/// `[telemetry]`
#[derive(Clone, Debug, PartialEq)]
pub struct TelemetryConfig {
    /// Collector of spans (OTLP over gRPC), such as `http://127.0.0.1:4317`. When empty, no spans are recorded.
    pub otlp_endpoint: String,
    /// Fraction of requests that are traced when the caller did not make the sampling decision.
    pub trace_share: f64,
    pub log_format: LogFormat,
}

/// Format of the log on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    /// One JSON object per line.
    Json,
}

/// `[[tenants]]`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TenantConfig {
    pub name: String,
    /// SHA-256 of the API key. Loading fills it from `api_key_env`, so a server that starts has every tenant's
    /// hash; `check-config`, `replay` and `tune` may leave it empty.
    pub api_key_sha256: Option<ApiKeyHash>,
    /// Environment variable with the API key, as an alternative to `api_key_sha256`.
    pub api_key_env: String,
    /// Requests per second. `None` means no limit.
    pub rate_limit: Option<f64>,
    /// Limit on upstream spending per UTC day, in US dollars. `None` means no limit.
    pub budget_usd_per_day: Option<f64>,
    /// Namespaces whose entries are shared by all tenants that list them.
    pub shared_namespaces: Vec<String>,
}

/// One item of `providers`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProviderConfig {
    pub name: String,
    pub kind: ProviderKind,
    /// Root of an OpenAI-compatible API, such as `https://api.openai.com/v1`, or of an Azure resource.
    pub base_url: String,
    /// Environment variable with the API key. When empty, no key is sent.
    pub api_key_env: String,
    /// File with the API key, as an alternative to `api_key_env`. Read for each call, so that the key may be renewed. When
    /// empty, there is none.
    pub api_key_file: PathBuf,
    /// Further headers of each call.
    pub headers: BTreeMap<String, String>,
    /// Query parameters of each call's URL.
    pub query: BTreeMap<String, String>,
    /// Region of the provider; `server.region` when the file leaves it out.
    pub region: String,
}

/// How a provider is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProviderKind {
    /// Paths below `base_url`, and the key as a bearer token.
    #[default]
    Openai,
    /// Paths of Azure's deployments, and the key as `api-key`.
    Azure,
}

/// One item of `models`.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub id: String,
    /// Name of a provider.
    pub provider: String,
    /// The provider's name of the model. `None` means `id`.
    pub served_as: Option<String>,
    /// Whether the model can stream its answers. One that cannot is asked for the whole answer.
    pub stream: bool,
    pub tier: Tier,
    pub input_usd_per_mtok: f64,
    pub output_usd_per_mtok: f64,
    /// Price of input that the provider reads from its own cache. `None` means `input_usd_per_mtok`.
    pub cached_input_usd_per_mtok: Option<f64>,
    /// Price of input that the provider writes to its own cache. `None` means `input_usd_per_mtok`.
    pub cache_write_usd_per_mtok: Option<f64>,
    /// Maximum number of tokens of prompt and completion together.
    pub context_window: u64,
}

impl CacheConfig {
    /// `cache.stale_while_revalidate`, unless the namespace overrides it.
    pub fn stale_while_revalidate(&self, namespace: &str) -> Duration {
        let own = self.namespace_value(namespace, |own| own.stale_while_revalidate);
        own.unwrap_or(self.stale_while_revalidate)
    }

    /// `cache.mode`, unless the namespace overrides it.
    pub fn mode(&self, namespace: &str) -> Mode {
        self.namespace_value(namespace, |own| own.mode).unwrap_or(self.mode)
    }

    /// `cache.max_error_rate`, unless the namespace overrides it.
    pub fn max_error_rate(&self, namespace: &str) -> f32 {
        self.namespace_value(namespace, |own| own.max_error_rate).unwrap_or(self.max_error_rate)
    }

    /// `cache.max_wrong_hits`, unless the namespace overrides it.
    pub fn max_wrong_hits(&self, namespace: &str) -> f32 {
        self.namespace_value(namespace, |own| own.max_wrong_hits).unwrap_or(self.max_wrong_hits)
    }

    /// `cache.verify.mode`, unless the namespace overrides it.
    pub fn verify_mode(&self, namespace: &str) -> VerifyMode {
        self.namespace_value(namespace, |own| own.verify).unwrap_or(self.verify.mode)
    }

    /// `cache.keep`, unless the namespace overrides it.
    pub fn keep(&self, namespace: &str) -> Keep {
        self.namespace_value(namespace, |own| own.keep).unwrap_or(self.keep)
    }

    /// How a request of this namespace is decided: the stricter of the server's and the caller's limits.
    pub fn policy(&self, namespace: &str, control: &CacheControl) -> Policy {
        let wanted = control.min_similarity.unwrap_or(0.0);
        match self.mode(namespace) {
            _ if control.exact_only => Policy::Exact,
            Mode::Exact => Policy::Exact,
            Mode::Static => Policy::Static { min_similarity: self.min_similarity.max(wanted) },
            mode @ (Mode::Bounded | Mode::Shadow) => {
                let callers_max = control.max_error_rate.unwrap_or(1.0);
                let budget = Budget {
                    max_error_rate: self.max_error_rate(namespace).min(callers_max),
                    max_wrong_hits: self.max_wrong_hits(namespace),
                };
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

    /// Whether every namespace serves exact hits only, so that no embedder is needed.
    pub fn is_exact(&self) -> bool {
        self.mode == Mode::Exact
            && self.namespaces.iter().all(|own| own.mode.is_none_or(|mode| mode == Mode::Exact))
    }

    fn namespace_value<T>(
        &self,
        namespace: &str,
        value: impl FnOnce(&NamespaceCache) -> Option<T>,
    ) -> Option<T> {
        self.namespaces.iter().find(|own| own.namespace == namespace).and_then(value)
    }
}

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

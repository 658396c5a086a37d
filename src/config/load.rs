//! Loading: which keys exist, and which kind of value each takes. A new key needs a field, its default, a line here
//! and a line in the example file; a field without a line here does not compile.

use std::{collections::HashMap, env, fs, path::Path};

use super::{
    check::{RequiredSecrets, Secrets, check},
    problem::{ConfigErrors, Location},
    section::{Findings, Section},
    tree::{self, PREFIX, Table},
    value::{
        address, choice, count, count_or_zero, count_to, duration, duration_or_zero, flag, hedge_after,
        key_hash, key_prefix, list, money, name, optional, path, rate, ratio, redis_nodes, share, size, text,
        text_map, tier, url, variable,
    },
    *,
};

const STORES: &[(&str, StoreKind)] =
    &[("embedded", StoreKind::Embedded), ("redis", StoreKind::Redis), ("memory", StoreKind::Memory)];
const EMBEDDERS: &[(&str, EmbeddingKind)] =
    &[("minilm", EmbeddingKind::Minilm), ("openai", EmbeddingKind::Openai)];
const PROVIDER_KINDS: &[(&str, ProviderKind)] =
    &[("openai", ProviderKind::Openai), ("azure", ProviderKind::Azure)];
const PRECISIONS: &[(&str, Precision)] = &[("int8", Precision::Int8), ("f32", Precision::F32)];
const LOG_FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
const KEEPS: &[(&str, Keep)] = &[("all", Keep::All), ("careful", Keep::Careful)];
const MODES: &[(&str, Mode)] =
    &[("exact", Mode::Exact), ("static", Mode::Static), ("bounded", Mode::Bounded), ("shadow", Mode::Shadow)];
const VERIFY_MODES: &[(&str, VerifyMode)] = &[
    ("auto", VerifyMode::Auto),
    ("before", VerifyMode::Before),
    ("background", VerifyMode::Background),
    ("off", VerifyMode::Off),
];
const INDEXES: &[(&str, IndexKind)] =
    &[("auto", IndexKind::Auto), ("scan", IndexKind::Scan), ("hnsw", IndexKind::Hnsw)];

/// Number of recent calls that a breaker counts failures among.
const BREAKER_CALLS: u64 = 10;

/// Largest `cache.learning.feedback_per_hour`: the time of each verdict is remembered.
const FEEDBACK_PER_HOUR_MAX: u64 = 1000;

/// Configuration read from file and environment, with everything found on the way.
pub(super) struct Loaded {
    pub config: Config,
    pub findings: Findings,
}

/// The environment of this process. Invalid Unicode is replaced, so that a malformed variable is reported instead
/// of ignored.
pub fn process_env() -> impl Iterator<Item = (String, String)> {
    let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    env::vars_os().map(move |(name, value)| (lossy(name), lossy(value)))
}

impl Config {
    /// Loads the defaults, overridden by the file at `path`, overridden by the `PROMPTKEEP_` variables of `env`.
    ///
    /// # Errors
    /// Every problem at once, including variables with API keys that are not set.
    pub fn load(
        path: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        load(path, &env.collect(), RequiredSecrets::All).into_result()
    }

    /// Loads like [`Config::load`], for commands that neither call models nor serve callers: of the variables with
    /// API keys only that of the embeddings API must be set.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn load_offline(
        path: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        load(path, &env.collect(), RequiredSecrets::EmbeddingOnly).into_result()
    }
}

impl Loaded {
    fn into_result(self) -> Result<Config, ConfigErrors> {
        ConfigErrors::from_problems(self.findings.problems).map_or(Ok(self.config), Err)
    }
}

/// Reads the file, if any. An unreadable file is reported and counts as empty.
pub(super) fn load(path: Option<&Path>, env: &HashMap<String, String>, required: RequiredSecrets) -> Loaded {
    let secrets = Secrets { env, required };
    let Some(path) = path else { return load_text("defaults", "", &secrets) };
    let file = path.display().to_string();
    let read = fs::read_to_string(path);
    let mut loaded = load_text(&file, read.as_deref().unwrap_or_default(), &secrets);
    if let Err(cause) = read {
        loaded.findings.report(&Location::File { file }, "", format!("cannot be read: {cause}"));
    }
    loaded
}

/// Reads `text`, which problems call `file`.
pub(super) fn load_text(file: &str, text: &str, secrets: &Secrets<'_>) -> Loaded {
    let env = secrets.env;
    let mut findings = Findings::default();
    let mut table = tree::parse(file, text, &mut findings.problems);
    let is_ignored = |name: &&String| !tree::overlay(&mut table, name, &env[name.as_str()]);
    let ignored: Vec<&String> = env.keys().filter(is_ignored).collect();
    let mut config = read(file, table, &mut findings);
    report_single_underscores(&ignored, &mut findings);
    check(&mut config, secrets, &mut findings);
    Loaded { config, findings }
}

fn read(file: &str, table: Table, findings: &mut Findings) -> Config {
    let mut config = Config::default();
    let location = Location::File { file: file.to_owned() };
    let mut root = Section::new(String::new(), location, table, findings);
    let Config {
        server,
        store,
        embedding,
        cache,
        routing,
        upstream,
        dashboard,
        telemetry,
        tenants,
        providers,
        models,
    } = &mut config;
    root.nested("server", server, read_server);
    root.nested("store", store, read_store);
    root.nested("embedding", embedding, read_embedding);
    root.nested("cache", cache, read_cache);
    root.nested("routing", routing, read_routing);
    root.nested("upstream", upstream, read_upstream);
    root.nested("dashboard", dashboard, read_dashboard);
    root.nested("telemetry", telemetry, read_telemetry);
    root.each("tenants", tenants, read_tenant);
    root.each("providers", providers, read_provider);
    root.each("models", models, read_model);
    root.finish();
    config
}

/// Reads every field of a struct from the key of its name: `keys!(section, target: Struct { field: reader, … })`,
/// with tables (`nested`) and lists of tables (`each`) after the braces.
macro_rules! keys {
    ($section:ident, $target:ident: $of:ident { $($key:ident: $read:expr,)* } $($how:ident $nested:ident: $fill:ident),*) => {
        // Fails to compile when a field is missing.
        let $of { $($key: _,)* $($nested: _,)* } = &*$target;
        $($section.take(stringify!($key), &mut $target.$key, $read);)*
        $($section.$how(stringify!($nested), &mut $target.$nested, $fill);)*
    };
}

fn read_server(section: &mut Section<'_>, server: &mut ServerConfig) {
    keys!(section, server: ServerConfig {
        grpc_listen: address,
        http_listen: address,
        allow_open: flag,
        allowed_hosts: list(name),
        region: name,
        max_request: size,
        max_in_flight: count,
        shutdown_grace: duration_or_zero,
    } nested limits: read_limits);
}

fn read_limits(section: &mut Section<'_>, limits: &mut LimitsConfig) {
    keys!(section, limits: LimitsConfig {
        connections: count,
        connections_per_peer: count,
        streams: count,
        connection_age: duration,
        header_timeout: duration,
        body_timeout: duration,
        idle_timeout: duration,
        write_timeout: duration,
        request_memory: size,
    });
}

fn read_store(section: &mut Section<'_>, store: &mut StoreConfig) {
    keys!(section, store: StoreConfig {
        kind: choice(STORES),
        path: path,
        url: redis_nodes,
        password_env: variable,
        ca_file: optional(path),
        key_prefix: key_prefix,
        lease: duration_or_zero,
        write_queue: count,
        timeout: duration,
    } each peers: read_peer);
}

fn read_peer(section: &mut Section<'_>, peer: &mut PeerConfig) {
    section.require(&["region", "url"]);
    keys!(section, peer: PeerConfig {
        region: name,
        url: redis_nodes,
        password_env: variable,
    });
}

fn read_embedding(section: &mut Section<'_>, embedding: &mut EmbeddingConfig) {
    keys!(section, embedding: EmbeddingConfig {
        kind: choice(EMBEDDERS),
        model_dir: optional(path),
        precision: choice(PRECISIONS),
        threads: count,
        queue: count,
        base_url: url,
        model: text,
        dimensions: count_or_zero,
        api_key_env: variable,
        timeout: duration,
        batch: count,
    });
}

fn read_cache(section: &mut Section<'_>, cache: &mut CacheConfig) {
    keys!(section, cache: CacheConfig {
        mode: choice(MODES),
        min_similarity: share,
        max_error_rate: share,
        max_wrong_hits: share,
        audit_rate: share,
        keep: choice(KEEPS),
        careful_ttl: duration,
        ttl: duration,
        ttl_jitter: ratio,
        stale_while_revalidate: duration_or_zero,
        serve_lower_tier: flag,
        ignore_fields: list(name),
        zero_hit_usage: flag,
        max_memory: size,
        max_entries: count,
    } nested index: read_index, nested learning: read_learning, nested verify: read_verify, each namespaces: read_namespace_cache);
}

fn read_learning(section: &mut Section<'_>, learning: &mut LearningConfig) {
    section.report_replaced(&[
        ("judge_rate", "cache.verify.mode"),
        ("judge", "cache.verify.model"),
        ("judge_timeout", "cache.verify.timeout"),
        ("max_judgements", "cache.verify.max_in_flight"),
    ]);
    keys!(section, learning: LearningConfig {
        max_namespaces: count,
        max_comparisons: count,
        feedback_per_hour: count_to(FEEDBACK_PER_HOUR_MAX),
    });
}

fn read_verify(section: &mut Section<'_>, verify: &mut VerifyConfig) {
    keys!(section, verify: VerifyConfig {
        mode: choice(VERIFY_MODES),
        model: name,
        timeout: duration,
        race: flag,
        lookup: flag,
        max_share_of_spend: ratio,
        start_usd: money,
        max_per_minute: count,
        max_in_flight: count,
        usd_per_second: money,
        max_answer_bytes: size,
        max_question_bytes: size,
        audit_rate: share,
        prompt_file: optional(|node| path(node).map(PromptFile::new)),
    });
}

fn read_namespace_cache(section: &mut Section<'_>, cache: &mut NamespaceCache) {
    section.require(&["namespace"]);
    keys!(section, cache: NamespaceCache {
        namespace: name,
        mode: optional(choice(MODES)),
        max_error_rate: optional(share),
        max_wrong_hits: optional(share),
        keep: optional(choice(KEEPS)),
        stale_while_revalidate: optional(duration_or_zero),
        verify: optional(choice(VERIFY_MODES)),
    });
}

fn read_index(section: &mut Section<'_>, index: &mut IndexConfig) {
    keys!(section, index: IndexConfig {
        kind: choice(INDEXES),
        scan_max: count_or_zero,
        rebuild_at: share,
    });
}

fn read_routing(section: &mut Section<'_>, routing: &mut RoutingConfig) {
    keys!(section, routing: RoutingConfig {
        default: name,
        fallback: list(tier),
        fallback_named: flag,
        easy: tier,
        moderate: tier,
        hard: tier,
        classifier: name,
        classifier_timeout: duration,
        classifier_ttl: duration,
        classifier_cache: count,
    } each namespaces: read_namespace);
}

fn read_namespace(section: &mut Section<'_>, routing: &mut NamespaceRouting) {
    section.require(&["namespace"]);
    keys!(section, routing: NamespaceRouting {
        namespace: name,
        auto: optional(name),
        fallback: optional(list(tier)),
    });
}

fn read_upstream(section: &mut Section<'_>, upstream: &mut UpstreamConfig) {
    keys!(section, upstream: UpstreamConfig {
        timeout: duration,
        connect_timeout: duration,
        first_token_timeout: duration,
        idle_timeout: duration,
        retries: count_or_zero,
        retry_backoff: duration,
        retry_backoff_max: duration,
        retry_budget: ratio,
        hedge_after: hedge_after,
        hedge_budget: ratio,
        breaker_failures: count_to(BREAKER_CALLS),
        breaker_cooldown: duration,
        quarantine: duration,
        health_interval: duration_or_zero,
        health_timeout: duration,
        max_answer: size,
        finish_abandoned: flag,
    });
}

fn read_dashboard(section: &mut Section<'_>, dashboard: &mut DashboardConfig) {
    keys!(section, dashboard: DashboardConfig {
        slo_p99: duration,
        show_prompts: flag,
        api_key_sha256: optional(key_hash),
        api_key_env: variable,
    });
}

fn read_telemetry(section: &mut Section<'_>, telemetry: &mut TelemetryConfig) {
    keys!(section, telemetry: TelemetryConfig {
        otlp_endpoint: url,
        trace_share: ratio,
        log_format: choice(LOG_FORMATS),
    });
}

fn read_tenant(section: &mut Section<'_>, tenant: &mut TenantConfig) {
    section.require(&["name"]);
    keys!(section, tenant: TenantConfig {
        name: name,
        api_key_sha256: optional(key_hash),
        api_key_env: variable,
        rate_limit: optional(rate),
        budget_usd_per_day: optional(money),
        shared_namespaces: list(name),
    });
}

fn read_provider(section: &mut Section<'_>, provider: &mut ProviderConfig) {
    section.require(&["name", "base_url"]);
    keys!(section, provider: ProviderConfig {
        name: name,
        kind: choice(PROVIDER_KINDS),
        base_url: url,
        api_key_env: variable,
        api_key_file: |node| text(node).map(PathBuf::from),
        headers: text_map,
        query: text_map,
        region: text,
    });
}

fn read_model(section: &mut Section<'_>, model: &mut ModelConfig) {
    section.require(&[
        "id",
        "provider",
        "tier",
        "input_usd_per_mtok",
        "output_usd_per_mtok",
        "context_window",
    ]);
    keys!(section, model: ModelConfig {
        id: name,
        provider: name,
        served_as: optional(name),
        stream: flag,
        tier: tier,
        input_usd_per_mtok: money,
        output_usd_per_mtok: money,
        cached_input_usd_per_mtok: optional(money),
        cache_write_usd_per_mtok: optional(money),
        context_window: count,
    });
}

/// Reports variables such as `PROMPTKEEP_SERVER_REGION`, which would be a key with two underscores and are
/// ignored otherwise.
fn report_single_underscores(ignored: &[&String], findings: &mut Findings) {
    let known = findings.known.iter().filter(|key| key.contains('.') && !key.contains('['));
    let variables: HashMap<String, String> =
        known.map(|key| (key.replace('.', "_").to_ascii_uppercase(), key.clone())).collect();
    for name in ignored {
        let Some(key) = name.strip_prefix(PREFIX).and_then(|rest| variables.get(rest)) else { continue };
        let meant = key.replace('.', "__").to_ascii_uppercase();
        let location = Location::Variable { name: (*name).clone() };
        findings.report(&location, key, format!("ignored; did you mean {PREFIX}{meant}?"));
    }
}

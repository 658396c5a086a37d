//! Validation that spans several keys: names that refer to nothing or are used twice, and keys that need another
//! key. Also reads the API keys that the environment holds.

use std::collections::{BTreeMap, HashMap, HashSet};

use reqwest::header::{HeaderName, HeaderValue};

use super::{section::Findings, *};
use crate::{
    model::{AUTO, LOCAL},
    prompt::OWN_FIELDS,
};

const EMBEDDING_KEY: &str = "embedding.api_key_env";

/// Variables with API keys or passwords that must be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequiredSecrets {
    /// All of them: the server starts with this configuration.
    All,
    /// Only that of the embeddings API: a replay calls nothing else.
    EmbeddingOnly,
    /// None of them: the file is only checked, perhaps for another machine.
    None,
}

/// The environment, as the source of secrets.
pub(super) struct Secrets<'a> {
    pub env: &'a HashMap<String, String>,
    pub required: RequiredSecrets,
}

/// An API key that callers send, configured by its hash or by the name of a variable.
struct CallerKey<'a> {
    hash: &'a mut Option<ApiKeyHash>,
    /// Name of the variable with the key; empty when the file has the hash.
    variable: &'a str,
    is_required: bool,
}

/// Reports every problem between keys, and fills in values that come from the environment or from other keys.
pub(super) fn check(config: &mut Config, secrets: &Secrets<'_>, findings: &mut Findings) {
    check_server(&config.server, findings);
    // Offline commands serve nobody.
    if secrets.required != RequiredSecrets::EmbeddingOnly {
        check_open(config, findings);
    }
    check_store(&config.store, &config.server.region, secrets, findings);
    check_embedding(&config.embedding, secrets, findings);
    check_cache(config, findings);
    check_verify(config, secrets, findings);
    check_routing(config, findings);
    check_dashboard(&mut config.dashboard, secrets, findings);
    check_tenants(&mut config.tenants, secrets, findings);
    check_providers(&mut config.providers, &config.server.region, secrets, findings);
    check_models(&config.models, &config.providers, findings);
    warn_of_missing_prices(&config.models, findings);
}

// === impl Secrets ===

impl Secrets<'_> {
    /// Returns the value of `variable`, which the configuration names in `key`. Reports a variable that is required
    /// and not set.
    fn get(&self, key: &str, variable: &str, findings: &mut Findings) -> Option<&str> {
        let value = self.env.get(variable).map(|value| value.trim()).filter(|value| !value.is_empty());
        if value.is_none() && !variable.is_empty() && self.requires(key) {
            findings.report_key(key, format!("the environment variable {variable} is not set"));
        }
        value
    }

    fn requires(&self, key: &str) -> bool {
        match self.required {
            RequiredSecrets::All => true,
            RequiredSecrets::EmbeddingOnly => key == EMBEDDING_KEY,
            RequiredSecrets::None => false,
        }
    }
}

// === impl CallerKey ===

impl CallerKey<'_> {
    /// Fills in the hash from the variable, if one is named. Returns the key that configured it.
    fn fill(
        self,
        path: impl Fn(&str) -> String,
        secrets: &Secrets<'_>,
        findings: &mut Findings,
    ) -> &'static str {
        let (hash, variable) = ("api_key_sha256", "api_key_env");
        match (&self.hash, self.variable.is_empty()) {
            (Some(_), true) => hash,
            (Some(_), false) => {
                findings.report_key(&path(variable), "must not be set together with api_key_sha256");
                hash
            }
            (None, true) => {
                if self.is_required && !findings.is_reported(&path(variable)) {
                    findings.report_key(&path(hash), "is missing; set it or api_key_env");
                }
                hash
            }
            (None, false) => {
                let key = secrets.get(&path(variable), self.variable, findings);
                *self.hash = key.map(ApiKeyHash::of);
                variable
            }
        }
    }
}

// === one function per section ===

fn check_server(server: &ServerConfig, findings: &mut Findings) {
    let ServerConfig { grpc_listen, http_listen, .. } = server;
    if grpc_listen == http_listen && grpc_listen.port() != 0 {
        findings.report_key("server.http_listen", "must differ from server.grpc_listen");
    }
}

/// Refuses to serve everyone who reaches a port, unless the configuration says so.
fn check_open(config: &Config, findings: &mut Findings) {
    let ServerConfig { grpc_listen, http_listen, allow_open, .. } = &config.server;
    if *allow_open || !config.tenants.is_empty() {
        return;
    }
    for (key, address) in [("server.grpc_listen", grpc_listen), ("server.http_listen", http_listen)] {
        if !address.ip().is_loopback() {
            let message = "is beyond loopback, where everyone who reaches the port may use it: configure tenants, \
                           or set server.allow_open";
            findings.report_key(key, message);
        }
    }
}

fn check_store(store: &StoreConfig, region: &String, secrets: &Secrets<'_>, findings: &mut Findings) {
    if store.kind != StoreKind::Redis {
        return;
    }
    secrets.get("store.password_env", &store.password_env, findings);
    let mut regions = HashSet::from([region]);
    for (n, PeerConfig { region, password_env, .. }) in store.peers.iter().enumerate() {
        let path = |key: &str| format!("store.peers[{n}].{key}");
        if !regions.insert(region) {
            findings.report_key(&path("region"), format!("`{region}` is this region, or is listed twice"));
        }
        secrets.get(&path("password_env"), password_env, findings);
    }
    let mut urls = store.url.iter().chain(store.peers.iter().flat_map(|peer| &peer.url));
    if store.ca_file.is_some() && !urls.any(|url| url.starts_with("rediss:")) {
        findings.report_key(
            "store.ca_file",
            "has no effect: no url of the store or of a peer begins with rediss://",
        );
    }
}

fn check_embedding(embedding: &EmbeddingConfig, secrets: &Secrets<'_>, findings: &mut Findings) {
    if embedding.kind != EmbeddingKind::Openai {
        return;
    }
    let EmbeddingConfig { base_url, model, dimensions, api_key_env, .. } = embedding;
    let required =
        [("base_url", base_url.is_empty()), ("model", model.is_empty()), ("dimensions", *dimensions == 0)];
    for (key, is_missing) in required {
        if is_missing {
            findings.report_key(&format!("embedding.{key}"), "is required when embedding.kind is openai");
        }
    }
    secrets.get(EMBEDDING_KEY, api_key_env, findings);
}

fn check_cache(config: &Config, findings: &mut Findings) {
    let names = config.cache.namespaces.iter().map(|own| &own.namespace);
    check_unique("cache.namespaces", "namespace", names, findings);
    let mut seen = HashSet::new();
    for field in &config.cache.ignore_fields {
        if OWN_FIELDS.contains(&field.as_str()) {
            findings.report_key("cache.ignore_fields", format!("the answer depends on `{field}`"));
        } else if !seen.insert(field) {
            findings.report_key("cache.ignore_fields", format!("`{field}` is listed twice"));
        }
    }
}

fn check_verify(config: &mut Config, secrets: &Secrets<'_>, findings: &mut Findings) {
    let CacheConfig { verify, namespaces, .. } = &mut config.cache;
    let modes = namespaces.iter().filter_map(|own| own.verify).chain([verify.mode]);
    let needs_model = |mode| matches!(mode, VerifyMode::Before | VerifyMode::Background);
    let is_verifier = |model: &ModelConfig| model.id == verify.model || model.tier.as_str() == verify.model;
    if modes.into_iter().any(needs_model) && !config.models.iter().any(is_verifier) {
        let message = format!("`{}` is neither a model id nor a tier that has a model", verify.model);
        findings.report_key("cache.verify.model", message);
    }
    // The file may be on another machine, like the variables with API keys.
    let is_required = secrets.required == RequiredSecrets::All;
    if let Some(Err(message)) = verify.prompt_file.as_mut().map(|file| file.read(is_required)) {
        findings.report_key("cache.verify.prompt_file", message);
    }
}

fn check_routing(config: &Config, findings: &mut Findings) {
    let Config { routing, models, .. } = config;
    let is_model = |name: &str| models.iter().any(|model| model.id == name);
    let check_choice = |key: &str, name: &str, findings: &mut Findings| {
        if !is_choice_of_router(name) && !is_model(name) {
            findings.report_key(key, format!("`{name}` is not a model id, a tier or auto"));
        }
    };
    check_choice("routing.default", &routing.default, findings);
    if routing.classifier != LOCAL && !is_model(&routing.classifier) {
        let message = format!("`{}` is neither a model id nor local", routing.classifier);
        findings.report_key("routing.classifier", message);
    }
    check_fallback("routing.fallback", &routing.fallback, findings);
    let names = routing.namespaces.iter().map(|own| &own.namespace);
    check_unique("routing.namespaces", "namespace", names, findings);
    for (n, NamespaceRouting { namespace: _, auto, fallback }) in routing.namespaces.iter().enumerate() {
        let path = |key: &str| format!("routing.namespaces[{n}].{key}");
        if let Some(name) = auto {
            check_choice(&path("auto"), name, findings);
        }
        if let Some(fallback) = fallback {
            check_fallback(&path("fallback"), fallback, findings);
        }
    }
}

fn check_fallback(key: &str, fallback: &[Tier], findings: &mut Findings) {
    let mut seen = HashSet::new();
    if !fallback.iter().all(|tier| seen.insert(tier)) {
        findings.report_key(key, "lists a tier twice");
    }
    if fallback.is_empty() {
        findings.report_key(key, "must name at least one tier");
    }
}

fn check_dashboard(dashboard: &mut DashboardConfig, secrets: &Secrets<'_>, findings: &mut Findings) {
    let DashboardConfig { api_key_sha256: hash, api_key_env: variable, .. } = dashboard;
    let key = CallerKey { hash, variable, is_required: false };
    key.fill(|key| format!("dashboard.{key}"), secrets, findings);
}

fn check_tenants(tenants: &mut [TenantConfig], secrets: &Secrets<'_>, findings: &mut Findings) {
    check_unique("tenants", "name", tenants.iter().map(|tenant| &tenant.name), findings);
    let mut hashes = HashSet::new();
    for (n, tenant) in tenants.iter_mut().enumerate() {
        let path = |key: &str| format!("tenants[{n}].{key}");
        let TenantConfig { api_key_sha256: hash, api_key_env: variable, .. } = tenant;
        let source = CallerKey { hash, variable, is_required: true }.fill(path, secrets, findings);
        if tenant.api_key_sha256.is_some_and(|hash| !hashes.insert(hash)) {
            findings.report_key(&path(source), "is also the API key of another tenant");
        }
    }
}

fn check_providers(
    providers: &mut [ProviderConfig],
    region: &str,
    secrets: &Secrets<'_>,
    findings: &mut Findings,
) {
    check_unique("providers", "name", providers.iter().map(|provider| &provider.name), findings);
    for (n, provider) in providers.iter_mut().enumerate() {
        let path = |key: &str| format!("providers[{n}].{key}");
        if provider.base_url.is_empty() {
            findings.report_key(&path("base_url"), "must not be empty");
        }
        secrets.get(&path("api_key_env"), &provider.api_key_env, findings);
        if !provider.api_key_env.is_empty() && !provider.api_key_file.as_os_str().is_empty() {
            findings.report_key(&path("api_key_file"), "must not be set together with api_key_env");
        }
        check_headers(&path("headers"), &provider.headers, findings);
        if provider.region.is_empty() {
            region.clone_into(&mut provider.region);
        }
    }
}

/// The message never repeats a value, which may be secret.
fn check_headers(key: &str, headers: &BTreeMap<String, String>, findings: &mut Findings) {
    /// Headers that the server sets itself.
    const OWN: [&str; 5] = ["accept", "content-length", "content-type", "host", "transfer-encoding"];
    for (name, value) in headers {
        if HeaderName::try_from(name).is_err() || HeaderValue::try_from(value).is_err() {
            findings.report_key(key, format!("`{name}` is not a header, or its value is not one"));
        } else if OWN.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            findings.report_key(key, format!("`{name}` is set by the server"));
        }
    }
}

fn check_models(models: &[ModelConfig], providers: &[ProviderConfig], findings: &mut Findings) {
    let mut offers = HashSet::new();
    let mut tiers = HashMap::new();
    for (n, model) in models.iter().enumerate() {
        let ModelConfig { id, provider, tier, .. } = model;
        let path = |key: &str| format!("models[{n}].{key}");
        if !providers.iter().any(|known| known.name == *provider) {
            findings.report_key(&path("provider"), format!("there is no provider `{provider}`"));
        }
        if is_choice_of_router(id) {
            findings.report_key(&path("id"), format!("`{id}` is reserved for a choice of the router"));
        }
        if !offers.insert((id, provider)) {
            findings.report_key(&path("id"), format!("`{id}` of provider `{provider}` is listed twice"));
        } else if tiers.insert(id, tier).is_some_and(|other| other != tier) {
            findings.report_key(&path("tier"), format!("`{id}` has another tier at another provider"));
        }
    }
}

/// Nearly every provider that caches input bills it at less than other input.
fn warn_of_missing_prices(models: &[ModelConfig], findings: &mut Findings) {
    for (n, model) in models.iter().enumerate() {
        if model.input_usd_per_mtok > 0.0 && model.cached_input_usd_per_mtok.is_none() {
            findings.warn_key(
                &format!("models[{n}].cached_input_usd_per_mtok"),
                "is missing: input that the provider reads from its cache is counted at input_usd_per_mtok",
            );
        }
    }
}

// === shared by sections ===

/// Reports each repeated name of the list at `list`, whose items have it in `key`.
fn check_unique<'a>(list: &str, key: &str, names: impl Iterator<Item = &'a String>, findings: &mut Findings) {
    let mut seen = HashSet::new();
    for (n, name) in names.enumerate() {
        if !seen.insert(name) {
            findings.report_key(&format!("{list}[{n}].{key}"), format!("`{name}` is listed twice"));
        }
    }
}

/// Whether `name` makes the router choose the model: it is a tier or `auto`.
fn is_choice_of_router(name: &str) -> bool {
    name == AUTO || Tier::parse(name).is_some()
}

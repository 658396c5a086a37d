//! What single values cannot show: names that lead nowhere or to two things, and settings that need
//! another one.

use std::collections::{HashMap, HashSet};

use super::{
    load::{Loaded, Secrets},
    section::Findings,
    *,
};
use crate::model::{AUTO, LOCAL};

/// Adds every problem between keys, and fills in what the environment holds.
pub(super) fn check(loaded: &mut Loaded, env: &HashMap<String, String>, secrets: Secrets) {
    let Loaded { config, findings } = loaded;
    let variables = Variables { env, secrets };
    check_server(&config.server, findings);
    check_store(&config.store, &config.server.region, &variables, findings);
    check_embedding(&config.embedding, &variables, findings);
    check_cache(config, findings);
    check_routing(config, findings);
    check_dashboard(&mut config.dashboard, &variables, findings);
    check_tenants(&mut config.tenants, &variables, findings);
    check_providers(&mut config.providers, &config.server.region, &variables, findings);
    check_models(&config.models, &config.providers, findings);
}

const EMBEDDING_KEY: &str = "embedding.api_key_env";

/// The variables that hold API keys.
struct Variables<'a> {
    env: &'a HashMap<String, String>,
    secrets: Secrets,
}

impl Variables<'_> {
    /// The value of the variable that `key` names, which must be set when this run needs it.
    fn get(&self, key: &str, variable: &str, findings: &mut Findings) -> Option<&str> {
        let value = self.env.get(variable).map(|value| value.trim()).filter(|value| !value.is_empty());
        if value.is_none() && !variable.is_empty() && self.needs(key) {
            findings.report_key(key, format!("the environment variable {variable} is not set"));
        }
        value
    }

    fn needs(&self, key: &str) -> bool {
        match self.secrets {
            Secrets::Needed => true,
            Secrets::OfEmbedding => key == EMBEDDING_KEY,
            Secrets::Elsewhere => false,
        }
    }
}

fn check_server(server: &ServerConfig, findings: &mut Findings) {
    let ServerConfig { grpc_listen, http_listen, .. } = server;
    if grpc_listen == http_listen && grpc_listen.port() != 0 {
        findings.report_key("server.http_listen", "must differ from server.grpc_listen");
    }
}

fn check_store(store: &StoreConfig, region: &String, variables: &Variables<'_>, findings: &mut Findings) {
    if store.kind != StoreKind::Redis {
        return;
    }
    variables.get("store.password_env", &store.password_env, findings);
    let mut regions = HashSet::from([region]);
    for (n, PeerConfig { region, password_env, .. }) in store.peers.iter().enumerate() {
        let path = |key: &str| format!("store.peers[{n}].{key}");
        if !regions.insert(region) {
            findings.report_key(&path("region"), format!("`{region}` is this region, or listed twice"));
        }
        variables.get(&path("password_env"), password_env, findings);
    }
    let mut urls = store.url.iter().chain(store.peers.iter().flat_map(|peer| &peer.url));
    if store.ca_file.is_some() && !urls.any(|url| url.starts_with("rediss:")) {
        findings.report_key("store.ca_file", "is of no use: no url here or of a peer begins with rediss://");
    }
}

fn check_embedding(embedding: &EmbeddingConfig, variables: &Variables<'_>, findings: &mut Findings) {
    if embedding.kind != EmbeddingKind::Openai {
        return;
    }
    let EmbeddingConfig { base_url, model, dimensions, api_key_env, .. } = embedding;
    let needed =
        [("base_url", base_url.is_empty()), ("model", model.is_empty()), ("dimensions", *dimensions == 0)];
    for (key, missing) in needed {
        if missing {
            findings.report_key(&format!("embedding.{key}"), "is needed when embedding.kind is openai");
        }
    }
    variables.get(EMBEDDING_KEY, api_key_env, findings);
}

fn check_cache(config: &Config, findings: &mut Findings) {
    let Config { cache, models, .. } = config;
    let LearningConfig { judge, judge_rate, .. } = &cache.learning;
    let is_judge = |model: &ModelConfig| model.id == *judge || model.tier.as_str() == judge;
    if *judge_rate > 0.0 && !models.iter().any(is_judge) {
        findings.report_key(
            "cache.learning.judge",
            format!("`{judge}` is no model id, and no tier with a model"),
        );
    }
    let names = cache.namespaces.iter().map(|own| &own.namespace);
    check_namespaces("cache.namespaces", names, findings);
}

/// What differs for a namespace stands in one place.
fn check_namespaces<'a>(list: &str, names: impl Iterator<Item = &'a String>, findings: &mut Findings) {
    let mut seen = HashSet::new();
    for (n, name) in names.enumerate() {
        if !seen.insert(name) {
            findings.report_key(&format!("{list}[{n}].namespace"), format!("`{name}` is listed twice"));
        }
    }
}

fn check_routing(config: &Config, findings: &mut Findings) {
    let Config { routing, models, .. } = config;
    let is_model = |name: &str| models.iter().any(|model| model.id == name);
    let is_known = |name: &str| name == AUTO || is_tier(name) || is_model(name);
    if !is_known(&routing.default) {
        findings.report_key("routing.default", format!("`{}` is no model id, tier or auto", routing.default));
    }
    if routing.classifier != LOCAL && !is_model(&routing.classifier) {
        findings.report_key(
            "routing.classifier",
            format!("`{}` is no model id, and not local", routing.classifier),
        );
    }
    check_fallback("routing.fallback", &routing.fallback, findings);
    let names = routing.namespaces.iter().map(|own| &own.namespace);
    check_namespaces("routing.namespaces", names, findings);
    for (n, NamespaceRouting { namespace: _, auto, fallback }) in routing.namespaces.iter().enumerate() {
        let path = |key: &str| format!("routing.namespaces[{n}].{key}");
        if let Some(name) = auto.as_ref().filter(|name| !is_known(name)) {
            findings.report_key(&path("auto"), format!("`{name}` is no model id, tier or auto"));
        }
        if let Some(fallback) = fallback {
            check_fallback(&path("fallback"), fallback, findings);
        }
    }
}

fn check_fallback(key: &str, fallback: &[Tier], findings: &mut Findings) {
    let mut seen = HashSet::new();
    if !fallback.iter().all(|tier| seen.insert(tier)) {
        findings.report_key(key, "names a tier twice");
    }
    if fallback.is_empty() {
        findings.report_key(key, "must name at least one tier");
    }
}

fn check_tenants(tenants: &mut [TenantConfig], variables: &Variables<'_>, findings: &mut Findings) {
    let mut names = HashSet::new();
    let mut hashes = HashSet::new();
    for (n, tenant) in tenants.iter_mut().enumerate() {
        let path = |key: &str| format!("tenants[{n}].{key}");
        if !names.insert(tenant.name.clone()) {
            findings.report_key(&path("name"), format!("`{}` names two tenants", tenant.name));
        }
        let key = Key { hash: &mut tenant.api_key_sha256, variable: &tenant.api_key_env, is_needed: true };
        let source = key.fill(path, variables, findings);
        if tenant.api_key_sha256.is_some_and(|hash| !hashes.insert(hash)) {
            findings.report_key(&path(source), "is the API key of another tenant too");
        }
    }
}

fn check_dashboard(dashboard: &mut DashboardConfig, variables: &Variables<'_>, findings: &mut Findings) {
    let DashboardConfig { api_key_sha256: hash, api_key_env: variable, .. } = dashboard;
    Key { hash, variable, is_needed: false }.fill(|key| format!("dashboard.{key}"), variables, findings);
}

/// The two ways to write an API key that callers send.
struct Key<'a> {
    hash: &'a mut Option<ApiKeyHash>,
    /// Name of the variable that holds the key.
    variable: &'a str,
    is_needed: bool,
}

// === impl Key ===

impl Key<'_> {
    /// Makes one of the two ways, and returns which was used.
    fn fill(
        self,
        path: impl Fn(&str) -> String,
        variables: &Variables<'_>,
        findings: &mut Findings,
    ) -> &'static str {
        let (hash, variable) = ("api_key_sha256", "api_key_env");
        match (&self.hash, self.variable.is_empty()) {
            (Some(_), true) => hash,
            (Some(_), false) => {
                findings.report_key(&path(variable), "must not be set beside api_key_sha256");
                hash
            }
            (None, true) => {
                if self.is_needed && !findings.is_reported(&path(variable)) {
                    findings.report_key(&path(hash), "is missing, and so is api_key_env");
                }
                hash
            }
            (None, false) => {
                let key = variables.get(&path(variable), self.variable, findings);
                *self.hash = key.map(ApiKeyHash::of);
                variable
            }
        }
    }
}

fn check_providers(
    providers: &mut [ProviderConfig],
    region: &str,
    variables: &Variables<'_>,
    findings: &mut Findings,
) {
    let mut names = HashSet::new();
    for (n, provider) in providers.iter_mut().enumerate() {
        let path = |key: &str| format!("providers[{n}].{key}");
        if !names.insert(provider.name.clone()) {
            findings.report_key(&path("name"), format!("`{}` names two providers", provider.name));
        }
        if provider.base_url.is_empty() {
            findings.report_key(&path("base_url"), "must not be empty");
        }
        variables.get(&path("api_key_env"), &provider.api_key_env, findings);
        if provider.region.is_empty() {
            region.clone_into(&mut provider.region);
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
        if id == AUTO || is_tier(id) {
            findings.report_key(&path("id"), format!("`{id}` already means a choice of the router"));
        }
        if !offers.insert((id, provider)) {
            findings.report_key(&path("id"), format!("`{id}` of provider `{provider}` is listed twice"));
        } else if tiers.insert(id, tier).is_some_and(|other| other != tier) {
            findings.report_key(&path("tier"), format!("`{id}` is in another tier at another provider"));
        }
    }
}

fn is_tier(name: &str) -> bool {
    Tier::parse(name).is_some()
}

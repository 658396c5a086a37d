//! The catalog of models and providers: addresses, prices, and the state of their breakers, latencies and
//! health. One [`Catalog`] is one consistent configuration; a reload makes another.

mod address;
mod credentials;

use std::{fmt, sync::Arc};

use reqwest::{
    Client, RequestBuilder,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
    redirect,
};

use self::{address::Address, credentials::Credentials};

use super::{
    Endpoint, StartError, UpstreamSettings, breaker::Breaker, budget::Budget, health::Health,
    latency::Latency, quarantine::Quarantine, route,
};
use crate::{
    config::{ModelConfig, ProviderConfig, RoutingConfig, UpstreamConfig},
    model::{Tier, Usage},
};

#[derive(Debug)]
pub(super) struct Catalog {
    /// In the order of the configuration.
    pub models: Vec<Arc<Model>>,
    pub providers: Vec<Arc<Provider>>,
    pub routing: RoutingConfig,
    /// The router's weights were fitted to the configured embedder.
    pub can_route_by_embedding: bool,
    pub limits: UpstreamConfig,
    pub client: Client,
    pub retries: Arc<Budget>,
    pub hedges: Arc<Budget>,
}

/// Idle connections kept open to one host; HTTP/2 needs only one.
const IDLE_CONNECTIONS_MAX: usize = 128;

/// One model at one provider.
#[derive(Debug)]
pub(super) struct Model {
    pub config: ModelConfig,
    pub provider: Arc<Provider>,
    pub state: Arc<ModelState>,
}

/// Learned state of a model at a provider. Outlives reloads.
#[derive(Debug)]
pub(super) struct ModelState {
    pub breaker: Arc<Breaker>,
    /// Of verifications only: a model whose verifications fail may still answer prompts, and the other way round.
    pub verification_breaker: Arc<Breaker>,
    pub latency: Latency,
    /// The provider does not have the model.
    pub quarantine: Quarantine,
}

pub(super) struct Provider {
    pub name: String,
    pub region: String,
    address: Address,
    credentials: Credentials,
    /// Further headers of each call.
    headers: HeaderMap,
    /// Served from the region of this deployment.
    pub is_same_region: bool,
    /// Outlives reloads.
    pub health: Arc<Health>,
    /// The provider refuses the server's key or account. Outlives reloads that keep the key.
    pub quarantine: Arc<Quarantine>,
}

// === impl Catalog ===

impl Catalog {
    /// Reports every problem at once. Unchanged models and providers keep the learned state of `before`.
    pub fn new(settings: UpstreamSettings<'_>, before: Option<&Self>) -> Result<Self, StartError> {
        let UpstreamSettings { providers, models, routing, upstream, region, embedder } = settings;
        let mut problems = Vec::new();
        let mut catalog = Self {
            models: Vec::new(),
            providers: Vec::new(),
            routing: routing.clone(),
            can_route_by_embedding: route::is_fitted_to(embedder),
            limits: upstream.clone(),
            client: client(upstream, before)?,
            retries: budget(upstream.retry_budget, before.map(|b| (&b.retries, b.limits.retry_budget))),
            hedges: budget(upstream.hedge_budget, before.map(|b| (&b.hedges, b.limits.hedge_budget))),
        };
        for config in providers {
            match Provider::new(config, region, before) {
                Ok(provider) => catalog.providers.push(Arc::new(provider)),
                Err(problem) => problems.push(problem),
            }
        }
        for config in models {
            match catalog.providers.iter().find(|provider| provider.name == config.provider) {
                Some(provider) => {
                    catalog.models.push(Arc::new(Model::new(config, provider, upstream, before)))
                }
                None => problems.push(format!("model {}: no usable provider {}", config.id, config.provider)),
            }
        }
        problems.extend(catalog.unknown_names());
        if problems.is_empty() { Ok(catalog) } else { Err(StartError { problems }) }
    }

    /// The first model of the highest tier that has one.
    pub fn hottest(&self) -> Option<&Arc<Model>> {
        Tier::ALL.iter().find_map(|tier| self.models.iter().find(|model| model.tier() == *tier))
    }

    /// The first model with this id.
    pub fn model(&self, id: &str) -> Option<&Arc<Model>> {
        self.models.iter().find(|model| model.config.id == id)
    }

    /// Names in the routing settings that no model or tier has.
    fn unknown_names(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let classifier = &self.routing.classifier;
        if classifier != crate::model::LOCAL && self.model(classifier).is_none() {
            problems.push(format!("routing.classifier: {classifier} is neither local nor a model"));
        }
        for namespace in &self.routing.namespaces {
            let Some(auto) = &namespace.auto else { continue };
            if Tier::parse(auto).is_none() && self.model(auto).is_none() {
                let name = &namespace.namespace;
                problems
                    .push(format!("routing.namespaces {name}: auto: {auto} is neither a tier nor a model"));
            }
        }
        problems
    }
}

/// The HTTP client of `before`, with its connections, unless the client's own setting has changed.
fn client(config: &UpstreamConfig, before: Option<&Catalog>) -> Result<Client, StartError> {
    if let Some(before) = before.filter(|before| before.limits.connect_timeout == config.connect_timeout) {
        return Ok(before.client.clone());
    }
    // Fails when a provider is installed already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .connect_timeout(config.connect_timeout)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        // A redirected POST would lose its body, and its API key could leak to another host.
        .redirect(redirect::Policy::none())
        // Only the chain retries, so that every call is counted.
        .retry(reqwest::retry::never())
        .user_agent(concat!("promptkeep/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|e| StartError { problems: vec![format!("the HTTP client cannot start: {e}")] })
}

fn budget(share: f64, before: Option<(&Arc<Budget>, f64)>) -> Arc<Budget> {
    match before {
        Some((budget, share_before)) if share_before == share => Arc::clone(budget),
        _ => Arc::new(Budget::new(share)),
    }
}

// === impl Model ===

impl Model {
    fn new(
        config: &ModelConfig,
        provider: &Arc<Provider>,
        limits: &UpstreamConfig,
        before: Option<&Catalog>,
    ) -> Self {
        let is_same = |model: &&Arc<Self>| {
            model.config.id == config.id
                && model.provider.name == provider.name
                && model.provider.address == provider.address
        };
        let state = match before.and_then(|before| before.models.iter().find(is_same)) {
            Some(same) => Arc::clone(&same.state),
            None => Arc::new(ModelState::new(limits)),
        };
        for breaker in [&state.breaker, &state.verification_breaker] {
            breaker.configure(limits.breaker_failures, limits.breaker_cooldown);
        }
        Self { config: config.clone(), provider: Arc::clone(provider), state }
    }

    /// `usage` with its cost by this model's prices. Reasoning is part of the output.
    pub fn price(&self, usage: Usage) -> Usage {
        const TOKENS_PER_MTOK: f64 = 1e6;
        let ModelConfig { input_usd_per_mtok: input, output_usd_per_mtok: output, .. } = self.config;
        let Usage { prompt_tokens, completion_tokens, cached_prompt_tokens, cache_write_tokens, .. } = usage;
        let plain = prompt_tokens.saturating_sub(cached_prompt_tokens).saturating_sub(cache_write_tokens);
        let usd = plain as f64 * input
            + cached_prompt_tokens as f64 * self.config.cached_input_usd_per_mtok.unwrap_or(input)
            + cache_write_tokens as f64 * self.config.cache_write_usd_per_mtok.unwrap_or(input)
            + completion_tokens as f64 * output;
        Usage { cost_usd: usd / TOKENS_PER_MTOK, ..usage }
    }

    pub fn tier(&self) -> Tier {
        self.config.tier
    }

    /// The model's name at its provider.
    pub fn name_at_provider(&self) -> &str {
        self.config.served_as.as_deref().unwrap_or(&self.config.id)
    }

    /// Sort key among models of one tier: available ones first, then those in this region.
    pub fn rank(&self) -> (bool, bool) {
        (!self.is_available(), !self.provider.is_same_region)
    }
}

// === impl ModelState ===

impl ModelState {
    fn new(limits: &UpstreamConfig) -> Self {
        let breaker = || Arc::new(Breaker::new(limits.breaker_failures, limits.breaker_cooldown));
        Self {
            breaker: breaker(),
            verification_breaker: breaker(),
            latency: Latency::default(),
            quarantine: Quarantine::default(),
        }
    }
}

// === impl Provider ===

impl Provider {
    fn new(config: &ProviderConfig, here: &str, before: Option<&Catalog>) -> Result<Self, String> {
        let ProviderConfig { name, region, headers, .. } = config;
        let problem = |problem: String| format!("provider {name}: {problem}");
        let address = Address::of(config).map_err(problem)?;
        let credentials = Credentials::of(config).map_err(problem)?;
        let is_same = |other: &&Arc<Self>| other.name == *name && other.address == address;
        let same = before.and_then(|before| before.providers.iter().find(is_same));
        let health = same.map(|same| Arc::clone(&same.health)).unwrap_or_default();
        let same_key = same.filter(|same| same.credentials.header() == credentials.header());
        let quarantine = same_key.map(|same| Arc::clone(&same.quarantine)).unwrap_or_default();
        let header = |(name, value): (&String, &String)| {
            let mut value = HeaderValue::try_from(value).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::try_from(name).ok()?, value))
        };
        let headers = headers.iter().map(header).collect::<Option<HeaderMap>>();
        Ok(Self {
            name: name.clone(),
            region: region.clone(),
            address,
            credentials,
            headers: headers.ok_or_else(|| problem("headers: not a header".to_owned()))?,
            is_same_region: region == here,
            health,
            quarantine,
        })
    }

    /// A POST of JSON to `model`, by its name at this provider, with the provider's credentials.
    pub fn post(&self, client: &Client, endpoint: Endpoint, model: &str) -> RequestBuilder {
        let request = client.post(self.address.of_endpoint(endpoint, model));
        self.authorize(request.header(CONTENT_TYPE, "application/json"))
    }

    /// A GET of the list of models, with the provider's credentials.
    pub fn get_models(&self, client: &Client) -> RequestBuilder {
        self.authorize(client.get(self.address.models()))
    }

    fn authorize(&self, request: RequestBuilder) -> RequestBuilder {
        let request = match self.credentials.header() {
            Some((name, value)) => request.header(name, value),
            None => request,
        };
        request.headers(self.headers.clone())
    }
}

/// Leaves out the API key.
impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("name", &self.name).finish_non_exhaustive()
    }
}

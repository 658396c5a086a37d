//! The models that may be called, where they are served and what they cost. Knows no socket.

use std::{env, fmt, sync::Arc};

use reqwest::{Url, header::HeaderValue};

use super::{StartError, Tier};
use crate::{
    config::{ModelConfig, ProviderConfig, RoutingConfig, UpstreamConfig},
    prompt::Usage,
};

/// What the upstreams are made of, as the configuration says it.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamSettings<'a> {
    pub providers: &'a [ProviderConfig],
    pub models: &'a [ModelConfig],
    pub routing: &'a RoutingConfig,
    pub upstream: &'a UpstreamConfig,
    /// Name of this deployment's region.
    pub region: &'a str,
}

/// One consistent state of the configuration.
#[derive(Debug)]
pub(super) struct Catalog {
    /// In the order of the file.
    pub models: Vec<Arc<Model>>,
    pub routing: RoutingConfig,
    pub limits: UpstreamConfig,
}

/// One model at one provider.
#[derive(Debug)]
pub(super) struct Model {
    pub config: ModelConfig,
    pub provider: Arc<Provider>,
}

pub(super) struct Provider {
    pub name: String,
    pub chat_url: Url,
    /// The `authorization` header.
    pub authorization: Option<HeaderValue>,
    /// In the region of this deployment.
    pub is_near: bool,
}

// === impl Catalog ===

impl Catalog {
    /// Reports every problem at once.
    pub fn new(settings: UpstreamSettings<'_>) -> Result<Self, StartError> {
        let mut problems = Vec::new();
        let mut keep = |result: Result<_, String>| result.map_err(|problem| problems.push(problem)).ok();
        let providers: Vec<Arc<Provider>> = settings
            .providers
            .iter()
            .filter_map(|config| keep(Provider::new(config, settings.region)).map(Arc::new))
            .collect();
        let mut models = Vec::new();
        for config in settings.models {
            match providers.iter().find(|provider| provider.name == config.provider) {
                Some(provider) => {
                    let provider = Arc::clone(provider);
                    models.push(Arc::new(Model { config: config.clone(), provider }));
                }
                None => problems.push(format!("model {}: no usable provider {}", config.id, config.provider)),
            }
        }
        if !problems.is_empty() {
            return Err(StartError { problems });
        }
        Ok(Self { models, routing: settings.routing.clone(), limits: settings.upstream.clone() })
    }

    /// The first model with this id.
    pub fn model(&self, id: &str) -> Option<&Arc<Model>> {
        self.models.iter().find(|model| model.config.id == id)
    }
}

// === impl Model ===

impl Model {
    /// `usage` with its cost by this model's prices.
    pub fn price(&self, usage: Usage) -> Usage {
        const TOKENS_PER_MTOK: f64 = 1e6;
        let input = usage.prompt_tokens as f64 * self.config.input_usd_per_mtok;
        let output = usage.completion_tokens as f64 * self.config.output_usd_per_mtok;
        Usage { cost_usd: (input + output) / TOKENS_PER_MTOK, ..usage }
    }

    pub fn tier(&self) -> Tier {
        self.config.tier
    }
}

// === impl Provider ===

impl Provider {
    fn new(config: &ProviderConfig, region: &str) -> Result<Self, String> {
        let ProviderConfig { name, base_url, api_key_env, region: provider_region } = config;
        let chat_url = format!("{}/chat/completions", base_url.trim_end_matches('/'));
        let chat_url = Url::parse(&chat_url).map_err(|e| format!("provider {name}: base_url: {e}"))?;
        if !matches!(chat_url.scheme(), "http" | "https") {
            return Err(format!("provider {name}: base_url must begin with http:// or https://"));
        }
        let authorization = match api_key_env.as_str() {
            "" => None,
            variable => Some(read_key(variable).map_err(|e| format!("provider {name}: {variable} {e}"))?),
        };
        Ok(Self { name: name.clone(), chat_url, authorization, is_near: provider_region == region })
    }
}

/// The key itself never appears in the error.
fn read_key(variable: &str) -> Result<HeaderValue, &'static str> {
    let key = env::var(variable).map_err(|_| "is not set")?;
    let mut value =
        HeaderValue::try_from(format!("Bearer {}", key.trim())).map_err(|_| "holds no valid API key")?;
    value.set_sensitive(true);
    Ok(value)
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("name", &self.name).finish_non_exhaustive()
    }
}

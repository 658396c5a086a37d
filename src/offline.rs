//! What `demo`, `tune` and `replay` share: the real pipeline in this process, servers for simulated models, files of
//! traffic, and the building blocks of reports. Also how often a real verifier errs on labelled pairs.

pub mod model_server;
pub mod replay;
pub mod report;
mod scripted_model;
pub mod simulated_verifier;
mod traffic_file;
pub mod tune;
pub mod verifier_errors;

use std::{io, sync::Arc, time::Duration};

use crate::{
    config::{Config, HedgeAfter, ModelConfig, ProviderConfig, StoreKind, VerifyMode},
    error::Error,
    key::{self, CacheKey},
    model::Tier,
    pipeline::{Pipeline, Reply, Request},
    prompt::{CacheControl, Prompt},
    server::{Server, StartError},
    telemetry::{metrics::Rpc, trace::Trace},
    tenant::Tenant,
};

pub use self::{
    scripted_model::{ModelAnswer, Tokens},
    simulated_verifier::{SimulatedVerifier, StatedErrors},
    traffic_file::{TrafficFileError, read_lines},
};
use scripted_model::ScriptedModel;

/// Longer than any run. A century, because entries cannot expire after 2554.
const TTL: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Timeout of a simulated verification: long enough for the slowest machine.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(60);

/// Provider of the free models, and the model that answers prompts that name none.
const FREE: &str = "offline";

/// Why an offline pipeline could not start or stop.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the server of the scripted model failed: {0}")]
    ModelServer(#[from] io::Error),
    #[error(transparent)]
    Tenant(#[from] Error),
}

/// The real pipeline, started with an empty memory store and without listening ports. One scripted model stands
/// behind every provider, and requests come one after the other.
pub struct OfflinePipeline {
    server: Server,
    tenant: Arc<Tenant>,
    model: ScriptedModel,
}

impl OfflinePipeline {
    /// Starts with the decision, routing and prices of `config`. Store, tenants and providers are replaced. Every
    /// verification is answered by `verifier`; without one there are none.
    ///
    /// # Errors
    /// [`OfflineError`]
    pub async fn start(config: Config, verifier: Option<SimulatedVerifier>) -> Result<Self, OfflineError> {
        let verify = if verifier.is_some() { VerifyMode::Before } else { VerifyMode::Off };
        let model = ScriptedModel::start(verifier).await?;
        let server = Server::new(isolate(config, &model.base_url(), verify)).await?;
        // A server without configured tenants admits every caller.
        let tenant = server.pipeline().settings().tenants.authenticate(None)?;
        Ok(Self { server, tenant, model })
    }

    /// Completes `prompt`; any model that is called replies `answer`. Returns once the background work of the
    /// request (storing, audits, learning) is done.
    ///
    /// # Errors
    /// The error that a caller of the server would receive.
    pub async fn complete(&self, prompt: Prompt, answer: ModelAnswer) -> Result<Reply, Error> {
        self.model.set_answer(answer);
        let request = Request {
            tenant: Arc::clone(&self.tenant),
            prompt,
            cache: CacheControl::default(),
            deadline: None,
            trace: Trace::default(),
        };
        let reply = match self.pipeline().complete(Rpc::Complete, request).await {
            Ok(answer) => answer.whole().await,
            Err(error) => Err(error),
        };
        self.pipeline().wait_until_idle().await;
        reply
    }

    /// Returns the key of the prompt's entry. The prompt must name its namespace and model.
    pub fn key_of(&self, prompt: &Prompt) -> CacheKey {
        let mut prompt = prompt.clone();
        prompt.ignore(&self.pipeline().settings().cache.ignore_fields);
        key::of(&self.tenant.owner(&prompt.namespace), &prompt).0
    }

    pub fn pipeline(&self) -> &Arc<Pipeline> {
        self.server.pipeline()
    }

    /// Number of model calls so far, without verifications.
    pub fn calls(&self) -> usize {
        self.model.calls()
    }

    /// Number of verifications so far.
    pub fn verifications(&self) -> usize {
        self.model.verifications()
    }

    /// Stops the scripted model.
    ///
    /// # Errors
    /// When its server failed.
    pub async fn stop(self) -> io::Result<()> {
        drop(self.server);
        self.model.stop().await
    }
}

/// Replaces the catalog with free models: one for prompts that name none, and one for each of `names`.
pub fn use_free_models<'a>(config: &mut Config, names: impl IntoIterator<Item = &'a str>) {
    let model = |id: &str| ModelConfig {
        id: id.to_owned(),
        provider: FREE.to_owned(),
        served_as: None,
        tier: Tier::Cold,
        input_usd_per_mtok: 0.0,
        output_usd_per_mtok: 0.0,
        context_window: 10_000_000,
        ..ModelConfig::default()
    };
    config.providers = vec![ProviderConfig { name: FREE.to_owned(), ..ProviderConfig::default() }];
    config.models = [FREE].into_iter().chain(names).map(model).collect();
}

/// Keeps a run in this process, except for calls to an embeddings API, and makes it repeatable: nothing expires, and
/// models are called only to answer a request or to audit a hit. Verification is off where the scripted model
/// would repeat the recorded answer instead of comparing two answers. Else it is neither late nor limited by the clock,
/// since requests follow each other faster than real ones.
fn isolate(mut config: Config, model_url: &str, verify: VerifyMode) -> Config {
    config.store.kind = StoreKind::Memory;
    config.tenants.clear();
    config.telemetry.otlp_endpoint.clear();
    config.upstream.hedge_after = HedgeAfter::Never;
    config.upstream.retries = 0;
    config.upstream.health_interval = Duration::ZERO;
    config.cache.ttl = TTL;
    config.cache.careful_ttl = TTL;
    config.cache.ttl_jitter = 0.0;
    config.cache.verify.mode = verify;
    config.cache.verify.timeout = VERIFY_TIMEOUT;
    config.cache.verify.max_per_minute = usize::MAX;
    for own in &mut config.cache.namespaces {
        own.verify = None;
    }
    for provider in &mut config.providers {
        model_url.clone_into(&mut provider.base_url);
        provider.api_key_env.clear();
    }
    config
}

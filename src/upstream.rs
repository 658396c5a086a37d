//! Upstream models, which answer what the cache cannot: the catalog, routing, the chain of attempts, the
//! provider dialect. Provider JSON must not leave this module.

mod answer;
mod attempt;
mod breaker;
mod budget;
mod call;
mod catalog;
mod chain;
mod classify;
mod forward;
mod health;
mod latency;
mod openai;
mod quarantine;
mod rank;
mod reply;
mod route;
mod short_reply;
mod sse;
pub(crate) mod tokens;
mod verification;

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use reqwest::header::HeaderMap;
use tokio::time::Instant;

pub use self::{
    answer::Answer,
    attempt::OnAttempt,
    forward::{Endpoint, ForwardRequest, Forwarded},
    verification::{KEPT_MAX, KeptAnswer, TimeLimit, VerificationQuestion, Verifier, cut_answer},
};
use self::{
    attempt::AttemptLog,
    catalog::Catalog,
    chain::Chain,
    classify::Classifications,
    route::{Plan, Wanted},
};
use crate::{
    config::{ModelConfig, ProviderConfig, RoutingConfig, UpstreamConfig},
    embed::Embedding,
    error::Error,
    model::{Attempt, Difficulty, LOCAL, ModelState, ProviderState, Route, RouteReason, Usage},
    prompt::Prompt,
};

/// Every configured model. Cheap to clone: clones share connections and state.
#[derive(Clone)]
pub struct Upstreams {
    catalog: Arc<ArcSwap<Catalog>>,
    classifications: Arc<Classifications>,
}

/// The parts of the configuration that concern upstream models.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamSettings<'a> {
    pub providers: &'a [ProviderConfig],
    pub models: &'a [ModelConfig],
    pub routing: &'a RoutingConfig,
    pub upstream: &'a UpstreamConfig,
    /// Name of this deployment's region.
    pub region: &'a str,
    /// [`Embedder::name`](crate::embed::Embedder::name) of the embeddings in [`UpstreamRequest`]; empty without an
    /// embedder.
    pub embedder: &'a str,
}

/// One request to the models.
#[derive(Clone)]
pub struct UpstreamRequest<'a> {
    pub prompt: &'a Prompt,
    /// Embedding of the last user text, if it was computed. The router uses it.
    pub embedding: Option<&'a Embedding>,
    /// Deadline of the whole chain and of the answer.
    pub deadline: Instant,
    /// Additional headers for the provider.
    pub headers: HeaderMap,
    pub on_attempt: Option<OnAttempt>,
}

/// Problems of the catalog; each names its provider or model.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", problems.join("; "))]
pub struct StartError {
    pub problems: Vec<String>,
}

// === impl Upstreams ===

impl Upstreams {
    /// Builds the catalog; opens no connection yet.
    ///
    /// # Errors
    /// [`StartError`] with every problem of the catalog.
    pub fn new(settings: UpstreamSettings<'_>) -> Result<Self, StartError> {
        let catalog = Catalog::new(settings, None)?;
        let classifications = Arc::new(Classifications::new(catalog.routing.classifier_cache));
        Ok(Self { catalog: Arc::new(ArcSwap::from_pointee(catalog)), classifications })
    }

    /// Replaces the configuration. Requests in flight keep the one they began with, and unchanged models and
    /// providers keep their learned state.
    ///
    /// # Errors
    /// [`StartError`] with every problem; the old configuration stays in force.
    pub fn reload(&self, settings: UpstreamSettings<'_>) -> Result<(), StartError> {
        let catalog = Catalog::new(settings, Some(&self.catalog.load()))?;
        self.catalog.store(Arc::new(catalog));
        Ok(())
    }

    /// Checks the health of every provider until the future is dropped. Spawn it once.
    pub async fn watch_health(&self) {
        health::watch(self).await;
    }

    /// Whether the catalog has no model.
    pub fn is_empty(&self) -> bool {
        self.catalog.load().models.is_empty()
    }

    /// The models, in the order of the configuration.
    pub fn models(&self) -> Vec<ModelConfig> {
        self.catalog.load().models.iter().map(|model| model.config.clone()).collect()
    }

    /// The state of every provider, in the order of the configuration.
    pub fn provider_states(&self) -> Vec<ProviderState> {
        let state = |provider: &Arc<catalog::Provider>| ProviderState {
            name: provider.name.clone(),
            region: provider.region.clone(),
            is_up: provider.health.is_up(),
            quarantined: provider.quarantine.cause(),
        };
        self.catalog.load().providers.iter().map(state).collect()
    }

    /// The state of every model, in the order of the configuration.
    pub fn model_states(&self) -> Vec<ModelState> {
        let state = |model: &Arc<catalog::Model>| ModelState {
            model: model.config.id.clone(),
            provider: model.provider.name.clone(),
            breaker: model.state.breaker.state(),
            quarantined: model.state.quarantine.cause(),
        };
        self.catalog.load().models.iter().map(state).collect()
    }

    /// Calls the models in the router's order until one sends its first token or completes an empty answer.
    /// Cancel-safe: dropping the future cancels the calls in flight.
    ///
    /// # Errors
    /// [`Error::NoUpstream`]; [`Error::InvalidArgument`] for an unknown model name, or a prompt that fits no
    /// model; [`Error::Refused`]; [`Error::Unavailable`] and [`Error::DeadlineExceeded`] with every attempt.
    pub async fn open(&self, ask: UpstreamRequest<'_>) -> Result<Answer, Error> {
        let catalog = self.catalog.load_full();
        if catalog.models.is_empty() {
            return Err(Error::NoUpstream);
        }
        let log = AttemptLog::new(ask.on_attempt.clone());
        let Plan { models, reason } = self.plan(&catalog, &ask, &log).await?;
        if models.is_empty() {
            return Err(Error::NoUpstream);
        }
        // Boxed because the futures of a chain are large, and most requests are answered from the cache.
        Box::pin(Chain::new(&catalog, &ask, models, log).run(reason)).await
    }

    /// The router's first choice for the prompt; `None` for an unknown model name. It calls no model: the
    /// difficulty class is a remembered one, or else computed locally.
    pub fn route(&self, prompt: &Prompt, embedding: Option<&Embedding>) -> Option<Route> {
        let plan = self.plan_without_asking(&self.catalog.load(), prompt, embedding)?;
        let first = plan.models.first()?;
        Some(Route { model: first.config.id.clone(), tier: first.tier(), reason: plan.reason })
    }

    /// `usage` with its cost at the first model of this id; `None` when there is none.
    pub fn price(&self, model: &str, usage: Usage) -> Option<Usage> {
        self.catalog.load().model(model).map(|model| model.price(usage))
    }

    /// Cost of `usage` in US dollars at the highest tier that has a model: the baseline of sending everything
    /// to the best model.
    pub fn at_hot_tier(&self, usage: Usage) -> f64 {
        self.catalog.load().hottest().map_or(0.0, |model| model.price(usage).cost_usd)
    }

    /// Cost of `usage` in US dollars at the model that asks most for it.
    pub fn at_dearest_model(&self, usage: Usage) -> f64 {
        let catalog = self.catalog.load();
        catalog.models.iter().map(|model| model.price(usage).cost_usd).fold(0.0, f64::max)
    }

    /// Id of the model whose prices [`Upstreams::at_hot_tier`] uses.
    pub fn hot_model(&self) -> Option<String> {
        self.catalog.load().hottest().map(|model| model.config.id.clone())
    }

    async fn plan(
        &self,
        catalog: &Catalog,
        ask: &UpstreamRequest<'_>,
        log: &Arc<AttemptLog>,
    ) -> Result<Plan, Error> {
        let prompt = ask.prompt;
        let classified = match Wanted::of(catalog, prompt) {
            Wanted::ByDifficulty if catalog.routing.classifier != LOCAL => {
                Box::pin(self.classifications.ask(catalog, prompt, ask.deadline, log)).await
            }
            _ => None,
        };
        plan(catalog, prompt, ask.embedding, || classified).ok_or_else(route::unknown_model)
    }

    fn plan_without_asking(
        &self,
        catalog: &Catalog,
        prompt: &Prompt,
        embedding: Option<&Embedding>,
    ) -> Option<Plan> {
        let is_local = catalog.routing.classifier == LOCAL;
        plan(catalog, prompt, embedding, || if is_local { None } else { self.classifications.get(prompt) })
    }
}

/// The plan for a prompt. Where its difficulty decides, the class comes from `classified` or is computed
/// locally.
fn plan(
    catalog: &Catalog,
    prompt: &Prompt,
    embedding: Option<&Embedding>,
    classified: impl FnOnce() -> Option<Difficulty>,
) -> Option<Plan> {
    if let Wanted::Name { name, reason } = Wanted::of(catalog, prompt) {
        return route::plan_for_name(catalog, prompt, name, reason);
    }
    let (difficulty, reason) = match classified() {
        Some(difficulty) => (difficulty, RouteReason::Classifier(difficulty)),
        None => {
            let difficulty = route::classify_locally(catalog, prompt, embedding);
            (difficulty, RouteReason::Local(difficulty))
        }
    };
    Some(route::plan_for_difficulty(catalog, prompt, difficulty, reason))
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstreams").field("models", &self.catalog.load().models.len()).finish_non_exhaustive()
    }
}

// === impl UpstreamRequest ===

impl<'a> UpstreamRequest<'a> {
    pub fn new(prompt: &'a Prompt, deadline: Instant) -> Self {
        Self { prompt, embedding: None, deadline, headers: HeaderMap::new(), on_attempt: None }
    }

    pub fn embedding(mut self, embedding: Option<&'a Embedding>) -> Self {
        self.embedding = embedding;
        self
    }

    pub fn headers(mut self, headers: HeaderMap) -> Self {
        self.headers = headers;
        self
    }

    /// Sets the listener for attempts. It is called exactly once for every upstream call, when it ends or is
    /// dropped, and for every model passed over. It runs inline, so it must be short.
    pub fn on_attempt(mut self, listener: impl Fn(&Attempt) + Send + Sync + 'static) -> Self {
        self.on_attempt = Some(Arc::new(listener));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_send<T: Send>(value: T) -> T {
        value
    }

    #[test]
    fn answers_move_between_tasks() {
        fn needs_static<T: Send + 'static>() {}
        needs_static::<Answer>();
        needs_static::<Upstreams>();
        let _open = |upstreams: &Upstreams, ask: UpstreamRequest<'_>| drop(is_send(upstreams.open(ask)));
    }
}

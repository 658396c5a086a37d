//! The models that answer what the cache cannot: catalog, routing, the chain of attempts, the provider
//! dialect. Provider JSON stays under this module.

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
mod rank;
mod reply;
mod route;
mod second_opinion;
mod sse;
pub(crate) mod tokens;
mod word;

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use reqwest::header::HeaderMap;
use tokio::time::Instant;

pub use self::{
    answer::Answer,
    attempt::OnAttempt,
    forward::{Endpoint, Forwarded, Passed},
    second_opinion::Reuse,
};
use self::{
    attempt::AttemptLog,
    catalog::Catalog,
    chain::Chain,
    classify::Verdicts,
    route::{Plan, Wanted},
};
use crate::{
    config::{ModelConfig, ProviderConfig, RoutingConfig, UpstreamConfig},
    embed::Embedding,
    error::{Error, MODEL_FIELD},
    model::{
        AUTO, Attempt, AttemptReason, AttemptResult, BreakerState, Difficulty, LOCAL, ModelState,
        ProviderState, Route, RouteReason, Tier, Usage, VerifierReply,
    },
    prompt::Prompt,
};

/// Every model that may be called. Cheap to clone: clones share connections and state.
#[derive(Clone)]
pub struct Upstreams {
    catalog: Arc<ArcSwap<Catalog>>,
    verdicts: Arc<Verdicts>,
}

/// What the upstreams are made of, as the configuration says it.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamSettings<'a> {
    pub providers: &'a [ProviderConfig],
    pub models: &'a [ModelConfig],
    pub routing: &'a RoutingConfig,
    pub upstream: &'a UpstreamConfig,
    /// Name of this deployment's region.
    pub region: &'a str,
    /// [`Embedder::name`](crate::embed::Embedder::name) of the embeddings in [`Ask`]; empty: none come.
    pub embedder: &'a str,
}

/// One request to the models.
#[derive(Clone)]
pub struct Ask<'a> {
    pub prompt: &'a Prompt,
    /// Of the last user text, when it was embedded: helps the router.
    pub embedding: Option<&'a Embedding>,
    /// End of the whole chain and of the answer.
    pub deadline: Instant,
    /// Sent to the provider beside the request's own.
    pub headers: HeaderMap,
    pub on_attempt: Option<OnAttempt>,
}

/// What is wrong with providers and models; each problem names its line of the catalog.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", problems.join("; "))]
pub struct StartError {
    pub problems: Vec<String>,
}

// === impl Upstreams ===

impl Upstreams {
    /// Opens no connection yet.
    ///
    /// # Errors
    /// [`StartError`] with every problem of the catalog.
    pub fn new(settings: UpstreamSettings<'_>) -> Result<Self, StartError> {
        let catalog = Catalog::new(settings, None)?;
        let verdicts = Arc::new(Verdicts::new(catalog.routing.classifier_cache));
        Ok(Self { catalog: Arc::new(ArcSwap::from_pointee(catalog)), verdicts })
    }

    /// Takes another configuration. Requests under way go on with the one they began with; what was
    /// learned about unchanged models and providers is kept.
    ///
    /// # Errors
    /// [`StartError`] with every problem; the configuration before stays in force.
    pub fn reload(&self, settings: UpstreamSettings<'_>) -> Result<(), StartError> {
        let catalog = Catalog::new(settings, Some(&self.catalog.load()))?;
        self.catalog.store(Arc::new(catalog));
        Ok(())
    }

    /// Checks the health of every provider until it is dropped; to be spawned once.
    pub async fn watch_health(&self) {
        health::watch(self).await;
    }

    /// Whether there is no model to call.
    pub fn is_empty(&self) -> bool {
        self.catalog.load().models.is_empty()
    }

    /// The catalog, in the order of the file.
    pub fn models(&self) -> Vec<ModelConfig> {
        self.catalog.load().models.iter().map(|model| model.config.clone()).collect()
    }

    /// How every provider is doing, in the order of the file.
    pub fn provider_states(&self) -> Vec<ProviderState> {
        let state = |provider: &Arc<catalog::Provider>| ProviderState {
            name: provider.name.clone(),
            region: provider.region.clone(),
            is_up: provider.health.is_up(),
        };
        self.catalog.load().providers.iter().map(state).collect()
    }

    /// How every model is doing, in the order of the file.
    pub fn model_states(&self) -> Vec<ModelState> {
        let state = |model: &Arc<catalog::Model>| ModelState {
            model: model.config.id.clone(),
            provider: model.provider.name.clone(),
            breaker: model.state.breaker.state(),
        };
        self.catalog.load().models.iter().map(state).collect()
    }

    /// Asks the models in the order of routing until one has its first token, or has ended an empty
    /// answer. Cancel-safe: dropping the future cancels the calls under way.
    ///
    /// # Errors
    /// [`Error::NoUpstream`]; [`Error::InvalidArgument`] for a name that is no model, or a prompt that
    /// fits none; [`Error::Refused`]; [`Error::Unavailable`] and [`Error::DeadlineExceeded`] with every
    /// attempt.
    pub async fn open(&self, ask: Ask<'_>) -> Result<Answer, Error> {
        let catalog = self.catalog.load_full();
        if catalog.models.is_empty() {
            return Err(Error::NoUpstream);
        }
        let log = AttemptLog::new(ask.on_attempt.clone());
        let Plan { models, reason } = self.plan(&catalog, &ask, &log).await?;
        if models.is_empty() {
            return Err(Error::NoUpstream);
        }
        // Boxed, because a chain of futures over HTTP is large and most requests never come here.
        Box::pin(Chain::new(&catalog, &ask, models, log).run(reason)).await
    }

    /// Where the prompt would go first; `None` when nothing bears the name it asks for. Asks no model:
    /// without a remembered verdict the local judgement counts.
    pub fn route(&self, prompt: &Prompt, embedding: Option<&Embedding>) -> Option<Route> {
        let plan = self.plan_without_asking(&self.catalog.load(), prompt, embedding)?;
        let first = plan.models.first()?;
        Some(Route { model: first.config.id.clone(), tier: first.tier(), reason: plan.reason })
    }

    /// `usage` with what it costs at the first model with this id; `None` when there is none.
    pub fn price(&self, model: &str, usage: Usage) -> Option<Usage> {
        self.catalog.load().model(model).map(|model| model.price(usage))
    }

    /// What these tokens cost at the dearest tier that has a model, in US dollars: the bill of those who send
    /// everything to their best model.
    pub fn at_hot_tier(&self, usage: Usage) -> f64 {
        self.catalog.load().hottest().map_or(0.0, |model| model.price(usage).cost_usd)
    }

    /// Id of the model that [`Upstreams::at_hot_tier`] goes by.
    pub fn hot_model(&self) -> Option<String> {
        self.catalog.load().hottest().map(|model| model.config.id.clone())
    }

    async fn plan(&self, catalog: &Catalog, ask: &Ask<'_>, log: &Arc<AttemptLog>) -> Result<Plan, Error> {
        let prompt = ask.prompt;
        match Wanted::of(catalog, prompt) {
            Wanted::Name { name, reason } => route::plan_for_name(catalog, prompt, name, reason)
                .ok_or_else(|| Error::invalid(MODEL_FIELD, "is no model, no tier and not auto")),
            Wanted::Judgement => {
                let verdict = match catalog.routing.classifier.as_str() {
                    LOCAL => None,
                    _ => Box::pin(self.verdicts.ask(catalog, prompt, ask.deadline, log)).await,
                };
                Ok(plan_for_verdict(catalog, prompt, ask.embedding, verdict))
            }
        }
    }

    fn plan_without_asking(
        &self,
        catalog: &Catalog,
        prompt: &Prompt,
        embedding: Option<&Embedding>,
    ) -> Option<Plan> {
        match Wanted::of(catalog, prompt) {
            Wanted::Name { name, reason } => route::plan_for_name(catalog, prompt, name, reason),
            Wanted::Judgement => {
                let verdict = self.verdict_if_asked(catalog, prompt);
                Some(plan_for_verdict(catalog, prompt, embedding, verdict))
            }
        }
    }

    fn verdict_if_asked(&self, catalog: &Catalog, prompt: &Prompt) -> Option<Difficulty> {
        (catalog.routing.classifier != LOCAL).then(|| self.verdicts.get(prompt)).flatten()
    }
}

fn plan_for_verdict(
    catalog: &Catalog,
    prompt: &Prompt,
    embedding: Option<&Embedding>,
    verdict: Option<Difficulty>,
) -> Plan {
    let (difficulty, reason) = match verdict {
        Some(difficulty) => (difficulty, RouteReason::Classifier(difficulty)),
        None => {
            let difficulty = route::judge(catalog, prompt, embedding);
            (difficulty, RouteReason::Local(difficulty))
        }
    };
    route::plan_for_difficulty(catalog, prompt, difficulty, reason)
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstreams").field("models", &self.catalog.load().models.len()).finish_non_exhaustive()
    }
}

// === impl Ask ===

impl<'a> Ask<'a> {
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

    /// `told` hears of every call of a model exactly once, when it ends, also when its answer is dropped;
    /// and of every model that was passed over. It runs where the call ends, so it must be short.
    pub fn on_attempt(mut self, told: impl Fn(&Attempt) + Send + Sync + 'static) -> Self {
        self.on_attempt = Some(Arc::new(told));
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
        let _open = |upstreams: &Upstreams, ask: Ask<'_>| drop(is_send(upstreams.open(ask)));
    }
}

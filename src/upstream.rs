//! The models that answer what the cache cannot: catalog, routing, the chain of attempts, the provider
//! dialect. Provider JSON stays under this module.

mod answer;
mod call;
mod catalog;
mod chain;
mod openai;
mod reply;
mod sse;
mod tokens;

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use reqwest::{Client, redirect};
use tokio::time::Instant;

use self::catalog::Catalog;
pub use self::{
    answer::{Answer, OnAttempt},
    catalog::UpstreamSettings,
};
use crate::{
    config::{ModelConfig, UpstreamConfig},
    embed::Embedding,
    error::Error,
    prompt::{Prompt, Usage},
};

/// The model name that leaves the choice to the router.
pub const AUTO: &str = "auto";

/// Every model that may be called. Cheap to clone: clones share connections and state.
#[derive(Clone)]
pub struct Upstreams {
    client: Client,
    catalog: Arc<ArcSwap<Catalog>>,
}

/// One request to the models.
#[derive(Clone)]
pub struct Ask<'a> {
    pub prompt: &'a Prompt,
    /// Of the last user text, when it was embedded: helps the router.
    pub embedding: Option<&'a Embedding>,
    /// End of the whole chain and of the answer.
    pub deadline: Instant,
    pub on_attempt: Option<OnAttempt>,
}

/// What is wrong with providers and models; each problem names its line of the catalog.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", problems.join("; "))]
pub struct StartError {
    pub problems: Vec<String>,
}

/// The model that the router would call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub model: String,
    pub tier: Tier,
}

/// One call of one model, as it is reported to callers and counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    pub model: String,
    pub tier: String,
    pub provider: String,
    pub result: AttemptResult,
    /// Why this model was chosen.
    pub reason: AttemptReason,
    pub elapsed: Duration,
    pub first_token: Option<Duration>,
    /// Tokens and money of this call; all zero when the provider did no work.
    pub usage: Usage,
}

/// How one call of one model ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttemptResult {
    Ok,
    /// Status of the provider's reply.
    Http(u16),
    Connect,
    FirstTokenTimeout,
    IdleTimeout,
    Deadline,
    /// The connection broke, or the stream ended before it said so.
    Broken,
    /// The reply is not of the dialect, or reports an error inside a success.
    Malformed,
    /// Larger than `upstream.max_answer`.
    TooLarge,
    /// Nobody waits for the answer any more, or another attempt was faster.
    Cancelled,
}

/// Why a model was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttemptReason {
    /// The caller named it, or the router chose its tier.
    Routed,
    /// The models before it failed.
    Fallback,
    /// The same model again, after a retryable failure.
    Retry,
    /// The model before it was slow to begin.
    Hedge,
}

/// Tier of compute, cheapest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    Hot,
    Warm,
    Cold,
    Economy,
}

// === impl Upstreams ===

impl Upstreams {
    /// Opens no connection yet.
    ///
    /// # Errors
    /// [`StartError`] with every problem of the catalog.
    pub fn new(settings: UpstreamSettings<'_>) -> Result<Self, StartError> {
        let catalog = Catalog::new(settings)?;
        let client = client(settings.upstream)
            .map_err(|e| StartError { problems: vec![format!("the HTTP client cannot start: {e}")] })?;
        Ok(Self { client, catalog: Arc::new(ArcSwap::from_pointee(catalog)) })
    }

    /// Whether there is no model to call.
    pub fn is_empty(&self) -> bool {
        self.catalog.load().models.is_empty()
    }

    /// The catalog, in the order of the file.
    pub fn models(&self) -> Vec<ModelConfig> {
        self.catalog.load().models.iter().map(|model| model.config.clone()).collect()
    }

    /// Asks the models in the order of routing until one has its first token, or has ended an empty
    /// answer. Cancel-safe: dropping the future cancels the call under way.
    ///
    /// # Errors
    /// [`Error::NoUpstream`]; [`Error::InvalidArgument`] for a name that is no model; [`Error::Refused`];
    /// [`Error::Unavailable`] and [`Error::DeadlineExceeded`] with every attempt.
    pub async fn open(&self, ask: Ask<'_>) -> Result<Answer, Error> {
        let catalog = self.catalog.load_full();
        if catalog.models.is_empty() {
            return Err(Error::NoUpstream);
        }
        let Some(candidates) = chain::candidates(&catalog, &ask.prompt.model) else {
            return Err(Error::invalid("prompt.model", "is no model, no tier and not auto"));
        };
        if candidates.is_empty() {
            return Err(Error::NoUpstream);
        }
        Box::pin(chain::run(self, &catalog, &candidates, &ask)).await
    }

    /// The model that the prompt would be sent to first; `None` when there is none of its name.
    pub fn route(&self, prompt: &Prompt, _embedding: Option<&Embedding>) -> Option<Route> {
        let candidates = chain::candidates(&self.catalog.load(), &prompt.model)?;
        let first = candidates.first()?;
        Some(Route { model: first.config.id.clone(), tier: first.tier() })
    }

    /// `usage` with what it costs at the first model with this id; `None` when there is none.
    pub fn price(&self, model: &str, usage: Usage) -> Option<Usage> {
        self.catalog.load().model(model).map(|model| model.price(usage))
    }

    fn client(&self) -> &Client {
        &self.client
    }
}

fn client(config: &UpstreamConfig) -> reqwest::Result<Client> {
    // Fails when somebody else was first, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .connect_timeout(config.connect_timeout)
        // A redirected POST would lose its body, and its key could go elsewhere.
        .redirect(redirect::Policy::none())
        .user_agent(concat!("promptkeep/", env!("CARGO_PKG_VERSION")))
        .build()
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstreams").field("models", &self.catalog.load().models.len()).finish_non_exhaustive()
    }
}

// === impl Ask ===

impl<'a> Ask<'a> {
    pub fn new(prompt: &'a Prompt, deadline: Instant) -> Self {
        Self { prompt, embedding: None, deadline, on_attempt: None }
    }

    pub fn embedding(mut self, embedding: Option<&'a Embedding>) -> Self {
        self.embedding = embedding;
        self
    }

    /// `told` hears of every call of a model exactly once, when it ends, also when its answer is dropped.
    pub fn on_attempt(mut self, told: impl Fn(&Attempt) + Send + Sync + 'static) -> Self {
        self.on_attempt = Some(Arc::new(told));
        self
    }
}

// === impl Tier ===

impl Tier {
    /// Dearest first.
    pub const ALL: [Self; 4] = [Self::Hot, Self::Warm, Self::Cold, Self::Economy];

    /// The name in the catalog, in prompts and in labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Warm => "warm",
            Self::Cold => "cold",
            Self::Economy => "economy",
        }
    }

    /// Parses [`Tier::as_str`]'s names.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.as_str() == name)
    }
}

// === impl AttemptResult ===

impl AttemptResult {
    /// Its label. Statuses outside the usual ones share one, so that labels stay few.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Http(400) => "http_400",
            Self::Http(401) => "http_401",
            Self::Http(403) => "http_403",
            Self::Http(404) => "http_404",
            Self::Http(408) => "http_408",
            Self::Http(413) => "http_413",
            Self::Http(422) => "http_422",
            Self::Http(429) => "http_429",
            Self::Http(500) => "http_500",
            Self::Http(502) => "http_502",
            Self::Http(503) => "http_503",
            Self::Http(504) => "http_504",
            Self::Http(529) => "http_529",
            Self::Http(400..=499) => "http_4xx",
            Self::Http(500..) => "http_5xx",
            Self::Http(_) => "http_other",
            Self::Connect => "connect",
            Self::FirstTokenTimeout => "first_token_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::Deadline => "deadline",
            Self::Broken => "broken",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for AttemptResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl AttemptReason ===

impl AttemptReason {
    /// Its label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Routed => "routed",
            Self::Fallback => "fallback",
            Self::Retry => "retry",
            Self::Hedge => "hedge",
        }
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

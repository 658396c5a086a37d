//! The real pipeline in this process, from nothing and without doors: its store is memory, and its models say
//! what the caller has in hand. For questions about traffic, which is asked one prompt after the other.

mod answers;
mod lines;

use std::{io, sync::Arc, time::Duration};

use crate::{
    config::{Config, HedgeAfter, StoreKind},
    error::Error,
    key::{self, CacheKey},
    metrics::Rpc,
    pipeline::{Pipeline, Reply, Request},
    prompt::{CacheControl, Prompt},
    server::{Server, StartError},
    tenant::Tenant,
    trace::Trace,
};

pub use self::{
    answers::{Said, Tokens},
    lines::{LineError, read_lines},
};
use answers::Answers;

/// Longer than any run. Times of entries end in 2554.
const FOR_GOOD: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Why there is no pipeline to ask.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the answering server failed: {0}")]
    Answers(#[from] io::Error),
    #[error(transparent)]
    Tenant(#[from] Error),
}

/// See the [module](self).
pub struct Offline {
    server: Server,
    tenant: Arc<Tenant>,
    answers: Answers,
}

// === impl Offline ===

impl Offline {
    /// `config` says how to decide, to route and what models cost. Store and tenants are the run's own, and
    /// its providers all lead to the answers given to [`Offline::ask`].
    ///
    /// # Errors
    /// [`OfflineError`]
    pub async fn start(config: Config) -> Result<Self, OfflineError> {
        let answers = Answers::start().await?;
        let server = Server::new(configure(config, &answers)).await?;
        // A server without tenants takes everybody.
        let tenant = server.pipeline().settings().tenants.authenticate(None)?;
        Ok(Self { server, tenant, answers })
    }

    /// What the cache says to `prompt`; whatever model it asks says `said`. Returns when everything that
    /// follows is kept and learned.
    ///
    /// # Errors
    /// As a caller would see it.
    pub async fn ask(&self, prompt: Prompt, said: Said) -> Result<Reply, Error> {
        self.answers.say(said);
        let request = Request {
            tenant: Arc::clone(&self.tenant),
            prompt,
            cache: CacheControl::default(),
            deadline: None,
            trace: Trace::default(),
        };
        let reply = match self.pipeline().complete(Rpc::Complete, request).await {
            Ok(answering) => answering.whole().await,
            Err(error) => Err(error),
        };
        self.pipeline().settled().await;
        reply
    }

    /// What the entry of `prompt` is kept under. Its namespace and model must be named.
    pub fn key_of(&self, prompt: &Prompt) -> CacheKey {
        key::of(&self.tenant.owner(&prompt.namespace), prompt).0
    }

    pub fn pipeline(&self) -> &Arc<Pipeline> {
        self.server.pipeline()
    }

    /// Model calls so far.
    pub fn calls(&self) -> u64 {
        self.answers.calls()
    }

    /// # Errors
    /// When the answering server did.
    pub async fn stop(self) -> io::Result<()> {
        drop(self.server);
        self.answers.stop().await
    }
}

/// Nothing of a run outlives or leaves it but texts for an embeddings API, nothing expires, and only requests and
/// the checks of their hits make calls: its models repeat what was answered, so none of them can judge.
fn configure(mut config: Config, answers: &Answers) -> Config {
    config.store.kind = StoreKind::Memory;
    config.tenants.clear();
    config.telemetry.otlp_endpoint.clear();
    config.upstream.hedge_after = HedgeAfter::Never;
    config.upstream.retries = 0;
    config.upstream.health_interval = Duration::ZERO;
    config.cache.ttl = FOR_GOOD;
    config.cache.careful_ttl = FOR_GOOD;
    config.cache.ttl_jitter = 0.0;
    config.cache.learning.judge_rate = 0.0;
    for provider in &mut config.providers {
        provider.base_url = answers.base_url();
        provider.api_key_env.clear();
    }
    config
}

//! The upstream module against scripted providers on real sockets: each provider fault, and what the caller
//! gets.

mod chain;
mod faults;
mod hedge;
mod money;
mod providers;
mod routing;
mod stream;
mod verification;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use promptkeep::{
    config::{HedgeAfter, ModelConfig, ProviderConfig, RoutingConfig, UpstreamConfig},
    error::Error,
    model::{Attempt, AttemptResult, Tier},
    prompt::{Completion, Delta, Message, Prompt, Role},
    upstream::{Answer, UpstreamRequest, UpstreamSettings, Upstreams},
};
use tokio::{sync::watch, time::Instant};

use crate::common::fake_upstream::FakeUpstream;

/// A model catalog under construction.
pub struct Fixture {
    pub providers: Vec<ProviderConfig>,
    pub models: Vec<ModelConfig>,
    pub routing: RoutingConfig,
    pub upstream: UpstreamConfig,
}

/// Deadline of tests that are not about time; short enough to notice a hang.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(20);
/// A timeout that a test waits out; long enough for a healthy fake on a busy machine.
const SHORT_TIMEOUT: Duration = Duration::from_millis(400);

impl Fixture {
    /// A catalog with one model per fake, named `model-hot`, `model-warm` and so on by tier.
    pub fn new(fakes: &[(Tier, &FakeUpstream)]) -> Self {
        let mut fixture = Self {
            providers: Vec::new(),
            models: Vec::new(),
            routing: RoutingConfig::default(),
            // Most tests expect one attempt per model.
            upstream: UpstreamConfig {
                retries: 0,
                hedge_after: HedgeAfter::Never,
                ..UpstreamConfig::default()
            },
        };
        for (tier, fake) in fakes {
            fixture.add(&format!("model-{}", tier.as_str()), *tier, &fake.base_url());
        }
        fixture
    }

    /// Adds a model with its own provider.
    pub fn add(&mut self, id: &str, tier: Tier, base_url: &str) -> &mut Self {
        let provider = format!("provider-{}", self.providers.len());
        self.providers.push(ProviderConfig {
            name: provider.clone(),
            base_url: base_url.to_owned(),
            region: "local".to_owned(),
            ..ProviderConfig::default()
        });
        self.models.push(ModelConfig {
            id: id.to_owned(),
            provider,
            served_as: None,
            tier,
            input_usd_per_mtok: 1.0,
            output_usd_per_mtok: 2.0,
            context_window: 8000,
            ..ModelConfig::default()
        });
        self
    }

    pub fn settings(&self) -> UpstreamSettings<'_> {
        UpstreamSettings {
            providers: &self.providers,
            models: &self.models,
            routing: &self.routing,
            upstream: &self.upstream,
            region: "local",
            embedder: "",
        }
    }

    pub fn build(&self) -> Upstreams {
        Upstreams::new(self.settings()).expect("a good catalog")
    }
}

/// A prompt of one user turn whose model the router chooses.
pub fn prompt(text: &str) -> Prompt {
    Prompt {
        namespace: "default".to_owned(),
        model: "auto".to_owned(),
        messages: vec![message(Role::User, text)],
        temperature: None,
        top_p: None,
        max_tokens: None,
        stop: Vec::new(),
        seed: None,
        response_format: None,
        tools: None,
        tool_choice: None,
        vary: BTreeMap::new(),
        extra: Default::default(),
        ignored: Default::default(),
    }
}

pub fn message(role: Role, content: &str) -> Message {
    Message::new(role, content)
}

pub fn deadline() -> Instant {
    Instant::now() + TEST_TIMEOUT
}

pub async fn open(upstreams: &Upstreams, prompt: &Prompt) -> Result<Answer, Error> {
    upstreams.open(UpstreamRequest::new(prompt, deadline())).await
}

/// Opens an answer and records its attempts in `seen`.
pub async fn open_seen(upstreams: &Upstreams, prompt: &Prompt, seen: &SeenAttempts) -> Result<Answer, Error> {
    upstreams.open(UpstreamRequest::new(prompt, deadline()).on_attempt(seen.listener())).await
}

/// Reads an answer to its end.
pub async fn read(mut answer: Answer) -> Result<(Completion, Vec<Attempt>, Vec<Delta>), Error> {
    let mut deltas = Vec::new();
    while let Some(delta) = answer.next().await? {
        deltas.push(delta);
    }
    let (completion, attempts) = answer.finish();
    Ok((completion, attempts, deltas))
}

/// Opens an answer and reads it to its end.
pub async fn complete(upstreams: &Upstreams, prompt: &Prompt) -> Result<(Completion, Vec<Attempt>), Error> {
    let (completion, attempts, _) = read(open(upstreams, prompt).await?).await?;
    Ok((completion, attempts))
}

pub fn results(attempts: &[Attempt]) -> Vec<AttemptResult> {
    attempts.iter().map(|attempt| attempt.result).collect()
}

/// The attempts of an error that says that no model answered.
pub fn failed_attempts(error: Error) -> Vec<Attempt> {
    match error {
        Error::Unavailable { attempts, .. } => attempts,
        other => panic!("{other:?}"),
    }
}

/// Every attempt that was reported to `on_attempt`.
#[derive(Clone, Default)]
pub struct SeenAttempts(Arc<watch::Sender<Vec<Attempt>>>);

impl SeenAttempts {
    pub fn listener(&self) -> impl Fn(&Attempt) + Send + Sync + 'static {
        let seen = self.clone();
        move |attempt| seen.0.send_modify(|attempts| attempts.push(attempt.clone()))
    }

    pub fn attempts(&self) -> Vec<Attempt> {
        self.0.borrow().clone()
    }

    /// Waits until `count` attempts have been reported.
    pub async fn wait_for(&self, count: usize) {
        self.0
            .subscribe()
            .wait_for(|attempts| attempts.len() >= count)
            .await
            .expect("the sender is borrowed");
    }
}

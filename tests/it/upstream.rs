//! The upstream path against scripted providers on real sockets: each fault of a provider, and what the
//! caller gets.

mod chain;
mod faults;
mod hedge;
mod money;
mod routing;
mod stream;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use promptkeep::{
    config::{HedgeAfter, ModelConfig, ProviderConfig, RoutingConfig, UpstreamConfig},
    error::Error,
    model::{Attempt, AttemptResult, Tier},
    prompt::{Completion, Delta, Message, Prompt, Role},
    upstream::{Answer, Ask, UpstreamSettings, Upstreams},
};
use tokio::{sync::watch, time::Instant};

use crate::common::fake_upstream::FakeUpstream;

/// A catalog in the making.
pub struct Fixture {
    pub providers: Vec<ProviderConfig>,
    pub models: Vec<ModelConfig>,
    pub routing: RoutingConfig,
    pub upstream: UpstreamConfig,
}

/// Long enough for any test that is not about time, short enough for a hang to be noticed.
const PATIENCE: Duration = Duration::from_secs(20);
/// A timeout that a test wants to see pass; long enough that a healthy stub on a busy machine keeps it.
const SOON: Duration = Duration::from_millis(400);

impl Fixture {
    /// One model for each fake, named `hot`, `warm` … by tier.
    pub fn new(fakes: &[(Tier, &FakeUpstream)]) -> Self {
        let mut fixture = Self {
            providers: Vec::new(),
            models: Vec::new(),
            routing: RoutingConfig::default(),
            // Most tests are about one attempt at each model.
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

    /// Adds a model at a provider of its own.
    pub fn add(&mut self, id: &str, tier: Tier, base_url: &str) -> &mut Self {
        let provider = format!("provider-{}", self.providers.len());
        self.providers.push(ProviderConfig {
            name: provider.clone(),
            base_url: base_url.to_owned(),
            api_key_env: String::new(),
            region: "local".to_owned(),
        });
        self.models.push(ModelConfig {
            id: id.to_owned(),
            provider,
            served_as: None,
            tier,
            input_usd_per_mtok: 1.0,
            output_usd_per_mtok: 2.0,
            context_window: 8000,
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

/// One user turn, for the router to place.
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
    }
}

pub fn message(role: Role, content: &str) -> Message {
    Message { role, content: content.to_owned(), name: None, tool_call_id: None, tool_calls: None }
}

pub fn patience() -> Instant {
    Instant::now() + PATIENCE
}

pub async fn open(upstreams: &Upstreams, prompt: &Prompt) -> Result<Answer, Error> {
    upstreams.open(Ask::new(prompt, patience())).await
}

/// The whole answer and its deltas.
pub async fn read(mut answer: Answer) -> Result<(Completion, Vec<Attempt>, Vec<Delta>), Error> {
    let mut deltas = Vec::new();
    while let Some(delta) = answer.next().await? {
        deltas.push(delta);
    }
    let (completion, attempts) = answer.finish();
    Ok((completion, attempts, deltas))
}

/// Opens and reads.
pub async fn complete(upstreams: &Upstreams, prompt: &Prompt) -> Result<(Completion, Vec<Attempt>), Error> {
    let (completion, attempts, _) = read(open(upstreams, prompt).await?).await?;
    Ok((completion, attempts))
}

pub fn results(attempts: &[Attempt]) -> Vec<AttemptResult> {
    attempts.iter().map(|attempt| attempt.result).collect()
}

/// Gathers what `on_attempt` is told.
#[derive(Clone, Default)]
pub struct Told(Arc<watch::Sender<Vec<Attempt>>>);

impl Told {
    pub fn listener(&self) -> impl Fn(&Attempt) + Send + Sync + 'static {
        let told = self.clone();
        move |attempt| told.0.send_modify(|told| told.push(attempt.clone()))
    }

    pub fn attempts(&self) -> Vec<Attempt> {
        self.0.borrow().clone()
    }

    /// Waits until `count` attempts were told of.
    pub async fn wait_for(&self, count: usize) {
        self.0.subscribe().wait_for(|told| told.len() >= count).await.expect("the sender is borrowed");
    }
}

//! A simulated provider: a real HTTP server that speaks the OpenAI dialect, streams with the delays of hosted models,
//! and knows only the answers of the demo's traffic. Its models also verify: by the traffic's ground truth, with errors
//! at stated rates.
//!
//! Models, prices and delays are invented but plausible; no model is called and no money is spent.

mod dialect;
mod timed_answer;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    Router,
    routing::{get, post},
};

use crate::{
    config::{ModelConfig, ProviderConfig},
    demo::traffic::{Request, Traffic},
    model::Tier,
    offline::{
        SimulatedVerifier, StatedErrors,
        model_server::ModelServer,
        simulated_verifier::{KnownQuestion, VerdictCounts},
    },
};
use timed_answer::Script;

/// Rates at which every simulated model errs when it verifies. Invented; `tune --verify` measures a real model's.
pub const VERIFIER_ERRORS: StatedErrors = StatedErrors { false_yes: 0.02, false_no: 0.05 };

/// Name of the only provider.
const PROVIDER: &str = "simulated";

/// See the [module](self).
pub struct SimulatedUpstream {
    server: ModelServer,
    state: Arc<State>,
}

/// State of the handlers.
struct State {
    /// By conversation, as `timed_answer::fingerprint` writes it.
    scripts: HashMap<String, Script>,
    verifier: SimulatedVerifier,
    completions: AtomicU64,
}

/// One model: its line in the catalog, and its speed.
#[derive(Clone, Copy, Debug)]
struct Model {
    id: &'static str,
    tier: Tier,
    /// US dollars per million tokens, of input and of output.
    usd_per_mtok: [f64; 2],
    context_window: u64,
    /// Milliseconds to the first token (the median), and for each token.
    delays_ms: [u64; 2],
}

/// Prices and windows are those of the example catalog. Delays are typical of hosted models of these sizes.
#[rustfmt::skip]
const MODELS: [Model; 4] = [
    Model { id: "gpt-4o", tier: Tier::Hot, usd_per_mtok: [2.50, 10.00], context_window: 128_000, delays_ms: [450, 12] },
    Model { id: "deepseek-v4-pro", tier: Tier::Warm, usd_per_mtok: [0.55, 2.20], context_window: 200_000, delays_ms: [330, 10] },
    Model { id: "deepseek-v4-flash", tier: Tier::Cold, usd_per_mtok: [0.27, 1.10], context_window: 128_000, delays_ms: [220, 7] },
    Model { id: "glm-4-plus", tier: Tier::Economy, usd_per_mtok: [0.20, 0.80], context_window: 128_000, delays_ms: [180, 6] },
];

/// Catalog of the simulated models, hot first.
pub fn models() -> Vec<ModelConfig> {
    let line = |model: &Model| ModelConfig {
        served_as: None,
        id: model.id.to_owned(),
        provider: PROVIDER.to_owned(),
        tier: model.tier,
        input_usd_per_mtok: model.usd_per_mtok[0],
        output_usd_per_mtok: model.usd_per_mtok[1],
        context_window: model.context_window,
        ..ModelConfig::default()
    };
    MODELS.iter().map(line).collect()
}

impl SimulatedUpstream {
    /// Starts at `address`, with the answers of `traffic`.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(traffic: &Traffic, address: SocketAddr) -> io::Result<Self> {
        let questions = traffic.requests().iter().map(|request| known_question(traffic, request));
        let state = Arc::new(State {
            scripts: timed_answer::scripts(traffic),
            verifier: SimulatedVerifier::new(VERIFIER_ERRORS, questions),
            completions: AtomicU64::new(0),
        });
        let router = Router::new()
            .route("/v1/chat/completions", post(dialect::chat_completions))
            .route("/v1/models", get(dialect::list_models))
            .with_state(Arc::clone(&state));
        Ok(Self { server: ModelServer::start(address, router).await?, state })
    }

    /// API root, such as `http://127.0.0.1:40123/v1`.
    pub fn base_url(&self) -> String {
        self.server.base_url()
    }

    /// The server's line in `providers`.
    pub fn provider(&self) -> ProviderConfig {
        ProviderConfig {
            name: PROVIDER.to_owned(),
            base_url: self.base_url(),
            api_key_env: String::new(),
            region: "local".to_owned(),
            ..ProviderConfig::default()
        }
    }

    /// Number of completions requested so far.
    pub fn completions(&self) -> u64 {
        self.state.completions.load(Ordering::Relaxed)
    }

    /// Verdicts so far, by the ground truth of their pairs.
    pub fn verdicts(&self) -> VerdictCounts {
        self.state.verifier.verdicts()
    }

    /// Stops accepting and waits for the answers in flight.
    ///
    /// # Errors
    /// When the server had failed.
    pub async fn shutdown(self) -> io::Result<()> {
        self.server.stop().await
    }
}

/// A request as the verifier knows it. Requests with one answer ask the same.
fn known_question(traffic: &Traffic, request: &Request) -> KnownQuestion {
    let messages: Vec<_> = request.messages().map(|(_, content)| content.to_owned()).collect();
    let (text, earlier) = messages.split_last().expect("the text is the last message");
    KnownQuestion { earlier: earlier.to_vec(), text: text.clone(), class: traffic.answer(request).to_owned() }
}

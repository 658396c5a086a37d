//! A simulated provider: a real HTTP server on a loopback port that speaks the OpenAI dialect, streams
//! with delays such as hosted models have, and knows only the answers of the demo's traffic.
//!
//! Models, prices and delays are made up to be plausible; no model is called and no money is spent.

mod answer;
mod dialect;

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    routing::{get, post},
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use crate::{
    config::{ModelConfig, ProviderConfig},
    demo::traffic::Traffic,
    model::Tier,
};

/// Name of the only provider.
const PROVIDER: &str = "simulated";

/// A running simulated provider. Dropping it stops it as [`SimulatedUpstream::shutdown`] does, without
/// waiting.
pub struct SimulatedUpstream {
    address: SocketAddr,
    state: Arc<State>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<io::Result<()>>,
}

/// One model: its line in the catalog, and how fast it pretends to be.
#[derive(Clone, Copy, Debug)]
struct Model {
    id: &'static str,
    tier: Tier,
    input_usd_per_mtok: f64,
    output_usd_per_mtok: f64,
    context_window: u64,
    /// Median of the time to the first token.
    first_token: Duration,
    per_token: Duration,
}

/// Prices and windows are the example catalog's. The delays are of the order that hosted models of
/// these sizes show, larger ones slower.
const MODELS: [Model; 3] = [
    Model {
        id: "gpt-4o",
        tier: Tier::Hot,
        input_usd_per_mtok: 2.50,
        output_usd_per_mtok: 10.00,
        context_window: 128_000,
        first_token: Duration::from_millis(450),
        per_token: Duration::from_millis(12),
    },
    Model {
        id: "deepseek-v4-pro",
        tier: Tier::Warm,
        input_usd_per_mtok: 0.55,
        output_usd_per_mtok: 2.20,
        context_window: 200_000,
        first_token: Duration::from_millis(330),
        per_token: Duration::from_millis(10),
    },
    Model {
        id: "deepseek-v4-flash",
        tier: Tier::Cold,
        input_usd_per_mtok: 0.27,
        output_usd_per_mtok: 1.10,
        context_window: 128_000,
        first_token: Duration::from_millis(220),
        per_token: Duration::from_millis(7),
    },
];

/// What the models know of one conversation.
#[derive(Clone, Debug)]
struct Known {
    /// Wordings of the answer; every call takes the next.
    answers: Vec<String>,
    /// Of the models' usual delays, so that an application can be fast.
    delays: f64,
}

/// What the handlers share.
struct State {
    /// By conversation, as `answer::fingerprint` writes it.
    answers: HashMap<String, Known>,
    completions: AtomicU64,
}

/// The catalog of the simulated models, hot first.
pub fn models() -> Vec<ModelConfig> {
    let line = |model: &Model| ModelConfig {
        served_as: None,
        id: model.id.to_owned(),
        provider: PROVIDER.to_owned(),
        tier: model.tier,
        input_usd_per_mtok: model.input_usd_per_mtok,
        output_usd_per_mtok: model.output_usd_per_mtok,
        context_window: model.context_window,
    };
    MODELS.iter().map(line).collect()
}

// === impl SimulatedUpstream ===

impl SimulatedUpstream {
    /// Starts on a free loopback port, able to answer what `traffic` asks.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(traffic: &Traffic) -> io::Result<Self> {
        Self::listen(traffic, (Ipv4Addr::LOCALHOST, 0).into()).await
    }

    /// Starts on `address`.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub async fn listen(traffic: &Traffic, address: SocketAddr) -> io::Result<Self> {
        let state = Arc::new(State { answers: answer::all(traffic), completions: AtomicU64::new(0) });
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let router = Router::new()
            .route("/v1/chat/completions", post(dialect::chat_completions))
            .route("/v1/models", get(dialect::list_models))
            .with_state(Arc::clone(&state));
        let (stop, stopped) = oneshot::channel::<()>();
        // A dropped sender stops it as well as a sent signal.
        let serve = axum::serve(listener, router).with_graceful_shutdown(async { drop(stopped.await) });
        Ok(Self { address, state, stop, server: tokio::spawn(serve.into_future()) })
    }

    /// API root, such as `http://127.0.0.1:40123/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Its line in `providers`.
    pub fn provider(&self) -> ProviderConfig {
        ProviderConfig {
            name: PROVIDER.to_owned(),
            base_url: self.base_url(),
            api_key_env: String::new(),
            region: "local".to_owned(),
        }
    }

    /// Completions that were asked of it so far.
    pub fn completions(&self) -> u64 {
        self.state.completions.load(Ordering::Relaxed)
    }

    /// Stops accepting and waits for the answers under way.
    ///
    /// # Errors
    /// When the server had failed.
    pub async fn shutdown(self) -> io::Result<()> {
        // Fails only when the server has ended already, and then its result says why.
        let _ = self.stop.send(());
        self.server.await?
    }
}

#[cfg(test)]
mod tests;

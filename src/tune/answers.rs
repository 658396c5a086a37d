//! The model of a run: a server on a loopback port that says what it is told to say.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{Router, extract::State, http::header::CONTENT_TYPE, response::IntoResponse, routing::post};
use serde_json::json;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use crate::{
    config::{ModelConfig, ProviderConfig},
    upstream::Tier,
};

const NAME: &str = "labelled";

/// See the [module](self).
pub struct Answers {
    address: SocketAddr,
    saying: Arc<Saying>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<io::Result<()>>,
}

#[derive(Default)]
struct Saying {
    text: Mutex<String>,
    calls: AtomicU64,
}

/// Its line in the catalog.
pub fn model() -> ModelConfig {
    ModelConfig {
        id: NAME.to_owned(),
        provider: NAME.to_owned(),
        served_as: None,
        tier: Tier::Cold,
        input_usd_per_mtok: 0.27,
        output_usd_per_mtok: 1.10,
        context_window: 1_000_000,
    }
}

// === impl Answers ===

impl Answers {
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let saying = Arc::new(Saying::default());
        let router = Router::new().route("/v1/chat/completions", post(say)).with_state(Arc::clone(&saying));
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = axum::serve(listener, router).with_graceful_shutdown(async { drop(stopped.await) });
        Ok(Self { address, saying, stop, serving: tokio::spawn(serve.into_future()) })
    }

    /// From now on every call is answered so.
    pub fn answer_with(&self, text: String) {
        *self.saying.text.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.saying.calls.load(Ordering::Relaxed)
    }

    /// Its line in `providers`.
    pub fn provider(&self) -> ProviderConfig {
        ProviderConfig {
            name: NAME.to_owned(),
            base_url: format!("http://{}/v1", self.address),
            api_key_env: String::new(),
            region: "local".to_owned(),
        }
    }

    pub async fn stop(self) -> io::Result<()> {
        // Fails only when the server has ended already, and then its result says why.
        let _ = self.stop.send(());
        self.serving.await?
    }
}

/// A whole stream at once.
async fn say(State(saying): State<Arc<Saying>>) -> impl IntoResponse {
    saying.calls.fetch_add(1, Ordering::Relaxed);
    let text = saying.text.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let chunk = json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]});
    ([(CONTENT_TYPE, "text/event-stream")], format!("data: {chunk}\n\ndata: [DONE]\n\n"))
}

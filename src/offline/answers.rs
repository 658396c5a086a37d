//! The models of a run: a server on a loopback port that says what it is told to say.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{Router, extract::State, http::header::CONTENT_TYPE, response::IntoResponse, routing::post};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

/// See the [module](self).
pub(super) struct Answers {
    address: SocketAddr,
    saying: Arc<Saying>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<io::Result<()>>,
}

/// What a model says, and what it says it took.
#[derive(Clone, Debug, Default)]
pub struct Said {
    pub text: String,
    /// `None`: the pipeline estimates.
    pub usage: Option<Tokens>,
}

/// Tokens of one call, as OpenAI's `usage` has them.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
pub struct Tokens {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
}

#[derive(Default)]
struct Saying {
    /// A std mutex: held to copy a text, never across an await.
    said: Mutex<Said>,
    calls: AtomicU64,
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
    pub fn say(&self, said: Said) {
        *self.saying.said.lock().unwrap_or_else(PoisonError::into_inner) = said;
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.saying.calls.load(Ordering::Relaxed)
    }

    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
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
    let Said { text, usage } = saying.said.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let choice = json!({"index": 0, "delta": {"content": text}, "finish_reason": "stop"});
    let chunk = json!({"choices": [choice], "usage": usage});
    ([(CONTENT_TYPE, "text/event-stream")], format!("data: {chunk}\n\ndata: [DONE]\n\n"))
}

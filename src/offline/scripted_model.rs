//! The model behind an offline pipeline: it replies whatever it was last told to, and verifies if it has a verifier.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router, body::Bytes, extract::State, http::header::CONTENT_TYPE, response::IntoResponse, routing::post,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    model_server::{LOOPBACK, ModelServer},
    simulated_verifier::{SimulatedVerifier, VerificationCall},
};

/// See the [module](self).
pub(super) struct ScriptedModel {
    server: ModelServer,
    script: Arc<Script>,
}

/// Text of an answer and the usage reported with it.
#[derive(Clone, Debug, Default)]
pub struct ModelAnswer {
    pub text: String,
    /// `None`: the pipeline estimates.
    pub usage: Option<Tokens>,
}

/// Tokens of one call, with the field names of OpenAI's `usage`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
pub struct Tokens {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
}

struct Script {
    verifier: Option<SimulatedVerifier>,
    /// A std mutex: held while an answer is copied, never across an await.
    answer: Mutex<ModelAnswer>,
    calls: AtomicUsize,
    verifications: AtomicUsize,
}

/// The parts of a chat completion request that a verification is known by.
#[derive(Deserialize)]
struct ChatRequest {
    model: String,
    messages: Vec<ChatMessage>,
}

#[derive(Deserialize)]
struct ChatMessage {
    content: Option<String>,
}

impl ScriptedModel {
    pub async fn start(verifier: Option<SimulatedVerifier>) -> io::Result<Self> {
        let script = Arc::new(Script {
            verifier,
            answer: Mutex::default(),
            calls: AtomicUsize::new(0),
            verifications: AtomicUsize::new(0),
        });
        let router =
            Router::new().route("/v1/chat/completions", post(complete)).with_state(Arc::clone(&script));
        Ok(Self { server: ModelServer::start(LOOPBACK, router).await?, script })
    }

    /// Sets the answer to every later call.
    pub fn set_answer(&self, answer: ModelAnswer) {
        *self.script.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }

    pub fn calls(&self) -> usize {
        self.script.calls.load(Ordering::Relaxed)
    }

    pub fn verifications(&self) -> usize {
        self.script.verifications.load(Ordering::Relaxed)
    }

    pub fn base_url(&self) -> String {
        self.server.base_url()
    }

    pub async fn stop(self) -> io::Result<()> {
        self.server.stop().await
    }
}

impl Script {
    fn answer(&self, body: &[u8]) -> ModelAnswer {
        if let Some(verdict) = self.verdict(body) {
            self.verifications.fetch_add(1, Ordering::Relaxed);
            return ModelAnswer { text: verdict, usage: None };
        }
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The reply to a verification, if this is one.
    fn verdict(&self, body: &[u8]) -> Option<String> {
        let verifier = self.verifier.as_ref()?;
        let request: ChatRequest = serde_json::from_slice(body).ok()?;
        let call = VerificationCall::parse(request.messages.last()?.content.as_ref()?)?;
        Some(verifier.reply(&request.model, &call))
    }
}

/// Replies with a whole stream at once.
async fn complete(State(script): State<Arc<Script>>, body: Bytes) -> impl IntoResponse {
    let ModelAnswer { text, usage } = script.answer(&body);
    let choice = json!({"index": 0, "delta": {"content": text}, "finish_reason": "stop"});
    let chunk = json!({"choices": [choice], "usage": usage});
    ([(CONTENT_TYPE, "text/event-stream")], format!("data: {chunk}\n\ndata: [DONE]\n\n"))
}

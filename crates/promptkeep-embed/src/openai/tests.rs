//! Tests of the HTTP embedder with a provider on a real socket.

use std::{
    pin::Pin,
    sync::Mutex,
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode as Status},
    routing::post,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::EmbeddingKind;

const DIMENSIONS: usize = 3;

/// A provider whose replies wait for permits of a semaphore.
struct Provider {
    url: String,
    seen: mpsc::Receiver<Vec<String>>,
    state: Arc<Shared>,
    _server: JoinSet<()>,
}

struct Shared {
    gate: Semaphore,
    seen: mpsc::Sender<Vec<String>>,
    authorization: Mutex<Option<String>>,
    reply: Script,
}

/// Returns the provider's reply to some texts.
type Script = fn(&[String]) -> (Status, String);

impl Provider {
    /// Starts a provider that replies at once.
    async fn start(reply: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/", listener.local_addr().unwrap());
        let (seen, receiver) = mpsc::channel(1000);
        let gate = Semaphore::new(Semaphore::MAX_PERMITS);
        let state = Arc::new(Shared { gate, seen, authorization: Mutex::default(), reply });
        let app = Router::new().route("/v1/embeddings", post(answer)).with_state(Arc::clone(&state));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, seen: receiver, state, _server: server }
    }

    /// Starts a provider that replies only after [`Provider::open`].
    async fn start_closed() -> Self {
        let provider = Self::start(vectors).await;
        provider.state.gate.forget_permits(Semaphore::MAX_PERMITS);
        provider
    }

    fn open(&self) {
        self.state.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    fn config(&self) -> EmbeddingConfig {
        EmbeddingConfig {
            kind: EmbeddingKind::Openai,
            base_url: self.url.clone(),
            model: "some-model".to_owned(),
            dimensions: DIMENSIONS,
            ..EmbeddingConfig::default()
        }
    }

    fn embedder(&self) -> OpenAi {
        OpenAi::start(&self.config()).unwrap()
    }
}

async fn answer(State(state): State<Arc<Shared>>, headers: HeaderMap, body: String) -> (Status, String) {
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["model"], "some-model");
    let texts: Vec<String> = serde_json::from_value(body["input"].clone()).unwrap();
    let authorization = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    *state.authorization.lock().unwrap() = authorization;
    let _ = state.seen.send(texts.clone()).await;
    state.gate.acquire().await.unwrap().forget();
    (state.reply)(&texts)
}

/// Returns the direction of a text's vector, which depends on its length.
fn direction(text: &str) -> Vec<f32> {
    vec![text.len() as f32, 1.0, 0.0]
}

/// Replies correctly, with the vectors in reverse order.
fn vectors(texts: &[String]) -> (Status, String) {
    let item = |(index, text): (usize, &String)| json!({ "index": index, "embedding": direction(text) });
    let data: Vec<Value> = texts.iter().enumerate().map(item).rev().collect();
    (Status::OK, json!({ "data": data, "usage": { "prompt_tokens": 10 * texts.len() } }).to_string())
}

fn assert_vector_of(answer: Answer, text: &str) {
    match answer.unwrap() {
        Embedded::Vector { embedding, .. } => {
            assert_eq!(embedding, Embedding::normalized(direction(text)).unwrap());
        }
        Embedded::OverWindow { tokens } => panic!("{tokens} tokens"),
    }
}

fn failure(answer: Answer) -> String {
    match answer {
        Err(EmbedError::Failed(cause)) => cause,
        other => panic!("{other:?}"),
    }
}

type Pending<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

/// Polls a future once, which queues its text.
fn poll_once(future: &mut Pending<'_>) -> Poll<Answer> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Occupies every call with one text, and waits until all calls are in flight.
async fn occupy<'a>(embedder: &'a OpenAi, provider: &mut Provider) -> Vec<Pending<'a>> {
    let mut pending = Vec::new();
    for _ in 0..CALLS_MAX {
        let mut future = embedder.embed("busy");
        assert!(poll_once(&mut future).is_pending());
        pending.push(future);
        assert_eq!(provider.seen.recv().await.unwrap().len(), 1);
    }
    pending
}

#[tokio::test]
async fn waiting_texts_form_one_batch() {
    let mut provider = Provider::start_closed().await;
    let embedder = provider.embedder();
    let busy = occupy(&embedder, &mut provider).await;
    let texts: Vec<String> = (1..=10).map(|n| "x".repeat(n)).collect();
    let mut waiting: Vec<_> = texts.iter().map(|text| embedder.embed(text)).collect();
    for future in &mut waiting {
        assert!(poll_once(future).is_pending());
    }
    provider.open();
    for (future, text) in waiting.into_iter().zip(&texts) {
        assert_vector_of(future.await, text);
    }
    for future in busy {
        assert_vector_of(future.await, "busy");
    }
    assert_eq!(provider.seen.recv().await.unwrap(), texts);
}

#[tokio::test]
async fn a_batch_has_a_maximum_size() {
    let mut provider = Provider::start_closed().await;
    let embedder = OpenAi::start(&EmbeddingConfig { batch: 4, ..provider.config() }).unwrap();
    let busy = occupy(&embedder, &mut provider).await;
    let mut waiting: Vec<_> = (0..6).map(|_| embedder.embed("text")).collect();
    for future in &mut waiting {
        assert!(poll_once(future).is_pending());
    }
    provider.open();
    for future in busy.into_iter().chain(waiting) {
        future.await.unwrap();
    }
    assert_eq!(provider.seen.recv().await.unwrap().len(), 4);
    assert_eq!(provider.seen.recv().await.unwrap().len(), 2);
}

#[tokio::test]
async fn texts_of_callers_that_left_are_not_sent() {
    let mut provider = Provider::start_closed().await;
    let embedder = provider.embedder();
    let _busy = occupy(&embedder, &mut provider).await;
    for _ in 0..3 {
        assert!(poll_once(&mut embedder.embed("left")).is_pending());
    }
    let mut stays = embedder.embed("stays");
    assert!(poll_once(&mut stays).is_pending());
    provider.open();
    assert_vector_of(stays.await, "stays");
    assert_eq!(provider.seen.recv().await.unwrap(), ["stays"]);
}

#[tokio::test]
async fn a_full_queue_refuses_a_text_at_once() {
    let mut provider = Provider::start_closed().await;
    let embedder = OpenAi::start(&EmbeddingConfig { queue: 2, ..provider.config() }).unwrap();
    let _busy = occupy(&embedder, &mut provider).await;
    let mut waiting: Vec<_> = (0..4).map(|_| embedder.embed("text")).collect();
    let overloaded = |answer| matches!(answer, Poll::Ready(Err(EmbedError::Overloaded)));
    assert!(waiting.iter_mut().any(|future| overloaded(poll_once(future))));
}

#[tokio::test]
async fn a_silent_provider_runs_into_the_timeout() {
    let provider = Provider::start_closed().await;
    let config = EmbeddingConfig { timeout: Duration::from_millis(50), ..provider.config() };
    let embedder = OpenAi::start(&config).unwrap();
    assert_eq!(failure(embedder.embed("text").await), "provider did not reply in time");
}

#[tokio::test]
async fn an_unreachable_provider_is_reported() {
    let provider = Provider::start(vectors).await;
    // No server listens on port 1 of the loopback.
    let config = EmbeddingConfig { base_url: "http://127.0.0.1:1".to_owned(), ..provider.config() };
    let embedder = OpenAi::start(&config).unwrap();
    assert_eq!(failure(embedder.embed("text").await), "provider cannot be reached");
}

#[tokio::test]
async fn invalid_replies_are_failures() {
    let cases: [(Script, &str); 8] = [
        (|_| (Status::INTERNAL_SERVER_ERROR, "{}".to_owned()), "provider replied 500 Internal Server Error"),
        (|_| (Status::UNAUTHORIZED, String::new()), "provider replied 401 Unauthorized"),
        (|_| (Status::BAD_REQUEST, "no such model".to_owned()), "provider replied 400 Bad Request"),
        (|_| (Status::OK, "<html>".to_owned()), "provider's reply does not follow the dialect"),
        (|_| (Status::OK, " ".repeat(1_000_000)), "provider's reply is too large"),
        (|_| (Status::OK, json!({ "data": [] }).to_string()), "provider sent no vector for a text"),
        (
            |_| (Status::OK, json!({ "data": [{ "index": 0, "embedding": [1.0] }] }).to_string()),
            "provider's vectors have 1 dimensions, embedding.dimensions is 3",
        ),
        (
            |_| (Status::OK, json!({ "data": [{ "index": 0, "embedding": [0, 0, 0] }] }).to_string()),
            "provider's vector has no direction",
        ),
    ];
    for (reply, cause) in cases {
        let provider = Provider::start(reply).await;
        assert_eq!(failure(provider.embedder().embed("text").await), cause);
    }
}

#[tokio::test]
async fn a_text_over_the_window_does_not_fail_its_batch() {
    fn refuses_long(texts: &[String]) -> (Status, String) {
        if texts.iter().any(|text| text == "long") {
            let error =
                json!({ "error": { "message": "This model's maximum context length is 8192 tokens" } });
            return (Status::BAD_REQUEST, error.to_string());
        }
        vectors(texts)
    }
    let provider = Provider::start(refuses_long).await;
    let embedder = provider.embedder();
    let (a, long, b) = tokio::join!(embedder.embed("a"), embedder.embed("long"), embedder.embed("bb"));
    assert_vector_of(a, "a");
    assert!(matches!(long.unwrap(), Embedded::OverWindow { .. }));
    assert_vector_of(b, "bb");
}

#[tokio::test]
async fn a_huge_text_is_not_sent() {
    let provider = Provider::start(vectors).await;
    let huge = provider.embedder().embed(&"x".repeat(TEXT_BYTES_MAX + 1)).await.unwrap();
    assert!(matches!(huge, Embedded::OverWindow { .. }));
    assert!(provider.seen.is_empty());
}

#[tokio::test]
async fn the_api_key_comes_from_the_configured_variable() {
    let provider = Provider::start(vectors).await;
    // Cargo sets this variable for every test.
    let config = EmbeddingConfig { api_key_env: "CARGO_MANIFEST_DIR".to_owned(), ..provider.config() };
    OpenAi::start(&config).unwrap().embed("text").await.unwrap();
    let sent = provider.state.authorization.lock().unwrap().clone().unwrap();
    assert_eq!(sent, format!("Bearer {}", env::var("CARGO_MANIFEST_DIR").unwrap()));
}

#[tokio::test]
async fn the_error_names_the_wrong_configuration_key() {
    let provider = Provider::start(vectors).await;
    let base = provider.config();
    let cases = [
        (EmbeddingConfig { base_url: "not a url".to_owned(), ..base.clone() }, "embedding.base_url: "),
        (EmbeddingConfig { model: String::new(), ..base.clone() }, "embedding.model: "),
        (EmbeddingConfig { dimensions: 0, ..base.clone() }, "embedding.dimensions: "),
        (
            EmbeddingConfig { api_key_env: "NO_SUCH_KEY".to_owned(), ..base },
            "embedding.api_key_env: NO_SUCH_KEY",
        ),
    ];
    for (config, start) in cases {
        let Err(error) = OpenAi::start(&config) else { panic!("{start} was accepted") };
        assert!(error.to_string().starts_with(start), "{error}");
    }
}

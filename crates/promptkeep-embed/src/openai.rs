//! An [`Embedder`] over an OpenAI-compatible `/embeddings` endpoint. Texts that arrive while all calls are in flight
//! form the next batch, so no text waits for a timer. Only this file knows the provider's JSON.

use std::{env, sync::Arc};

use async_trait::async_trait;
use reqwest::{Client, Response, StatusCode, header};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{
        Semaphore,
        mpsc::{self, Receiver, Sender, error::TrySendError},
        oneshot,
    },
    task::JoinSet,
};

use super::{EmbedError, Embedded, Embedder, Embedding, StartError, http_client};
use crate::EmbeddingConfig;

/// Maximum number of calls in flight. While all are busy, texts wait for the next batch.
const CALLS_MAX: usize = 4;

/// Maximum length of a text that is sent, in bytes. Longer texts nearly always exceed the providers' windows of 8,192
/// tokens.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Maximum size of a reply without its numbers.
const ENVELOPE_BYTES_MAX: usize = 64 * 1024;

/// An embedder over HTTP with its batching task, which ends when this is dropped.
pub struct OpenAi {
    name: String,
    dimensions: usize,
    queue: Sender<Job>,
    /// The batching task. Dropping the set aborts the task and its calls.
    _task: JoinSet<()>,
}

type Answer = Result<Embedded, EmbedError>;

/// A text that waits for its vector.
struct Job {
    text: String,
    /// Closed when the caller has left.
    reply: oneshot::Sender<Answer>,
}

/// The endpoint and the parameters of every call.
struct Endpoint {
    client: Client,
    url: String,
    model: String,
    dimensions: usize,
}

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    input: Vec<&'a str>,
    encoding_format: &'static str,
}

#[derive(Deserialize)]
struct Reply {
    data: Vec<Item>,
    #[serde(default)]
    usage: Usage,
}

#[derive(Deserialize)]
struct Item {
    index: usize,
    embedding: Vec<f32>,
}

#[derive(Default, Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: u32,
}

/// Why a call failed.
#[derive(Debug)]
enum CallError {
    /// The provider refused the input as too long.
    TooLong,
    /// The provider refused the input for another reason. In a batch, one text may be the cause.
    Refused(StatusCode),
    /// Another failure; the message is for the log.
    Failed(String),
}

// === impl OpenAi ===

impl OpenAi {
    /// Starts the batching task on the current tokio runtime.
    ///
    /// # Errors
    /// When a value of `[embedding]` is missing or malformed, or the API key's environment variable is not set.
    pub fn start(config: &EmbeddingConfig) -> Result<Self, StartError> {
        let endpoint = Endpoint::new(config)?;
        let (queue, jobs) = mpsc::channel(config.queue.max(1));
        let name = format!("openai/{}/{}", config.model, config.dimensions);
        let mut task = JoinSet::new();
        task.spawn(send_batches(Arc::new(endpoint), jobs, config.batch.max(1)));
        Ok(Self { name, dimensions: config.dimensions, queue, _task: task })
    }
}

#[async_trait]
impl Embedder for OpenAi {
    async fn embed(&self, text: &str) -> Result<Embedded, EmbedError> {
        if text.len() > TEXT_BYTES_MAX {
            return Ok(over_window(text));
        }
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(Job { text: text.to_owned(), reply }).map_err(|e| match e {
            TrySendError::Full(_) => EmbedError::Overloaded,
            TrySendError::Closed(_) => EmbedError::Failed("batching task has ended".to_owned()),
        })?;
        answer.await.unwrap_or_else(|_| Err(EmbedError::Failed("batching task has ended".to_owned())))
    }

    fn dimensions(&self) -> usize {
        self.dimensions
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// Estimates the number of tokens at four bytes each, because the provider does not report it.
fn over_window(text: &str) -> Embedded {
    Embedded::OverWindow { tokens: u32::try_from(text.len() / 4).unwrap_or(u32::MAX) }
}

/// Sends the waiting texts in batches, one batch for each free call.
async fn send_batches(endpoint: Arc<Endpoint>, mut jobs: Receiver<Job>, batch_max: usize) {
    let free = Arc::new(Semaphore::new(CALLS_MAX));
    let mut calls = JoinSet::new();
    while let Some(first) = jobs.recv().await {
        let permit = Arc::clone(&free).acquire_owned().await.expect("the semaphore is never closed");
        let mut batch = vec![first];
        while batch.len() < batch_max
            && let Ok(job) = jobs.try_recv()
        {
            batch.push(job);
        }
        // Texts of callers that have left would cost money for nothing.
        batch.retain(|job| !job.reply.is_closed());
        let endpoint = Arc::clone(&endpoint);
        calls.spawn(async move {
            endpoint.answer(batch).await;
            drop(permit);
        });
        while calls.try_join_next().is_some() {}
    }
}

// === impl Endpoint ===

impl Endpoint {
    fn new(config: &EmbeddingConfig) -> Result<Self, StartError> {
        let url = format!("{}/embeddings", config.base_url.trim_end_matches('/'));
        reqwest::Url::parse(&url).map_err(|e| StartError::config("base_url", &e))?;
        if config.model.is_empty() {
            return Err(StartError::config("model", &"must not be empty"));
        }
        if config.dimensions == 0 {
            return Err(StartError::config("dimensions", &"must be the length of the model's vectors"));
        }
        let client = http_client()
            .timeout(config.timeout)
            .default_headers(headers(&config.api_key_env)?)
            .build()
            .map_err(|e| StartError::config("base_url", &e))?;
        Ok(Self { client, url, model: config.model.clone(), dimensions: config.dimensions })
    }

    /// Embeds a batch and replies to all of its jobs.
    async fn answer(&self, mut batch: Vec<Job>) {
        if batch.is_empty() {
            return;
        }
        match self.call(&batch).await {
            Ok(answers) => reply_all(batch, answers),
            // Halves the batch until the text at fault is alone, so that the others get their vectors.
            Err(CallError::TooLong | CallError::Refused(_)) if batch.len() > 1 => {
                let rest = batch.split_off(batch.len() / 2);
                Box::pin(self.answer(batch)).await;
                Box::pin(self.answer(rest)).await;
            }
            Err(CallError::TooLong) => {
                let answers = batch.iter().map(|job| Ok(over_window(&job.text))).collect();
                reply_all(batch, answers);
            }
            Err(CallError::Refused(status)) => fail(batch, &format!("provider replied {status}")),
            Err(CallError::Failed(cause)) => fail(batch, &cause),
        }
    }

    async fn call(&self, batch: &[Job]) -> Result<Vec<Answer>, CallError> {
        let input = batch.iter().map(|job| job.text.as_str()).collect();
        let request = Request { model: &self.model, input, encoding_format: "float" };
        let sent = self.client.post(&self.url).json(&request).send().await;
        let response = sent.map_err(|e| CallError::transport(&e))?;
        let status = response.status();
        if !status.is_success() {
            return Err(refusal(response).await);
        }
        // A number has at most 32 bytes.
        let body = read_at_most(response, batch.len() * self.dimensions * 32 + ENVELOPE_BYTES_MAX).await?;
        let reply = serde_json::from_slice(&body)
            .map_err(|_| CallError::Failed("provider's reply does not follow the dialect".to_owned()))?;
        self.check(batch, reply)
    }

    /// Assigns the vectors to their texts.
    fn check(&self, batch: &[Job], reply: Reply) -> Result<Vec<Answer>, CallError> {
        let mut vectors: Vec<Option<Vec<f32>>> = vec![None; batch.len()];
        for item in reply.data {
            let slot = vectors.get_mut(item.index);
            *slot.ok_or_else(|| CallError::Failed("provider sent an unknown index".to_owned()))? =
                Some(item.embedding);
        }
        let bytes: usize = batch.iter().map(|job| job.text.len()).sum();
        let share =
            |job: &Job| (u64::from(reply.usage.prompt_tokens) * job.text.len() as u64) / bytes.max(1) as u64;
        let answers =
            batch.iter().zip(vectors).map(|(job, vector)| self.check_one(vector, share(job) as u32));
        Ok(answers.collect())
    }

    fn check_one(&self, vector: Option<Vec<f32>>, tokens: u32) -> Answer {
        let fail = |cause: String| Err(EmbedError::Failed(cause));
        let Some(vector) = vector else {
            return fail("provider sent no vector for a text".to_owned());
        };
        if vector.len() != self.dimensions {
            return fail(format!(
                "provider's vectors have {} dimensions, embedding.dimensions is {}",
                vector.len(),
                self.dimensions
            ));
        }
        match Embedding::normalized(vector) {
            Some(embedding) => Ok(Embedded::Vector { embedding, tokens }),
            None => fail("provider's vector has no direction".to_owned()),
        }
    }
}

fn reply_all(batch: Vec<Job>, answers: Vec<Answer>) {
    for (job, answer) in batch.into_iter().zip(answers) {
        // Fails when the caller has left meanwhile.
        drop(job.reply.send(answer));
    }
}

fn fail(batch: Vec<Job>, cause: &str) {
    for job in batch {
        drop(job.reply.send(Err(EmbedError::Failed(cause.to_owned()))));
    }
}

fn headers(api_key_env: &str) -> Result<header::HeaderMap, StartError> {
    let mut headers = header::HeaderMap::new();
    if !api_key_env.is_empty() {
        let wrong = |what: &str| StartError::config("api_key_env", &format!("{api_key_env} {what}"));
        let key = env::var(api_key_env).map_err(|_| wrong("is not set"))?;
        let mut value = header::HeaderValue::from_str(&format!("Bearer {key}"))
            .map_err(|_| wrong("has characters that are invalid in a header"))?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    Ok(headers)
}

/// Classifies an error reply. Recognises only the dialect's own phrases for a text that is too long.
async fn refusal(response: Response) -> CallError {
    let status = response.status();
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => CallError::TooLong,
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => {
            let body = read_at_most(response, ENVELOPE_BYTES_MAX).await.unwrap_or_default();
            let message = String::from_utf8_lossy(&body).to_lowercase();
            let too_long = ["context length", "context_length", "too long", "maximum input", "token limit"];
            if too_long.iter().any(|phrase| message.contains(phrase)) {
                CallError::TooLong
            } else {
                CallError::Refused(status)
            }
        }
        _ => CallError::Failed(format!("provider replied {status}")),
    }
}

async fn read_at_most(mut response: Response, bytes_max: usize) -> Result<Vec<u8>, CallError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| CallError::transport(&e))? {
        if body.len() + chunk.len() > bytes_max {
            return Err(CallError::Failed("provider's reply is too large".to_owned()));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

// === impl CallError ===

impl CallError {
    /// Describes a transport error without the address, which may contain a secret.
    fn transport(error: &reqwest::Error) -> Self {
        let cause = if error.is_timeout() {
            "provider did not reply in time"
        } else if error.is_connect() {
            "provider cannot be reached"
        } else {
            "connection to the provider broke"
        };
        Self::Failed(cause.to_owned())
    }
}

#[cfg(test)]
mod tests;

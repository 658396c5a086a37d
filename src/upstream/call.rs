//! One upstream call over HTTP, from the request to the head of the reply. Every fault is named where it is
//! seen. It must not know about other attempts.

use std::time::Duration;

use reqwest::{
    Client, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, RETRY_AFTER},
};
use tokio::time::{Instant, timeout_at};

use super::{
    Endpoint,
    breaker::Permit,
    catalog::Model,
    openai, quarantine,
    reply::{Body, Reply},
};
use crate::{model::AttemptResult, prompt::Prompt};

/// Bounds of one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Deadline of the whole request.
    pub deadline: Instant,
    pub first_token_timeout: Duration,
    pub idle_timeout: Duration,
    /// Largest answer, in bytes.
    pub answer_max: usize,
    /// `upstream.quarantine`
    pub quarantine: Duration,
}

/// Why a call failed, and how the chain may go on.
#[derive(Debug)]
pub(super) struct Fault {
    pub result: AttemptResult,
    pub recovery: Recovery,
    /// The provider's message on a refused request. For the caller only; it must not be logged.
    pub message: String,
}

/// What the chain may do after a fault before the first token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recovery {
    /// Retry this model, no sooner than the delay that it asked for.
    Retry { after: Option<Duration> },
    /// Try the next model.
    NextModel,
    /// Try the next model: the provider refused the server's key or account, or does not have the model. When no
    /// other model answers, the caller gets the error.
    Quarantine,
    /// Return the error to the caller: the request itself is wrong.
    Refuse,
}

/// Room for the JSON around the text of an event or a whole reply.
const ENVELOPE_BYTES: usize = 64 * 1024;
/// Limits on reading the body of a refusal, which is only wanted for its message.
const ERROR_BODY_MAX: usize = 64 * 1024;
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(1);
/// Longer than any deadline, and small enough not to overflow when added to the clock.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Sends `prompt` with additional `headers` and reads the head of the reply.
pub(super) async fn send(
    client: &Client,
    model: &Model,
    prompt: &Prompt,
    headers: &HeaderMap,
    limits: Limits,
) -> Result<Reply, Fault> {
    let streams = model.config.stream;
    // An answer that is not streamed begins when it is complete.
    let first_token = if streams { Some(Instant::now() + limits.first_token_timeout) } else { None };
    let until = first_token.map_or(limits.deadline, |first_token| limits.deadline.min(first_token));
    let late = |_| Fault::timed_out(limits.deadline, AttemptResult::FirstTokenTimeout);
    let body = openai::encode(prompt, model.name_at_provider(), streams);
    let accept = if streams { "text/event-stream" } else { "application/json" };
    let request = model.provider.post(client, Endpoint::Chat, model.name_at_provider());
    let request = request.headers(headers.clone()).header(ACCEPT, accept).body(body);
    let sent = timeout_at(until, request.send()).await.map_err(late)?;
    let response = sent.map_err(|error| Fault::transport(&error))?;
    let status = response.status().as_u16();
    let body = timeout_at(until, read_head(response, limits)).await.map_err(late).flatten();
    match body {
        Ok(body) => {
            model.release();
            Ok(Reply::new(body, limits))
        }
        Err(fault) => {
            model.quarantine(status, limits.quarantine);
            Err(fault)
        }
    }
}

async fn read_head(mut response: Response, limits: Limits) -> Result<Body, Fault> {
    if response.status() != StatusCode::OK {
        return Err(refusal(response).await);
    }
    let event_max = limits.answer_max.saturating_add(ENVELOPE_BYTES);
    match content_type(response.headers()).as_str() {
        "application/json" => {}
        // The error page of a proxy rather than a model's reply.
        "text/html" => return Err(Fault::next_model(AttemptResult::Malformed)),
        _ => return Ok(Body::stream(response, event_max)),
    }
    let mut whole = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|e| Fault::transport(&e))? {
        if whole.len() + part.len() > event_max {
            return Err(Fault::next_model(AttemptResult::TooLarge));
        }
        whole.extend_from_slice(&part);
    }
    let chunk = openai::decode_reply(&whole).map_err(|_| Fault::next_model(AttemptResult::Malformed))?;
    Ok(Body::Whole(Box::new(chunk)))
}

/// The media type in lower case, without parameters.
fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The fault of a reply whose status is not 200.
async fn refusal(mut response: Response) -> Fault {
    let status = response.status();
    let result = AttemptResult::Http(status.as_u16());
    if is_transient(status.as_u16()) {
        return Fault::retry(result, retry_after(response.headers()));
    }
    if !status.is_client_error() {
        return Fault::next_model(result);
    }
    let message = match status {
        // It concerns our key or account, not the caller's request.
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "the provider refused the server's credentials".to_owned()
        }
        StatusCode::PAYMENT_REQUIRED => "the provider refused the server's account".to_owned(),
        _ => openai::error_message(&read_some(&mut response).await),
    };
    let is_about_request = !quarantine::is_cause(status.as_u16());
    let recovery = if is_about_request { Recovery::Refuse } else { Recovery::Quarantine };
    Fault { result, recovery, message }
}

/// Whether a provider that replies with this status may succeed later.
pub(super) fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 429 | 500..)
}

async fn read_some(response: &mut Response) -> Vec<u8> {
    let mut body = Vec::new();
    let end = Instant::now() + ERROR_BODY_TIMEOUT;
    while let Ok(Ok(Some(part))) = timeout_at(end, response.chunk()).await {
        body.extend_from_slice(&part);
        if body.len() > ERROR_BODY_MAX {
            break;
        }
    }
    body
}

/// Reads the header's seconds. The date form is rare and needs a clock in step with the provider's.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: f64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::try_from_secs_f64(seconds).ok()?.min(RETRY_AFTER_MAX))
}

// === impl Fault ===

impl Fault {
    pub fn next_model(result: AttemptResult) -> Self {
        Self { result, recovery: Recovery::NextModel, message: String::new() }
    }

    fn retry(result: AttemptResult, after: Option<Duration>) -> Self {
        Self { result, recovery: Recovery::Retry { after }, message: String::new() }
    }

    /// The connection could not be made, or broke.
    pub fn transport(error: &reqwest::Error) -> Self {
        let result = if error.is_connect() { AttemptResult::Connect } else { AttemptResult::Broken };
        Self::retry(result, None)
    }

    /// The stream closed without its end mark.
    pub fn broken() -> Self {
        Self::retry(AttemptResult::Broken, None)
    }

    /// Time ran out: the request's deadline if it has passed, else the timeout that `result` names.
    pub fn timed_out(deadline: Instant, result: AttemptResult) -> Self {
        let is_over = Instant::now() >= deadline;
        Self::next_model(if is_over { AttemptResult::Deadline } else { result })
    }

    /// Settles the breaker's permit: a refusal counts as a success, since the model is up; a failure counts
    /// only when the model caused it.
    pub fn settle(&self, permit: Permit) {
        match self.recovery {
            Recovery::Refuse | Recovery::Quarantine => permit.succeeded(),
            _ if self.is_models_failure() => permit.failed(),
            _ => drop(permit),
        }
    }

    /// False when the caller's deadline, the caller's size limit or the provider's rate limit ended the call.
    pub fn is_models_failure(&self) -> bool {
        !matches!(self.result, AttemptResult::Deadline | AttemptResult::TooLarge | AttemptResult::Http(429))
    }
}

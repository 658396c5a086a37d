//! One call of one model over HTTP: from the request to the last byte, with every fault named where it
//! is seen. Knows nothing of other attempts.

use std::time::Duration;

use reqwest::{
    Client, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, RETRY_AFTER},
};
use tokio::time::{Instant, timeout_at};

use super::{
    AttemptResult,
    breaker::Permit,
    catalog::Model,
    openai,
    reply::{Body, Reply},
};

/// Bounds of one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The request's own end.
    pub deadline: Instant,
    pub first_token_timeout: Duration,
    pub idle_timeout: Duration,
    /// Largest answer, in bytes.
    pub answer_max: usize,
}

/// Why a call failed, and what may be done about it.
#[derive(Debug)]
pub(super) struct Fault {
    pub result: AttemptResult,
    pub then: Then,
    /// The provider's words on a refused request, for the caller only.
    pub message: String,
}

/// What the chain may do after a fault before the first token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// The same model may do better, not before the delay that it asked for.
    Retry { after: Option<Duration> },
    /// Another model may do better.
    Next,
    /// The request itself is wrong: back to the caller.
    Refuse,
}

/// An event or a whole reply carries JSON around the text.
const ENVELOPE_BYTES: usize = 64 * 1024;
/// Of a refusal only the message is read, if it comes at once.
const ERROR_BODY_MAX: usize = 64 * 1024;
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(1);
/// Longer than any deadline, and short enough to reckon with.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Sends the request, with further headers, and reads the head of the reply.
pub(super) async fn send(
    client: &Client,
    model: &Model,
    (body, headers): (Vec<u8>, &HeaderMap),
    limits: Limits,
) -> Result<Reply, Fault> {
    let first_token = Instant::now() + limits.first_token_timeout;
    let mut request = client
        .post(model.provider.chat_url.clone())
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "text/event-stream")
        .headers(headers.clone())
        .body(body);
    if let Some(authorization) = &model.provider.authorization {
        request = request.header(AUTHORIZATION, authorization.clone());
    }
    let response = match timeout_at(first_token.min(limits.deadline), request.send()).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Err(Fault::transport(&error)),
        Err(_) => return Err(Fault::late(limits.deadline, AttemptResult::FirstTokenTimeout)),
    };
    match timeout_at(first_token.min(limits.deadline), read_head(response, limits)).await {
        Ok(body) => Ok(Reply::new(body?, limits)),
        Err(_) => Err(Fault::late(limits.deadline, AttemptResult::FirstTokenTimeout)),
    }
}

async fn read_head(mut response: Response, limits: Limits) -> Result<Body, Fault> {
    if response.status() != StatusCode::OK {
        return Err(refusal(response).await);
    }
    let event_max = limits.answer_max.saturating_add(ENVELOPE_BYTES);
    match content_type(response.headers()).as_str() {
        "application/json" => {}
        // An error page of something that is not a model.
        "text/html" => return Err(Fault::next(AttemptResult::Malformed)),
        _ => return Ok(Body::stream(response, event_max)),
    }
    let mut whole = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|e| Fault::transport(&e))? {
        if whole.len() + part.len() > event_max {
            return Err(Fault::next(AttemptResult::TooLarge));
        }
        whole.extend_from_slice(&part);
    }
    let chunk = openai::decode_reply(&whole).map_err(|_| Fault::next(AttemptResult::Malformed))?;
    Ok(Body::Whole(Box::new(chunk)))
}

/// In lower case, without parameters.
fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// What a reply other than 200 means.
async fn refusal(mut response: Response) -> Fault {
    let status = response.status();
    let result = AttemptResult::Http(status.as_u16());
    let retry_after = retry_after(response.headers());
    let is_transient = matches!(status.as_u16(), 408 | 429 | 500..);
    if is_transient {
        return Fault { result, then: Then::Retry { after: retry_after }, message: String::new() };
    }
    if !status.is_client_error() {
        return Fault::next(result);
    }
    let message = match status {
        // About our key, not about the caller's request.
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "the provider refused the server's credentials".to_owned()
        }
        _ => openai::error_message(&read_some(&mut response).await),
    };
    Fault { result, then: Then::Refuse, message }
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

/// Seconds only: the date form is rare and needs a clock in step with the provider's.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: f64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::try_from_secs_f64(seconds).ok()?.min(RETRY_AFTER_MAX))
}

// === impl Fault ===

impl Fault {
    pub fn next(result: AttemptResult) -> Self {
        Self { result, then: Then::Next, message: String::new() }
    }

    /// The connection could not be made, or broke.
    pub fn transport(error: &reqwest::Error) -> Self {
        let result = if error.is_connect() { AttemptResult::Connect } else { AttemptResult::Broken };
        Self { result, then: Then::Retry { after: None }, message: String::new() }
    }

    /// The stream ended before it said so.
    pub fn broken() -> Self {
        Self { result: AttemptResult::Broken, then: Then::Retry { after: None }, message: String::new() }
    }

    /// Tells the breaker what this says about the model: nothing, when only time or rate ran out; that
    /// it is alive, when it refused the request; else that it failed.
    pub fn judge(&self, permit: Permit) {
        match self.then {
            Then::Refuse => permit.succeeded(),
            _ if self.blames_the_model() => permit.failed(),
            _ => drop(permit),
        }
    }

    /// Not when only the caller's time, the caller's bound or the provider's rate ran out.
    pub fn blames_the_model(&self) -> bool {
        !matches!(self.result, AttemptResult::Deadline | AttemptResult::TooLarge | AttemptResult::Http(429))
    }

    /// Time ran out: that of the whole request, or else the one that `result` names.
    pub fn late(deadline: Instant, result: AttemptResult) -> Self {
        let is_over = Instant::now() >= deadline;
        Self::next(if is_over { AttemptResult::Deadline } else { result })
    }
}

//! Turns errors into HTTP replies in the OpenAI dialect.

use std::time::Duration;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::{
    error::{Error, MODEL_FIELD},
    model::Attempt,
};

/// An error as the caller sees it.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub status: StatusCode,
    pub message: String,
    /// The dialect's machine-readable reason.
    code: &'static str,
    /// The field at fault.
    pub param: Option<String>,
    retry_after: Option<Duration>,
    /// Tells the official clients, which retry every 5xx, that a retry would not help.
    is_final: bool,
    attempts: Vec<Attempt>,
}

impl Failure {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, message, code, param: None, retry_after: None, is_final: false, attempts: Vec::new() }
    }

    /// A miss under `cache-control: only-if-cached`, with the status that HTTP defines for it.
    pub fn not_cached() -> Self {
        let message = "not cached, and the request allows no model call (cache-control: only-if-cached)";
        Self { is_final: true, ..Self::new(StatusCode::GATEWAY_TIMEOUT, "not_cached", message) }
    }

    /// A refusal that no other form of the request would avoid.
    pub fn forbidden(message: &str) -> Self {
        Self { is_final: true, ..Self::new(StatusCode::FORBIDDEN, "forbidden", message) }
    }

    /// A body that is not JSON.
    pub fn unsupported_media_type() -> Self {
        let message = "the body must be JSON, with content-type: application/json";
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        Self { is_final: true, ..Self::new(status, "unsupported_media_type", message) }
    }

    pub fn wrong_method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path has another method")
    }

    /// The reply's body: the dialect's `error` object.
    pub fn body(&self) -> Value {
        let kind = match self.status.as_u16() {
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            _ => "server_error",
        };
        let mut body = json!({ "error": {
            "message": self.message, "type": kind, "param": self.param, "code": self.code } });
        if !self.attempts.is_empty() {
            body["error"]["attempts"] = self.attempts.iter().map(attempt).collect();
        }
        body
    }

    /// The reply with this status and headers and another body.
    pub fn respond_with(self, body: &Value) -> Response {
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        if let Some(after) = self.retry_after {
            // The header holds whole seconds: round up.
            headers.insert(RETRY_AFTER, (after.as_millis().div_ceil(1000) as u64).into());
        }
        if self.is_final {
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        response
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = self.body();
        self.respond_with(&body)
    }
}

fn attempt(attempt: &Attempt) -> Value {
    json!({
        "model": attempt.model,
        "tier": attempt.tier,
        "provider": attempt.provider,
        "result": attempt.result.as_str(),
        "elapsed_ms": attempt.elapsed.as_secs_f64() * 1e3,
    })
}

/// The HTTP status that reports `error`.
fn status(error: &Error) -> StatusCode {
    match error {
        Error::InvalidArgument { field, .. } if field == MODEL_FIELD => StatusCode::NOT_FOUND,
        Error::InvalidArgument { .. } => StatusCode::BAD_REQUEST,
        Error::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Error::SlowRequest => StatusCode::REQUEST_TIMEOUT,
        Error::Unauthenticated => StatusCode::UNAUTHORIZED,
        Error::Exhausted { .. } => StatusCode::TOO_MANY_REQUESTS,
        Error::NotFound(_) => StatusCode::NOT_FOUND,
        Error::DeadlineExceeded { .. } => StatusCode::GATEWAY_TIMEOUT,
        Error::NoUpstream | Error::Unavailable { .. } | Error::StoreUnavailable => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        // The provider refused our key or account, which the caller cannot change.
        Error::Refused { status: 401..=403, .. } => StatusCode::BAD_GATEWAY,
        Error::Refused { status, .. } => StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_REQUEST),
        Error::Internal { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        error.log();
        let status = status(&error);
        let (code, is_final) = match &error {
            _ if status == StatusCode::NOT_FOUND && error.field().is_some() => ("model_not_found", true),
            Error::InvalidArgument { .. } => ("invalid_value", true),
            Error::TooLarge { .. } => ("request_too_large", true),
            Error::SlowRequest => ("slow_request", false),
            Error::Unauthenticated => ("invalid_api_key", true),
            Error::Exhausted { limit: "budget", .. } => ("insufficient_quota", true),
            Error::Exhausted { .. } => ("rate_limit_exceeded", false),
            Error::NoUpstream => ("no_upstream", true),
            Error::NotFound(_) => ("not_found", true),
            Error::DeadlineExceeded { .. } => ("timeout", false),
            Error::Unavailable { .. } => ("upstream_unavailable", false),
            Error::StoreUnavailable => ("store_unavailable", false),
            Error::Refused { .. } => ("refused_by_upstream", true),
            Error::Internal { .. } => ("internal_error", false),
        };
        Self {
            param: error.field().map(|field| field.strip_prefix("prompt.").unwrap_or(field).to_owned()),
            retry_after: error.retry_after(),
            is_final,
            attempts: error.attempts().to_vec(),
            ..Self::new(status, code, error.to_string())
        }
    }
}

//! The one error of a request, and the one place that turns it into a gRPC or an HTTP status. What a caller may
//! read (the message) is apart from what an operator needs (the cause, which is only logged).

use std::time::Duration;

use axum::http::StatusCode;
use prost::Message as _;
use prost_types::Any;
use tonic::{Code, Status};
use tonic_types::pb;

use crate::{grpc::proto, upstream::Attempt};

/// The field of the error that says that nothing bears the requested model's name.
pub const MODEL_FIELD: &str = "prompt.model";

/// Why a request failed. A fault of the cache is never among them, but for calls that promise
/// durability: elsewhere it is a miss.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The caller's fault. The field is a path such as `prompt.messages[2].role`.
    #[error("{field}: {message}")]
    InvalidArgument { field: String, message: String },
    /// Larger than `server.max_request`.
    #[error("the request has more than the {max} bytes of server.max_request")]
    TooLarge { max: usize },
    #[error("missing or unknown API key")]
    Unauthenticated,
    /// Over a limit: of rate, money or load.
    #[error("{limit} exhausted")]
    Exhausted { limit: &'static str, retry_after: Duration },
    #[error("no upstream model is configured")]
    NoUpstream,
    #[error("{0} not found")]
    NotFound(&'static str),
    #[error("deadline exceeded")]
    DeadlineExceeded { attempts: Vec<Attempt> },
    /// Every model of the chain failed, or the one that had begun to answer.
    #[error("{message}")]
    Unavailable { message: &'static str, attempts: Vec<Attempt> },
    /// The store did not acknowledge what the call promises to make durable.
    #[error("the store is unavailable")]
    StoreUnavailable,
    /// The provider refused the request itself (4xx): no other model would take it.
    #[error("refused by the upstream model with status {status}: {message}")]
    Refused { status: u16, message: String, attempts: Vec<Attempt> },
    /// Our bug. The cause is for the log.
    #[error("internal error")]
    Internal { cause: String },
}

// === impl Error ===

impl Error {
    /// An [`Error::InvalidArgument`] about `field`, a path such as `prompt.messages[2].role`.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::InvalidArgument { field: field.into(), message: message.into() }
    }

    /// An [`Error::Internal`].
    pub fn internal(cause: &(impl ToString + ?Sized)) -> Self {
        Self::Internal { cause: cause.to_string() }
    }

    /// The model calls made before it failed.
    pub fn attempts(&self) -> &[Attempt] {
        match self {
            Self::DeadlineExceeded { attempts }
            | Self::Unavailable { attempts, .. }
            | Self::Refused { attempts, .. } => attempts,
            _ => &[],
        }
    }

    /// The field at fault, when the caller's request is.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::InvalidArgument { field, .. } => Some(field),
            _ => None,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::InvalidArgument { .. } | Self::TooLarge { .. } => Code::InvalidArgument,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::Exhausted { .. } => Code::ResourceExhausted,
            Self::NoUpstream => Code::FailedPrecondition,
            Self::NotFound(_) => Code::NotFound,
            Self::DeadlineExceeded { .. } => Code::DeadlineExceeded,
            Self::Unavailable { .. } | Self::StoreUnavailable => Code::Unavailable,
            Self::Refused { status, .. } => refused_code(*status),
            Self::Internal { .. } => Code::Internal,
        }
    }

    /// The status over HTTP.
    pub fn http_status(&self) -> StatusCode {
        match self {
            Self::InvalidArgument { field, .. } if field == MODEL_FIELD => StatusCode::NOT_FOUND,
            Self::InvalidArgument { .. } => StatusCode::BAD_REQUEST,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Exhausted { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::DeadlineExceeded { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::NoUpstream | Self::Unavailable { .. } | Self::StoreUnavailable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Refused { status, .. } => refused_status(*status),
            Self::Internal { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What may be tried again, and when: told over HTTP with 429 and 503.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Exhausted { retry_after, .. } => Some(*retry_after),
            // Breakers and rate limits of providers turn within seconds.
            Self::Unavailable { .. } | Self::StoreUnavailable => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// Tells the log what a caller is not told.
    pub fn log(&self) {
        if let Self::Internal { cause } = self {
            tracing::error!(cause, "internal error");
        }
    }

    /// What a client library can act on, beside the message.
    fn details(&self) -> Vec<Any> {
        match self {
            Self::InvalidArgument { field, message } => vec![bad_request(field, message)],
            Self::Exhausted { retry_after, .. } => vec![retry_info(*retry_after)],
            failed => failed.attempts().iter().map(|attempt| any(&proto::Attempt::from(attempt))).collect(),
        }
    }
}

impl From<Error> for Status {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that makes a status")]
    fn from(error: Error) -> Self {
        error.log();
        let (code, message) = (error.code(), error.to_string());
        let details = pb::Status { code: code.into(), message: message.clone(), details: error.details() };
        if details.details.is_empty() {
            return Self::new(code, message);
        }
        Self::with_details(code, message, details.encode_to_vec().into())
    }
}

/// What the provider said of the request, in gRPC's terms.
fn refused_code(status: u16) -> Code {
    match status {
        // Our key at the provider, not the caller's: nothing that the caller can mend.
        401 | 403 => Code::FailedPrecondition,
        404 => Code::NotFound,
        429 => Code::ResourceExhausted,
        _ => Code::InvalidArgument,
    }
}

/// The same over HTTP.
fn refused_status(status: u16) -> StatusCode {
    match status {
        401 | 403 => StatusCode::BAD_GATEWAY,
        _ => StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST),
    }
}

fn bad_request(field: &str, message: &str) -> Any {
    let violation = pb::bad_request::FieldViolation {
        field: field.to_owned(),
        description: message.to_owned(),
        ..Default::default()
    };
    any_of("google.rpc.BadRequest", &pb::BadRequest { field_violations: vec![violation] })
}

fn retry_info(retry_after: Duration) -> Any {
    let retry_delay = prost_types::Duration::try_from(retry_after).ok();
    any_of("google.rpc.RetryInfo", &pb::RetryInfo { retry_delay })
}

fn any(message: &proto::Attempt) -> Any {
    any_of("promptkeep.v1.Attempt", message)
}

fn any_of(name: &str, message: &impl prost::Message) -> Any {
    Any { type_url: format!("type.googleapis.com/{name}"), value: message.encode_to_vec() }
}

//! The error of a request. Callers read the message; the cause of an internal error is only for the log. Knows no
//! transport: the gRPC and HTTP servers turn it into their statuses.

use std::time::Duration;

use crate::model::Attempt;

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

    /// Time after which the request may be sent again; `None` when a retry would not help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Exhausted { retry_after, .. } => Some(*retry_after),
            // Breakers and provider rate limits recover within seconds.
            Self::Unavailable { .. } | Self::StoreUnavailable => Some(Duration::from_secs(1)),
            _ => None,
        }
    }
}

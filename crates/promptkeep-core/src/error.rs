//! The error of a request. Callers read the message; only the log gets the cause of an internal error. This module
//! knows no transport: the gRPC and HTTP servers map each error to a status.

use std::time::Duration;

use crate::model::Attempt;

/// Field that an [`Error::InvalidArgument`] about an unknown model names.
pub const MODEL_FIELD: &str = "prompt.model";

/// Why a request failed. A fault of the cache is a miss, not an error; only calls that guarantee durability report it
/// ([`Error::StoreUnavailable`]).
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The request is wrong. The field is a path such as `prompt.messages[2].role`.
    #[error("{field}: {message}")]
    InvalidArgument { field: String, message: String },
    /// The request is larger than `server.max_request`.
    #[error("the request has more than the {max} bytes of server.max_request")]
    TooLarge { max: usize },
    /// The request's body did not arrive within `server.limits.body_timeout`.
    #[error("the request did not arrive within server.limits.body_timeout")]
    SlowRequest,
    /// The request has no API key, or an unknown one.
    #[error("missing or unknown API key")]
    Unauthenticated,
    /// The request reached a rate, budget or load limit.
    #[error("{limit} exhausted")]
    Exhausted { limit: &'static str, retry_after: Duration },
    /// The request needs a model, and the catalog has none.
    #[error("no upstream model is configured")]
    NoUpstream,
    /// What the request refers to does not exist.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// The caller's deadline passed before an answer was complete.
    #[error("deadline exceeded")]
    DeadlineExceeded { attempts: Vec<Attempt> },
    /// Every model of the chain failed, or a model failed after its first token.
    #[error("{message}")]
    Unavailable { message: &'static str, attempts: Vec<Attempt> },
    /// The store did not acknowledge a write that the call guarantees to be durable.
    #[error("the store is unavailable")]
    StoreUnavailable,
    /// The provider refused the request itself (4xx), so other models would refuse it too.
    #[error("refused by the upstream model with status {status}: {message}")]
    Refused { status: u16, message: String, attempts: Vec<Attempt> },
    /// A bug of this server. Only the log gets the cause.
    #[error("internal error")]
    Internal { cause: String },
}

impl Error {
    /// Creates an [`Error::InvalidArgument`] about `field`, a path such as `prompt.messages[2].role`.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::InvalidArgument { field: field.into(), message: message.into() }
    }

    /// Creates an [`Error::Internal`] whose cause goes to the log.
    pub fn internal(cause: &(impl ToString + ?Sized)) -> Self {
        Self::Internal { cause: cause.to_string() }
    }

    /// Returns the upstream calls made before the request failed.
    pub fn attempts(&self) -> &[Attempt] {
        match self {
            Self::DeadlineExceeded { attempts }
            | Self::Unavailable { attempts, .. }
            | Self::Refused { attempts, .. } => attempts,
            _ => &[],
        }
    }

    /// Returns the invalid field of an [`Error::InvalidArgument`].
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::InvalidArgument { field, .. } => Some(field),
            _ => None,
        }
    }

    /// Returns the delay after which a retry may succeed; `None` when a retry cannot help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Exhausted { retry_after, .. } => Some(*retry_after),
            // Breakers and provider rate limits recover within seconds.
            Self::Unavailable { .. } | Self::StoreUnavailable => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// Logs the cause of an internal error, which callers do not see.
    pub fn log(&self) {
        if let Self::Internal { cause } = self {
            tracing::error!(cause, "internal error");
        }
    }
}

//! The one error of a request, and the one place that turns it into a gRPC status. What a caller may
//! read (the message) is apart from what an operator needs (the cause, which is only logged).

use std::time::Duration;

use crate::upstream::Attempt;

/// Why a request failed. A fault of the cache is never among them: that is a miss.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The caller's fault.
    #[error("{field}: {message}")]
    InvalidArgument { field: String, message: String },
    #[error("missing or unknown API key")]
    Unauthenticated,
    #[error("{0}")]
    PermissionDenied(&'static str),
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
    /// The provider refused the request itself (4xx): no other model would take it.
    #[error("refused by the upstream model with status {status}")]
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
    pub fn internal(cause: &impl ToString) -> Self {
        Self::Internal { cause: cause.to_string() }
    }
}

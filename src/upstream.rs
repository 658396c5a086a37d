//! The models that answer what the cache cannot: catalog, routing, the chain of attempts, the provider
//! dialect. Provider JSON stays under this module.

use std::time::Duration;

/// One call of one model, as it is reported to callers and counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    pub model: String,
    pub tier: String,
    pub provider: String,
    pub result: AttemptResult,
    /// Why this model was chosen.
    pub reason: AttemptReason,
    pub elapsed: Duration,
    pub first_token: Option<Duration>,
}

/// How one call of one model ended. `Display` is its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttemptResult {
    Ok,
    /// Status of the provider's reply.
    Http(u16),
    Connect,
    FirstTokenTimeout,
    IdleTimeout,
    Deadline,
    /// The connection broke, or the stream ended before it said so.
    Broken,
    /// The reply is not of the dialect, or reports an error inside a success.
    Malformed,
    /// Larger than `upstream.max_answer`.
    TooLarge,
    /// Nobody waits for the answer any more, or another attempt was faster.
    Cancelled,
}

/// Why a model was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttemptReason {
    /// The caller named it, or the router chose its tier.
    Routed,
    /// The models before it failed.
    Fallback,
    /// The same model again, after a retryable failure.
    Retry,
    /// The model before it was slow to begin.
    Hedge,
}

/// Tier of compute, cheapest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    Hot,
    Warm,
    Cold,
    Economy,
}

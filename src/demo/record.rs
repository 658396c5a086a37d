//! What one replayed request came to, as its caller saw it.

use std::time::Duration;

use serde::Serialize;

use crate::{model::Usage, outcome::Outcome};

/// The reply to one request of the traffic, with times measured by the caller.
#[derive(Clone, Debug)]
pub struct Record {
    /// Position in the traffic.
    pub index: usize,
    pub outcome: Outcome,
    /// Why the cache did not answer; for [`Outcome::Error`] the gRPC code; empty on a hit.
    pub reason: String,
    /// Since the beginning of the replay.
    pub started: Duration,
    /// Until the last byte of the answer.
    pub latency: Duration,
    /// Until the first piece of text; `None` for unary calls.
    pub first_token: Option<Duration>,
    /// The entry that answered, or on a miss the nearest one.
    pub matched: Option<Matched>,
    /// The text the caller got.
    pub content: String,
    /// Of the call that bought the answer, also on a hit.
    pub usage: Usage,
    /// By the server's account; 0 when a model was called.
    pub saved_usd: f64,
    /// Model that wrote the answer.
    pub model: String,
}

/// The entry that a reply refers to.
#[derive(Clone, Debug, PartialEq)]
pub struct Matched {
    /// Its last user text.
    pub text: String,
    /// Cosine.
    pub similarity: f32,
}

/// What the server says of its own semantic hits in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// Share of wrong ones, 0 to 1.
    pub rate: f64,
    /// Ends of its 95 % interval.
    pub low: f64,
    pub high: f64,
    /// Hits that were checked against a bought answer so far.
    pub checked: u64,
}

/// A finished replay.
#[derive(Clone, Debug, Default)]
pub struct Replayed {
    /// One per request, in order of arrival.
    pub records: Vec<Record>,
    /// At the end of each block of the traffic that is learned from; `None` where the server did not say.
    pub measured: Vec<Option<Measured>>,
}

// === impl Record ===

impl Record {
    /// Since the beginning of the replay.
    pub fn finished(&self) -> Duration {
        self.started + self.latency
    }

    /// Whether a model was called for it.
    pub fn is_miss(&self) -> bool {
        matches!(self.outcome, Outcome::Upstream | Outcome::Bypass)
    }
}

//! One request of the demo's traffic and its reply, as the caller sees them.

use std::time::Duration;

use crate::{
    decide::learner::WrongHits,
    demo::verifications::Verifications,
    grpc::proto::{self, CompleteResponse},
    offline::simulated_verifier::VerdictCounts,
    outcome::{Approval, Outcome},
};

/// A request and its reply. Times are measured by the caller.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Position in the traffic.
    pub index: usize,
    pub outcome: Outcome,
    /// Why the cache did not answer; for [`Outcome::Error`] the gRPC code; empty for a hit.
    pub reason: String,
    /// Start of the request, since the start of the run.
    pub started: Duration,
    /// Time to the last byte of the answer.
    pub latency: Duration,
    /// Time to the first piece of text; `None` for unary calls.
    pub first_token: Option<Duration>,
    /// Entry that answered, or on a miss the nearest one.
    pub matched: Option<proto::Match>,
    /// Text of the answer.
    pub content: String,
    /// Usage of the model call that produced the answer, also on a hit.
    pub usage: proto::Usage,
    /// Price of the avoided model call, computed by the server; 0 when a model was called.
    pub saved_usd: f64,
}

/// A finished run of the traffic.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// One exchange per request, in order of arrival.
    pub exchanges: Vec<Exchange>,
    /// The server's own estimates, one at the end of each block of the learning curve; `None` where the call
    /// failed.
    pub wrong_hits: Vec<Option<WrongHits>>,
    /// Counted by the server.
    pub verifications: Verifications,
    /// Counted by the simulated models, which know the ground truth.
    pub verdicts: VerdictCounts,
}

impl Exchange {
    /// A response without an outcome counts as an error, because every successful reply has one.
    pub fn new(index: usize, response: CompleteResponse) -> Self {
        let outcome = outcome(response.outcome());
        let completion = response.completion.unwrap_or_default();
        Self {
            index,
            outcome,
            reason: response.reason,
            started: Duration::ZERO,
            latency: Duration::ZERO,
            first_token: None,
            matched: response.r#match.filter(|matched| !matched.matched_text.is_empty()),
            content: completion.content,
            usage: completion.usage.unwrap_or_default(),
            saved_usd: response.saved_usd,
        }
    }

    /// End of the request, since the start of the run.
    pub fn finished(&self) -> Duration {
        self.started + self.latency
    }

    /// Whether it is a semantic hit that the verifier approved.
    pub fn is_verified(&self) -> bool {
        let approval = self.matched.as_ref().map(|matched| matched.approved_by.as_str());
        self.outcome == Outcome::Semantic && approval == Some(Approval::Verified.as_str())
    }

    /// Whether a model was called for the request.
    pub fn called_model(&self) -> bool {
        matches!(self.outcome, Outcome::Upstream | Outcome::Bypass)
    }
}

const fn outcome(outcome: proto::Outcome) -> Outcome {
    match outcome {
        proto::Outcome::Exact => Outcome::Exact,
        proto::Outcome::Semantic => Outcome::Semantic,
        proto::Outcome::Coalesced => Outcome::Coalesced,
        proto::Outcome::Upstream => Outcome::Upstream,
        proto::Outcome::Bypass => Outcome::Bypass,
        proto::Outcome::Miss => Outcome::Miss,
        proto::Outcome::Unspecified => Outcome::Error,
    }
}

//! Data types of model calls: tiers, routes, attempts and states. Plain data without dependencies on HTTP,
//! configuration or tracing.

use std::{fmt, time::Duration};

/// Model name that leaves the choice to the router.
pub const AUTO: &str = "auto";
/// Value of `routing.classifier` that classifies prompts without calling a model.
pub const LOCAL: &str = "local";

/// Price and quality class of a model, from the highest to the lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    Hot,
    Warm,
    Cold,
    Economy,
}

/// Difficulty class of a prompt: how capable its model has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Difficulty {
    /// Look-ups, classification, short rewriting.
    Easy,
    /// A few steps, or knowledge of a field.
    Moderate,
    /// Long reasoning, design, larger programs.
    Hard,
}

/// Tokens and cost of the model call that produced an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Tokens of the prompt, with those below.
    pub prompt_tokens: u64,
    /// Tokens of the answer, with those of its reasoning.
    pub completion_tokens: u64,
    /// Tokens of the prompt that the provider read from its own cache.
    pub cached_prompt_tokens: u64,
    /// Tokens of the prompt that the provider wrote to its own cache.
    pub cache_write_tokens: u64,
    /// Tokens of the answer that are reasoning.
    pub reasoning_tokens: u64,
    /// Cost in US dollars, by the catalog's prices.
    pub cost_usd: f64,
    /// Whether the tokens are an estimate because the provider sent no usage block.
    pub estimated: bool,
}

/// The router's first choice for a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Id of the model.
    pub model: String,
    /// Tier of the model.
    pub tier: Tier,
    /// Why the router chose it.
    pub reason: RouteReason,
}

/// Why the router chose a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteReason {
    /// The caller named a model.
    Named,
    /// The caller named a tier.
    Tier,
    /// The namespace has a configured tier or model.
    Namespace,
    /// Difficulty class that the local classifier computed from the prompt.
    Local(Difficulty),
    /// Difficulty class that the classifier model returned.
    Classifier(Difficulty),
}

/// One upstream call, as reported to callers and counted in metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// Id of the model.
    pub model: String,
    /// Tier of the model; empty when it is not in the catalog.
    pub tier: String,
    /// Name of the provider.
    pub provider: String,
    /// How the call ended.
    pub result: AttemptResult,
    /// Why this model was chosen.
    pub reason: AttemptReason,
    /// Duration of the whole call.
    pub elapsed: Duration,
    /// Time to the first token, if there was one.
    pub first_token: Option<Duration>,
    /// Tokens and cost of this call; all zero when the provider did no work.
    pub usage: Usage,
    /// Why the model stopped, in the provider's words; empty when it did not say so.
    pub finish_reason: String,
}

/// How an upstream call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttemptResult {
    /// The answer is complete.
    Ok,
    /// The provider replied with this error status.
    Http(u16),
    /// No connection could be made.
    Connect,
    /// The first token did not arrive in time.
    FirstTokenTimeout,
    /// The stream stalled after its first token.
    IdleTimeout,
    /// The request's own deadline passed.
    Deadline,
    /// The connection broke, or the stream closed without its end marker.
    Broken,
    /// The reply does not follow the dialect, or reports an error with a success status.
    Malformed,
    /// The answer is larger than `upstream.max_answer`.
    TooLarge,
    /// The caller disconnected, or another attempt was faster.
    Cancelled,
    /// Not called: its breaker is open after recent failures.
    BreakerOpen,
    /// Not called: the prompt does not fit its context window.
    OverWindow,
}

/// Why a model was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttemptReason {
    /// The caller named the model, or the router chose its tier.
    Routed(RouteReason),
    /// The models before it failed.
    Fallback,
    /// A repeated call of one model after a retryable failure.
    Retry,
    /// The model before it was slow to send its first token.
    Hedge,
    /// Classifies the difficulty of a prompt for the router.
    Classify,
    /// Verifies that a cached answer fits another question.
    Verify,
}

/// State of a breaker: which calls it lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Every call.
    Closed,
    /// One probe at a time.
    HalfOpen,
    /// No call.
    Open,
}

/// Current state of a model at a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelState {
    /// Id of the model.
    pub model: String,
    /// Name of the provider.
    pub provider: String,
    /// State of the model's breaker.
    pub breaker: BreakerState,
    /// Status by which the provider said that it does not have the model, while that keeps it behind all others.
    pub quarantined: Option<u16>,
}

/// Current state of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderState {
    /// Name of the provider.
    pub name: String,
    /// Region in which it runs.
    pub region: String,
    /// Whether health probes succeed.
    pub is_up: bool,
    /// Status by which the provider refused the server's key or account, while that keeps it behind all others.
    pub quarantined: Option<u16>,
}

/// Result of asking a verifier model which of the kept answers fit a new question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifierReply {
    /// These answers fit; none if the set is empty.
    Fits(FittingSet),
    /// The reply was neither `0` nor a list of the answers' numbers.
    Nonsense,
    /// The call failed, or the model's breaker for verifications is open.
    Unavailable,
    /// The reply did not come in time.
    TimedOut,
    /// The model was not called, because of a limit.
    Skipped,
}

/// Kept answers that fit a new question, by their index from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FittingSet(u8);

// === impl Tier ===

impl Tier {
    /// All tiers, from the highest to the lowest.
    pub const ALL: [Self; 4] = [Self::Hot, Self::Warm, Self::Cold, Self::Economy];

    /// Returns the tier's name in the catalog, in prompts and in labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Warm => "warm",
            Self::Cold => "cold",
            Self::Economy => "economy",
        }
    }

    /// Whether models of this tier should answer better than those of `other`.
    pub const fn is_above(self, other: Self) -> bool {
        (self as u8) < other as u8
    }

    /// Parses a name of [`Tier::as_str`].
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.as_str() == name)
    }
}

// === impl Difficulty ===

impl Difficulty {
    /// All classes, from the easiest to the hardest.
    pub const ALL: [Self; 3] = [Self::Easy, Self::Moderate, Self::Hard];

    /// Returns the class's label, which is also the word that the classifier model replies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Easy => "easy",
            Self::Moderate => "moderate",
            Self::Hard => "hard",
        }
    }
}

// === impl RouteReason ===

impl RouteReason {
    /// Returns the difficulty class that decided the route, if one did.
    pub const fn difficulty(self) -> Option<Difficulty> {
        match self {
            Self::Local(difficulty) | Self::Classifier(difficulty) => Some(difficulty),
            Self::Named | Self::Tier | Self::Namespace => None,
        }
    }

    /// Returns the label used in replies, metrics and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Named => "named",
            Self::Tier => "tier",
            Self::Namespace => "namespace",
            Self::Local(Difficulty::Easy) => "local_easy",
            Self::Local(Difficulty::Moderate) => "local_moderate",
            Self::Local(Difficulty::Hard) => "local_hard",
            Self::Classifier(Difficulty::Easy) => "classifier_easy",
            Self::Classifier(Difficulty::Moderate) => "classifier_moderate",
            Self::Classifier(Difficulty::Hard) => "classifier_hard",
        }
    }
}

// === impl AttemptResult ===

impl AttemptResult {
    /// Returns the result's label. Rare statuses share one label per class, so the number of labels stays small.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Http(400) => "http_400",
            Self::Http(401) => "http_401",
            Self::Http(403) => "http_403",
            Self::Http(404) => "http_404",
            Self::Http(408) => "http_408",
            Self::Http(413) => "http_413",
            Self::Http(422) => "http_422",
            Self::Http(429) => "http_429",
            Self::Http(500) => "http_500",
            Self::Http(502) => "http_502",
            Self::Http(503) => "http_503",
            Self::Http(504) => "http_504",
            Self::Http(529) => "http_529",
            Self::Http(400..=499) => "http_4xx",
            Self::Http(500..) => "http_5xx",
            Self::Http(_) => "http_other",
            Self::Connect => "connect",
            Self::FirstTokenTimeout => "first_token_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::Deadline => "deadline",
            Self::Broken => "broken",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::Cancelled => "cancelled",
            Self::BreakerOpen => "breaker_open",
            Self::OverWindow => "over_window",
        }
    }

    /// Whether the model was called.
    pub const fn is_call(self) -> bool {
        !matches!(self, Self::BreakerOpen | Self::OverWindow)
    }
}

impl fmt::Display for AttemptResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl AttemptReason ===

impl AttemptReason {
    /// Returns the difficulty class that decided the route, if one did.
    pub const fn difficulty(self) -> Option<Difficulty> {
        match self {
            Self::Routed(reason) => reason.difficulty(),
            Self::Fallback | Self::Retry | Self::Hedge | Self::Classify | Self::Verify => None,
        }
    }

    /// Returns the label used in replies, metrics and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Routed(reason) => reason.as_str(),
            Self::Fallback => "fallback",
            Self::Retry => "retry",
            Self::Hedge => "hedge",
            Self::Classify => "classify",
            Self::Verify => "verify",
        }
    }
}

// === impl BreakerState ===

impl BreakerState {
    /// Returns the label used in replies, metrics and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

// === impl VerifierReply ===

impl VerifierReply {
    /// Every label of [`Self::as_str`].
    pub const LABELS: [&'static str; 6] = ["yes", "no", "nonsense", "unavailable", "timeout", "skipped"];

    /// Returns the label used in metrics and reports, one for each call.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fits(fitting) if fitting.is_empty() => "no",
            Self::Fits(_) => "yes",
            Self::Nonsense => "nonsense",
            Self::Unavailable => "unavailable",
            Self::TimedOut => "timeout",
            Self::Skipped => "skipped",
        }
    }
}

// === impl FittingSet ===

impl FittingSet {
    /// Number of answers that a set can hold; their indices are below it.
    pub const CAPACITY: usize = u8::BITS as usize;

    /// Whether the answer at `index` fits.
    pub const fn contains(self, index: usize) -> bool {
        index < Self::CAPACITY && self.0 & (1 << index) != 0
    }

    /// Whether no answer fits.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Number of answers that fit.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }
}

/// Collects indices.
///
/// # Panics
/// If an index is not below [`FittingSet::CAPACITY`].
impl FromIterator<usize> for FittingSet {
    fn from_iter<I: IntoIterator<Item = usize>>(indices: I) -> Self {
        let mut set = Self::default();
        for index in indices {
            assert!(index < Self::CAPACITY, "an index above the capacity");
            set.0 |= 1 << index;
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fitting_set_holds_the_indices_it_was_made_from() {
        let set: FittingSet = [0, 2, 7].into_iter().collect();
        let held: Vec<usize> = (0..20).filter(|index| set.contains(*index)).collect();
        assert_eq!((held, set.len(), set.is_empty()), (vec![0, 2, 7], 3, false));
        assert!(FittingSet::default().is_empty());
    }

    #[test]
    fn every_verdict_has_a_label() {
        let some: FittingSet = [1].into_iter().collect();
        let replies = [
            VerifierReply::Fits(some),
            VerifierReply::Fits(FittingSet::default()),
            VerifierReply::Nonsense,
            VerifierReply::Unavailable,
            VerifierReply::TimedOut,
            VerifierReply::Skipped,
        ];
        assert_eq!(replies.map(VerifierReply::as_str), VerifierReply::LABELS);
    }
}

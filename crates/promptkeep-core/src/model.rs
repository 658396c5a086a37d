//! Data types of model calls: tiers, routes, attempts, states. Plain data that every layer may use; it must
//! not depend on HTTP, configuration or tracing.

use std::{fmt, time::Duration};

/// Model name that leaves the choice to the router.
pub const AUTO: &str = "auto";
/// Value of `routing.classifier` that classifies prompts without calling a model.
pub const LOCAL: &str = "local";

/// Price and quality class of a model, highest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    Hot,
    Warm,
    Cold,
    Economy,
}

/// How capable a model a prompt needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Difficulty {
    /// Look-ups, classification, short rewriting.
    Easy,
    /// A few steps, or knowledge of a field.
    Moderate,
    /// Long reasoning, design, code of some size.
    Hard,
}

/// Tokens and cost of the model call that produced an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    /// US dollars by the catalog's prices.
    pub cost_usd: f64,
    /// The provider sent no usage block; the tokens are an estimate.
    pub estimated: bool,
}

/// The router's first choice for a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub model: String,
    pub tier: Tier,
    pub reason: RouteReason,
}

/// Why the router chose a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteReason {
    /// The caller named a model.
    Named,
    /// The caller named a tier.
    Tier,
    /// The namespace's own setting.
    Namespace,
    /// Difficulty class computed from the prompt itself.
    Local(Difficulty),
    /// Difficulty class given by the classifier model.
    Classifier(Difficulty),
}

/// One upstream call, as it is reported to callers and counted.
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
    /// Tokens and cost of this call; all zero when the provider did no work.
    pub usage: Usage,
}

/// How an upstream call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttemptResult {
    Ok,
    /// The provider replied with this error status.
    Http(u16),
    /// No connection could be made.
    Connect,
    FirstTokenTimeout,
    IdleTimeout,
    /// The request's own deadline passed.
    Deadline,
    /// The connection broke, or the stream closed without its end mark.
    Broken,
    /// The reply does not follow the dialect, or reports an error inside a success.
    Malformed,
    /// The answer is larger than `upstream.max_answer`.
    TooLarge,
    /// The caller left, or another attempt was faster.
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
    /// A second try of one model, after a retryable failure.
    Retry,
    /// The model before it was slow to send its first token.
    Hedge,
    /// The router asked for the difficulty class of a prompt.
    Classify,
    /// The learner asked whether a cached answer fits another question.
    Verify,
}

/// What a breaker lets through.
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
    pub model: String,
    pub provider: String,
    pub breaker: BreakerState,
}

/// Current state of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderState {
    pub name: String,
    pub region: String,
    pub is_up: bool,
}

/// A verifier model's reply to whether a cached answer fits another question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifierReply {
    /// The answer fits the other question.
    Fits,
    /// The answer does not fit.
    Differs,
    /// The reply was neither yes nor no.
    Nonsense,
    /// No such model is configured, or it did not answer in time.
    Unavailable,
    /// The model was not asked: too many verifications are in flight.
    LeftOut,
}

// === impl Tier ===

impl Tier {
    /// Every tier, highest first.
    pub const ALL: [Self; 4] = [Self::Hot, Self::Warm, Self::Cold, Self::Economy];

    /// The tier's name in the catalog, in prompts and in labels.
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

    /// Parses the names of [`Tier::as_str`].
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.as_str() == name)
    }
}

// === impl Difficulty ===

impl Difficulty {
    pub const ALL: [Self; 3] = [Self::Easy, Self::Moderate, Self::Hard];

    /// The class's label, and the classifier model's word for it.
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
    /// The difficulty class that decided the route, if one did.
    pub const fn difficulty(self) -> Option<Difficulty> {
        match self {
            Self::Local(difficulty) | Self::Classifier(difficulty) => Some(difficulty),
            Self::Named | Self::Tier | Self::Namespace => None,
        }
    }

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
    /// The result's label. Rare statuses share one label per class, so that labels stay few.
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

    /// Whether the model was called at all.
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
    /// The difficulty class that decided the route, if one did.
    pub const fn difficulty(self) -> Option<Difficulty> {
        match self {
            Self::Routed(reason) => reason.difficulty(),
            Self::Fallback | Self::Retry | Self::Hedge | Self::Classify | Self::Verify => None,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Routed(reason) => reason.as_str(),
            Self::Fallback => "fallback",
            Self::Retry => "retry",
            Self::Hedge => "hedge",
            Self::Classify => "classify",
            Self::Verify => "judge",
        }
    }
}

// === impl BreakerState ===

impl BreakerState {
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
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fits => "fits",
            Self::Differs => "differs",
            Self::Nonsense => "nonsense",
            Self::Unavailable => "unavailable",
            Self::LeftOut => "left_out",
        }
    }
}

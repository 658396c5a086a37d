//! Every call of a model, as it is reported, counted and logged: exactly once, when it ends.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{
    catalog::Model,
    route::{Difficulty, RouteReason},
};
use crate::prompt::Usage;

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
    /// Tokens and money of this call; all zero when the provider did no work.
    pub usage: Usage,
}

/// How one call of one model ended.
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
    /// Not called: it failed too often just now.
    BreakerOpen,
    /// Not called: the prompt does not fit its context window.
    OverWindow,
}

/// Why a model was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttemptReason {
    /// The caller named it, or the router chose its tier.
    Routed(RouteReason),
    /// The models before it failed.
    Fallback,
    /// The same model again, after a retryable failure.
    Retry,
    /// The model before it was slow to begin.
    Hedge,
    /// It was asked how difficult the prompt is.
    Classify,
    /// It was asked whether an answer fits another question too.
    Judge,
}

/// Is told of every call of a model as it ends, also of those that nobody waits for any more.
pub type OnAttempt = Arc<dyn Fn(&Attempt) + Send + Sync>;

/// The attempts of one request. The mutex is held for a push or a copy.
pub(super) struct AttemptLog {
    ended: Mutex<Vec<Attempt>>,
    on_attempt: Option<OnAttempt>,
}

/// Measures one call and tells of its end exactly once, whatever that is.
pub(super) struct Meter {
    pub model: Arc<Model>,
    reason: AttemptReason,
    started: Instant,
    /// The provider has begun to work, and may bill what it has read.
    pub accepted: bool,
    first_token: Option<Duration>,
    /// Estimated tokens of the prompt.
    pub prompt_tokens: u64,
    log: Arc<AttemptLog>,
    told: bool,
}

// === impl AttemptLog ===

impl AttemptLog {
    pub fn new(on_attempt: Option<OnAttempt>) -> Arc<Self> {
        Arc::new(Self { ended: Mutex::default(), on_attempt })
    }

    /// What has ended so far, in this order.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A model that was passed over without a call.
    pub fn skip(&self, model: &Model, reason: AttemptReason, result: AttemptResult) {
        self.add(&Attempt {
            model: model.config.id.clone(),
            tier: model.tier().as_str().to_owned(),
            provider: model.provider.name.clone(),
            result,
            reason,
            elapsed: Duration::ZERO,
            first_token: None,
            usage: Usage::default(),
        });
    }

    fn add(&self, attempt: &Attempt) {
        let number = {
            let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            ended.push(attempt.clone());
            ended.len()
        };
        attempt.log(number);
        // Outside the lock: the listener may be slow, or ask for the attempts.
        if let Some(on_attempt) = &self.on_attempt {
            on_attempt(attempt);
        }
    }
}

// === impl Attempt ===

impl Attempt {
    /// One structured event. Never the prompt, the answer or a provider's words.
    fn log(&self, number: usize) {
        let elapsed_ms = self.elapsed.as_secs_f64() * 1e3;
        let first_token_ms = self.first_token.map(|took| took.as_secs_f64() * 1e3);
        let error_kind = (self.result != AttemptResult::Ok).then(|| self.result.as_str());
        let Usage { prompt_tokens, completion_tokens, cost_usd, estimated } = self.usage;
        macro_rules! event {
            ($level:ident, $name:literal) => {
                $level!(
                    model = self.model,
                    tier = self.tier,
                    provider = self.provider,
                    attempt = number,
                    reason = self.reason.as_str(),
                    elapsed_ms,
                    first_token_ms,
                    error_kind,
                    prompt_tokens,
                    completion_tokens,
                    cost_usd,
                    estimated,
                    $name
                )
            };
        }
        match self.result {
            AttemptResult::Ok => event!(info, "inference_ok"),
            AttemptResult::Cancelled => event!(info, "inference_cancelled"),
            // One for each request while a model is set aside: not worth a line by default.
            AttemptResult::BreakerOpen | AttemptResult::OverWindow => event!(debug, "inference_skipped"),
            // The caller's own request, or its own deadline: no other model is tried.
            _ if self.first_token.is_some() || self.result.ends_the_chain() => {
                event!(warn, "inference_failed")
            }
            _ => event!(warn, "inference_fallback"),
        }
    }
}

// === impl Meter ===

impl Meter {
    pub fn start(model: Arc<Model>, reason: AttemptReason, prompt_tokens: u64, log: Arc<AttemptLog>) -> Self {
        let started = Instant::now();
        Self { model, reason, started, accepted: false, first_token: None, prompt_tokens, log, told: false }
    }

    /// Time since the call began.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub fn first_token(&mut self) -> Duration {
        *self.first_token.insert(self.started.elapsed())
    }

    /// Ends a call that had no first token. A provider that refused, or was not reached, did no work; one
    /// that was given up may bill what it has read.
    pub fn fail(mut self, result: AttemptResult) {
        let worked = match result {
            AttemptResult::FirstTokenTimeout | AttemptResult::Deadline => true,
            AttemptResult::Malformed => false,
            _ => self.accepted,
        };
        let usage = if worked { self.prompt_only() } else { Usage::default() };
        self.end(result, usage);
    }

    /// Ends the call. Telling its end twice would count its cost twice.
    pub fn end(&mut self, result: AttemptResult, usage: Usage) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        self.log.add(&Attempt {
            model: self.model.config.id.clone(),
            tier: self.model.tier().as_str().to_owned(),
            provider: self.model.provider.name.clone(),
            result,
            reason: self.reason,
            elapsed: self.started.elapsed(),
            first_token: self.first_token,
            usage,
        });
    }

    pub fn has_ended(&self) -> bool {
        self.told
    }

    /// The attempts of the request that have ended.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.log.attempts()
    }

    fn prompt_only(&self) -> Usage {
        let usage = Usage { prompt_tokens: self.prompt_tokens, estimated: true, ..Usage::default() };
        self.model.price(usage)
    }
}

impl Drop for Meter {
    /// Nobody waits any more, but the provider may bill what it has read.
    fn drop(&mut self) {
        let usage = self.prompt_only();
        self.end(AttemptResult::Cancelled, usage);
    }
}

// === impl AttemptResult ===

impl AttemptResult {
    /// Its label. Statuses outside the usual ones share one, so that labels stay few.
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
}

impl AttemptResult {
    /// Whether the model was called at all.
    pub const fn is_call(self) -> bool {
        !matches!(self, Self::BreakerOpen | Self::OverWindow)
    }

    /// Whether no other model is tried after it.
    const fn ends_the_chain(self) -> bool {
        match self {
            Self::Deadline => true,
            Self::Http(status) => matches!(status, 400..=499) && !matches!(status, 408 | 429),
            _ => false,
        }
    }
}

impl fmt::Display for AttemptResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl AttemptReason ===

impl AttemptReason {
    /// How hard the router judged the prompt to be, if that is why this model was chosen.
    pub const fn difficulty(self) -> Option<Difficulty> {
        match self {
            Self::Routed(reason) => reason.difficulty(),
            Self::Fallback | Self::Retry | Self::Hedge | Self::Classify | Self::Judge => None,
        }
    }

    /// Its label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Routed(reason) => reason.as_str(),
            Self::Fallback => "fallback",
            Self::Retry => "retry",
            Self::Hedge => "hedge",
            Self::Classify => "classify",
            Self::Judge => "judge",
        }
    }
}

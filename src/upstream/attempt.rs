//! Attempt recorder: each upstream call is reported, counted and logged exactly once, when it ends.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{call, catalog::Model, quarantine};
use crate::{
    error::Error,
    model::{Attempt, AttemptReason, AttemptResult, Usage},
};

/// Listener for every upstream call as it ends, including calls whose caller has left.
pub type OnAttempt = Arc<dyn Fn(&Attempt) + Send + Sync>;

/// The attempts of one request. The mutex is held for a push or a copy.
pub(super) struct AttemptLog {
    ended: Mutex<Vec<Attempt>>,
    on_attempt: Option<OnAttempt>,
}

/// Measures one upstream call and reports its end exactly once, on drop at the latest.
pub(super) struct Meter {
    pub model: Arc<Model>,
    reason: AttemptReason,
    started: Instant,
    /// The provider accepted the request, and may bill its prompt.
    pub accepted: bool,
    first_token: Option<Duration>,
    /// Estimated tokens of the prompt.
    pub prompt_tokens: u64,
    /// Why the model stopped; empty until it says so.
    pub finish_reason: String,
    log: Arc<AttemptLog>,
    has_ended: bool,
}

// === impl AttemptLog ===

impl AttemptLog {
    pub fn new(on_attempt: Option<OnAttempt>) -> Arc<Self> {
        Arc::new(Self { ended: Mutex::default(), on_attempt })
    }

    /// Attempts that have ended, in the order of their ends.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.ended().clone()
    }

    /// Records a model that was passed over without a call.
    pub fn skip(&self, model: &Model, reason: AttemptReason, result: AttemptResult) {
        self.add(&new_attempt(model, reason, result));
    }

    fn add(&self, attempt: &Attempt) {
        let number = {
            let mut ended = self.ended();
            ended.push(attempt.clone());
            ended.len()
        };
        write_log(attempt, number);
        // Outside the lock: the listener may be slow, or read the attempts.
        if let Some(on_attempt) = &self.on_attempt {
            on_attempt(attempt);
        }
    }

    fn ended(&self) -> MutexGuard<'_, Vec<Attempt>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn new_attempt(model: &Model, reason: AttemptReason, result: AttemptResult) -> Attempt {
    Attempt {
        model: model.config.id.clone(),
        tier: model.tier().as_str().to_owned(),
        provider: model.provider.name.clone(),
        result,
        reason,
        elapsed: Duration::ZERO,
        first_token: None,
        usage: Usage::default(),
        finish_reason: String::new(),
    }
}

/// Writes one structured event. It must not hold the prompt, the answer or a provider's message.
fn write_log(attempt: &Attempt, number: usize) {
    let elapsed_ms = attempt.elapsed.as_secs_f64() * 1e3;
    let first_token_ms = attempt.first_token.map(|took| took.as_secs_f64() * 1e3);
    let error_kind = (attempt.result != AttemptResult::Ok).then(|| attempt.result.as_str());
    let Usage { prompt_tokens, completion_tokens, cost_usd, estimated, .. } = attempt.usage;
    macro_rules! event {
        ($level:ident, $name:literal) => {
            $level!(
                model = attempt.model,
                tier = attempt.tier,
                provider = attempt.provider,
                attempt = number,
                reason = attempt.reason.as_str(),
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
    match attempt.result {
        AttemptResult::Ok => event!(info, "inference_ok"),
        AttemptResult::Cancelled => event!(info, "inference_cancelled"),
        // One per request while a breaker is open: too many for the default level.
        AttemptResult::BreakerOpen | AttemptResult::OverWindow => event!(debug, "inference_skipped"),
        _ if attempt.first_token.is_some() || ends_the_chain(attempt.result) => {
            event!(warn, "inference_failed")
        }
        _ => event!(warn, "inference_fallback"),
    }
}

/// Whether no other model is tried after this result: the request itself was refused, or its deadline passed.
fn ends_the_chain(result: AttemptResult) -> bool {
    match result {
        AttemptResult::Deadline => true,
        AttemptResult::Http(status) => {
            let is_passing = call::is_transient(status) || quarantine::is_cause(status);
            (400..500).contains(&status) && !is_passing
        }
        _ => false,
    }
}

// === impl Meter ===

impl Meter {
    pub fn start(model: Arc<Model>, reason: AttemptReason, prompt_tokens: u64, log: Arc<AttemptLog>) -> Self {
        let started = Instant::now();
        Self {
            model,
            reason,
            started,
            accepted: false,
            first_token: None,
            prompt_tokens,
            finish_reason: String::new(),
            log,
            has_ended: false,
        }
    }

    /// Time since the call began.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Records the first token and returns the time it took.
    pub fn first_token(&mut self) -> Duration {
        *self.first_token.insert(self.started.elapsed())
    }

    /// Ends a call that failed before its first token. A provider that refused, or could not be reached,
    /// bills nothing; one that timed out may bill the prompt.
    pub fn fail(mut self, result: AttemptResult) {
        let is_billed = match result {
            AttemptResult::FirstTokenTimeout | AttemptResult::Deadline => true,
            AttemptResult::Malformed => false,
            _ => self.accepted,
        };
        let usage = if is_billed { self.prompt_only() } else { Usage::default() };
        self.end(result, usage);
    }

    /// Ends the call. Only the first end counts, or a call would be paid for twice.
    pub fn end(&mut self, result: AttemptResult, usage: Usage) {
        if mem::replace(&mut self.has_ended, true) {
            return;
        }
        self.log.add(&Attempt {
            elapsed: self.started.elapsed(),
            first_token: self.first_token,
            usage,
            finish_reason: mem::take(&mut self.finish_reason),
            ..new_attempt(&self.model, self.reason, result)
        });
    }

    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// The request's attempts that have ended.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.log.attempts()
    }

    fn prompt_only(&self) -> Usage {
        let usage = Usage { prompt_tokens: self.prompt_tokens, estimated: true, ..Usage::default() };
        self.model.price(usage)
    }
}

impl Drop for Meter {
    /// The caller has left, but the provider may bill the prompt.
    fn drop(&mut self) {
        let usage = self.prompt_only();
        self.end(AttemptResult::Cancelled, usage);
    }
}

/// The error for an answer that fails after its first token, when no other model may continue it.
pub(super) fn broken_off(result: AttemptResult, attempts: Vec<Attempt>) -> Error {
    match result {
        AttemptResult::Deadline => Error::DeadlineExceeded { attempts },
        _ => Error::Unavailable { message: "the answer broke off", attempts },
    }
}

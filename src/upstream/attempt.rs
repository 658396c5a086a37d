//! Every call of a model, as it is reported, counted and logged: exactly once, when it ends.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{Attempt, AttemptReason, AttemptResult, catalog::Model};
use crate::model::Usage;

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
        log(attempt, number);
        // Outside the lock: the listener may be slow, or ask for the attempts.
        if let Some(on_attempt) = &self.on_attempt {
            on_attempt(attempt);
        }
    }
}

/// One structured event. Never the prompt, the answer or a provider's words.
fn log(attempt: &Attempt, number: usize) {
    let elapsed_ms = attempt.elapsed.as_secs_f64() * 1e3;
    let first_token_ms = attempt.first_token.map(|took| took.as_secs_f64() * 1e3);
    let error_kind = (attempt.result != AttemptResult::Ok).then(|| attempt.result.as_str());
    let Usage { prompt_tokens, completion_tokens, cost_usd, estimated } = attempt.usage;
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
        // One for each request while a model is set aside: not worth a line by default.
        AttemptResult::BreakerOpen | AttemptResult::OverWindow => event!(debug, "inference_skipped"),
        // The caller's own request, or its own deadline: no other model is tried.
        _ if attempt.first_token.is_some() || ends_the_chain(attempt.result) => {
            event!(warn, "inference_failed")
        }
        _ => event!(warn, "inference_fallback"),
    }
}

/// Whether no other model is tried after this result.
fn ends_the_chain(result: AttemptResult) -> bool {
    match result {
        AttemptResult::Deadline => true,
        AttemptResult::Http(status) => matches!(status, 400..=499) && !matches!(status, 408 | 429),
        _ => false,
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

//! The chain of attempts for one request until a model sends its first token: which models are tried, in what
//! order, how often, and when a slow one is hedged.

use std::{collections::VecDeque, pin::pin, sync::Arc, time::Duration};

use reqwest::header::HeaderMap;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Answer, UpstreamRequest,
    answer::StartedReply,
    attempt::{AttemptLog, Meter},
    breaker::Permit,
    call::{self, Fault, Limits, Recovery},
    catalog::{Catalog, Model},
    quarantine, tokens,
};
use crate::{
    config::HedgeAfter,
    error::Error,
    model::{Attempt, AttemptReason, AttemptResult, RouteReason},
    prompt::Prompt,
};

/// The chain of one request.
pub(super) struct Chain<'a> {
    context: Context<'a>,
    queue: Queue,
    /// Status and message of the first provider that refused the server's key or account, or does not have the model.
    refused: Option<(u16, String)>,
}

/// Inputs shared by every attempt.
struct Context<'a> {
    catalog: &'a Catalog,
    prompt: &'a Prompt,
    limits: Limits,
    prompt_tokens: u64,
    headers: &'a HeaderMap,
    log: Arc<AttemptLog>,
}

/// Models still to be tried, best first.
struct Queue {
    models: VecDeque<Arc<Model>>,
    /// The prompt fits at least one of the models taken from the queue.
    fits_one: bool,
}

/// A model with its breaker's permit for one call.
struct Admitted {
    model: Arc<Model>,
    permit: Permit,
}

// === impl Chain ===

impl<'a> Chain<'a> {
    pub fn new(
        catalog: &'a Catalog,
        ask: &'a UpstreamRequest<'_>,
        models: Vec<Arc<Model>>,
        log: Arc<AttemptLog>,
    ) -> Self {
        let context = Context {
            catalog,
            prompt: ask.prompt,
            limits: Limits {
                deadline: ask.deadline,
                first_token_timeout: catalog.limits.first_token_timeout,
                idle_timeout: catalog.limits.idle_timeout,
                answer_max: catalog.limits.max_answer,
                quarantine: catalog.limits.quarantine,
            },
            prompt_tokens: tokens::estimate_prompt(ask.prompt),
            headers: &ask.headers,
            log,
        };
        Self { context, queue: Queue { models: models.into(), fits_one: false }, refused: None }
    }

    /// Tries the models in order. `route` is why the first is first.
    pub async fn run(mut self, route: RouteReason) -> Result<Answer, Error> {
        self.context.catalog.retries.earn();
        self.context.catalog.hedges.earn();
        let mut reason = AttemptReason::Routed(route);
        while let Some(admitted) = self.queue.next(&self.context, reason) {
            if let Some(answer) = self.try_model(admitted, reason).await? {
                return Ok(answer);
            }
            reason = AttemptReason::Fallback;
        }
        if !self.queue.fits_one {
            return Err(Error::invalid("prompt.messages", "do not fit the context window of any model"));
        }
        Err(self.failed())
    }

    /// The error when no model has answered: the refusal, if there was nothing else.
    fn failed(self) -> Error {
        let attempts = self.context.log.attempts();
        let is_refusal = |attempt: &Attempt| match attempt.result {
            AttemptResult::Http(status) => quarantine::is_cause(status),
            result => !result.is_call(),
        };
        match self.refused {
            Some((status, message)) if attempts.iter().all(is_refusal) => {
                Error::Refused { status, message, attempts }
            }
            _ => Error::Unavailable { message: "every upstream model failed", attempts },
        }
    }

    /// Tries one model, with retries. Returns `None` when the next model should be tried.
    async fn try_model(
        &mut self,
        mut admitted: Admitted,
        mut reason: AttemptReason,
    ) -> Result<Option<Answer>, Error> {
        let model = Arc::clone(&admitted.model);
        for retry in 0.. {
            let fault = match self.race(admitted, reason).await {
                Ok(answer) => return Ok(Some(answer)),
                Err(fault) => fault,
            };
            let Some(wait) = self.wait_before_retry(fault, &model, retry)? else { break };
            sleep(wait).await;
            let Some(permit) = model.state.breaker.admit() else { break };
            admitted = Admitted { model: Arc::clone(&model), permit };
            reason = AttemptReason::Retry;
        }
        Ok(None)
    }

    /// Time to wait before the model is tried again; `None` when the next model should be tried, an error
    /// when none should.
    fn wait_before_retry(
        &mut self,
        fault: Fault,
        model: &Model,
        retry: u32,
    ) -> Result<Option<Duration>, Error> {
        let limits = &self.context.catalog.limits;
        let attempts = || self.context.log.attempts();
        let after = match (fault.result, fault.recovery) {
            (AttemptResult::Deadline, _) => return Err(Error::DeadlineExceeded { attempts: attempts() }),
            (AttemptResult::Http(status), Recovery::Refuse) => {
                return Err(Error::Refused { status, message: fault.message, attempts: attempts() });
            }
            (AttemptResult::Http(status), Recovery::Quarantine) => {
                self.refused.get_or_insert((status, fault.message));
                return Ok(None);
            }
            (_, Recovery::Retry { after }) => after.unwrap_or_default(),
            _ => return Ok(None),
        };
        let next = self.queue.models.front();
        let is_served_elsewhere = next.is_some_and(|next| next.config.id == model.config.id);
        let next_is_sooner = next.is_some() && after > limits.retry_backoff_max;
        if retry >= limits.retries || is_served_elsewhere || next_is_sooner {
            return Ok(None);
        }
        // The jitter spreads requests that were given one delay.
        let wait = after.mul_f64(1.0 + 0.1 * fastrand::f64()).max(backoff(
            limits.retry_backoff,
            limits.retry_backoff_max,
            retry,
        ));
        let in_time = Instant::now() + wait < self.context.limits.deadline;
        Ok((in_time && self.context.catalog.retries.spend()).then_some(wait))
    }

    /// One attempt, with a hedge beside it when its first token is late. The first token wins; dropping the
    /// loser cancels it and counts its cost.
    async fn race(&mut self, first: Admitted, reason: AttemptReason) -> Result<Answer, Fault> {
        let Self { context, queue, refused: _ } = self;
        let model = Arc::clone(&first.model);
        let started = Instant::now();
        let late_after = hedge_after(context.catalog.limits.hedge_after, &model);
        let mut first = pin!(context.attempt(first, reason));
        let Some(late_after) = late_after else { return first.await };
        tokio::select! {
            biased;
            result = &mut first => return result,
            () = sleep_until(started + late_after) => {}
        }
        let Some(second) = queue.hedge(context, &model) else { return first.await };
        let mut hedge = pin!(context.attempt(second, AttemptReason::Hedge));
        tokio::select! {
            biased;
            result = &mut first => match result {
                Ok(answer) => Ok(answer),
                Err(fault) => hedge.await.map_err(|_| fault),
            },
            result = &mut hedge => match result {
                Ok(answer) => {
                    // A lower bound of the slow model's latency, which must still be learned.
                    model.state.latency.record(started.elapsed());
                    Ok(answer)
                }
                Err(_) => first.await,
            },
        }
    }
}

/// Exponential backoff with jitter between half and all of it, so that callers who failed together do not
/// return together.
fn backoff(first: Duration, max: Duration, retry: u32) -> Duration {
    first.saturating_mul(1 << retry.min(16)).min(max).mul_f64(0.5 + 0.5 * fastrand::f64())
}

fn hedge_after(setting: HedgeAfter, model: &Model) -> Option<Duration> {
    match setting {
        HedgeAfter::Learned => model.state.latency.slow(),
        HedgeAfter::Fixed(after) => Some(after),
        HedgeAfter::Never => None,
    }
}

// === impl Context ===

impl Context<'_> {
    async fn attempt(&self, admitted: Admitted, reason: AttemptReason) -> Result<Answer, Fault> {
        let Admitted { model, permit } = admitted;
        let mut meter = Meter::start(Arc::clone(&model), reason, self.prompt_tokens, Arc::clone(&self.log));
        match self.call(&model, &mut meter).await {
            Ok(started) => {
                model.state.latency.record(meter.first_token());
                permit.succeeded();
                Ok(Answer::new(started, meter))
            }
            Err(fault) => {
                fault.settle(permit);
                if fault.result == AttemptResult::FirstTokenTimeout {
                    model.state.latency.record(meter.elapsed());
                }
                meter.fail(fault.result);
                Err(fault)
            }
        }
    }

    async fn call(&self, model: &Model, meter: &mut Meter) -> Result<StartedReply, Fault> {
        let until = Instant::now() + self.limits.first_token_timeout;
        let reply = call::send(&self.catalog.client, model, self.prompt, self.headers, self.limits).await?;
        meter.accepted = true;
        StartedReply::read(reply, until, self.limits).await
    }

    fn fits(&self, model: &Model) -> bool {
        tokens::needed(self.prompt, self.prompt_tokens) <= model.config.context_window
    }
}

// === impl Queue ===

impl Queue {
    /// The next model that may be called. Models passed over are recorded as skipped.
    fn next(&mut self, context: &Context<'_>, reason: AttemptReason) -> Option<Admitted> {
        while let Some(model) = self.models.pop_front() {
            if !context.fits(&model) {
                context.log.skip(&model, reason, AttemptResult::OverWindow);
                continue;
            }
            self.fits_one = true;
            if let Some(permit) = model.state.breaker.admit() {
                return Some(Admitted { model, permit });
            }
            context.log.skip(&model, reason, AttemptResult::BreakerOpen);
        }
        None
    }

    /// The next model, or the slow one again when none is left. Returns `None` when the hedge budget is
    /// spent.
    fn hedge(&mut self, context: &Context<'_>, slow: &Arc<Model>) -> Option<Admitted> {
        if !context.catalog.hedges.spend() {
            return None;
        }
        self.next(context, AttemptReason::Hedge).or_else(|| {
            let permit = slow.state.breaker.admit()?;
            Some(Admitted { model: Arc::clone(slow), permit })
        })
    }
}

//! The attempts of one request until one has its first token: who is tried, in which order, how often,
//! and when a second attempt starts beside a slow one.

use std::{collections::VecDeque, pin::pin, sync::Arc, time::Duration};

use reqwest::header::HeaderMap;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Answer, Ask, AttemptReason, AttemptResult, RouteReason,
    answer::Begun,
    attempt::{AttemptLog, Meter},
    breaker::Permit,
    call::{self, Fault, Limits, Then},
    catalog::{Catalog, Model},
    openai, tokens,
};
use crate::{config::HedgeAfter, error::Error, prompt::Prompt};

/// The chain of one request.
pub(super) struct Chain<'a> {
    context: Context<'a>,
    queue: Queue,
}

/// What every attempt needs.
struct Context<'a> {
    catalog: &'a Catalog,
    prompt: &'a Prompt,
    limits: Limits,
    prompt_tokens: u64,
    headers: &'a HeaderMap,
    log: Arc<AttemptLog>,
}

/// Models yet to be tried, best first.
struct Queue {
    models: VecDeque<Arc<Model>>,
    /// The prompt fits one of the models that were looked at.
    fits_one: bool,
}

/// A model that its breaker lets us call.
struct Admitted {
    model: Arc<Model>,
    permit: Permit,
}

// === impl Chain ===

impl<'a> Chain<'a> {
    pub fn new(
        catalog: &'a Catalog,
        ask: &'a Ask<'_>,
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
            },
            prompt_tokens: tokens::estimate_prompt(ask.prompt),
            headers: &ask.headers,
            log,
        };
        Self { context, queue: Queue { models: models.into(), fits_one: false } }
    }

    /// Tries one model after the other.
    pub async fn run(mut self, route: RouteReason) -> Result<Answer, Error> {
        self.context.catalog.retries.earn();
        self.context.catalog.hedges.earn();
        let mut reason = AttemptReason::Routed(route);
        while let Some(admitted) = self.queue.next(&self.context, reason) {
            if let Some(answer) = self.persist(admitted, reason).await? {
                return Ok(answer);
            }
            reason = AttemptReason::Fallback;
        }
        Err(self.nothing_left())
    }

    /// Tries one model, again where that may help. `None`: on to the next.
    async fn persist(
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
            let Some(wait) = self.wait_before_retry(&fault, &model, retry)? else { break };
            sleep(wait).await;
            let Some(permit) = model.state.breaker.admit() else { break };
            admitted = Admitted { model: Arc::clone(&model), permit };
            reason = AttemptReason::Retry;
        }
        Ok(None)
    }

    /// How long to wait before the same model is tried again; `None` when another should be; an error
    /// when none should.
    fn wait_before_retry(&self, fault: &Fault, model: &Model, retry: u32) -> Result<Option<Duration>, Error> {
        let limits = &self.context.catalog.limits;
        let attempts = || self.context.log.attempts();
        let after = match (fault.result, fault.then) {
            (AttemptResult::Deadline, _) => return Err(Error::DeadlineExceeded { attempts: attempts() }),
            (AttemptResult::Http(status), Then::Refuse) => {
                return Err(Error::Refused { status, message: fault.message.clone(), attempts: attempts() });
            }
            (_, Then::Retry { after }) => after.unwrap_or_default(),
            _ => return Ok(None),
        };
        let next = self.queue.models.front();
        let same_elsewhere = next.is_some_and(|next| next.config.id == model.config.id);
        let another_is_sooner = next.is_some() && after > limits.retry_backoff_max;
        if retry >= limits.retries || same_elsewhere || another_is_sooner {
            return Ok(None);
        }
        // Callers who were told the same do not come back together either.
        let wait = after.mul_f64(1.0 + 0.1 * fastrand::f64()).max(backoff(
            limits.retry_backoff,
            limits.retry_backoff_max,
            retry,
        ));
        let in_time = Instant::now() + wait < self.context.limits.deadline;
        Ok((in_time && self.context.catalog.retries.spend()).then_some(wait))
    }

    /// One attempt, and a second beside it when the first is slow to begin. The first token wins; the
    /// loser is dropped, which cancels it and counts its cost.
    async fn race(&mut self, first: Admitted, reason: AttemptReason) -> Result<Answer, Fault> {
        let Self { context, queue } = self;
        let model = Arc::clone(&first.model);
        let started = Instant::now();
        let late_after = hedge_after(context.catalog.limits.hedge_after, &model);
        let mut lane = pin!(context.attempt(first, reason));
        let Some(late_after) = late_after else { return lane.await };
        tokio::select! {
            biased;
            result = &mut lane => return result,
            () = sleep_until(started + late_after) => {}
        }
        let Some(second) = queue.hedge(context, &model) else { return lane.await };
        let mut hedge = pin!(context.attempt(second, AttemptReason::Hedge));
        tokio::select! {
            biased;
            result = &mut lane => match result {
                Ok(answer) => Ok(answer),
                Err(fault) => hedge.await.map_err(|_| fault),
            },
            result = &mut hedge => match result {
                Ok(answer) => {
                    // It would have taken even longer, but that it was slow must be learned.
                    model.state.latency.record(started.elapsed());
                    Ok(answer)
                }
                Err(_) => lane.await,
            },
        }
    }

    fn nothing_left(&self) -> Error {
        if !self.queue.fits_one {
            return Error::invalid("prompt.messages", "do not fit the context window of any model");
        }
        Error::Unavailable { message: "every upstream model failed", attempts: self.context.log.attempts() }
    }
}

/// Doubles with each retry; at random between half of that and all of it, so that callers who failed
/// together do not come back together.
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
            Ok(begun) => {
                model.state.latency.record(meter.first_token());
                permit.succeeded();
                Ok(Answer::new(begun, meter))
            }
            Err(fault) => {
                fault.judge(permit);
                if fault.result == AttemptResult::FirstTokenTimeout {
                    model.state.latency.record(meter.elapsed());
                }
                meter.fail(fault.result);
                Err(fault)
            }
        }
    }

    async fn call(&self, model: &Model, meter: &mut Meter) -> Result<Begun, Fault> {
        let until = Instant::now() + self.limits.first_token_timeout;
        let body = openai::encode(self.prompt, model.name_at_provider());
        let reply = call::send(&self.catalog.client, model, (body, self.headers), self.limits).await?;
        meter.accepted = true;
        Begun::read(reply, until, self.limits).await
    }

    fn fits(&self, model: &Model) -> bool {
        tokens::wanted(self.prompt, self.prompt_tokens) <= model.config.context_window
    }
}

// === impl Queue ===

impl Queue {
    /// The next model that may be called. Those passed over are told of.
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

    /// The next model, or once more the slow one when it is the last; `None` when the budget is spent.
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

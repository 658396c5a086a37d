//! The attempts of one request, in order, until one has its first token.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    Ask, Attempt, AttemptReason, AttemptResult, Tier, Upstreams,
    answer::{Answer, Meter},
    call::{self, Fault, Limits, Then},
    catalog::{Catalog, Model},
    openai, tokens,
};
use crate::{error::Error, prompt::Usage};

/// Asks one model after the other.
pub(super) async fn run(
    upstreams: &Upstreams,
    catalog: &Catalog,
    candidates: &[Arc<Model>],
    ask: &Ask<'_>,
) -> Result<Answer, Error> {
    let mut attempts = Vec::new();
    let mut reason = AttemptReason::Routed;
    for model in candidates {
        match attempt(upstreams, catalog, Arc::clone(model), reason, ask).await {
            Ok(answer) => return Ok(answer.with_attempts(attempts)),
            Err((fault, attempt)) => {
                attempts.push(attempt);
                if let Some(error) = give_up(&fault, &mut attempts) {
                    return Err(error);
                }
            }
        }
        reason = AttemptReason::Fallback;
    }
    Err(Error::Unavailable { message: "every upstream model failed", attempts })
}

/// The error that ends the chain, if this fault does.
fn give_up(fault: &Fault, attempts: &mut Vec<Attempt>) -> Option<Error> {
    let mut attempts = || std::mem::take(attempts);
    match (fault.result, fault.then) {
        (AttemptResult::Deadline, _) => Some(Error::DeadlineExceeded { attempts: attempts() }),
        (AttemptResult::Http(status), Then::Refuse) => {
            Some(Error::Refused { status, message: fault.message.clone(), attempts: attempts() })
        }
        _ => None,
    }
}

async fn attempt(
    upstreams: &Upstreams,
    catalog: &Catalog,
    model: Arc<Model>,
    reason: AttemptReason,
    ask: &Ask<'_>,
) -> Result<Answer, (Fault, Attempt)> {
    let limits = Limits {
        deadline: ask.deadline,
        first_token_timeout: catalog.limits.first_token_timeout,
        idle_timeout: catalog.limits.idle_timeout,
        answer_max: catalog.limits.max_answer,
    };
    let body = openai::encode(ask.prompt, &model.config.id);
    let prompt_tokens = tokens::estimate_prompt(ask.prompt);
    let meter = Meter::start(model, reason, prompt_tokens, ask.on_attempt.clone());
    let until = Instant::now() + limits.first_token_timeout;
    let model = Arc::clone(&meter.model);
    let begun = match call::send(upstreams.client(), &model, body, limits).await {
        Ok(reply) => Answer::begin(reply, meter, until, limits.answer_max).await,
        Err(fault) => Err((fault, meter)),
    };
    begun.map_err(|(fault, mut meter)| {
        let attempt = meter.end(fault.result, Usage::default());
        (fault, attempt)
    })
}

/// Models to try for a prompt that asks for `name`, best first; `None` when nothing bears this name.
pub(super) fn candidates(catalog: &Catalog, name: &str) -> Option<Vec<Arc<Model>>> {
    let named: Vec<_> = catalog.models.iter().filter(|model| model.config.id == name).cloned().collect();
    let tier = named.first().map(|model| model.tier()).or_else(|| Tier::parse(name));
    let tiers = match tier {
        Some(tier) => tiers_from(tier, &catalog.routing.fallback),
        None if name == super::AUTO => catalog.routing.fallback.clone(),
        None => return None,
    };
    let mut chain = named;
    for tier in tiers {
        let mut models: Vec<_> = catalog.models.iter().filter(|model| model.tier() == tier).collect();
        // Stable: otherwise the order of the file counts.
        models.sort_by_key(|model| !model.provider.is_near);
        for model in models {
            if !chain.iter().any(|have| Arc::ptr_eq(have, model)) {
                chain.push(Arc::clone(model));
            }
        }
    }
    Some(chain)
}

/// The tier itself, those after it in the order of fallback, then those before it, nearest first.
fn tiers_from(tier: Tier, fallback: &[Tier]) -> Vec<Tier> {
    let at = fallback.iter().position(|other| *other == tier);
    let (before, after) = at.map_or((&fallback[..0], fallback), |at| (&fallback[..at], &fallback[at + 1..]));
    let mut tiers = vec![tier];
    tiers.extend(after);
    tiers.extend(before.iter().rev());
    tiers
}

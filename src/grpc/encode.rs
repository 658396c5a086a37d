//! Encodes domain types as proto messages.

use std::time::Duration;

use serde_json::Value;

use super::proto;
use crate::{
    decide::{Check, Explained},
    model::{Attempt, Route, Usage},
    outcome::Outcome,
    pipeline::{Chunk, Explanation, Hit, Match, Missed, Reply, RequestId, Started},
    prompt::{Completion, Delta, Reasoning, ReplyFields},
};

pub(super) fn lookup(id: RequestId, looked_up: &Result<Hit, Missed>) -> proto::LookupResponse {
    match looked_up {
        Ok(hit) => proto::LookupResponse {
            outcome: outcome(hit.outcome).into(),
            completion: Some(completion(&hit.entry.completion)),
            r#match: Some(matched(&hit.matched())),
            reason: String::new(),
            request_id: id.to_string(),
        },
        Err(missed) => proto::LookupResponse {
            outcome: proto::Outcome::Miss.into(),
            completion: None,
            r#match: missed.nearest.as_ref().map(matched),
            reason: missed.reason.as_str().to_owned(),
            request_id: String::new(),
        },
    }
}

pub(super) fn reply(reply: &Reply) -> proto::CompleteResponse {
    proto::CompleteResponse {
        outcome: outcome(reply.outcome).into(),
        completion: Some(completion(reply.completion())),
        r#match: reply.matched.as_ref().map(matched),
        reason: reply.reason.map_or_else(String::new, |reason| reason.as_str().to_owned()),
        attempts: reply.attempts().iter().map(proto::Attempt::from).collect(),
        saved_usd: reply.saved_usd,
        request_id: reply.id.to_string(),
    }
}

pub(super) fn chunk(chunk: Chunk) -> proto::CompleteChunk {
    use proto::complete_chunk::Event;
    let event = match chunk {
        Chunk::Started(begun) => Event::Started(started(begun)),
        Chunk::Delta(delta) => event_of(delta),
        Chunk::Finished(reply) => Event::Finished(finished(&reply)),
    };
    proto::CompleteChunk { event: Some(event) }
}

fn event_of(delta: Delta) -> proto::complete_chunk::Event {
    use proto::complete_chunk::Event;
    match delta {
        Delta::Text(text) => Event::Delta(text),
        Delta::Reasoning(Reasoning { text, field: _ }) => Event::ReasoningDelta(text),
        Delta::Refusal(text) => Event::RefusalDelta(text),
        Delta::ToolCalls(calls) => Event::ToolCallsDeltaJson(calls.to_string()),
        Delta::Fields(fields) => Event::FieldsDeltaJson(Value::Object(fields).to_string()),
    }
}

fn started(started: Started) -> proto::Started {
    proto::Started {
        outcome: outcome(started.outcome).into(),
        r#match: started.matched.as_ref().map(matched),
        model: started.model,
        tier: started.tier,
        request_id: started.id.to_string(),
    }
}

fn finished(reply: &Reply) -> proto::Finished {
    let Completion { finish_reason, model, tier, usage: used, extra, .. } = reply.completion();
    proto::Finished {
        outcome: outcome(reply.outcome).into(),
        r#match: reply.matched.as_ref().map(matched),
        reason: reply.reason.map_or_else(String::new, |reason| reason.as_str().to_owned()),
        attempts: reply.attempts().iter().map(proto::Attempt::from).collect(),
        saved_usd: reply.saved_usd,
        request_id: reply.id.to_string(),
        finish_reason: finish_reason.as_str().to_owned(),
        model: model.clone(),
        tier: tier.clone(),
        usage: Some(usage(used)),
        extra_json: reply_fields(extra),
    }
}

fn outcome(outcome: Outcome) -> proto::Outcome {
    match outcome {
        Outcome::Exact => proto::Outcome::Exact,
        Outcome::Semantic => proto::Outcome::Semantic,
        Outcome::Coalesced => proto::Outcome::Coalesced,
        Outcome::Upstream => proto::Outcome::Upstream,
        Outcome::Bypass => proto::Outcome::Bypass,
        Outcome::Miss => proto::Outcome::Miss,
        // No reply has these.
        Outcome::Stored | Outcome::Error => proto::Outcome::Unspecified,
    }
}

fn completion(completion: &Completion) -> proto::Completion {
    let Completion {
        content,
        reasoning,
        refusal,
        tool_calls,
        finish_reason,
        model,
        tier,
        usage: used,
        extra,
    } = completion;
    proto::Completion {
        content: content.clone(),
        tool_calls_json: tool_calls.as_ref().map_or_else(String::new, ToString::to_string),
        finish_reason: finish_reason.as_str().to_owned(),
        model: model.clone(),
        tier: tier.clone(),
        usage: Some(usage(used)),
        reasoning_content: reasoning.as_ref().map_or_else(String::new, |reasoning| reasoning.text.clone()),
        refusal: refusal.clone().unwrap_or_default(),
        extra_json: reply_fields(extra),
    }
}

/// Empty when there are none.
fn reply_fields(extra: &ReplyFields) -> String {
    if extra.is_empty() {
        return String::new();
    }
    let ReplyFields { message, choice, reply } = extra;
    let objects = [("message", message), ("choice", choice), ("reply", reply)];
    let present = objects.into_iter().filter(|(_, fields)| !fields.is_empty());
    let fields = present.map(|(name, fields)| (name.to_owned(), Value::Object(fields.clone())));
    Value::Object(fields.collect()).to_string()
}

fn usage(usage: &Usage) -> proto::Usage {
    let Usage {
        prompt_tokens,
        completion_tokens,
        cached_prompt_tokens,
        cache_write_tokens,
        reasoning_tokens,
        cost_usd,
        estimated,
    } = *usage;
    proto::Usage {
        prompt_tokens,
        completion_tokens,
        cost_usd,
        estimated,
        cached_prompt_tokens,
        cache_write_tokens,
        reasoning_tokens,
    }
}

fn matched(matched: &Match) -> proto::Match {
    proto::Match {
        entry_id: matched.entry.id().to_string(),
        similarity: matched.similarity,
        confidence: matched.confidence,
        age: duration(matched.age()),
        stale: matched.is_stale,
        matched_text: matched.entry.text.clone().unwrap_or_default(),
        approved_by: matched.approval.map_or_else(String::new, |approval| approval.as_str().to_owned()),
        verified_by: matched.verified_by.as_deref().unwrap_or_default().to_owned(),
    }
}

/// `None` above 10,000 years, the type's limit.
fn duration(duration: Duration) -> Option<prost_types::Duration> {
    duration.try_into().ok()
}

impl From<&Attempt> for proto::Attempt {
    fn from(attempt: &Attempt) -> Self {
        Self {
            model: attempt.model.clone(),
            tier: attempt.tier.clone(),
            result: attempt.result.to_string(),
            elapsed: duration(attempt.elapsed),
            first_token: attempt.first_token.and_then(duration),
            reason: attempt.reason.as_str().to_owned(),
            provider: attempt.provider.clone(),
        }
    }
}

pub(super) fn explanation(explanation: Explanation) -> proto::ExplainResponse {
    let route = explanation.route.as_ref();
    let routed = |show: fn(&Route) -> &str| route.map_or_else(String::new, |route| show(route).to_owned());
    proto::ExplainResponse {
        route_model: routed(|route| &route.model),
        route_tier: routed(|route| route.tier.as_str()),
        route_reason: routed(|route| route.reason.as_str()),
        outcome: outcome(explanation.outcome).into(),
        reason: explanation.reason.map_or_else(String::new, |reason| reason.as_str().to_owned()),
        would_serve_stale: explanation.would_serve_stale,
        cache_key: explanation.cache_key,
        scope: explanation.scope,
        scope_parts: explanation.scope_parts.into_iter().map(|(part, n)| (part.to_owned(), n)).collect(),
        mode: explanation.mode.as_str().to_owned(),
        threshold: explanation.threshold,
        threshold_reason: explanation.threshold_reason,
        max_error_rate: explanation.budget.map_or(0.0, |budget| budget.max_error_rate),
        max_wrong_hits: explanation.budget.map_or(0.0, |budget| budget.max_wrong_hits),
        tokens: explanation.tokens,
        candidates: explanation.candidates.into_iter().map(candidate).collect(),
        verification: explanation.verification,
    }
}

fn candidate((near, explained): (Match, Explained)) -> proto::Candidate {
    let Explained { checks, accepted } = explained;
    let check = |Check { name, passed, detail }| proto::Check { name: name.to_owned(), passed, detail };
    proto::Candidate {
        r#match: Some(matched(&near)),
        checks: checks.into_iter().map(check).collect(),
        accepted,
    }
}

//! Headers that every reply carries, and JSON bodies.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};

use crate::{
    outcome::{MissReason, Outcome},
    pipeline::{Hit, Match, Reply, RequestId, Started},
    prompt::Completion,
};

/// How a request was answered, as far as it is known when the headers are sent.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub outcome: Outcome,
    pub id: Option<RequestId>,
    /// The entry that answered.
    pub hit: Option<Match>,
    pub saved_usd: Option<f64>,
    /// Why the cache did not answer.
    pub reason: Option<MissReason>,
}

/// A whole answer, with what its usage block says of the cache.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answered<'a> {
    pub facts: &'a Facts,
    pub completion: &'a Completion,
    /// `cache.zero_hit_usage`
    pub zero_hit_usage: bool,
}

impl Answered<'_> {
    /// Adds to a usage block of any dialect how the cache answered, as its `promptkeep` object. An answer that took a
    /// model call of its own has none.
    pub fn with_hit(&self, mut usage: Value) -> Value {
        let Facts { outcome, hit, saved_usd, .. } = self.facts;
        if !outcome.is_hit() {
            return usage;
        }
        let mut object = json!({ "outcome": outcome.as_str() });
        if let Some(hit) = hit {
            object["entry"] = hit.entry.id().to_string().into();
        }
        if let Some(saved_usd) = saved_usd {
            object["saved_usd"] = (*saved_usd).into();
        }
        if self.zero_hit_usage {
            object["tokens"] = usage.clone();
            set_to_zero(&mut usage);
        }
        usage["promptkeep"] = object;
        usage
    }
}

fn set_to_zero(counts: &mut Value) {
    match counts {
        Value::Object(fields) => fields.values_mut().for_each(set_to_zero),
        count => *count = 0.into(),
    }
}

impl Facts {
    pub fn of_reply(reply: &Reply) -> Self {
        Self {
            outcome: reply.outcome,
            id: Some(reply.id),
            hit: reply.matched.clone().filter(|_| is_from_entry(reply.outcome)),
            saved_usd: Some(reply.saved_usd),
            reason: reply.reason,
        }
    }

    pub fn of_started(started: &Started) -> Self {
        let Started { id, outcome, matched, .. } = started;
        Self { outcome: *outcome, id: Some(*id), hit: matched.clone(), saved_usd: None, reason: None }
    }

    pub fn of_hit(hit: &Hit) -> Self {
        Self { outcome: hit.outcome, id: None, hit: Some(hit.matched()), saved_usd: None, reason: None }
    }

    /// The facts about a request that the cache cannot answer.
    pub fn of_bypass(id: RequestId) -> Self {
        Self {
            outcome: Outcome::Bypass,
            id: Some(id),
            hit: None,
            saved_usd: None,
            reason: Some(MissReason::NotReusable),
        }
    }

    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut set = |name: &'static str, value: &dyn std::fmt::Display| {
            let value = HeaderValue::try_from(value.to_string()).expect("numbers, hex and labels are ASCII");
            headers.insert(HeaderName::from_static(name), value);
        };
        set("x-promptkeep-outcome", &self.outcome.as_str());
        if let Some(id) = self.id {
            set("x-promptkeep-request-id", &id);
        }
        if let Some(hit) = &self.hit {
            set("x-promptkeep-entry", &hit.entry.id());
            set("x-promptkeep-similarity", &format_args!("{:.4}", hit.similarity));
            set("age", &hit.age().as_secs());
            if hit.verified_by.is_some() {
                set("x-promptkeep-verified", &true);
            }
            if hit.is_stale {
                set("x-promptkeep-stale", &true);
            }
        }
        if let Some(saved) = self.saved_usd {
            set("x-promptkeep-saved-usd", &format_args!("{saved:.8}"));
        }
        if let Some(reason) = self.reason {
            set("x-promptkeep-reason", &reason.as_str());
        }
        headers
    }
}

/// Whether an entry answered, as opposed to a model.
pub(super) const fn is_from_entry(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Exact | Outcome::Semantic)
}

/// A hit as the first event of a stream.
pub(super) fn started(hit: &Hit, id: RequestId) -> Started {
    let completion = &hit.entry.completion;
    Started {
        id,
        outcome: hit.outcome,
        matched: Some(hit.matched()),
        model: completion.model.clone(),
        tier: completion.tier.clone(),
    }
}

/// A whole answer.
pub(super) fn whole(facts: &Facts, body: &Value) -> Response {
    (facts.headers(), json(body)).into_response()
}

/// A JSON body.
pub(super) fn json(body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The time now, in seconds since 1970.
pub(super) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

//! Requests of the dialect that are passed on as they are: one model, its reply untouched, what it costs
//! counted. For what the cache cannot hold.

use std::sync::Arc;

use bytes::Bytes;
use reqwest::{
    Response,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER},
};
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use super::{
    AttemptReason, AttemptResult, OnAttempt, Upstreams,
    attempt::{AttemptLog, Meter},
    call::Fault,
    catalog::{Catalog, Model, Provider},
    route::Plan,
    sse, tokens,
};
use crate::{
    error::{Error, MODEL_FIELD},
    model::Usage,
    prompt::Prompt,
};

/// A path of the dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Chat,
    Responses,
    Embeddings,
}

/// One request to pass on.
#[derive(Clone)]
pub struct Passed<'a> {
    pub endpoint: Endpoint,
    /// Names the model, and is what the router looks at.
    pub route: &'a Prompt,
    /// Sent as it is, but for the model's name.
    pub body: Map<String, Value>,
    /// Sent to the provider beside the request's own.
    pub headers: HeaderMap,
    pub deadline: Instant,
    pub on_attempt: Option<OnAttempt>,
}

/// A provider's reply. Dropping it cancels the call.
pub struct Forwarded {
    pub status: u16,
    pub content_type: Option<HeaderValue>,
    pub retry_after: Option<HeaderValue>,
    response: Response,
    /// `None` where the catalog has no price.
    meter: Option<Meter>,
    tally: Tally,
    deadline: Instant,
    idle_timeout: std::time::Duration,
}

/// Where a request goes.
struct Target {
    provider: Arc<Provider>,
    /// `None`: not in the catalog.
    model: Option<Arc<Model>>,
    reason: AttemptReason,
}

/// Looks for the usage block in what passes by.
struct Tally {
    /// `None`: not a stream of events.
    events: Option<sse::Decoder>,
    whole: Vec<u8>,
    bytes_max: usize,
    reported: Option<Usage>,
    /// Events, or else bytes over four: about a token each.
    seen: u64,
}

// === impl Upstreams ===

impl Upstreams {
    /// Sends a request to the first model that takes it. Another is tried only before a reply began, and
    /// never another for embeddings: vectors of two models do not compare.
    ///
    /// # Errors
    /// As [`Upstreams::open`]. A refusal by the provider is a reply.
    pub async fn forward(&self, passed: Passed<'_>) -> Result<Forwarded, Error> {
        let catalog = self.catalog.load_full();
        let log = AttemptLog::new(passed.on_attempt.clone());
        let targets = targets(self, &catalog, &passed)?;
        let last = targets.len() - 1;
        for (n, target) in targets.into_iter().enumerate() {
            let sent = Box::pin(try_one(&catalog, &passed, target, &log)).await;
            match sent {
                Ok(reply) if n == last || !is_transient(reply.status) => return Ok(reply),
                // Dropped, it counts as a call that came to nothing.
                Ok(_) => {}
                Err(fault) if fault.result == AttemptResult::Deadline => {
                    return Err(Error::DeadlineExceeded { attempts: log.attempts() });
                }
                Err(_) => {}
            }
        }
        Err(Error::Unavailable { message: "every upstream model failed", attempts: log.attempts() })
    }
}

fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 429 | 500..)
}

/// Never empty.
fn targets(upstreams: &Upstreams, catalog: &Catalog, passed: &Passed<'_>) -> Result<Vec<Target>, Error> {
    let route = passed.route;
    if passed.endpoint == Endpoint::Embeddings {
        return embeddings_target(catalog, &route.model).map(|target| vec![target]);
    }
    if catalog.models.is_empty() {
        return Err(Error::NoUpstream);
    }
    let plan = upstreams.plan_without_asking(catalog, route, None);
    let Plan { models, reason } =
        plan.ok_or_else(|| Error::invalid(MODEL_FIELD, "is no model, no tier and not auto"))?;
    let target = |(n, model): (usize, Arc<Model>)| Target {
        provider: Arc::clone(&model.provider),
        model: Some(model),
        reason: if n == 0 { AttemptReason::Routed(reason) } else { AttemptReason::Fallback },
    };
    let targets: Vec<_> = models.into_iter().enumerate().map(target).collect();
    if targets.is_empty() { Err(Error::NoUpstream) } else { Ok(targets) }
}

/// A model of the catalog at its provider; any other name at the first provider that is up, since chat
/// models are all that a catalog needs to list.
fn embeddings_target(catalog: &Catalog, name: &str) -> Result<Target, Error> {
    if let Some(model) = catalog.model(name) {
        let reason = AttemptReason::Routed(super::RouteReason::Named);
        return Ok(Target { provider: Arc::clone(&model.provider), model: Some(Arc::clone(model)), reason });
    }
    let up = catalog.providers.iter().find(|provider| provider.health.is_up());
    let provider = up.or_else(|| catalog.providers.first()).ok_or(Error::NoUpstream)?;
    let reason = AttemptReason::Routed(super::RouteReason::Named);
    Ok(Target { provider: Arc::clone(provider), model: None, reason })
}

async fn try_one(
    catalog: &Catalog,
    passed: &Passed<'_>,
    target: Target,
    log: &Arc<AttemptLog>,
) -> Result<Forwarded, Fault> {
    let Target { provider, model, reason } = target;
    let permit = match &model {
        Some(model) => match model.state.breaker.admit() {
            Some(permit) => Some(permit),
            None => {
                log.skip(model, reason, AttemptResult::BreakerOpen);
                return Err(Fault::next(AttemptResult::BreakerOpen));
            }
        },
        None => None,
    };
    let prompt_tokens = tokens::estimate_prompt(passed.route);
    let meter = model.as_ref().map(|m| Meter::start(Arc::clone(m), reason, prompt_tokens, Arc::clone(log)));
    match send(catalog, passed, &provider, model.as_deref()).await {
        Ok(response) => {
            let mut reply = Forwarded::new(response, meter, catalog, passed.deadline);
            match permit {
                Some(permit) if is_transient(reply.status) => permit.failed(),
                Some(permit) => permit.succeeded(),
                None => {}
            }
            if reply.status >= 400
                && let Some(meter) = &mut reply.meter
            {
                meter.end(AttemptResult::Http(reply.status), Usage::default());
            }
            Ok(reply)
        }
        Err(fault) => {
            if let Some(permit) = permit {
                fault.judge(permit);
            }
            if let Some(meter) = meter {
                meter.fail(fault.result);
            }
            Err(fault)
        }
    }
}

async fn send(
    catalog: &Catalog,
    passed: &Passed<'_>,
    provider: &Provider,
    model: Option<&Model>,
) -> Result<Response, Fault> {
    let mut body = passed.body.clone();
    if let Some(model) = model {
        body.insert("model".to_owned(), model.name_at_provider().into());
    }
    let mut request = catalog
        .client
        .post(provider.url(passed.endpoint))
        .header(CONTENT_TYPE, "application/json")
        .headers(passed.headers.clone())
        .body(Value::Object(body).to_string());
    if let Some(authorization) = &provider.authorization {
        request = request.header(AUTHORIZATION, authorization.clone());
    }
    // A whole reply begins when it is complete, so the time of the first token would be too short.
    match timeout_at(passed.deadline, request.send()).await {
        Ok(sent) => sent.map_err(|error| Fault::transport(&error)),
        Err(_) => Err(Fault::late(passed.deadline, AttemptResult::Deadline)),
    }
}

// === impl Forwarded ===

impl Forwarded {
    fn new(mut response: Response, mut meter: Option<Meter>, catalog: &Catalog, deadline: Instant) -> Self {
        let content_type = response.headers_mut().remove(CONTENT_TYPE);
        let retry_after = response.headers_mut().remove(RETRY_AFTER);
        let is_stream =
            content_type.as_ref().is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        if let Some(meter) = &mut meter {
            meter.accepted = true;
            meter.first_token();
        }
        Self {
            status: response.status().as_u16(),
            content_type,
            retry_after,
            response,
            meter,
            tally: Tally::new(is_stream, catalog.limits.max_answer),
            deadline,
            idle_timeout: catalog.limits.idle_timeout,
        }
    }

    /// The next bytes of the body; `None` after the last.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::DeadlineExceeded`] when the body broke off.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let until = self.deadline.min(Instant::now() + self.idle_timeout);
        match timeout_at(until, self.response.chunk()).await {
            Ok(Ok(Some(bytes))) => {
                self.tally.add(&bytes);
                Ok(Some(bytes))
            }
            Ok(Ok(None)) => {
                self.end(AttemptResult::Ok);
                Ok(None)
            }
            Ok(Err(error)) => Err(self.broken_off(Fault::transport(&error).result)),
            Err(_) => Err(self.broken_off(Fault::late(self.deadline, AttemptResult::IdleTimeout).result)),
        }
    }

    fn broken_off(&mut self, result: AttemptResult) -> Error {
        self.end(result);
        let attempts = self.meter.as_ref().map(Meter::attempts).unwrap_or_default();
        match result {
            AttemptResult::Deadline => Error::DeadlineExceeded { attempts },
            _ => Error::Unavailable { message: "the answer broke off", attempts },
        }
    }

    fn end(&mut self, result: AttemptResult) {
        if let Some(meter) = &mut self.meter {
            let usage = self.tally.usage(meter.prompt_tokens);
            let usage = meter.model.price(usage);
            meter.end(result, usage);
        }
    }
}

impl Drop for Forwarded {
    /// What was already received is billed.
    fn drop(&mut self) {
        self.end(AttemptResult::Cancelled);
    }
}

// === impl Tally ===

impl Tally {
    fn new(is_stream: bool, bytes_max: usize) -> Self {
        let events = is_stream.then(|| sse::Decoder::new(bytes_max));
        Self { events, whole: Vec::new(), bytes_max, reported: None, seen: 0 }
    }

    fn add(&mut self, bytes: &[u8]) {
        let Some(decoder) = &mut self.events else {
            self.seen += bytes.len() as u64 / 4;
            if self.whole.len() + bytes.len() <= self.bytes_max {
                self.whole.extend_from_slice(bytes);
            }
            return;
        };
        if decoder.push(bytes).is_err() {
            self.events = None;
            return;
        }
        while let Some(event) = decoder.next_event() {
            self.seen += 1;
            self.reported = read_usage(&event).or(self.reported);
        }
    }

    fn usage(&mut self, prompt_tokens: u64) -> Usage {
        let reported = self.reported.or_else(|| read_usage(&self.whole));
        reported.unwrap_or(Usage {
            prompt_tokens,
            completion_tokens: self.seen,
            estimated: true,
            ..Usage::default()
        })
    }
}

/// The usage block of a reply or event of any endpoint.
fn read_usage(json: &[u8]) -> Option<Usage> {
    // Nearly all events have none, and reading each as JSON would cost more than passing it on.
    let word: &[u8] = b"\"usage\"";
    json.windows(word.len()).find(|window| *window == word)?;
    let value: Value = serde_json::from_slice(json).ok()?;
    let usage = value.get("usage").or_else(|| value.pointer("/response/usage"))?;
    let tokens = |names: [&str; 2]| names.iter().find_map(|name| usage.get(*name)?.as_u64());
    Some(Usage {
        prompt_tokens: tokens(["prompt_tokens", "input_tokens"])?,
        completion_tokens: tokens(["completion_tokens", "output_tokens"]).unwrap_or(0),
        ..Usage::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_found_whatever_the_endpoint() {
        let usage = |json: &str| read_usage(json.as_bytes()).map(|u| (u.prompt_tokens, u.completion_tokens));
        assert_eq!(usage(r#"{"usage":{"prompt_tokens":3,"completion_tokens":4}}"#), Some((3, 4)));
        assert_eq!(usage(r#"{"usage":{"prompt_tokens":3,"total_tokens":3}}"#), Some((3, 0)));
        assert_eq!(usage(r#"{"response":{"usage":{"input_tokens":5,"output_tokens":6}}}"#), Some((5, 6)));
        assert_eq!(usage(r#"{"choices":[],"usage":null}"#), None);
        assert_eq!(usage("no JSON with \"usage\""), None);
    }

    #[test]
    fn a_stream_without_usage_is_estimated_by_its_events() {
        let mut tally = Tally::new(true, 1000);
        tally.add(b"data: {\"choices\":[1]}\n\ndata: {\"choi");
        tally.add(b"ces\":[2]}\n\n");
        let usage = tally.usage(9);
        assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.estimated), (9, 2, true));
    }
}

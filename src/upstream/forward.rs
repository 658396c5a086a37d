//! Requests forwarded to a provider unchanged, because the cache cannot hold them. Only the model's name is
//! rewritten; the reply is passed through, and its cost counted.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use reqwest::{
    Response,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER},
};
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use super::{
    OnAttempt, Upstreams,
    attempt::{self, AttemptLog, Meter},
    call::{Fault, is_transient},
    catalog::{Catalog, Model, Provider},
    openai, quarantine, route, sse, tokens,
};
use crate::{
    error::Error,
    model::{AttemptReason, AttemptResult, RouteReason, Usage},
    prompt::Prompt,
};

/// Most tokens of one embeddings request, whose texts each have a context window of their own.
const EMBEDDINGS_TOKENS_MAX: u64 = 100_000_000;

/// Path of the dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Chat,
    Responses,
    Embeddings,
}

/// A request to forward.
#[derive(Clone)]
pub struct ForwardRequest<'a> {
    pub endpoint: Endpoint,
    /// The prompt as far as the router needs it: the model's name above all.
    pub route: &'a Prompt,
    /// Sent unchanged except for the model's name.
    pub body: Map<String, Value>,
    /// Additional headers for the provider.
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
    /// `None` when the model is not in the catalog, and so has no price.
    meter: Option<Meter>,
    usage: UsageScanner,
    deadline: Instant,
    idle_timeout: Duration,
}

/// Provider and model that a request may be sent to.
struct Target {
    provider: Arc<Provider>,
    /// `None` when the model is not in the catalog.
    model: Option<Arc<Model>>,
    reason: AttemptReason,
}

/// Finds the usage block in a body as it passes through.
struct UsageScanner {
    /// `None` when the body is not an event stream.
    events: Option<sse::Decoder>,
    whole: Vec<u8>,
    bytes_max: usize,
    reported: Option<Usage>,
    /// Most tokens that a call can have. A usage block with more is ignored.
    tokens_max: u64,
    /// Estimated completion tokens: one per event, or one per four bytes.
    estimate: u64,
}

// === impl Upstreams ===

impl Upstreams {
    /// Sends a request to the first model that accepts it. Fallback happens only before a reply has begun,
    /// and never for embeddings: vectors of two models do not compare.
    ///
    /// # Errors
    /// Those of [`Upstreams::open`], except that a provider's refusal is a reply.
    pub async fn forward(&self, request: ForwardRequest<'_>) -> Result<Forwarded, Error> {
        let catalog = self.catalog.load_full();
        let log = AttemptLog::new(request.on_attempt.clone());
        let targets = targets(self, &catalog, &request)?;
        let last = targets.len() - 1;
        for (n, target) in targets.into_iter().enumerate() {
            let sent = Box::pin(try_target(&catalog, &request, target, &log)).await;
            match sent {
                Ok(reply) if n == last || !may_differ_elsewhere(reply.status) => return Ok(reply),
                Err(fault) if fault.result == AttemptResult::Deadline => {
                    return Err(Error::DeadlineExceeded { attempts: log.attempts() });
                }
                Ok(_) | Err(_) => {}
            }
        }
        Err(Error::Unavailable { message: "every upstream model failed", attempts: log.attempts() })
    }
}

/// The targets in the order of trying; never empty.
fn targets(
    upstreams: &Upstreams,
    catalog: &Catalog,
    request: &ForwardRequest<'_>,
) -> Result<Vec<Target>, Error> {
    let prompt = request.route;
    if request.endpoint == Endpoint::Embeddings {
        return embeddings_target(catalog, &prompt.model).map(|target| vec![target]);
    }
    if catalog.models.is_empty() {
        return Err(Error::NoUpstream);
    }
    let plan = upstreams.plan_without_asking(catalog, prompt, None).ok_or_else(route::unknown_model)?;
    let target = |(n, model): (usize, Arc<Model>)| Target {
        provider: Arc::clone(&model.provider),
        model: Some(model),
        reason: if n == 0 { AttemptReason::Routed(plan.reason) } else { AttemptReason::Fallback },
    };
    let targets: Vec<_> = plan.models.into_iter().enumerate().map(target).collect();
    if targets.is_empty() { Err(Error::NoUpstream) } else { Ok(targets) }
}

/// The named model of the catalog. Any other name goes to the first provider that is up, since a catalog need
/// only list chat models.
fn embeddings_target(catalog: &Catalog, name: &str) -> Result<Target, Error> {
    let model = catalog.model(name).cloned();
    let provider = match &model {
        Some(model) => &model.provider,
        None => {
            let up = catalog.providers.iter().find(|provider| provider.health.is_up());
            up.or_else(|| catalog.providers.first()).ok_or(Error::NoUpstream)?
        }
    };
    let reason = AttemptReason::Routed(RouteReason::Named);
    Ok(Target { provider: Arc::clone(provider), model, reason })
}

async fn try_target(
    catalog: &Catalog,
    request: &ForwardRequest<'_>,
    target: Target,
    log: &Arc<AttemptLog>,
) -> Result<Forwarded, Fault> {
    let Target { provider, model, reason } = target;
    let Some(model) = model else {
        let response = send(catalog, request, &provider, None).await?;
        return Ok(Forwarded::new(response, None, catalog, request));
    };
    let Some(permit) = model.state.breaker.admit() else {
        log.skip(&model, reason, AttemptResult::BreakerOpen);
        return Err(Fault::next_model(AttemptResult::BreakerOpen));
    };
    let prompt_tokens = tokens::estimate_prompt(request.route);
    let meter = Meter::start(Arc::clone(&model), reason, prompt_tokens, Arc::clone(log));
    match send(catalog, request, &provider, Some(&model)).await {
        Ok(response) => {
            let mut reply = Forwarded::new(response, Some(meter), catalog, request);
            if is_transient(reply.status) {
                permit.failed()
            } else {
                permit.succeeded()
            }
            if reply.status >= 400 {
                model.quarantine(reply.status, catalog.limits.quarantine);
                reply.end(AttemptResult::Http(reply.status));
            } else {
                model.release();
            }
            Ok(reply)
        }
        Err(fault) => {
            fault.settle(permit);
            meter.fail(fault.result);
            Err(fault)
        }
    }
}

/// Whether another provider may accept a request that was answered with this status.
fn may_differ_elsewhere(status: u16) -> bool {
    is_transient(status) || quarantine::is_cause(status)
}

async fn send(
    catalog: &Catalog,
    request: &ForwardRequest<'_>,
    provider: &Provider,
    model: Option<&Model>,
) -> Result<Response, Fault> {
    let mut body = request.body.clone();
    if let Some(model) = model {
        body.insert("model".to_owned(), model.name_at_provider().into());
    }
    let name = body.get("model").and_then(Value::as_str).unwrap_or_default().to_owned();
    let post = provider.post(&catalog.client, request.endpoint, &name).headers(request.headers.clone());
    let post = post.body(Value::Object(body).to_string());
    // Only the deadline bounds the head: a reply that is not streamed begins when it is complete.
    match timeout_at(request.deadline, post.send()).await {
        Ok(sent) => sent.map_err(|error| Fault::transport(&error)),
        Err(_) => Err(Fault::timed_out(request.deadline, AttemptResult::Deadline)),
    }
}

// === impl Forwarded ===

impl Forwarded {
    fn new(
        mut response: Response,
        mut meter: Option<Meter>,
        catalog: &Catalog,
        request: &ForwardRequest<'_>,
    ) -> Self {
        let content_type = response.headers_mut().remove(CONTENT_TYPE);
        let retry_after = response.headers_mut().remove(RETRY_AFTER);
        let is_stream =
            content_type.as_ref().is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        if let Some(meter) = &mut meter {
            meter.first_token();
        }
        let tokens_max = match (&meter, request.endpoint) {
            (Some(meter), Endpoint::Chat | Endpoint::Responses) => meter.model.config.context_window,
            _ => EMBEDDINGS_TOKENS_MAX,
        };
        Self {
            status: response.status().as_u16(),
            content_type,
            retry_after,
            response,
            meter,
            usage: UsageScanner::new(is_stream, catalog.limits.max_answer, tokens_max),
            deadline: request.deadline,
            idle_timeout: catalog.limits.idle_timeout,
        }
    }

    /// The next bytes of the body, or `None` after the last.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::DeadlineExceeded`] when the body broke off.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let until = self.deadline.min(Instant::now() + self.idle_timeout);
        match timeout_at(until, self.response.chunk()).await {
            Ok(Ok(Some(bytes))) => {
                self.usage.add(&bytes);
                Ok(Some(bytes))
            }
            Ok(Ok(None)) => {
                self.end(AttemptResult::Ok);
                Ok(None)
            }
            Ok(Err(error)) => Err(self.break_off(Fault::transport(&error).result)),
            Err(_) => Err(self.break_off(Fault::timed_out(self.deadline, AttemptResult::IdleTimeout).result)),
        }
    }

    fn break_off(&mut self, result: AttemptResult) -> Error {
        self.end(result);
        attempt::broken_off(result, self.meter.as_ref().map(Meter::attempts).unwrap_or_default())
    }

    /// Ends the call; a provider bills nothing for an error status.
    fn end(&mut self, result: AttemptResult) {
        let Some(meter) = self.meter.as_mut().filter(|meter| !meter.has_ended()) else { return };
        let usage = match result {
            AttemptResult::Http(_) => Usage::default(),
            _ => meter.model.price(self.usage.total(meter.prompt_tokens)),
        };
        meter.end(result, usage);
    }
}

impl Drop for Forwarded {
    /// Tokens already received are billed.
    fn drop(&mut self) {
        self.end(AttemptResult::Cancelled);
    }
}

// === impl UsageScanner ===

impl UsageScanner {
    fn new(is_stream: bool, bytes_max: usize, tokens_max: u64) -> Self {
        let events = is_stream.then(|| sse::Decoder::new(bytes_max));
        Self { events, whole: Vec::new(), bytes_max, reported: None, tokens_max, estimate: 0 }
    }

    fn add(&mut self, bytes: &[u8]) {
        let Some(decoder) = &mut self.events else {
            self.estimate += bytes.len() as u64 / 4;
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
            self.estimate += 1;
            self.reported = read_usage(&event).or(self.reported);
        }
    }

    /// The reported usage, or else an estimate.
    fn total(&self, prompt_tokens: u64) -> Usage {
        let reported = self.reported.or_else(|| read_usage(&self.whole));
        let is_possible =
            |usage: &Usage| usage.prompt_tokens.saturating_add(usage.completion_tokens) <= self.tokens_max;
        reported.filter(is_possible).unwrap_or(Usage {
            prompt_tokens,
            completion_tokens: self.estimate.min(self.tokens_max),
            estimated: true,
            ..Usage::default()
        })
    }
}

/// Reads the usage block of a reply or event of any endpoint.
fn read_usage(json: &[u8]) -> Option<Usage> {
    // Few events have one, and parsing each as JSON would cost more than forwarding it.
    let key: &[u8] = b"\"usage\"";
    json.windows(key.len()).find(|window| *window == key)?;
    let value: Value = serde_json::from_slice(json).ok()?;
    let usage = value.get("usage").or_else(|| value.pointer("/response/usage"))?;
    openai::read_usage(usage).map(Usage::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_from_replies_of_every_endpoint() {
        let usage = |json: &str| read_usage(json.as_bytes()).map(|u| (u.prompt_tokens, u.completion_tokens));
        assert_eq!(usage(r#"{"usage":{"prompt_tokens":3,"completion_tokens":4}}"#), Some((3, 4)));
        assert_eq!(usage(r#"{"usage":{"prompt_tokens":3,"total_tokens":3}}"#), Some((3, 0)));
        assert_eq!(usage(r#"{"response":{"usage":{"input_tokens":5,"output_tokens":6}}}"#), Some((5, 6)));
        assert_eq!(usage(r#"{"choices":[],"usage":null}"#), None);
        assert_eq!(usage("no JSON with \"usage\""), None);
    }

    #[test]
    fn impossible_usage_is_replaced_by_an_estimate() {
        for (prompt, completion) in [(u64::MAX, 1), (1, u64::MAX), (600, 600)] {
            let mut scanner = UsageScanner::new(false, 1000, 1000);
            let body =
                format!(r#"{{"usage":{{"prompt_tokens":{prompt},"completion_tokens":{completion}}}}}"#);
            scanner.add(body.as_bytes());
            let usage = scanner.total(9);
            assert!(
                usage.estimated && usage.prompt_tokens == 9 && usage.completion_tokens < 100,
                "{usage:?}"
            );
        }
    }

    #[test]
    fn a_stream_without_usage_is_estimated_by_its_events() {
        let mut scanner = UsageScanner::new(true, 1000, 1000);
        scanner.add(b"data: {\"choices\":[1]}\n\ndata: {\"choi");
        scanner.add(b"ces\":[2]}\n\n");
        let usage = scanner.total(9);
        assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.estimated), (9, 2, true));
    }
}

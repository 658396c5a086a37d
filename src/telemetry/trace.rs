//! Distributed tracing: reads the caller's W3C trace context, sends it on to providers, and exports spans over OTLP.
//! Without `telemetry.otlp_endpoint` no span is recorded and providers receive the caller's own context. Spans hold
//! enums, names from the catalog and numbers, never a caller's text.

use std::{
    fmt,
    str::FromStr as _,
    time::{Duration, Instant, SystemTime},
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{
    Array, Context, KeyValue, SpanId, StringValue, TraceFlags, TraceId, Value,
    trace::{
        SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, TraceState, TracerProvider as _,
    },
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracer, SdkTracerProvider},
};

use crate::{
    config::TelemetryConfig,
    model::{Attempt, AttemptResult, Usage},
};

/// Header of the W3C trace context.
const TRACEPARENT: &str = "traceparent";
/// Header with vendors' additions to the trace context, which are sent on as they are.
const TRACESTATE: &str = "tracestate";

/// Name of a model call in OpenTelemetry's conventions for generative AI, whose names spans and attributes have.
const OPERATION: &str = "chat";

/// Maximum time to wait for the collector, for one batch and at shutdown.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Exporter of spans to a collector.
pub struct Tracing {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// Error that prevents the exporter from starting.
#[derive(Debug, thiserror::Error)]
#[error("telemetry.otlp_endpoint: {0}")]
pub struct StartError(String);

/// One request's trace context.
#[derive(Clone, Default)]
pub struct Trace {
    /// The caller's context, if it sent a valid one.
    caller: Option<SpanContext>,
    /// Span of the whole request, if spans are recorded.
    span: Option<RequestSpan>,
}

#[derive(Clone)]
struct RequestSpan {
    tracer: SdkTracer,
    context: Context,
}

// === impl Tracing ===

impl Tracing {
    /// Starts the exporter, if an endpoint is configured. The first span opens the connection; while the collector
    /// is unreachable, spans are lost and requests are unaffected.
    ///
    /// # Errors
    /// When the endpoint is not a valid address.
    pub fn start(config: &TelemetryConfig, region: &str) -> Result<Option<Self>, StartError> {
        if config.otlp_endpoint.is_empty() {
            return Ok(None);
        }
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(config.otlp_endpoint.clone())
            .with_timeout(EXPORT_TIMEOUT)
            .build()
            .map_err(|error| StartError(error.to_string()))?;
        let resource = Resource::builder_empty()
            .with_attributes([
                KeyValue::new("service.name", "promptkeep"),
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("cloud.region", region.to_owned()),
            ])
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            // A sampling decision of the caller takes precedence.
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.trace_share))))
            .with_resource(resource)
            .build();
        let tracer = provider.tracer("promptkeep");
        Ok(Some(Self { provider, tracer }))
    }

    /// Exports the remaining spans.
    pub async fn shutdown(&self) {
        let provider = self.provider.clone();
        let ended = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(EXPORT_TIMEOUT)).await;
        if let Ok(Err(error)) = ended {
            tracing::warn!(%error, "the last spans may be lost");
        }
    }

    /// Starts the span `name` of a whole request.
    pub fn begin(&self, name: &'static str, trace: &Trace) -> Trace {
        let remote = |caller| Context::new().with_remote_span_context(caller);
        let parent = trace.caller.clone().map_or_else(Context::new, remote);
        let span = SpanBuilder::from_name(name)
            .with_kind(SpanKind::Server)
            .start_with_context(&self.tracer, &parent);
        let span = RequestSpan { tracer: self.tracer.clone(), context: parent.with_span(span) };
        Trace { caller: trace.caller.clone(), span: Some(span) }
    }
}

// === impl Trace ===

impl Trace {
    /// Reads the trace context from the caller's headers. A malformed one is ignored.
    pub fn read<'h>(header: impl Fn(&str) -> Option<&'h str>) -> Self {
        let caller = header(TRACEPARENT).and_then(|parent| parse(parent, header(TRACESTATE)));
        Self { caller, span: None }
    }

    /// Returns the trace context as headers for a provider.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let Some(context) = self.context().filter(SpanContext::is_valid) else { return headers };
        let parent = format!(
            "00-{}-{}-{:02x}",
            context.trace_id(),
            context.span_id(),
            context.trace_flags() & TraceFlags::SAMPLED
        );
        for (name, value) in [(TRACEPARENT, parent), (TRACESTATE, context.trace_state().header())] {
            if let Ok(value) = HeaderValue::try_from(value)
                && !value.is_empty()
            {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        headers
    }

    /// Trace id for the log.
    pub fn id(&self) -> Option<TraceId> {
        self.context().map(|context| context.trace_id())
    }

    /// Context of the request's span, or else the caller's.
    fn context(&self) -> Option<SpanContext> {
        let ours = self.span.as_ref().map(|span| span.context.span().span_context().clone());
        ours.or_else(|| self.caller.clone())
    }

    /// Records a step of the request that began at `started` and ends now.
    pub fn step(&self, name: &'static str, started: Instant) {
        self.record_child(SpanBuilder::from_name(name), started.elapsed(), None);
    }

    /// Records one call of a model that ends now.
    pub fn attempt(&self, attempt: &Attempt) {
        if self.span.is_none() {
            return;
        }
        let Usage { cached_prompt_tokens, cache_write_tokens, reasoning_tokens, .. } = attempt.usage;
        let attributes = vec![
            KeyValue::new("gen_ai.operation.name", OPERATION),
            KeyValue::new("gen_ai.provider.name", attempt.provider.clone()),
            KeyValue::new("gen_ai.request.model", attempt.model.clone()),
            KeyValue::new("gen_ai.usage.input_tokens", attempt.usage.prompt_tokens.cast_signed()),
            KeyValue::new("gen_ai.usage.output_tokens", attempt.usage.completion_tokens.cast_signed()),
            KeyValue::new("gen_ai.usage.cache_read.input_tokens", cached_prompt_tokens.cast_signed()),
            KeyValue::new("gen_ai.usage.cache_creation.input_tokens", cache_write_tokens.cast_signed()),
            KeyValue::new("gen_ai.usage.reasoning.output_tokens", reasoning_tokens.cast_signed()),
            KeyValue::new("promptkeep.tier", attempt.tier.clone()),
            KeyValue::new("promptkeep.result", attempt.result.to_string()),
            KeyValue::new("promptkeep.route", attempt.reason.as_str()),
            KeyValue::new("promptkeep.cost_usd", attempt.usage.cost_usd),
        ];
        let first_token = attempt
            .first_token
            .map(|after| KeyValue::new("promptkeep.first_token_seconds", after.as_secs_f64()));
        let finish_reason = finish_reason(&attempt.finish_reason).map(|reason| {
            let reasons = Value::Array(Array::String(vec![StringValue::from(reason)]));
            KeyValue::new("gen_ai.response.finish_reasons", reasons)
        });
        let failed = (attempt.result != AttemptResult::Ok).then(|| attempt.result.to_string());
        let error_type = failed.clone().map(|result| KeyValue::new("error.type", result));
        let optional = [first_token, finish_reason, error_type].into_iter().flatten();
        let span = SpanBuilder::from_name(format!("{OPERATION} {}", attempt.model))
            .with_kind(SpanKind::Client)
            .with_attributes(attributes.into_iter().chain(optional));
        self.record_child(span, attempt.elapsed, failed);
    }

    /// Ends the request's span with its result.
    pub fn end(&self, attributes: impl IntoIterator<Item = KeyValue>, failed: bool) {
        let Some(RequestSpan { context, .. }) = &self.span else { return };
        let span = context.span();
        span.set_attributes(attributes);
        if failed {
            span.set_attribute(KeyValue::new("error.type", "failed"));
            span.set_status(Status::error("failed"));
        }
        span.end();
    }

    /// Records a child span that lasted `elapsed` and ends now. `failed` is the reason of a failure.
    fn record_child(&self, span: SpanBuilder, elapsed: Duration, failed: Option<String>) {
        let Some(RequestSpan { tracer, context }) = &self.span else { return };
        let now = SystemTime::now();
        let span = span.with_start_time(now - elapsed).start_with_context(tracer, context);
        let child = context.with_span(span);
        let span = child.span();
        if let Some(failed) = failed {
            span.set_status(Status::error(failed));
        }
        span.end_with_timestamp(now);
    }

    /// Whether the request has a span. Lets callers skip building attributes.
    pub fn is_recorded(&self) -> bool {
        self.span.is_some()
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Trace").field(&self.id()).finish()
    }
}

/// The finish reason if it is one of the dialect's: others are a provider's text.
fn finish_reason(reason: &str) -> Option<&'static str> {
    ["stop", "length", "tool_calls", "content_filter"].into_iter().find(|known| *known == reason)
}

/// Parses `00-<32 hex digits>-<16>-<2>`. Later versions may append more parts.
fn parse(parent: &str, state: Option<&str>) -> Option<SpanContext> {
    let mut parts = parent.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex =
        |text: &str, len| text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_valid = is_hex(version, 2) && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2);
    if !is_valid || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    // A malformed state does not invalidate the parent.
    let state = state.and_then(|state| TraceState::from_str(state).ok()).unwrap_or_default();
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let context = SpanContext::new(trace, span, flags, true, state);
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(parent: &'static str, state: Option<&'static str>) -> Trace {
        Trace::read(|name| if name == TRACEPARENT { Some(parent) } else { state })
    }

    #[test]
    fn without_an_exporter_the_callers_context_is_sent_on() {
        let headers = read(PARENT, Some("vendor=a:1,other=b")).headers();
        assert_eq!(headers[TRACEPARENT], PARENT);
        assert_eq!(headers[TRACESTATE], "vendor=a:1,other=b");
        assert!(Trace::default().headers().is_empty());
    }

    #[test]
    fn a_malformed_context_is_ignored() {
        for parent in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-prompt-text-01",
        ] {
            assert!(read(parent, None).headers().is_empty(), "{parent}");
        }
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more";
        assert_eq!(read(later, Some("not a state")).headers()[TRACEPARENT], PARENT, "sent as version 00");
    }
}

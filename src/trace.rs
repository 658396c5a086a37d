//! Where a request belongs in its caller's trace: W3C trace context comes in, goes on to the models, and
//! spans go out over OTLP. Without `telemetry.otlp_endpoint` no span is made, and what the caller sent goes
//! on unchanged. Spans carry enums, names of the catalog and numbers, never a caller's text.

use std::{
    fmt,
    str::FromStr as _,
    time::{Duration, Instant, SystemTime},
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{
    Context, KeyValue, SpanId, TraceFlags, TraceId,
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
    model::{Attempt, AttemptResult},
};

/// The header of W3C trace context.
const TRACEPARENT: &str = "traceparent";
/// What vendors add to it; passed on as it is.
const TRACESTATE: &str = "tracestate";

/// Longest wait for the collector, for one batch and at shutdown.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends spans to a collector.
pub struct Tracing {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// Why no spans can be sent.
#[derive(Debug, thiserror::Error)]
#[error("telemetry.otlp_endpoint: {0}")]
pub struct StartError(String);

/// One request's place in a trace.
#[derive(Clone, Default)]
pub struct Trace {
    /// As the caller sent it.
    caller: Option<SpanContext>,
    /// Our span of the whole request.
    span: Option<RequestSpan>,
}

#[derive(Clone)]
struct RequestSpan {
    tracer: SdkTracer,
    context: Context,
}

// === impl Tracing ===

impl Tracing {
    /// Starts the exporter, if one is configured. Its connection is made with the first span, and a collector
    /// that is away costs spans, nothing else.
    ///
    /// # Errors
    /// When the endpoint is no address.
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
            // The caller's own decision goes first.
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.trace_share))))
            .with_resource(resource)
            .build();
        let tracer = provider.tracer("promptkeep");
        Ok(Some(Self { provider, tracer }))
    }

    /// Sends what is left.
    pub async fn shutdown(&self) {
        let provider = self.provider.clone();
        let ended = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(EXPORT_TIMEOUT)).await;
        if let Ok(Err(error)) = ended {
            tracing::warn!(%error, "the last spans may not have been sent");
        }
    }

    /// The span of a whole request, `name`.
    pub fn begin(&self, name: &'static str, trace: &Trace) -> Trace {
        let parent = match &trace.caller {
            Some(caller) => Context::new().with_remote_span_context(caller.clone()),
            None => Context::new(),
        };
        let span = SpanBuilder::from_name(name)
            .with_kind(SpanKind::Server)
            .start_with_context(&self.tracer, &parent);
        let span = RequestSpan { tracer: self.tracer.clone(), context: parent.with_span(span) };
        Trace { caller: trace.caller.clone(), span: Some(span) }
    }
}

// === impl Trace ===

impl Trace {
    /// What the caller's headers say; nothing, when they are not W3C's.
    pub fn read<'h>(header: impl Fn(&str) -> Option<&'h str>) -> Self {
        let caller = header(TRACEPARENT).and_then(|parent| parse(parent, header(TRACESTATE)));
        Self { caller, span: None }
    }

    /// Headers for a model's provider.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let ours = self.span.as_ref().map(|span| span.context.span().span_context().clone());
        let Some(context) = ours.as_ref().or(self.caller.as_ref()).filter(|context| context.is_valid())
        else {
            return headers;
        };
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

    /// For the log: the trace that the request's span, or else its caller, belongs to.
    pub fn id(&self) -> Option<TraceId> {
        let ours = self.span.as_ref().map(|span| span.context.span().span_context().trace_id());
        ours.or_else(|| self.caller.as_ref().map(SpanContext::trace_id))
    }

    /// A part of the request, from `started` until now.
    pub fn step(&self, name: &'static str, started: Instant) {
        self.child(SpanBuilder::from_name(name), started.elapsed());
    }

    /// One call of one model, which has just ended.
    pub fn attempt(&self, attempt: &Attempt) {
        if self.span.is_none() {
            return;
        }
        let attributes = vec![
            KeyValue::new("gen_ai.operation.name", "chat"),
            KeyValue::new("gen_ai.provider.name", attempt.provider.clone()),
            KeyValue::new("gen_ai.request.model", attempt.model.clone()),
            KeyValue::new("gen_ai.usage.input_tokens", attempt.usage.prompt_tokens.cast_signed()),
            KeyValue::new("gen_ai.usage.output_tokens", attempt.usage.completion_tokens.cast_signed()),
            KeyValue::new("promptkeep.tier", attempt.tier.clone()),
            KeyValue::new("promptkeep.result", attempt.result.to_string()),
            KeyValue::new("promptkeep.route", attempt.reason.as_str()),
            KeyValue::new("promptkeep.cost_usd", attempt.usage.cost_usd),
        ];
        let first_token = attempt
            .first_token
            .map(|after| KeyValue::new("promptkeep.first_token_seconds", after.as_secs_f64()));
        let span = SpanBuilder::from_name("upstream")
            .with_kind(SpanKind::Client)
            .with_attributes(attributes.into_iter().chain(first_token));
        let failed = (attempt.result != AttemptResult::Ok).then(|| attempt.result.to_string());
        self.child_with_status(span, attempt.elapsed, failed);
    }

    /// Ends the request's span with what became of it.
    pub fn end(&self, attributes: impl IntoIterator<Item = KeyValue>, failed: bool) {
        let Some(RequestSpan { context, .. }) = &self.span else { return };
        let span = context.span();
        span.set_attributes(attributes);
        if failed {
            span.set_status(Status::error("failed"));
        }
        span.end();
    }

    fn child(&self, span: SpanBuilder, elapsed: Duration) {
        self.child_with_status(span, elapsed, None);
    }

    fn child_with_status(&self, span: SpanBuilder, elapsed: Duration, failed: Option<String>) {
        let Some(RequestSpan { tracer, context }) = &self.span else { return };
        let now = SystemTime::now();
        let parent =
            context.with_span(span.with_start_time(now - elapsed).start_with_context(tracer, context));
        let span = parent.span();
        if let Some(failed) = failed {
            span.set_status(Status::error(failed));
        }
        span.end_with_timestamp(now);
    }

    /// Whether there is a span to fill.
    pub fn is_recorded(&self) -> bool {
        self.span.is_some()
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Trace").field(&self.id()).finish()
    }
}

/// `00-<32 hex digits>-<16>-<2>`; later versions may have more after that.
fn parse(parent: &str, state: Option<&str>) -> Option<SpanContext> {
    let mut parts = parent.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex =
        |text: &str, len| text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_sound = is_hex(version, 2) && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2);
    if !is_sound || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    // A bad state must not cost the parent.
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
    fn what_the_caller_sent_goes_on_unchanged_without_an_exporter() {
        let headers = read(PARENT, Some("vendor=a:1,other=b")).headers();
        assert_eq!(headers[TRACEPARENT], PARENT);
        assert_eq!(headers[TRACESTATE], "vendor=a:1,other=b");
        assert!(Trace::default().headers().is_empty());
    }

    #[test]
    fn what_is_not_w3c_s_is_nothing() {
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
        assert_eq!(read(later, Some("not a state")).headers()[TRACEPARENT], PARENT, "in our version");
    }
}

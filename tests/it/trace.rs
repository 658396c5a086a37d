//! Traces and the log: the caller's trace context reaches models and collector, one log line reports how a request
//! ended, and neither contains text of a prompt.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use promptkeep::{
    config::{Mode, VerifyMode},
    model::Tier,
};
use serde_json::Value;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

use crate::common::{
    fake_upstream::{FakeUpstream, Reply},
    process::{Process, promptkeep},
    test_server::{TestServer, ask, exact_config, look, semantic_config},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const NOT_SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
const SECRET: &str = "Zanzibar";

/// OTLP receiver on a real socket.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

impl Collector {
    /// Starts a receiver that listens until the test ends; also returns its `telemetry.otlp_endpoint`.
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let service = TraceServiceServer::new(collector.clone());
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        (collector, address)
    }

    fn spans(&self) -> Vec<Span> {
        let exported = self.0.lock().unwrap();
        let scopes = exported.iter().flat_map(|export| &export.resource_spans).flat_map(|r| &r.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
    let value = span.attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?.value?;
    Some(match value {
        Any::StringValue(text) => text,
        other => format!("{other:?}"),
    })
}

/// Sends `Complete` over gRPC with this trace context.
async fn ask_over_grpc(server: &TestServer, text: &str, parent: &str) {
    let mut request = Request::new(ask(text));
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    server.client().await.complete(request).await.unwrap();
}

/// Sends a chat completion over HTTP with this trace context.
async fn ask_over_http(server: &TestServer, text: &str, parent: &str) {
    let body = serde_json::json!({ "model": "auto", "messages": [{ "role": "user", "content": text }] });
    let url = format!("http://{}/v1/chat/completions", server.http);
    let reply =
        reqwest::Client::new().post(url).header("traceparent", parent).json(&body).send().await.unwrap();
    assert_eq!(reply.status(), 200);
}

/// A model of the economy tier is asked before the paraphrase is served.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_asked_a_verifier_says_so() {
    let (collector, endpoint) = Collector::start().await;
    let (answers, verifier) = (FakeUpstream::start().await, FakeUpstream::start().await);
    let answer = Reply::text("Open the settings.").without("\"usage\"").without("[DONE]");
    answers.always(answer.usage(1000, 1000).done());
    verifier.always(Reply::text("0"));
    let mut config = semantic_config(&[&answers, &verifier]);
    config.telemetry.otlp_endpoint = endpoint;
    config.cache.mode = Mode::Bounded;
    config.models[1].tier = Tier::Economy;
    config.cache.verify.mode = VerifyMode::Before;
    config.cache.verify.timeout = Duration::from_secs(20);
    let server = TestServer::start(config).await;
    ask_over_grpc(&server, "How do I reset my password?", PARENT).await;
    ask_over_grpc(&server, "How can I reset my password?", PARENT).await;
    server.stop().await;

    let spans = collector.spans();
    let asked: Vec<_> =
        spans.iter().filter(|span| attribute(span, "promptkeep.verified").is_some()).collect();
    let [request] = &asked[..] else { panic!("one request asked: {asked:#?}") };
    assert_eq!(attribute(request, "promptkeep.verified").as_deref(), Some("no"));
    assert_eq!(attribute(request, "promptkeep.reason").as_deref(), Some("not_verified"));
    let calls =
        spans.iter().filter(|span| span.parent_span_id == request.span_id && span.name.starts_with("chat "));
    let routes: Vec<_> = calls.filter_map(|call| attribute(call, "promptkeep.route")).collect();
    assert!(routes.contains(&"verify".to_owned()), "{routes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_callers_trace_reaches_the_model_and_the_collector_without_prompt_text() {
    let (collector, endpoint) = Collector::start().await;
    let upstream = FakeUpstream::start().await;
    let mut config = semantic_config(&[&upstream]);
    config.telemetry.otlp_endpoint = endpoint;
    let server = TestServer::start(config).await;
    ask_over_grpc(&server, &format!("Where is the branch in {SECRET}?"), PARENT).await;
    ask_over_grpc(&server, &format!("Where's the branch in {SECRET}?"), PARENT).await;
    ask_over_http(&server, &format!("Is {SECRET} an island?"), PARENT).await;
    ask_over_http(&server, &format!("Is {SECRET} far away?"), NOT_SAMPLED).await;
    server.stop().await;

    let spans = collector.spans();
    let requests: Vec<_> = spans.iter().filter(|span| span.name == "Complete").collect();
    assert_eq!(requests.len(), 3, "the unsampled request has no span: {spans:#?}");
    for span in &spans {
        assert_eq!(hex(&span.trace_id), TRACE);
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
    }
    let mut outcomes: Vec<_> =
        requests.iter().filter_map(|span| attribute(span, "promptkeep.outcome")).collect();
    outcomes.sort();
    assert_eq!(outcomes, ["semantic", "upstream", "upstream"]);
    assert!(requests.iter().all(|span| hex(&span.parent_span_id) == "00f067aa0ba902b7"));

    let calls: Vec<_> = spans.iter().filter(|span| span.name.starts_with("chat ")).collect();
    assert_eq!(calls.len(), 2);
    for (name, value) in [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.request.model", "model-cold"),
        ("gen_ai.provider.name", "provider-cold"),
        ("gen_ai.usage.input_tokens", "IntValue(10)"),
        ("gen_ai.usage.cache_read.input_tokens", "IntValue(0)"),
    ] {
        assert_eq!(attribute(calls[0], name).as_deref(), Some(value), "{name}");
    }
    let reasons = attribute(calls[0], "gen_ai.response.finish_reasons").unwrap();
    assert!(reasons.starts_with("ArrayValue") && reasons.contains("stop"), "{reasons}");
    assert_eq!(attribute(calls[0], "error.type"), None);
    for name in ["embed", "search", "chat model-cold"] {
        let part = spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no span {name}"));
        assert!(
            requests.iter().any(|request| request.span_id == part.parent_span_id),
            "{name} has no parent"
        );
    }
    // The provider receives our span as the parent of its own.
    let sent: Vec<_> =
        upstream.requests().iter().map(|seen| seen.header("traceparent").unwrap().to_owned()).collect();
    assert!(sent[0].starts_with(&format!("00-{TRACE}-")) && sent[0].ends_with("-01"), "{sent:?}");
    assert!(requests.iter().any(|request| sent[0].contains(&hex(&request.span_id))));
    assert!(sent[2].starts_with(&NOT_SAMPLED[..36]) && sent[2].ends_with("-00"), "{sent:?}");

    let exported = format!("{:?}", collector.0.lock().unwrap());
    assert!(!exported.contains(SECRET), "text of a prompt is in the spans");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_call_has_its_error_type() {
    let (collector, endpoint) = Collector::start().await;
    let upstream = FakeUpstream::start().await;
    upstream.script([Reply::status(503)]);
    let mut config = exact_config(&[&upstream]);
    config.telemetry.otlp_endpoint = endpoint;
    let server = TestServer::start(config).await;
    server.client().await.complete(ask("A?")).await.unwrap_err();
    server.stop().await;
    let spans = collector.spans();
    let call = spans.iter().find(|span| span.name == "chat model-cold").unwrap();
    assert_eq!(attribute(call, "error.type").as_deref(), Some("http_503"));
}

#[tokio::test]
async fn without_a_collector_the_callers_trace_context_is_forwarded_unchanged() {
    let upstream = FakeUpstream::start().await;
    let server = TestServer::start(exact_config(&[&upstream])).await;
    ask_over_grpc(&server, "A?", PARENT).await;
    ask_over_http(&server, "B?", PARENT).await;
    ask_over_grpc(&server, "C?", "no trace context").await;
    let sent: Vec<_> = upstream.requests();
    assert_eq!(sent[0].header("traceparent"), Some(PARENT));
    assert_eq!(sent[1].header("traceparent"), Some(PARENT));
    assert_eq!(sent[2].header("traceparent"), None);
}

#[tokio::test]
async fn an_unreachable_collector_fails_no_request() {
    let upstream = FakeUpstream::start().await;
    let mut config = exact_config(&[&upstream]);
    config.telemetry.otlp_endpoint = "http://127.0.0.1:1".to_owned();
    let server = TestServer::start(config).await;
    ask_over_grpc(&server, "A?", PARENT).await;
    server.stop().await;
}

#[tokio::test]
async fn one_log_line_reports_how_a_request_ended() {
    let mut command = promptkeep(&["serve"]);
    command
        .env("PROMPTKEEP_STORE__KIND", "memory")
        .env("PROMPTKEEP_CACHE__MODE", "exact")
        .env("PROMPTKEEP_TELEMETRY__LOG_FORMAT", "json");
    let process = Process::serve(command).await;
    let mut request = Request::new(look(&format!("Is {SECRET} an island?")));
    request.metadata_mut().insert("traceparent", PARENT.parse().unwrap());
    process.client().await.lookup(request).await.unwrap();
    let (process, line) = process.wait_for_log("promptkeep::request").await;
    let line: Value = serde_json::from_str(&line).unwrap();
    for (field, expected) in
        [("level", "INFO"), ("rpc", "Lookup"), ("outcome", "miss"), ("reason", "disabled"), ("trace", TRACE)]
    {
        assert_eq!(line[field], expected, "{line}");
    }
    assert!(line["elapsed_us"].is_u64());
    let (succeeded, log) = process.stop().await;
    assert!(succeeded && !log.contains(SECRET), "{log}");
    assert!(log.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{log}");
}

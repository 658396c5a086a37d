//! `Explain`, `GetStats`, `Feedback`, health, reflection, HTTP pages, deadlines and shutdown.

use std::time::{Duration, Instant};

use promptkeep::{
    config::Mode,
    grpc::proto::{
        CacheControl, ExplainResponse, FeedbackRequest, GetStatsRequest, GetStatsResponse, LookupRequest,
        Outcome, Prompt, Verdict,
    },
    store,
};
use tonic::{Code, Request};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use tonic_types::StatusExt as _;

use crate::{
    common::{
        events::Events,
        fake_upstream::{FakeUpstream, Gate, Reply},
        metrics::sum,
        raw,
        test_server::{
            Client, TestServer, ask, ask_with, complete, exact_config, look, lookup, prompt, semantic_config,
            spawn_complete, stats, store_request, until,
        },
    },
    fault_store::{Calls, Fault, FaultStore},
};

const QUESTION: &str = "How do I reset my password?";
const PARAPHRASE: &str = "How can I reset my password?";

// === Explain ===

async fn explain(client: &mut Client, request: LookupRequest) -> ExplainResponse {
    client.explain(request).await.unwrap().into_inner()
}

fn look_with(text: &str, cache: CacheControl) -> LookupRequest {
    LookupRequest { cache: Some(cache), ..look(text) }
}

#[tokio::test]
async fn explain_agrees_with_lookup() {
    let upstream = FakeUpstream::start().await;
    let (_server, mut client) = TestServer::with_client(semantic_config(&[&upstream])).await;
    assert_eq!(explain(&mut client, look(QUESTION)).await.reason, "scope_empty");
    complete(&mut client, QUESTION).await;
    let plain = CacheControl::default;
    let long = "word ".repeat(600);
    for request in [
        look(QUESTION),
        look(PARAPHRASE),
        look("How do I delete my account?"),
        look("How do I not reset my password?"),
        look(&long),
        look("  "),
        look_with(QUESTION, CacheControl { no_cache: true, ..plain() }),
        look_with(PARAPHRASE, CacheControl { no_cache: true, ..plain() }),
        look_with(PARAPHRASE, CacheControl { exact_only: true, ..plain() }),
        look_with(PARAPHRASE, CacheControl { min_similarity: Some(0.9999), ..plain() }),
        look_with(PARAPHRASE, CacheControl { max_age: Some(prost_types::Duration::default()), ..plain() }),
    ] {
        let explained = explain(&mut client, request.clone()).await;
        let found = client.lookup(request.clone()).await.unwrap().into_inner();
        assert_eq!(
            (explained.outcome(), explained.reason.as_str()),
            (found.outcome(), found.reason.as_str()),
            "{request:?}"
        );
        let accepted = explained.candidates.iter().filter(|candidate| candidate.accepted).count();
        if found.outcome() == Outcome::Semantic {
            assert_eq!(accepted, 1, "{explained:?}");
        }
    }
}

#[tokio::test]
async fn explain_shows_the_parts_of_the_decision_and_counts_nothing() {
    let upstream = FakeUpstream::start().await;
    let (_server, mut client) = TestServer::with_client(semantic_config(&[&upstream])).await;
    complete(&mut client, QUESTION).await;
    let before = stats(&mut client).await;
    let explained = explain(&mut client, look(PARAPHRASE)).await;
    assert_eq!((explained.mode.as_str(), explained.threshold), ("static", 0.95));
    assert_eq!((explained.cache_key.len(), explained.scope.len()), (64, 64));
    assert!(explained.tokens > 5 && explained.scope_parts.contains_key("model"), "{explained:?}");
    assert_eq!((explained.route_model.as_str(), explained.route_tier.as_str()), ("model-cold", "cold"));
    assert!(explained.route_reason.starts_with("local_"), "{}", explained.route_reason);
    let candidate = &explained.candidates[0];
    assert_eq!(candidate.r#match.as_ref().unwrap().matched_text, QUESTION);
    assert!(candidate.checks.iter().any(|check| check.name == "similarity" && check.passed));
    let other = explain(&mut client, look("Another?")).await;
    assert_eq!(explained.scope, other.scope, "the last user text is not part of the scope");
    assert_ne!(explained.cache_key, other.cache_key);
    let after = stats(&mut client).await;
    assert_eq!((before.requests, before.misses_by_reason), (after.requests, after.misses_by_reason));
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn explain_reports_semantic_hits_as_disabled_in_exact_mode() {
    let mut config = exact_config(&[]);
    assert_eq!(config.cache.mode, Mode::Exact);
    config.cache.min_similarity = 0.5;
    let server = TestServer::start(config).await;
    let explained = explain(&mut server.client().await, look(QUESTION)).await;
    assert_eq!(
        (explained.outcome(), explained.reason.as_str(), explained.mode.as_str()),
        (Outcome::Miss, "disabled", "exact")
    );
}

// === GetStats and /metrics ===

/// Makes requests of every outcome in the namespace `default`, and one lookup in `docs`.
async fn one_of_each_outcome(server: &TestServer, client: &mut Client, upstream: &FakeUpstream) {
    complete(client, "A?").await;
    complete(client, "A?").await;
    lookup(client, "A?").await;
    lookup(client, "B?").await;
    let no_cache = CacheControl { no_cache: true, ..CacheControl::default() };
    client.complete(ask_with("A?", no_cache)).await.unwrap();
    Events::open(client, ask("A?")).await.rest().await;
    let gate = Gate::new();
    upstream.script([Reply::text("One two.").hold(&gate)]);
    let first = Events::open(client, ask("C?")).await;
    let second = Events::open(client, ask("C?")).await;
    server.wait_for_requests(2).await;
    gate.open();
    first.rest().await;
    second.rest().await;
    upstream.script([Reply::status(500)]);
    client.complete(ask("D?")).await.unwrap_err();
    let in_docs = Prompt { namespace: "docs".to_owned(), ..prompt("A?") };
    client.lookup(LookupRequest { prompt: Some(in_docs), cache: None }).await.unwrap();
}

async fn stats_of(client: &mut Client, window: Option<i64>, namespace: &str) -> GetStatsResponse {
    let window = window.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
    let request = GetStatsRequest { window, namespace: namespace.to_owned() };
    client.get_stats(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn statistics_agree_with_the_requests_and_the_metrics() {
    let upstream = FakeUpstream::start().await;
    let (server, mut client) = TestServer::with_client(exact_config(&[&upstream])).await;
    one_of_each_outcome(&server, &mut client, &upstream).await;
    let counted = [
        ("exact", 3),
        ("semantic", 0),
        ("coalesced", 1),
        ("upstream", 2),
        ("bypass", 1),
        ("miss", 2),
        ("error", 1),
        ("stored", 0),
    ];
    let all = stats(&mut client).await;
    for (outcome, count) in counted {
        assert_eq!(all.requests[outcome], count, "{outcome}");
        assert_eq!(all.latency.get(outcome).map_or(0, |latency| latency.count), count, "{outcome}");
    }
    assert_eq!(all.requests.len(), counted.len());
    assert!((all.hit_ratio - 4.0 / 9.0).abs() < 1e-9);
    assert_eq!(all.misses_by_reason["disabled"], 5);
    let first_tokens: u64 = all.first_token.values().map(|latency| latency.count).sum();
    assert_eq!(first_tokens, 3, "one for each stream");
    let model = &all.models[0];
    assert_eq!((model.calls, model.errors), (4, 1));
    assert!((model.cost_usd - all.cost_usd).abs() < 1e-12 && all.cost_usd > 0.0);
    assert_eq!((all.entries, all.store_errors), (2, 0));

    let window = stats_of(&mut client, Some(3600), "").await;
    assert_eq!((&window.requests, window.saved_usd), (&all.requests, all.saved_usd));
    let docs = stats_of(&mut client, None, "docs").await;
    assert_eq!((docs.requests["miss"], docs.requests["exact"], docs.cost_usd), (1, 0, 0.0));
    let default = stats_of(&mut client, None, "default").await;
    assert_eq!((default.requests["miss"], default.requests["exact"]), (1, 3));
    let unknown = stats_of(&mut client, None, "nowhere").await;
    assert_eq!(unknown.requests.values().sum::<u64>(), 0);

    let (status, page) = server.get("/metrics").await;
    assert_eq!(status, 200);
    for (outcome, count) in counted {
        assert_eq!(sum(&page, "promptkeep_requests_total", &[outcome]), count as f64, "{outcome}");
        assert_eq!(sum(&page, "promptkeep_request_seconds_count", &[outcome]), count as f64, "{outcome}");
    }
    let assert_close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
    assert_close(sum(&page, "promptkeep_saved_usd_total", &[]), all.saved_usd);
    assert_close(sum(&page, "promptkeep_cost_usd_total", &["model-cold"]), all.cost_usd);
    assert_close(sum(&page, "promptkeep_semantic_misses_total", &["disabled"]), 5.0);
    assert_close(sum(&page, "promptkeep_upstream_requests_total", &["result=\"ok\""]), 3.0);
    assert_close(sum(&page, "promptkeep_upstream_requests_total", &["result=\"http_500\""]), 1.0);
    assert_close(sum(&page, "promptkeep_tokens_total", &["output"]), model.completion_tokens as f64);
    assert_close(sum(&page, "promptkeep_entries", &[]), 2.0);
    assert!(page.contains("# TYPE promptkeep_requests_total counter\n"), "{page}");
}

#[tokio::test]
async fn the_http_port_serves_health_and_readiness_pages() {
    let server = TestServer::start(exact_config(&[])).await;
    until(async || server.get("/readyz").await.0 == 200).await;
    assert_eq!(server.get("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(server.get("/nothing").await.0, 404);
}

// === Feedback ===

#[tokio::test]
async fn feedback_is_counted_once() {
    let upstream = FakeUpstream::start().await;
    let (server, mut client) = TestServer::with_client(exact_config(&[&upstream])).await;
    let completed = complete(&mut client, "A?").await;
    let hit = complete(&mut client, "A?").await;
    let entry_id = hit.r#match.unwrap().entry_id;
    let verdict_on = |request_id: &str, entry_id: &str, verdict: Verdict| FeedbackRequest {
        request_id: request_id.to_owned(),
        entry_id: entry_id.to_owned(),
        verdict: verdict.into(),
        comment: "because".to_owned(),
    };
    let mut send = async |feedback| client.feedback(feedback).await.map(|reply| reply.into_inner().recorded);
    for (feedback, recorded) in [
        (verdict_on(&completed.request_id, "", Verdict::Up), true),
        (verdict_on(&completed.request_id, "", Verdict::Up), false),
        (verdict_on(&completed.request_id, "", Verdict::Down), true),
        (verdict_on(&hit.request_id, "", Verdict::Up), true),
        (verdict_on("", &entry_id, Verdict::WrongHit), true),
        (verdict_on("", &entry_id, Verdict::WrongHit), false),
    ] {
        assert_eq!(send(feedback.clone()).await.unwrap(), recorded, "{feedback:?}");
    }
    let unknown_id = "0".repeat(32);
    // One known id is enough: the proto says NOT_FOUND only if neither the reply nor the entry is known.
    assert!(send(verdict_on(&unknown_id, &entry_id, Verdict::Down)).await.unwrap());
    for unknown in [verdict_on(&unknown_id, "", Verdict::Up), verdict_on("", &unknown_id, Verdict::Up)] {
        assert_eq!(send(unknown).await.unwrap_err().code(), Code::NotFound);
    }
    for (invalid, field) in [
        (verdict_on("", "", Verdict::Up), "request_id"),
        (verdict_on("abc", "", Verdict::Up), "request_id"),
        (verdict_on("", "abc", Verdict::Up), "entry_id"),
        (verdict_on(&unknown_id, "", Verdict::Unspecified), "verdict"),
    ] {
        let refused = send(invalid).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(refused.get_details_bad_request().unwrap().field_violations[0].field, field);
    }
    let seen = stats(&mut client).await.feedback;
    assert_eq!((seen["up"], seen["down"], seen["wrong_hit"]), (2, 2, 1));
    assert_eq!(server.metric("promptkeep_feedback_total", &[]).await, 5.0);
}

// === Health, reflection, shutdown ===

async fn channel(server: &TestServer) -> tonic::transport::Channel {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", server.grpc)).unwrap();
    endpoint.connect().await.unwrap()
}

const SERVICE: &str = "promptkeep.v1.PromptCache";

/// Watchers never saw the shutdown, because the signal also stopped the task that updates the health status. Their
/// open streams then delayed the shutdown for the whole grace period.
#[tokio::test]
async fn health_watchers_see_the_shutdown_and_do_not_delay_it() {
    let server = TestServer::start(exact_config(&[])).await;
    let mut health = HealthClient::new(channel(&server).await);
    let of = |service: &str| HealthCheckRequest { service: service.to_owned() };
    let mut watched = Vec::new();
    for service in [SERVICE, ""] {
        assert_eq!(health.check(of(service)).await.unwrap().into_inner().status(), ServingStatus::Serving);
        let mut watch = health.watch(of(service)).await.unwrap().into_inner();
        assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
        watched.push(watch);
    }
    assert_eq!(health.check(of("nothing")).await.unwrap_err().code(), Code::NotFound);
    let stopping = tokio::spawn(server.stop());
    for mut watch in watched {
        assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
        assert!(watch.message().await.unwrap().is_none(), "the stream ends, so that the server can stop");
    }
    stopping.await.unwrap();
}

#[tokio::test]
async fn the_metrics_show_models_and_providers() {
    let upstream = FakeUpstream::start().await;
    let server = TestServer::start(exact_config(&[&upstream])).await;
    complete(&mut server.client().await, "A?").await;
    let (_, metrics) = server.get("/metrics").await;
    let breaker = "promptkeep_breaker_state{model=\"model-cold\",provider=\"provider-cold\"} 0";
    let provider = "promptkeep_provider_up{provider=\"provider-cold\",region=";
    assert!(metrics.contains(breaker) && metrics.contains(provider), "{metrics}");
}

#[tokio::test]
async fn reflection_lists_the_services() {
    let server = TestServer::start(exact_config(&[])).await;
    let mut client = ServerReflectionClient::new(channel(&server).await);
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut replies = client.server_reflection_info(tokio_stream::once(list)).await.unwrap().into_inner();
    let reply = replies.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(listed) = reply else { panic!("{reply:?}") };
    let names: Vec<_> = listed.service.into_iter().map(|service| service.name).collect();
    for service in [SERVICE, "grpc.health.v1.Health"] {
        assert!(names.iter().any(|name| name == service), "{names:?}");
    }
}

#[tokio::test]
async fn a_shutdown_waits_for_answers_in_flight() {
    let (upstream, gate) = (FakeUpstream::start().await, Gate::new());
    upstream.always(Reply::text("One two.").hold_before(2, &gate));
    let (server, mut client) = TestServer::with_client(exact_config(&[&upstream])).await;
    let mut streaming = Events::open(&mut client, ask("A?")).await;
    streaming.started().await;
    let unary = spawn_complete(&client, ask("B?"));
    upstream.wait_for_calls(2).await;
    let (grpc, stopping) = (server.grpc, tokio::spawn(server.stop()));
    until(async || tokio::net::TcpStream::connect(grpc).await.is_err()).await;
    assert!(!stopping.is_finished());
    gate.open();
    let streamed = streaming.rest().await;
    assert_eq!((streamed.text.as_str(), streamed.outcome()), ("One two.", Outcome::Upstream));
    assert_eq!(unary.await.unwrap().unwrap().completion.unwrap().content, "One two.");
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_shutdown_waits_no_longer_than_its_grace_period() {
    let upstream = FakeUpstream::start().await;
    upstream.always(Reply::stall());
    let mut config = exact_config(&[&upstream]);
    config.server.shutdown_grace = Duration::from_millis(100);
    let server = TestServer::start(config).await;
    let waiting = spawn_complete(&server.client().await, ask("A?"));
    upstream.wait_for_calls(1).await;
    server.stop().await;
    waiting.abort();
}

#[tokio::test]
async fn a_shutdown_waits_for_an_abandoned_answer_and_stores_it() {
    let (upstream, gate) = (FakeUpstream::start().await, Gate::new());
    let folder = tempfile::tempdir().unwrap();
    upstream.script([Reply::text("One two.").hold_before(2, &gate)]);
    let mut config = exact_config(&[&upstream]);
    config.store = promptkeep::config::StoreConfig { path: folder.path().to_owned(), ..Default::default() };
    config.upstream.finish_abandoned = true;
    let (server, mut client) = TestServer::with_client(config.clone()).await;
    let mut caller = Events::open(&mut client, ask("A?")).await;
    caller.started().await;
    drop(caller);
    server.wait_for_errors(1).await;
    let (grpc, stopping) = (server.grpc, tokio::spawn(server.stop()));
    until(async || tokio::net::TcpStream::connect(grpc).await.is_err()).await;
    gate.open();
    stopping.await.unwrap();
    let server = TestServer::start(config).await;
    assert_eq!(lookup(&mut server.client().await, "A?").await.outcome(), Outcome::Exact);
}

// === Deadlines ===

#[tokio::test]
async fn the_callers_deadline_ends_a_call_with_deadline_exceeded() {
    let upstream = FakeUpstream::start().await;
    upstream.always(Reply::stall());
    let server = TestServer::start(exact_config(&[&upstream])).await;
    for timeout in ["150m", "150000u"] {
        let started = Instant::now();
        let refused = raw::call_with(server.grpc, "Complete", &ask("A?"), Some(timeout)).await;
        assert_eq!((refused.code, refused.message.as_str()), (Code::DeadlineExceeded, "deadline exceeded"));
        assert!(started.elapsed() < Duration::from_secs(10), "not the server's own timeout");
    }
    upstream.wait_for_disconnects(2).await;
}

#[tokio::test]
async fn a_stream_ends_at_the_callers_deadline() {
    let upstream = FakeUpstream::start().await;
    upstream.script([Reply::text("One two.").stall_after(2)]);
    let (_server, mut client) = TestServer::with_client(exact_config(&[&upstream])).await;
    let mut request = Request::new(ask("A?"));
    request.set_timeout(Duration::from_millis(300));
    let streamed = Events::open(&mut client, request).await.rest().await;
    assert_eq!(streamed.text, "One ");
    assert_eq!(streamed.error.unwrap().code(), Code::DeadlineExceeded);
    upstream.wait_for_disconnects(1).await;
}

#[tokio::test]
async fn every_call_meets_its_deadline_when_the_store_hangs() {
    let upstream = FakeUpstream::start().await;
    // The store's timeout exceeds the test's, so only the caller's deadline can end a call.
    let mut config = exact_config(&[&upstream]);
    config.store.timeout = Duration::from_secs(600);
    let store = std::sync::Arc::new(FaultStore::new(store::open("local", &config.store).unwrap()));
    let server = TestServer::with_store(config, store.clone()).await;
    for op in store::Op::ALL.into_iter().filter(|op| *op != store::Op::Scan) {
        store.plan(op, Calls::From(1), Fault::Hang);
    }
    let tagged = promptkeep::grpc::proto::InvalidateRequest { tag: "a".to_owned(), ..Default::default() };
    let up = FeedbackRequest {
        entry_id: "0".repeat(32),
        verdict: Verdict::Up.into(),
        ..FeedbackRequest::default()
    };
    let soon = Some("150m");
    for refused in [
        raw::call_with(server.grpc, "Lookup", &look("B?"), soon).await,
        raw::call_with(server.grpc, "Complete", &ask("B?"), soon).await,
        raw::call_with(server.grpc, "CompleteStream", &ask("B?"), soon).await,
        raw::call_with(server.grpc, "Explain", &look("B?"), soon).await,
        raw::call_with(server.grpc, "Store", &store_request("A?", "Stored."), soon).await,
        raw::call_with(server.grpc, "Invalidate", &tagged, soon).await,
        raw::call_with(server.grpc, "Feedback", &up, soon).await,
    ] {
        assert_eq!(refused.code, Code::DeadlineExceeded, "{}", refused.message);
    }
}

/// The answer exceeds what a connection buffers, and its reader is slow.
#[tokio::test]
async fn a_large_answer_arrives_whole() {
    let upstream = FakeUpstream::start().await;
    upstream.script([Reply::huge(6 << 20)]);
    let (_server, mut client) = TestServer::with_client(exact_config(&[&upstream])).await;
    // Streamed from the model, then from the cache, in chunks within the default message limit of a client.
    for _ in 0..2 {
        let mut stream = Events::open(&mut client, ask("Long?")).await;
        stream.started().await;
        let other = lookup(&mut client, "Other?").await;
        assert_eq!(other.outcome(), Outcome::Miss);
        let streamed = stream.rest().await;
        assert_eq!(streamed.text.len(), 6 << 20);
    }
    let mut client = client.max_decoding_message_size(usize::MAX);
    assert_eq!(complete(&mut client, "Long?").await.completion.unwrap().content.len(), 6 << 20);
}

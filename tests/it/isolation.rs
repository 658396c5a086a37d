//! Tenants: who is let in, what each may see, and what each may spend.

use promptkeep::{
    config::{Config, TenantConfig},
    grpc::proto::{
        CacheControl, CompleteRequest, FeedbackRequest, GetStatsRequest, InvalidateRequest, LookupRequest,
        Outcome, Prompt, Verdict,
    },
    tenant::ApiKeyHash,
};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::common::{
    fake_upstream::{FakeUpstream, Gate, Reply},
    test_server::{Client, TestServer, ask, exact_config, look, prompt, semantic_config},
};

const QUESTION: &str = "How do I reset my password?";
const PARAPHRASE: &str = "How can I reset my password?";

/// Three tenants; `acme` and `globex` share the namespace `public`. Each one's key is its name.
fn with_tenants(mut config: Config) -> Config {
    config.tenants = ["acme", "globex", "other"].map(tenant).to_vec();
    for sharing in &mut config.tenants[..2] {
        sharing.shared_namespaces = vec!["public".to_owned()];
    }
    config
}

fn tenant(name: &str) -> TenantConfig {
    TenantConfig {
        name: name.to_owned(),
        api_key_sha256: Some(ApiKeyHash::of(name)),
        ..TenantConfig::default()
    }
}

/// A request of the tenant with this key.
fn of<T>(key: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    request
}

fn public(text: &str) -> Prompt {
    Prompt { namespace: "public".to_owned(), ..prompt(text) }
}

fn ask_public(text: &str) -> CompleteRequest {
    CompleteRequest { prompt: Some(public(text)), cache: None }
}

async fn seen_by(client: &mut Client, key: &str, message: LookupRequest) -> Outcome {
    client.lookup(of(key, message)).await.unwrap().into_inner().outcome()
}

async fn removed_by(client: &mut Client, key: &str, message: InvalidateRequest) -> u64 {
    client.invalidate(of(key, message)).await.unwrap().into_inner().entries
}

#[tokio::test]
async fn a_tenant_never_sees_an_entry_of_another() {
    let upstream = FakeUpstream::start().await;
    let server = TestServer::start(with_tenants(semantic_config(&[&upstream]))).await;
    let mut client = server.client().await;
    client.complete(of("acme", ask(QUESTION))).await.unwrap();
    assert_eq!(seen_by(&mut client, "acme", look(QUESTION)).await, Outcome::Exact);
    assert_eq!(seen_by(&mut client, "acme", look(PARAPHRASE)).await, Outcome::Semantic);
    for text in [QUESTION, PARAPHRASE] {
        let reply = client.lookup(of("globex", look(text))).await.unwrap().into_inner();
        assert_eq!((reply.outcome(), reply.reason.as_str()), (Outcome::Miss, "scope_empty"));
        assert_eq!(reply.r#match, None, "not even as the nearest");
        let explained = client.explain(of("globex", look(text))).await.unwrap().into_inner();
        assert_eq!((explained.outcome(), explained.candidates.len()), (Outcome::Miss, 0));
    }
    let asked = client.complete(of("globex", ask(QUESTION))).await.unwrap().into_inner();
    assert_eq!(asked.outcome(), Outcome::Upstream);
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test]
async fn a_tenant_neither_removes_nor_judges_an_entry_of_another() {
    let upstream = FakeUpstream::start().await;
    let server = TestServer::start(with_tenants(exact_config(&[&upstream]))).await;
    let mut client = server.client().await;
    let cache = CacheControl { tags: vec!["faq".to_owned()], ..CacheControl::default() };
    let first = CompleteRequest { cache: Some(cache), ..ask(QUESTION) };
    let request_id = client.complete(of("acme", first)).await.unwrap().into_inner().request_id;
    let hit = client.complete(of("acme", ask(QUESTION))).await.unwrap().into_inner();
    let entry_id = hit.r#match.unwrap().entry_id;
    let named = |request: InvalidateRequest| InvalidateRequest { dry_run: false, ..request };
    for attempt in [
        named(InvalidateRequest { entry_id: entry_id.clone(), ..InvalidateRequest::default() }),
        named(InvalidateRequest { namespace: "default".to_owned(), ..InvalidateRequest::default() }),
        named(InvalidateRequest { model: "model-cold".to_owned(), ..InvalidateRequest::default() }),
        named(InvalidateRequest { tag: "faq".to_owned(), ..InvalidateRequest::default() }),
        named(InvalidateRequest { prompt: Some(prompt(QUESTION)), ..InvalidateRequest::default() }),
    ] {
        assert_eq!(removed_by(&mut client, "globex", attempt).await, 0);
    }
    let judge = |request_id: &str, entry_id: &str| FeedbackRequest {
        request_id: request_id.to_owned(),
        entry_id: entry_id.to_owned(),
        verdict: Verdict::WrongHit.into(),
        comment: String::new(),
    };
    for feedback in [judge(&request_id, ""), judge(&hit.request_id, ""), judge("", &entry_id)] {
        let refused = client.feedback(of("globex", feedback)).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
    }
    assert_eq!(seen_by(&mut client, "acme", look(QUESTION)).await, Outcome::Exact);
    assert!(client.feedback(of("acme", judge("", &entry_id))).await.unwrap().into_inner().recorded);
    let removal = InvalidateRequest { entry_id, ..InvalidateRequest::default() };
    assert_eq!(removed_by(&mut client, "acme", removal).await, 1);
}

#[tokio::test]
async fn a_shared_namespace_is_common_to_those_that_list_it_and_closed_to_others() {
    let upstream = FakeUpstream::start().await;
    let server = TestServer::start(with_tenants(semantic_config(&[&upstream]))).await;
    let mut client = server.client().await;
    client.complete(of("acme", ask_public(QUESTION))).await.unwrap();
    let hit = client.complete(of("globex", ask_public(QUESTION))).await.unwrap().into_inner();
    assert_eq!(hit.outcome(), Outcome::Exact);
    let look_public = |text| LookupRequest { prompt: Some(public(text)), cache: None };
    assert_eq!(seen_by(&mut client, "globex", look_public(PARAPHRASE)).await, Outcome::Semantic);
    assert_eq!(seen_by(&mut client, "other", look_public(QUESTION)).await, Outcome::Miss);
    assert_eq!(seen_by(&mut client, "acme", look(QUESTION)).await, Outcome::Miss, "another namespace");
}

/// An entry of a shared namespace could be removed by naming the namespace, but not by its own id or prompt.
#[tokio::test]
async fn whoever_lists_a_shared_namespace_may_remove_its_entries() {
    let upstream = FakeUpstream::start().await;
    let server = TestServer::start(with_tenants(exact_config(&[&upstream]))).await;
    let mut client = server.client().await;
    let removal = InvalidateRequest::default;
    for by in ["namespace", "prompt", "entry_id"] {
        client.complete(of("acme", ask_public(QUESTION))).await.unwrap();
        let hit = client.complete(of("globex", ask_public(QUESTION))).await.unwrap().into_inner();
        let request = match by {
            "namespace" => InvalidateRequest { namespace: "public".to_owned(), ..removal() },
            "prompt" => InvalidateRequest { prompt: Some(public(QUESTION)), ..removal() },
            _ => InvalidateRequest { entry_id: hit.r#match.unwrap().entry_id, ..removal() },
        };
        assert_eq!(removed_by(&mut client, "other", request.clone()).await, 0, "{by}");
        assert_eq!(removed_by(&mut client, "globex", request).await, 1, "{by}");
    }
}

#[tokio::test]
async fn nobody_gets_in_without_a_known_key() {
    let upstream = FakeUpstream::start().await;
    let server = TestServer::start(with_tenants(exact_config(&[&upstream]))).await;
    let mut client = server.client().await;
    let with = |value: Option<&str>| {
        let mut request = Request::new(ask(QUESTION));
        if let Some(value) = value {
            request.metadata_mut().insert("authorization", value.parse().unwrap());
        }
        request
    };
    for wrong in [None, Some("Bearer nobody"), Some("Bearer "), Some("acme"), Some("Basic acme")] {
        let refused = client.complete(with(wrong)).await.unwrap_err();
        let told = (Code::Unauthenticated, "missing or unknown API key");
        assert_eq!((refused.code(), refused.message()), told, "{wrong:?}");
    }
    let unauthenticated = |refused: Status| assert_eq!(refused.code(), Code::Unauthenticated);
    unauthenticated(client.lookup(look(QUESTION)).await.unwrap_err());
    unauthenticated(client.explain(look(QUESTION)).await.unwrap_err());
    unauthenticated(client.complete_stream(ask(QUESTION)).await.unwrap_err());
    unauthenticated(client.get_stats(GetStatsRequest::default()).await.unwrap_err());
    let all = InvalidateRequest { namespace: "default".to_owned(), ..InvalidateRequest::default() };
    unauthenticated(client.invalidate(all).await.unwrap_err());
    client.complete(with(Some("bearer acme"))).await.expect("the scheme's case does not matter");
    assert_eq!(upstream.calls(), 1);
}

/// The delay that the status tells the caller to wait.
fn retry_delay(refused: &Status) -> std::time::Duration {
    assert_eq!(refused.code(), Code::ResourceExhausted);
    refused.get_details_retry_info().expect("details").retry_delay.expect("a delay")
}

#[tokio::test]
async fn the_rate_limit_says_when_to_come_back() {
    let upstream = FakeUpstream::start().await;
    let mut config = with_tenants(exact_config(&[&upstream]));
    // One request at once, the next a thousand seconds later.
    config.tenants[0].rate_limit = Some(0.001);
    let server = TestServer::start(config).await;
    let mut client = server.client().await;
    client.complete(of("acme", ask(QUESTION))).await.unwrap();
    let refused = client.complete(of("acme", ask(QUESTION))).await.unwrap_err();
    assert_eq!(refused.message(), "rate exhausted");
    assert!(retry_delay(&refused).as_secs() > 100);
    client.complete(of("globex", ask(QUESTION))).await.expect("a limit of acme's");
    let (_, metrics) = server.get("/metrics").await;
    assert!(metrics.contains("promptkeep_shed_total{reason=\"rate\"} 1\n"), "{metrics}");
}

#[tokio::test]
async fn a_spent_budget_stops_calls_but_not_hits() {
    let upstream = FakeUpstream::start().await;
    let mut config = with_tenants(exact_config(&[&upstream]));
    config.tenants[0].budget_usd_per_day = Some(1e-9);
    let server = TestServer::start(config).await;
    let mut client = server.client().await;
    client.complete(of("acme", ask(QUESTION))).await.unwrap();
    let refused = client.complete(of("acme", ask("Another?"))).await.unwrap_err();
    assert_eq!(refused.message(), "budget exhausted");
    assert!(!retry_delay(&refused).is_zero());
    let hit = client.complete(of("acme", ask(QUESTION))).await.unwrap().into_inner();
    assert_eq!(hit.outcome(), Outcome::Exact);
    client.complete(of("globex", ask("Another?"))).await.expect("a budget of acme's");
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test]
async fn a_full_server_sheds_and_says_when_to_come_back() {
    let (upstream, gate) = (FakeUpstream::start().await, Gate::new());
    upstream.script([Reply::text("ok").hold(&gate)]);
    let mut config = exact_config(&[&upstream]);
    config.server.max_in_flight = 1;
    let server = TestServer::start(config).await;
    let mut client = server.client().await;
    let waiting = tokio::spawn({
        let mut client = client.clone();
        async move { client.complete(ask(QUESTION)).await }
    });
    upstream.wait_for_calls(1).await;
    let refused = client.complete(ask("Another?")).await.unwrap_err();
    assert!(!retry_delay(&refused).is_zero());
    gate.open();
    waiting.await.unwrap().unwrap();
    server.wait_for_requests(0).await;
    client.complete(ask("Another?")).await.expect("there is room again");
}

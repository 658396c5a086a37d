//! Tenants: authentication, isolation from each other, and limits.

use promptkeep::{
    config::Config,
    grpc::proto::{
        CacheControl, CompleteRequest, FeedbackRequest, GetStatsRequest, InvalidateRequest, LookupRequest,
        Outcome, Prompt, Verdict,
    },
};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::common::{
    fake_upstream::{FakeUpstream, Gate, Reply},
    test_server::{
        Client, TestServer, ask, exact_config, look, prompt, semantic_config, spawn_complete, tenant,
        with_key,
    },
};

const QUESTION: &str = "How do I reset my password?";
const PARAPHRASE: &str = "How can I reset my password?";

/// Adds three tenants, of which `acme` and `globex` share the namespace `public`.
fn with_tenants(mut config: Config) -> Config {
    config.tenants = ["acme", "globex", "other"].map(tenant).to_vec();
    for tenant in &mut config.tenants[..2] {
        tenant.shared_namespaces = vec!["public".to_owned()];
    }
    config
}

fn public(text: &str) -> Prompt {
    Prompt { namespace: "public".to_owned(), ..prompt(text) }
}

fn ask_public(text: &str) -> CompleteRequest {
    CompleteRequest { prompt: Some(public(text)), cache: None }
}

/// Returns the outcome of a lookup by the tenant with this key.
async fn lookup_outcome(client: &mut Client, key: &str, message: LookupRequest) -> Outcome {
    client.lookup(with_key(key, message)).await.unwrap().into_inner().outcome()
}

/// Returns the number of entries that the tenant with this key removes.
async fn removed_entries(client: &mut Client, key: &str, message: InvalidateRequest) -> u64 {
    client.invalidate(with_key(key, message)).await.unwrap().into_inner().entries
}

#[tokio::test]
async fn a_tenant_never_sees_an_entry_of_another() {
    let upstream = FakeUpstream::start().await;
    let (_server, mut client) = TestServer::with_client(with_tenants(semantic_config(&[&upstream]))).await;
    client.complete(with_key("acme", ask(QUESTION))).await.unwrap();
    assert_eq!(lookup_outcome(&mut client, "acme", look(QUESTION)).await, Outcome::Exact);
    assert_eq!(lookup_outcome(&mut client, "acme", look(PARAPHRASE)).await, Outcome::Semantic);
    for text in [QUESTION, PARAPHRASE] {
        let reply = client.lookup(with_key("globex", look(text))).await.unwrap().into_inner();
        assert_eq!((reply.outcome(), reply.reason.as_str()), (Outcome::Miss, "scope_empty"));
        assert_eq!(reply.r#match, None, "not even as the nearest candidate");
        let explained = client.explain(with_key("globex", look(text))).await.unwrap().into_inner();
        assert_eq!((explained.outcome(), explained.candidates.len()), (Outcome::Miss, 0));
    }
    let reply = client.complete(with_key("globex", ask(QUESTION))).await.unwrap().into_inner();
    assert_eq!(reply.outcome(), Outcome::Upstream);
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test]
async fn a_tenant_neither_removes_nor_rates_an_entry_of_another() {
    let upstream = FakeUpstream::start().await;
    let (_server, mut client) = TestServer::with_client(with_tenants(exact_config(&[&upstream]))).await;
    let cache = CacheControl { tags: vec!["faq".to_owned()], ..CacheControl::default() };
    let first = CompleteRequest { cache: Some(cache), ..ask(QUESTION) };
    let request_id = client.complete(with_key("acme", first)).await.unwrap().into_inner().request_id;
    let hit = client.complete(with_key("acme", ask(QUESTION))).await.unwrap().into_inner();
    let entry_id = hit.r#match.unwrap().entry_id;
    let removal = InvalidateRequest::default;
    for attempt in [
        InvalidateRequest { entry_id: entry_id.clone(), ..removal() },
        InvalidateRequest { namespace: "default".to_owned(), ..removal() },
        InvalidateRequest { model: "model-cold".to_owned(), ..removal() },
        InvalidateRequest { tag: "faq".to_owned(), ..removal() },
        InvalidateRequest { prompt: Some(prompt(QUESTION)), ..removal() },
    ] {
        assert_eq!(removed_entries(&mut client, "globex", attempt).await, 0);
    }
    let wrong_hit = |request_id: &str, entry_id: &str| FeedbackRequest {
        request_id: request_id.to_owned(),
        entry_id: entry_id.to_owned(),
        verdict: Verdict::WrongHit.into(),
        comment: String::new(),
    };
    for feedback in [wrong_hit(&request_id, ""), wrong_hit(&hit.request_id, ""), wrong_hit("", &entry_id)] {
        let refused = client.feedback(with_key("globex", feedback)).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
    }
    assert_eq!(lookup_outcome(&mut client, "acme", look(QUESTION)).await, Outcome::Exact);
    assert!(client.feedback(with_key("acme", wrong_hit("", &entry_id))).await.unwrap().into_inner().recorded);
    assert_eq!(removed_entries(&mut client, "acme", InvalidateRequest { entry_id, ..removal() }).await, 1);
}

#[tokio::test]
async fn a_shared_namespace_is_open_to_tenants_that_list_it_and_closed_to_others() {
    let upstream = FakeUpstream::start().await;
    let (_server, mut client) = TestServer::with_client(with_tenants(semantic_config(&[&upstream]))).await;
    client.complete(with_key("acme", ask_public(QUESTION))).await.unwrap();
    let hit = client.complete(with_key("globex", ask_public(QUESTION))).await.unwrap().into_inner();
    assert_eq!(hit.outcome(), Outcome::Exact);
    let look_public = |text| LookupRequest { prompt: Some(public(text)), cache: None };
    assert_eq!(lookup_outcome(&mut client, "globex", look_public(PARAPHRASE)).await, Outcome::Semantic);
    assert_eq!(lookup_outcome(&mut client, "other", look_public(QUESTION)).await, Outcome::Miss);
    assert_eq!(lookup_outcome(&mut client, "acme", look(QUESTION)).await, Outcome::Miss, "another namespace");
}

/// Entries of a shared namespace could be removed by namespace, but not by their own id or prompt.
#[tokio::test]
async fn a_tenant_that_lists_a_shared_namespace_may_remove_its_entries() {
    let upstream = FakeUpstream::start().await;
    let (_server, mut client) = TestServer::with_client(with_tenants(exact_config(&[&upstream]))).await;
    let removal = InvalidateRequest::default;
    for by in ["namespace", "prompt", "entry_id"] {
        client.complete(with_key("acme", ask_public(QUESTION))).await.unwrap();
        let hit = client.complete(with_key("globex", ask_public(QUESTION))).await.unwrap().into_inner();
        let request = match by {
            "namespace" => InvalidateRequest { namespace: "public".to_owned(), ..removal() },
            "prompt" => InvalidateRequest { prompt: Some(public(QUESTION)), ..removal() },
            _ => InvalidateRequest { entry_id: hit.r#match.unwrap().entry_id, ..removal() },
        };
        assert_eq!(removed_entries(&mut client, "other", request.clone()).await, 0, "{by}");
        assert_eq!(removed_entries(&mut client, "globex", request).await, 1, "{by}");
    }
}

#[tokio::test]
async fn requests_without_a_known_key_are_rejected() {
    let upstream = FakeUpstream::start().await;
    let (_server, mut client) = TestServer::with_client(with_tenants(exact_config(&[&upstream]))).await;
    let with = |value: Option<&str>| {
        let mut request = Request::new(ask(QUESTION));
        if let Some(value) = value {
            request.metadata_mut().insert("authorization", value.parse().unwrap());
        }
        request
    };
    for wrong in [None, Some("Bearer nobody"), Some("Bearer "), Some("acme"), Some("Basic acme")] {
        let refused = client.complete(with(wrong)).await.unwrap_err();
        let expected = (Code::Unauthenticated, "missing or unknown API key");
        assert_eq!((refused.code(), refused.message()), expected, "{wrong:?}");
    }
    let assert_unauthenticated = |refused: Status| assert_eq!(refused.code(), Code::Unauthenticated);
    assert_unauthenticated(client.lookup(look(QUESTION)).await.unwrap_err());
    assert_unauthenticated(client.explain(look(QUESTION)).await.unwrap_err());
    assert_unauthenticated(client.complete_stream(ask(QUESTION)).await.unwrap_err());
    assert_unauthenticated(client.get_stats(GetStatsRequest::default()).await.unwrap_err());
    let all = InvalidateRequest { namespace: "default".to_owned(), ..InvalidateRequest::default() };
    assert_unauthenticated(client.invalidate(all).await.unwrap_err());
    client.complete(with(Some("bearer acme"))).await.expect("the scheme's case does not matter");
    assert_eq!(upstream.calls(), 1);
}

/// Returns the delay after which the caller may retry.
fn retry_delay(refused: &Status) -> std::time::Duration {
    assert_eq!(refused.code(), Code::ResourceExhausted);
    refused.get_details_retry_info().expect("details").retry_delay.expect("a delay")
}

#[tokio::test]
async fn a_rate_limited_caller_learns_when_to_retry() {
    let upstream = FakeUpstream::start().await;
    let mut config = with_tenants(exact_config(&[&upstream]));
    // One request at once, and the next after a thousand seconds.
    config.tenants[0].rate_limit = Some(0.001);
    let (server, mut client) = TestServer::with_client(config).await;
    client.complete(with_key("acme", ask(QUESTION))).await.unwrap();
    let refused = client.complete(with_key("acme", ask(QUESTION))).await.unwrap_err();
    assert_eq!(refused.message(), "rate exhausted");
    assert!(retry_delay(&refused).as_secs() > 100);
    client.complete(with_key("globex", ask(QUESTION))).await.expect("the limit is acme's");
    assert_eq!(server.metric("promptkeep_shed_total", &["reason=\"rate\""]).await, 1.0);
}

#[tokio::test]
async fn an_exhausted_budget_stops_upstream_calls_but_not_hits() {
    let upstream = FakeUpstream::start().await;
    let mut config = with_tenants(exact_config(&[&upstream]));
    config.tenants[0].budget_usd_per_day = Some(1e-9);
    let (_server, mut client) = TestServer::with_client(config).await;
    client.complete(with_key("acme", ask(QUESTION))).await.unwrap();
    let refused = client.complete(with_key("acme", ask("Another?"))).await.unwrap_err();
    assert_eq!(refused.message(), "budget exhausted");
    assert!(!retry_delay(&refused).is_zero());
    let hit = client.complete(with_key("acme", ask(QUESTION))).await.unwrap().into_inner();
    assert_eq!(hit.outcome(), Outcome::Exact);
    client.complete(with_key("globex", ask("Another?"))).await.expect("the budget is acme's");
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test]
async fn a_full_server_sheds_requests_and_says_when_to_retry() {
    let (upstream, gate) = (FakeUpstream::start().await, Gate::new());
    upstream.script([Reply::text("ok").hold(&gate)]);
    let mut config = exact_config(&[&upstream]);
    config.server.max_in_flight = 1;
    let (server, mut client) = TestServer::with_client(config).await;
    let waiting = spawn_complete(&client, ask(QUESTION));
    upstream.wait_for_calls(1).await;
    let refused = client.complete(ask("Another?")).await.unwrap_err();
    assert!(!retry_delay(&refused).is_zero());
    gate.open();
    waiting.await.unwrap().unwrap();
    server.wait_for_requests(0).await;
    client.complete(ask("Another?")).await.expect("the server has room again");
}

//! `cache.stale_while_revalidate`: an answer past its TTL is served once while one call replaces it.

use std::time::Duration;

use promptkeep::{
    config::{Config, NamespaceCache, StoreKind},
    grpc::proto::{
        CacheControl, CompleteRequest, CompleteResponse, InvalidateRequest, LookupRequest, Outcome, Prompt,
    },
};

use crate::common::{
    events::Events,
    fake_upstream::{FakeUpstream, Gate, Reply},
    test_server::{Client, TestServer, exact_config, prompt, spawn_complete, stats, text, until},
};

/// Answers expire at once, and the namespace `news` may serve them stale for an hour.
fn config(upstream: &FakeUpstream) -> Config {
    let mut config = exact_config(&[upstream]);
    config.cache.ttl = Duration::from_millis(400);
    config.cache.ttl_jitter = 0.0;
    config.cache.namespaces = vec![NamespaceCache {
        namespace: "news".to_owned(),
        stale_while_revalidate: Some(Duration::from_secs(3600)),
        ..NamespaceCache::default()
    }];
    // Tests of failures are about single calls, so no breaker may open.
    config.upstream.breaker_failures = u32::MAX;
    config
}

fn news() -> Prompt {
    Prompt { namespace: "news".to_owned(), ..prompt("What is new?") }
}

fn ask(cache: CacheControl) -> CompleteRequest {
    CompleteRequest { prompt: Some(news()), cache: Some(cache) }
}

async fn complete(client: &mut Client) -> CompleteResponse {
    client.complete(ask(CacheControl::default())).await.unwrap().into_inner()
}

fn look() -> LookupRequest {
    LookupRequest { prompt: Some(news()), cache: None }
}

/// Caches the answer `old` and waits until it expires. Later answers live for an hour.
async fn expired(server: &TestServer, mut config: Config, upstream: &FakeUpstream) -> Client {
    upstream.script([Reply::text("old")]);
    let mut client = server.client().await;
    assert_eq!(complete(&mut client).await.outcome(), Outcome::Upstream);
    until(async || client.clone().lookup(look()).await.unwrap().into_inner().outcome() == Outcome::Miss)
        .await;
    config.cache.ttl = Duration::from_secs(3600);
    server.server.reload(config).unwrap();
    client
}

/// Starts a server whose only answer has expired.
async fn started(upstream: &FakeUpstream) -> (TestServer, Client) {
    let server = TestServer::start(config(upstream)).await;
    let client = expired(&server, config(upstream), upstream).await;
    (server, client)
}

fn is_stale(reply: &CompleteResponse) -> bool {
    reply.r#match.as_ref().is_some_and(|matched| matched.stale)
}

/// Waits until a refresh has ended with this result.
async fn wait_for_refresh(server: &TestServer, result: &str) {
    server.wait_for_metric("promptkeep_refreshes_total", &[&format!("result=\"{result}\"")], 1.0).await;
}

#[tokio::test]
async fn a_stale_answer_is_served_once_while_one_call_replaces_it() {
    let upstream = FakeUpstream::start().await;
    let (server, mut client) = started(&upstream).await;
    let gate = Gate::new();
    upstream.always(Reply::text("new").hold(&gate));
    assert!(client.explain(look()).await.unwrap().into_inner().would_serve_stale);

    let first = complete(&mut client).await;
    assert_eq!((first.outcome(), is_stale(&first), first.saved_usd), (Outcome::Exact, true, 0.0));
    let age = first.r#match.as_ref().unwrap().age.unwrap();
    assert!(Duration::try_from(age).unwrap() >= Duration::from_millis(400));
    assert_eq!(text(first), "old");
    upstream.wait_for_calls(2).await;
    let explained = client.explain(look()).await.unwrap().into_inner();
    assert_eq!((explained.would_serve_stale, explained.outcome()), (false, Outcome::Miss));

    // Later callers wait for the call in flight.
    let second = spawn_complete(&client, ask(CacheControl::default()));
    server.wait_for_requests(2).await;
    gate.open();
    let second = second.await.unwrap().unwrap();
    assert_eq!((second.outcome(), is_stale(&second)), (Outcome::Coalesced, false));
    assert_eq!(text(second), "new");
    assert_eq!(upstream.calls(), 2);

    wait_for_refresh(&server, "ok").await;
    let seen = stats(&mut client).await;
    assert_eq!((seen.stale_served, seen.models[0].calls), (1, 2), "the refresh is counted as a call");
    let third = complete(&mut client).await;
    assert_eq!((third.outcome(), is_stale(&third)), (Outcome::Exact, false));
    assert_eq!(text(third), "new");
}

#[tokio::test]
async fn a_failed_refresh_does_not_prolong_a_stale_answer() {
    let upstream = FakeUpstream::start().await;
    let (server, mut client) = started(&upstream).await;
    upstream.always(Reply::status(500));
    assert!(is_stale(&complete(&mut client).await));
    wait_for_refresh(&server, "failed").await;
    client.complete(ask(CacheControl::default())).await.unwrap_err();
    upstream.always(Reply::text("new"));
    let reply = complete(&mut client).await;
    assert_eq!((reply.outcome(), text(reply).as_str()), (Outcome::Upstream, "new"));
}

#[tokio::test]
async fn concurrent_requests_for_a_stale_answer_make_one_call() {
    let upstream = FakeUpstream::start().await;
    let (server, client) = started(&upstream).await;
    let gate = Gate::new();
    upstream.always(Reply::text("new").hold(&gate));
    let callers: Vec<_> = (0..30).map(|_| spawn_complete(&client, ask(CacheControl::default()))).collect();
    // One caller already has the stale answer; the refresh is in flight in its stead.
    server.wait_for_requests(30).await;
    gate.open();
    let mut stale = 0;
    for reply in callers {
        let reply = reply.await.unwrap().unwrap();
        stale += u32::from(is_stale(&reply));
        assert_eq!(text(reply.clone()), if is_stale(&reply) { "old" } else { "new" });
    }
    assert_eq!((stale, upstream.calls()), (1, 2));
}

#[tokio::test]
async fn an_invalidated_answer_is_not_served_stale() {
    let upstream = FakeUpstream::start().await;
    let (_server, mut client) = started(&upstream).await;
    let request = InvalidateRequest { namespace: "news".to_owned(), ..InvalidateRequest::default() };
    assert_eq!(client.invalidate(request).await.unwrap().into_inner().entries, 1);
    assert!(!client.explain(look()).await.unwrap().into_inner().would_serve_stale);
    let reply = complete(&mut client).await;
    assert_eq!((reply.outcome(), text(reply).as_str()), (Outcome::Upstream, "ok"));
}

#[tokio::test]
async fn callers_with_strict_directives_get_no_stale_answer() {
    let upstream = FakeUpstream::start().await;
    let (_server, mut client) = started(&upstream).await;
    let long = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
    let strict = [
        CacheControl { ttl: long, ..CacheControl::default() },
        CacheControl { max_age: Some(prost_types::Duration::default()), ..CacheControl::default() },
        CacheControl { no_store: true, ..CacheControl::default() },
        CacheControl { no_cache: true, no_store: true, ..CacheControl::default() },
    ];
    upstream.always(Reply::status(500));
    for cache in strict {
        let request = LookupRequest { cache: Some(cache.clone()), ..look() };
        assert!(!client.explain(request).await.unwrap().into_inner().would_serve_stale, "{cache:?}");
        client.complete(ask(cache)).await.unwrap_err();
    }
    assert!(is_stale(&complete(&mut client).await));
}

#[tokio::test]
async fn a_namespace_without_the_setting_serves_nothing_stale() {
    let upstream = FakeUpstream::start().await;
    let mut config = config(&upstream);
    config.cache.namespaces.clear();
    let server = TestServer::start(config.clone()).await;
    let mut client = expired(&server, config, &upstream).await;
    assert_eq!(complete(&mut client).await.outcome(), Outcome::Upstream);
}

#[tokio::test]
async fn a_stale_answer_survives_a_restart() {
    let (upstream, folder) = (FakeUpstream::start().await, tempfile::tempdir().unwrap());
    let start = async || {
        let mut config = config(&upstream);
        (config.store.kind, config.store.path) = (StoreKind::Embedded, folder.path().to_owned());
        TestServer::start(config).await
    };
    let server = start().await;
    expired(&server, config(&upstream), &upstream).await;
    server.stop().await;
    let server = start().await;
    let reply = complete(&mut server.client().await).await;
    assert!(is_stale(&reply) && text(reply) == "old");
    server.stop().await;
}

#[tokio::test]
async fn a_stream_marks_a_stale_answer() {
    let upstream = FakeUpstream::start().await;
    let (_server, mut client) = started(&upstream).await;
    let streamed = Events::open(&mut client, ask(CacheControl::default())).await.rest().await;
    assert_eq!((streamed.text.as_str(), streamed.outcome()), ("old", Outcome::Exact));
    assert!(streamed.started.unwrap().r#match.unwrap().stale);
    assert!(streamed.finished.unwrap().r#match.unwrap().stale);
}

#[tokio::test]
async fn an_http_header_marks_a_stale_answer() {
    let upstream = FakeUpstream::start().await;
    let (server, _client) = started(&upstream).await;
    let body = serde_json::json!({
        "model": "auto",
        "messages": [{ "role": "user", "content": "What is new?" }],
    });
    let request = reqwest::Client::new().post(format!("http://{}/v1/chat/completions", server.http));
    let reply = request.header("x-promptkeep-namespace", "news").json(&body).send().await.unwrap();
    assert_eq!(reply.headers()["x-promptkeep-stale"], "true");
    assert_eq!(reply.headers()["x-promptkeep-outcome"], "exact");
    assert!(reply.headers().contains_key("age"));
}

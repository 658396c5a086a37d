//! `cache.stale_while_revalidate`: an answer past its TTL, served once while it is bought again.

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
    test_server::{Client, TestServer, exact_config, prompt, stats, text, until},
};

/// Answers live for a moment, and in the namespace `news` they may be served for long after it.
fn config(upstream: &FakeUpstream) -> Config {
    let mut config = exact_config(&[upstream]);
    config.cache.ttl = Duration::from_millis(400);
    config.cache.ttl_jitter = 0.0;
    config.cache.namespaces = vec![NamespaceCache {
        namespace: "news".to_owned(),
        stale_while_revalidate: Some(Duration::from_secs(3600)),
        ..NamespaceCache::default()
    }];
    // Tests of failures are about single calls.
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

/// Buys the answer `old` and waits until it is past its TTL. What is bought from then on lives long.
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

/// A server whose only answer has expired.
async fn started(upstream: &FakeUpstream) -> (TestServer, Client) {
    let server = TestServer::start(config(upstream)).await;
    let client = expired(&server, config(upstream), upstream).await;
    (server, client)
}

fn is_stale(reply: &CompleteResponse) -> bool {
    reply.r#match.as_ref().is_some_and(|matched| matched.stale)
}

/// How many refreshes have ended with this result.
async fn refreshes(server: &TestServer, result: &str) -> u64 {
    let line = format!("promptkeep_refreshes_total{{result=\"{result}\"}} ");
    let (_, page) = server.get("/metrics").await;
    page.lines().find_map(|found| found.strip_prefix(&line)).map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn it_is_served_once_while_one_call_replaces_it() {
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

    // Whoever comes now waits for the call under way.
    let mut other = client.clone();
    let second = tokio::spawn(async move { complete(&mut other).await });
    server.wait_for_requests(2).await;
    gate.open();
    let second = second.await.unwrap();
    assert_eq!((second.outcome(), is_stale(&second)), (Outcome::Coalesced, false));
    assert_eq!(text(second), "new");
    assert_eq!(upstream.calls(), 2);

    until(async || refreshes(&server, "ok").await == 1).await;
    let seen = stats(&mut client).await;
    assert_eq!((seen.stale_served, seen.models[0].calls), (1, 2), "the refresh is a call like any other");
    let third = complete(&mut client).await;
    assert_eq!((third.outcome(), is_stale(&third)), (Outcome::Exact, false));
    assert_eq!(text(third), "new");
}

#[tokio::test]
async fn a_refresh_that_fails_does_not_prolong_it() {
    let upstream = FakeUpstream::start().await;
    let (server, mut client) = started(&upstream).await;
    upstream.always(Reply::status(500));
    assert!(is_stale(&complete(&mut client).await));
    until(async || refreshes(&server, "failed").await == 1).await;
    client.complete(ask(CacheControl::default())).await.unwrap_err();
    upstream.always(Reply::text("new"));
    let bought = complete(&mut client).await;
    assert_eq!((bought.outcome(), text(bought).as_str()), (Outcome::Upstream, "new"));
}

#[tokio::test]
async fn a_crowd_makes_one_call() {
    let upstream = FakeUpstream::start().await;
    let (server, client) = started(&upstream).await;
    let gate = Gate::new();
    upstream.always(Reply::text("new").hold(&gate));
    let crowd: Vec<_> = (0..30)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { complete(&mut client).await })
        })
        .collect();
    // One has its answer; the refresh has taken its place.
    server.wait_for_requests(30).await;
    gate.open();
    let mut stale = 0;
    for reply in crowd {
        let reply = reply.await.unwrap();
        stale += u32::from(is_stale(&reply));
        assert_eq!(text(reply.clone()), if is_stale(&reply) { "old" } else { "new" });
    }
    assert_eq!((stale, upstream.calls()), (1, 2));
}

#[tokio::test]
async fn what_was_invalidated_is_not_served() {
    let upstream = FakeUpstream::start().await;
    let (_server, mut client) = started(&upstream).await;
    let request = InvalidateRequest { namespace: "news".to_owned(), ..InvalidateRequest::default() };
    assert_eq!(client.invalidate(request).await.unwrap().into_inner().entries, 1);
    assert!(!client.explain(look()).await.unwrap().into_inner().would_serve_stale);
    let reply = complete(&mut client).await;
    assert_eq!((reply.outcome(), text(reply).as_str()), (Outcome::Upstream, "ok"));
}

#[tokio::test]
async fn callers_that_name_a_time_get_nothing_past_it() {
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
        let asked = LookupRequest { cache: Some(cache.clone()), ..look() };
        assert!(!client.explain(asked).await.unwrap().into_inner().would_serve_stale, "{cache:?}");
        client.complete(ask(cache)).await.unwrap_err();
    }
    assert!(is_stale(&complete(&mut client).await));
}

#[tokio::test]
async fn other_namespaces_have_none_of_it() {
    let upstream = FakeUpstream::start().await;
    let mut config = config(&upstream);
    config.cache.namespaces.clear();
    let server = TestServer::start(config.clone()).await;
    let mut client = expired(&server, config, &upstream).await;
    assert_eq!(complete(&mut client).await.outcome(), Outcome::Upstream);
}

#[tokio::test]
async fn it_outlives_a_restart() {
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
async fn a_stream_tells_of_it() {
    let upstream = FakeUpstream::start().await;
    let (_server, mut client) = started(&upstream).await;
    let said = Events::open(&mut client, ask(CacheControl::default())).await.rest().await;
    assert_eq!((said.text.as_str(), said.outcome()), ("old", Outcome::Exact));
    assert!(said.started.unwrap().r#match.unwrap().stale);
    assert!(said.finished.unwrap().r#match.unwrap().stale);
}

#[tokio::test]
async fn a_header_tells_of_it() {
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

//! Invalidated and expired entries are not served.

use promptkeep::{
    config::{Config, StoreKind},
    grpc::proto::{CacheControl, CompleteRequest, InvalidateRequest, Outcome, Prompt},
};
use prost_types::Duration;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::common::{
    events::Events,
    fake_upstream::{FakeUpstream, Gate, Reply},
    test_server::{
        Client, TestServer, ask, ask_with, complete, exact_config, lookup, prompt, semantic_config, stats,
        until,
    },
};

const NOTHING: InvalidateRequest = InvalidateRequest {
    entry_id: String::new(),
    namespace: String::new(),
    model: String::new(),
    tag: String::new(),
    prompt: None,
    dry_run: false,
};

async fn invalidate(client: &mut Client, request: InvalidateRequest) -> u64 {
    client.invalidate(request).await.unwrap().into_inner().entries
}

async fn is_cached(client: &mut Client, text: &str) -> bool {
    lookup(client, text).await.outcome() == Outcome::Exact
}

/// Stores three answers: `A?` tagged `a`, `B?` tagged `b`, and `A?` in the namespace `docs`.
async fn fill(client: &mut Client) {
    for (namespace, text, tag) in [("", "A?", "a"), ("", "B?", "b"), ("docs", "A?", "a")] {
        let cache = CacheControl { tags: vec![tag.to_owned()], ..CacheControl::default() };
        let prompt = Prompt { namespace: namespace.to_owned(), ..prompt(text) };
        client.complete(CompleteRequest { prompt: Some(prompt), cache: Some(cache) }).await.unwrap();
    }
}

async fn started(upstream: &FakeUpstream) -> (TestServer, Client) {
    TestServer::with_client(exact_config(&[upstream])).await
}

#[tokio::test]
async fn invalidate_removes_by_each_criterion_and_only_counts_in_a_dry_run() {
    let upstream = FakeUpstream::start().await;
    let (_server, mut client) = started(&upstream).await;
    fill(&mut client).await;
    let entry_id = lookup(&mut client, "A?").await.r#match.unwrap().entry_id;
    for (request, count, a_left, b_left) in [
        (InvalidateRequest { entry_id, ..NOTHING }, 1, false, true),
        (InvalidateRequest { namespace: "docs".to_owned(), ..NOTHING }, 1, true, true),
        (InvalidateRequest { namespace: "default".to_owned(), ..NOTHING }, 2, false, false),
        (InvalidateRequest { tag: "b".to_owned(), ..NOTHING }, 1, true, false),
        (InvalidateRequest { model: "model-cold".to_owned(), ..NOTHING }, 3, false, false),
        (InvalidateRequest { model: "auto".to_owned(), ..NOTHING }, 3, false, false),
        (InvalidateRequest { prompt: Some(prompt("B?")), ..NOTHING }, 1, true, false),
        (InvalidateRequest { tag: "a".to_owned(), namespace: "docs".to_owned(), ..NOTHING }, 1, true, true),
        (InvalidateRequest { tag: "b".to_owned(), namespace: "docs".to_owned(), ..NOTHING }, 0, true, true),
        (InvalidateRequest { tag: "b".to_owned(), prompt: Some(prompt("A?")), ..NOTHING }, 0, true, true),
    ] {
        fill(&mut client).await;
        assert_eq!(stats(&mut client).await.entries, 3);
        let dry_run = InvalidateRequest { dry_run: true, ..request.clone() };
        assert_eq!(invalidate(&mut client, dry_run).await, count, "{request:?}");
        assert!(is_cached(&mut client, "A?").await && is_cached(&mut client, "B?").await, "{request:?}");
        assert_eq!(invalidate(&mut client, request.clone()).await, count, "{request:?}");
        assert_eq!(is_cached(&mut client, "A?").await, a_left, "{request:?}");
        assert_eq!(is_cached(&mut client, "B?").await, b_left, "{request:?}");
        assert_eq!(stats(&mut client).await.entries, 3 - count);
    }
}

#[tokio::test]
async fn invalidate_names_the_field_of_a_bad_request() {
    let upstream = FakeUpstream::start().await;
    let (_server, mut client) = started(&upstream).await;
    let bad_prompt = Prompt { temperature: Some(-1.0), ..prompt("A?") };
    for (request, field) in [
        (NOTHING, "entry_id"),
        (InvalidateRequest { dry_run: true, ..NOTHING }, "entry_id"),
        (InvalidateRequest { entry_id: "abc".to_owned(), ..NOTHING }, "entry_id"),
        (InvalidateRequest { prompt: Some(Prompt::default()), ..NOTHING }, "prompt.messages"),
        (InvalidateRequest { prompt: Some(bad_prompt), ..NOTHING }, "prompt.temperature"),
    ] {
        let refused = client.invalidate(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(refused.get_details_bad_request().unwrap().field_violations[0].field, field);
    }
}

#[tokio::test]
async fn an_answer_invalidated_in_flight_is_not_stored() {
    let upstream = FakeUpstream::start().await;
    let (server, mut client) = started(&upstream).await;
    for request in [
        InvalidateRequest { namespace: "default".to_owned(), ..NOTHING },
        InvalidateRequest { prompt: Some(prompt("A?")), ..NOTHING },
        InvalidateRequest { model: "model-cold".to_owned(), ..NOTHING },
    ] {
        let gate = Gate::new();
        upstream.script([Reply::text("old news").hold_before(2, &gate)]);
        let mut caller = Events::open(&mut client, ask("A?")).await;
        caller.started().await;
        assert_eq!(invalidate(&mut client, request).await, 0);
        gate.open();
        assert_eq!(caller.rest().await.text, "old news", "its caller still gets it");
        assert!(!is_cached(&mut client, "A?").await);
    }
    assert_eq!((server.server.requests_in_flight(), stats(&mut client).await.entries), (0, 0));
}

/// The vectors of entries that the memory tier had evicted before their removal stayed in the index for good. Eight of
/// them were enough to hide every live neighbour from a search.
#[tokio::test]
async fn vectors_are_removed_with_their_entries_and_hide_no_live_one() {
    let upstream = FakeUpstream::start().await;
    let (_server, mut client) = TestServer::with_client(semantic_config(&[&upstream])).await;
    complete(&mut client, "How can I reset my password?").await;
    let old = CacheControl { tags: vec!["old".to_owned()], exact_only: true, ..CacheControl::default() };
    for n in 0..10 {
        // The embedding model ignores case, so all these vectors are equal.
        let word = ["HOW", "How", "hOW", "HoW", "hoW", "HOw", "how", "hOw", "hoW ", "HoW "][n];
        let text = format!("{word} do I reset my password?");
        client.complete(ask_with(&text, old.clone())).await.unwrap();
    }
    assert_eq!(stats(&mut client).await.index_vectors, 11);
    assert_eq!(invalidate(&mut client, InvalidateRequest { tag: "old".to_owned(), ..NOTHING }).await, 10);
    assert_eq!(stats(&mut client).await.index_vectors, 1);
    let found = lookup(&mut client, "How do I reset my PASSWORD?").await;
    assert_eq!((found.outcome(), found.reason.as_str()), (Outcome::Semantic, ""));
    assert_eq!(found.r#match.unwrap().matched_text, "How can I reset my password?");
}

fn on_disk(upstream: &FakeUpstream, folder: &tempfile::TempDir) -> Config {
    let mut config = exact_config(&[upstream]);
    config.store.kind = StoreKind::Embedded;
    config.store.path = folder.path().to_owned();
    config
}

#[tokio::test]
async fn removed_entries_stay_removed_after_a_restart() {
    let (upstream, folder) = (FakeUpstream::start().await, tempfile::tempdir().unwrap());
    let (server, mut client) = TestServer::with_client(on_disk(&upstream, &folder)).await;
    fill(&mut client).await;
    assert_eq!(invalidate(&mut client, InvalidateRequest { tag: "a".to_owned(), ..NOTHING }).await, 2);
    server.stop().await;
    let (_server, mut client) = TestServer::with_client(on_disk(&upstream, &folder)).await;
    assert!(!is_cached(&mut client, "A?").await);
    assert!(is_cached(&mut client, "B?").await);
    assert_eq!(stats(&mut client).await.entries, 1);
}

fn millis(n: i32) -> Option<Duration> {
    Some(Duration { seconds: 0, nanos: n * 1_000_000 })
}

#[tokio::test]
async fn hits_do_not_extend_the_ttl() {
    let upstream = FakeUpstream::start().await;
    let (_server, mut client) = started(&upstream).await;
    let short = CacheControl { ttl: millis(500), ..CacheControl::default() };
    client.complete(ask_with("A?", short)).await.unwrap();
    complete(&mut client, "B?").await;
    // Every lookup before the expiry is a hit: a sliding TTL would never end.
    until(async || !is_cached(&mut client.clone(), "A?").await).await;
    assert!(is_cached(&mut client, "B?").await);
    assert_eq!(complete(&mut client, "A?").await.outcome(), Outcome::Upstream);
    assert!(is_cached(&mut client, "A?").await);
}

#[tokio::test]
async fn a_caller_can_shorten_the_ttl_but_not_lengthen_it() {
    let upstream = FakeUpstream::start().await;
    let mut config = exact_config(&[&upstream]);
    config.cache.ttl = std::time::Duration::from_millis(500);
    let (_server, mut client) = TestServer::with_client(config).await;
    let long = CacheControl { ttl: Some(Duration { seconds: 3600, nanos: 0 }), ..CacheControl::default() };
    client.complete(ask_with("A?", long)).await.unwrap();
    until(async || !is_cached(&mut client.clone(), "A?").await).await;
}

#[tokio::test]
async fn an_entry_older_than_max_age_is_not_served() {
    let upstream = FakeUpstream::start().await;
    upstream.script([Reply::text("old"), Reply::text("new")]);
    let (_server, mut client) = started(&upstream).await;
    complete(&mut client, "A?").await;
    let fresh = CacheControl { max_age: millis(0), ..CacheControl::default() };
    let reply = client.complete(ask_with("A?", fresh)).await.unwrap().into_inner();
    assert_eq!((reply.outcome(), reply.completion.unwrap().content.as_str()), (Outcome::Upstream, "new"));
    assert_eq!(lookup(&mut client, "A?").await.completion.unwrap().content, "new");
}

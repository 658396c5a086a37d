//! A fault of the store costs time, never the answer; only calls that promise durability say that they
//! could not keep it.

use std::{sync::Arc, time::Duration};

use promptkeep::{
    config::Config,
    grpc::proto::{Completion, FeedbackRequest, InvalidateRequest, Outcome, StoreRequest, Verdict},
    store::{self, Op},
};
use tonic::Code;

use crate::{
    common::{
        events::Events,
        fake_upstream::{FakeUpstream, Reply},
        test_server::{
            Client, TestServer, ask, complete, exact_config, lookup, prompt, semantic_config, stats, text,
        },
    },
    fault_store::{Calls, Fault, FaultStore},
};

/// A server whose store does as the test says.
async fn on(config: Config) -> (Arc<FaultStore>, TestServer, Client) {
    let store = Arc::new(FaultStore::new(store::open(&config.store).unwrap()));
    let server = TestServer::with_store(config, store.clone()).await;
    let client = server.client().await;
    (store, server, client)
}

/// Waits at most this long for a store that does not answer.
fn impatient(mut config: Config) -> Config {
    config.store.timeout = Duration::from_millis(20);
    config
}

/// Nothing stays in memory, so that every read goes to the store.
fn forgetful(mut config: Config) -> Config {
    config.cache.max_memory = 1;
    config
}

fn keep(text: &str) -> StoreRequest {
    let completion =
        Completion { content: "Kept.".to_owned(), finish_reason: "stop".to_owned(), ..Completion::default() };
    StoreRequest { prompt: Some(prompt(text)), completion: Some(completion), cache: None }
}

fn all() -> InvalidateRequest {
    InvalidateRequest { namespace: "default".to_owned(), ..InvalidateRequest::default() }
}

async fn errors(server: &TestServer, op: Op) -> u64 {
    let (_, metrics) = server.get("/metrics").await;
    let name = format!("promptkeep_store_errors_total{{op=\"{}\"}} ", op.as_str());
    metrics.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |value| value.parse().unwrap())
}

const READS: [Fault; 3] = [Fault::Fail, Fault::FailAfter, Fault::Hang];

#[tokio::test]
async fn a_read_that_fails_or_hangs_is_a_miss() {
    for fault in READS {
        let upstream = FakeUpstream::start().await;
        let (store, server, mut client) = on(impatient(forgetful(exact_config(&[&upstream])))).await;
        store.plan(Op::Get, Calls::From(1), fault.clone());
        assert_eq!(lookup(&mut client, "A?").await.outcome(), Outcome::Miss, "{fault:?}");
        for _ in 0..2 {
            assert_eq!(complete(&mut client, "A?").await.outcome(), Outcome::Upstream, "{fault:?}");
            let said = Events::open(&mut client, ask("A?")).await.rest().await;
            assert_eq!((said.outcome(), said.text.as_str()), (Outcome::Upstream, "ok"), "{fault:?}");
        }
        assert_eq!(errors(&server, Op::Get).await, 5);
        assert_eq!(stats(&mut client).await.store_errors, 5);
        store.heal();
        assert_eq!(lookup(&mut client, "A?").await.outcome(), Outcome::Exact, "it was kept all the same");
    }
}

#[tokio::test]
async fn a_slow_read_is_waited_for() {
    let upstream = FakeUpstream::start().await;
    let (store, _server, mut client) = on(forgetful(exact_config(&[&upstream]))).await;
    complete(&mut client, "A?").await;
    store.plan(Op::Get, Calls::From(1), Fault::Delay(Duration::from_millis(30)));
    assert_eq!(complete(&mut client, "A?").await.outcome(), Outcome::Exact);
}

#[tokio::test]
async fn candidates_that_cannot_be_read_are_none_and_stay_in_the_index() {
    for fault in READS {
        let upstream = FakeUpstream::start().await;
        let (store, _server, mut client) = on(impatient(forgetful(semantic_config(&[&upstream])))).await;
        complete(&mut client, "How do I reset my password?").await;
        store.plan(Op::Get, Calls::From(1), fault.clone());
        let missed = lookup(&mut client, "How can I reset my password?").await;
        assert_eq!((missed.outcome(), missed.reason.as_str()), (Outcome::Miss, "no_candidate"), "{fault:?}");
        store.heal();
        assert_eq!(lookup(&mut client, "How can I reset my password?").await.outcome(), Outcome::Semantic);
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_kept_is_answered_and_served_from_memory() {
    for fault in [Fault::Fail, Fault::Hang] {
        let upstream = FakeUpstream::start().await;
        upstream.script([Reply::text("One two.")]);
        let (store, server, mut client) = on(impatient(exact_config(&[&upstream]))).await;
        store.plan(Op::Put, Calls::From(1), fault.clone());
        let said = Events::open(&mut client, ask("A?")).await.rest().await;
        assert_eq!((said.outcome(), said.text.as_str()), (Outcome::Upstream, "One two."), "{fault:?}");
        assert_eq!(errors(&server, Op::Put).await, 1);
        let again = complete(&mut client, "A?").await;
        assert_eq!((again.outcome(), text(again).as_str()), (Outcome::Exact, "One two."));
    }
}

#[tokio::test]
async fn store_says_when_it_could_not_keep() {
    for fault in [Fault::Fail, Fault::FailAfter] {
        let (store, server, mut client) = on(exact_config(&[])).await;
        store.plan(Op::Put, Calls::Nth(1), fault);
        let failed = client.store(keep("A?")).await.unwrap_err();
        assert_eq!((failed.code(), failed.message()), (Code::Unavailable, "the store is unavailable"));
        assert_eq!(errors(&server, Op::Put).await, 1);
        client.store(keep("A?")).await.expect("it is back");
        assert_eq!(lookup(&mut client, "A?").await.outcome(), Outcome::Exact);
    }
}

#[tokio::test]
async fn invalidate_says_when_it_is_not_durable_and_forgets_all_the_same() {
    let (store, server, mut client) = on(exact_config(&[])).await;
    client.store(keep("A?")).await.unwrap();
    store.plan(Op::Remove, Calls::From(1), Fault::Fail);
    store.plan(Op::Get, Calls::From(1), Fault::Fail);
    let failed = client.invalidate(all()).await.unwrap_err();
    assert_eq!((failed.code(), failed.message()), (Code::Unavailable, "the store is unavailable"));
    assert_eq!(errors(&server, Op::Remove).await, 1);
    assert_eq!(lookup(&mut client, "A?").await.outcome(), Outcome::Miss, "not from memory");
    store.heal();
    assert_eq!(client.invalidate(all()).await.unwrap().into_inner().entries, 1);
    assert_eq!(lookup(&mut client, "A?").await.outcome(), Outcome::Miss);
}

#[tokio::test]
async fn calls_that_promise_durability_wait_no_longer_than_their_deadline() {
    let (store, _server, mut client) = on(exact_config(&[])).await;
    store.plan(Op::Put, Calls::Nth(1), Fault::Hang);
    store.plan(Op::Remove, Calls::Nth(1), Fault::Hang);
    let soon = Duration::from_millis(200);
    let mut request = tonic::Request::new(keep("A?"));
    request.set_timeout(soon);
    client.store(request).await.unwrap_err();
    let mut request = tonic::Request::new(all());
    request.set_timeout(soon);
    client.invalidate(request).await.unwrap_err();
    // They were not dropped half-way: once the store goes on, so do they.
    store.release(2);
    client.invalidate(all()).await.unwrap();
    assert_eq!(lookup(&mut client, "A?").await.outcome(), Outcome::Miss);
}

#[tokio::test]
async fn feedback_on_an_entry_that_cannot_be_read_is_not_found() {
    let (store, _server, mut client) = on(impatient(exact_config(&[]))).await;
    let entry_id = client.store(keep("A?")).await.unwrap().into_inner().entry_id;
    let up = || FeedbackRequest {
        entry_id: entry_id.clone(),
        verdict: Verdict::Up.into(),
        ..FeedbackRequest::default()
    };
    for fault in [Fault::Fail, Fault::Hang] {
        store.plan(Op::Remove, Calls::From(1), fault);
        assert_eq!(client.feedback(up()).await.unwrap_err().code(), Code::NotFound);
    }
    store.heal();
    assert!(client.feedback(up()).await.unwrap().into_inner().recorded);
}

#[tokio::test]
async fn an_index_that_cannot_be_read_says_so_and_is_not_waited_for() {
    let upstream = FakeUpstream::start().await;
    let config = exact_config(&[&upstream]);
    let store = Arc::new(FaultStore::new(store::open(&config.store).unwrap()));
    store.plan(Op::Scan, Calls::From(1), Fault::Hang);
    let server = TestServer::with_store(config, store.clone()).await;
    let mut client = server.client().await;
    assert_eq!(server.get("/readyz").await.0, 503);
    assert_eq!(complete(&mut client, "A?").await.outcome(), Outcome::Upstream);
    assert_eq!(complete(&mut client, "A?").await.outcome(), Outcome::Exact);
    store.release(1);
    crate::common::test_server::until(async || server.get("/readyz").await.0 == 200).await;
}

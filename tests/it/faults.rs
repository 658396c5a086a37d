//! Store faults cost time, never the answer. Only calls that guarantee durability report them.

use std::{sync::Arc, time::Duration};

use promptkeep::{
    config::Config,
    grpc::proto::{FeedbackRequest, InvalidateRequest, Outcome, Verdict},
    store::{self, Op},
};
use tonic::Code;

use crate::{
    common::{
        events::Events,
        fake_upstream::{FakeUpstream, Reply},
        test_server::{
            Client, TestServer, ask, complete, exact_config, lookup, semantic_config, stats, store_request,
            text, until,
        },
    },
    fault_store::{Calls, Fault, FaultStore},
};

/// Starts a server on a store with planned faults.
async fn with_fault_store(config: Config) -> (Arc<FaultStore>, TestServer, Client) {
    let store = Arc::new(FaultStore::new(store::open("local", &config.store).unwrap()));
    let server = TestServer::with_store(config, store.clone()).await;
    let client = server.client().await;
    (store, server, client)
}

/// Gives up soon on a store that does not answer.
fn with_short_timeout(mut config: Config) -> Config {
    config.store.timeout = Duration::from_millis(20);
    config
}

/// Keeps no entries in memory, so that every read goes to the store.
fn without_memory(mut config: Config) -> Config {
    config.cache.max_memory = 1;
    config
}

/// Removes every entry of the tests.
fn all() -> InvalidateRequest {
    InvalidateRequest { namespace: "default".to_owned(), ..InvalidateRequest::default() }
}

async fn errors(server: &TestServer, op: Op) -> u64 {
    let label = format!("op=\"{}\"", op.as_str());
    server.metric("promptkeep_store_errors_total", &[&label]).await as u64
}

/// Faults of a read.
const READS: [Fault; 3] = [Fault::Fail, Fault::FailAfter, Fault::Hang];

#[tokio::test]
async fn a_read_that_fails_or_hangs_is_a_miss() {
    for fault in READS {
        let upstream = FakeUpstream::start().await;
        let (store, server, mut client) =
            with_fault_store(with_short_timeout(without_memory(exact_config(&[&upstream])))).await;
        store.plan(Op::Get, Calls::From(1), fault.clone());
        assert_eq!(lookup(&mut client, "A?").await.outcome(), Outcome::Miss, "{fault:?}");
        for _ in 0..2 {
            assert_eq!(complete(&mut client, "A?").await.outcome(), Outcome::Upstream, "{fault:?}");
            let streamed = Events::open(&mut client, ask("A?")).await.rest().await;
            assert_eq!((streamed.outcome(), streamed.text.as_str()), (Outcome::Upstream, "ok"), "{fault:?}");
        }
        assert_eq!(errors(&server, Op::Get).await, 5);
        assert_eq!(stats(&mut client).await.store_errors, 5);
        store.heal();
        assert_eq!(lookup(&mut client, "A?").await.outcome(), Outcome::Exact, "the answer was stored anyway");
    }
}

#[tokio::test]
async fn a_slow_read_is_still_a_hit() {
    let upstream = FakeUpstream::start().await;
    let (store, _server, mut client) = with_fault_store(without_memory(exact_config(&[&upstream]))).await;
    complete(&mut client, "A?").await;
    store.plan(Op::Get, Calls::From(1), Fault::Delay(Duration::from_millis(30)));
    assert_eq!(complete(&mut client, "A?").await.outcome(), Outcome::Exact);
}

#[tokio::test]
async fn unreadable_candidates_are_skipped_and_stay_in_the_index() {
    for fault in READS {
        let upstream = FakeUpstream::start().await;
        let (store, _server, mut client) =
            with_fault_store(with_short_timeout(without_memory(semantic_config(&[&upstream])))).await;
        complete(&mut client, "How do I reset my password?").await;
        store.plan(Op::Get, Calls::From(1), fault.clone());
        let missed = lookup(&mut client, "How can I reset my password?").await;
        assert_eq!((missed.outcome(), missed.reason.as_str()), (Outcome::Miss, "no_candidate"), "{fault:?}");
        store.heal();
        assert_eq!(lookup(&mut client, "How can I reset my password?").await.outcome(), Outcome::Semantic);
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_stored_is_returned_and_served_from_memory() {
    for fault in [Fault::Fail, Fault::Hang] {
        let upstream = FakeUpstream::start().await;
        upstream.script([Reply::text("One two.")]);
        let (store, server, mut client) =
            with_fault_store(with_short_timeout(exact_config(&[&upstream]))).await;
        store.plan(Op::Put, Calls::From(1), fault.clone());
        let streamed = Events::open(&mut client, ask("A?")).await.rest().await;
        assert_eq!(
            (streamed.outcome(), streamed.text.as_str()),
            (Outcome::Upstream, "One two."),
            "{fault:?}"
        );
        assert_eq!(errors(&server, Op::Put).await, 1);
        let again = complete(&mut client, "A?").await;
        assert_eq!((again.outcome(), text(again).as_str()), (Outcome::Exact, "One two."));
    }
}

#[tokio::test]
async fn store_reports_a_failed_write() {
    for fault in [Fault::Fail, Fault::FailAfter] {
        let (store, server, mut client) = with_fault_store(exact_config(&[])).await;
        store.plan(Op::Put, Calls::Nth(1), fault);
        let failed = client.store(store_request("A?", "Stored.")).await.unwrap_err();
        assert_eq!((failed.code(), failed.message()), (Code::Unavailable, "the store is unavailable"));
        assert_eq!(errors(&server, Op::Put).await, 1);
        client.store(store_request("A?", "Stored.")).await.expect("the store has recovered");
        assert_eq!(lookup(&mut client, "A?").await.outcome(), Outcome::Exact);
    }
}

#[tokio::test]
async fn invalidate_reports_a_failed_removal_but_clears_memory() {
    let (store, server, mut client) = with_fault_store(exact_config(&[])).await;
    client.store(store_request("A?", "Stored.")).await.unwrap();
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
async fn durable_calls_wait_no_longer_than_their_deadline() {
    let (store, _server, mut client) = with_fault_store(exact_config(&[])).await;
    store.plan(Op::Put, Calls::Nth(1), Fault::Hang);
    store.plan(Op::Remove, Calls::Nth(1), Fault::Hang);
    let soon = Duration::from_millis(200);
    let mut request = tonic::Request::new(store_request("A?", "Stored."));
    request.set_timeout(soon);
    client.store(request).await.unwrap_err();
    let mut request = tonic::Request::new(all());
    request.set_timeout(soon);
    client.invalidate(request).await.unwrap_err();
    // The calls were not dropped half-way: they finish once the store continues.
    store.release(2);
    client.invalidate(all()).await.unwrap();
    assert_eq!(lookup(&mut client, "A?").await.outcome(), Outcome::Miss);
}

#[tokio::test]
async fn feedback_on_an_entry_that_cannot_be_read_is_not_found() {
    let (store, _server, mut client) = with_fault_store(with_short_timeout(exact_config(&[]))).await;
    let entry_id = client.store(store_request("A?", "Stored.")).await.unwrap().into_inner().entry_id;
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
async fn a_server_whose_index_cannot_load_is_not_ready_but_answers() {
    let upstream = FakeUpstream::start().await;
    let config = exact_config(&[&upstream]);
    let store = Arc::new(FaultStore::new(store::open("local", &config.store).unwrap()));
    store.plan(Op::Scan, Calls::From(1), Fault::Hang);
    let server = TestServer::with_store(config, store.clone()).await;
    let mut client = server.client().await;
    assert_eq!(server.get("/readyz").await.0, 503);
    assert_eq!(complete(&mut client, "A?").await.outcome(), Outcome::Upstream);
    assert_eq!(complete(&mut client, "A?").await.outcome(), Outcome::Exact);
    store.heal();
    store.release(1);
    until(async || server.get("/readyz").await.0 == 200).await;
}

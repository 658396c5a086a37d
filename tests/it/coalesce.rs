//! Coalescing: identical concurrent misses make one model call, and every caller gets the whole answer even if others
//! disconnect or fail.

use std::time::Duration;

use promptkeep::{
    config::Config,
    grpc::proto::{CacheControl, CompleteRequest, Outcome},
};
use tokio::task::JoinSet;
use tonic::{Code, Request};

use crate::common::{
    events::Events,
    fake_upstream::{FakeUpstream, Gate, Reply},
    test_server::{
        Client, TestServer, ask, ask_with, complete, exact_config, lookup, spawn_complete, stats, text, until,
    },
};

/// Answer of most tests. It is streamed as an empty piece and one piece for each word.
const ANSWER: &str = "One two three.";

async fn server(config: impl FnOnce(&mut Config), upstream: &FakeUpstream) -> (TestServer, Client) {
    let mut all = exact_config(&[upstream]);
    config(&mut all);
    TestServer::with_client(all).await
}

/// Request with a deadline long enough for a busy machine to serve it and short enough to wait for.
fn short_deadline(text: &str) -> Request<CompleteRequest> {
    let mut request = Request::new(ask(text));
    request.set_timeout(Duration::from_millis(700));
    request
}

#[tokio::test]
async fn forty_identical_misses_make_one_call() {
    let (upstream, gate) = (FakeUpstream::start().await, Gate::new());
    upstream.script([Reply::text(ANSWER).hold(&gate)]);
    let (server, mut client) = server(|_| (), &upstream).await;
    let mut answers = JoinSet::new();
    for _ in 0..20 {
        let mut unary = client.clone();
        answers.spawn(async move {
            let reply = complete(&mut unary, "Count.").await;
            (reply.outcome(), reply.saved_usd > 0.0, text(reply))
        });
        let mut streaming = client.clone();
        answers.spawn(async move {
            let streamed = Events::open(&mut streaming, ask("Count.")).await.rest().await;
            (streamed.outcome(), streamed.finished.unwrap().saved_usd > 0.0, streamed.text)
        });
    }
    server.wait_for_requests(40).await;
    gate.open();
    let answers = answers.join_all().await;
    let count =
        |outcome, saved| answers.iter().filter(|got| **got == (outcome, saved, ANSWER.to_owned())).count();
    assert_eq!((count(Outcome::Upstream, false), count(Outcome::Coalesced, true)), (1, 39), "{answers:?}");
    assert_eq!(upstream.calls(), 1);
    assert_eq!(stats(&mut client).await.requests["coalesced"], 39);
    server.wait_for_requests(0).await;
}

#[tokio::test]
async fn a_late_follower_gets_the_streamed_text_and_then_live_pieces() {
    let (upstream, gate) = (FakeUpstream::start().await, Gate::new());
    upstream.script([Reply::text(ANSWER).hold_before(3, &gate)]);
    let (server, mut client) = server(|_| (), &upstream).await;
    let mut first = Events::open(&mut client, ask("Count.")).await;
    assert_eq!(first.started().await.outcome(), Outcome::Upstream);
    assert_eq!([first.delta().await, first.delta().await], ["One ", "two "]);
    let mut late = Events::open(&mut client, ask("Count.")).await;
    assert_eq!(late.started().await.outcome(), Outcome::Coalesced);
    assert_eq!([late.delta().await, late.delta().await], ["One ", "two "], "before the model continues");
    let unary = spawn_complete(&client, ask("Count."));
    server.wait_for_requests(3).await;
    gate.open();
    assert_eq!(first.rest().await.text, "three.");
    let late = late.rest().await;
    assert_eq!((late.text.as_str(), late.outcome()), ("three.", Outcome::Coalesced));
    let unary = unary.await.unwrap().unwrap();
    assert_eq!((unary.outcome(), text(unary).as_str()), (Outcome::Coalesced, ANSWER));
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn a_caller_that_disconnects_does_not_end_the_answer_for_others() {
    let (upstream, gate) = (FakeUpstream::start().await, Gate::new());
    upstream.script([Reply::text(ANSWER).hold_before(2, &gate)]);
    let (server, mut client) = server(|_| (), &upstream).await;
    let mut leader = Events::open(&mut client, ask("Count.")).await;
    leader.started().await;
    assert_eq!(leader.delta().await, "One ");
    let follower = Events::open(&mut client, ask("Count.")).await;
    drop(leader);
    server.wait_for_errors(1).await;
    gate.open();
    let streamed = follower.rest().await;
    assert_eq!((streamed.text.as_str(), streamed.outcome()), (ANSWER, Outcome::Coalesced));
    assert_eq!(lookup(&mut client, "Count.").await.outcome(), Outcome::Exact);
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn the_model_call_is_cancelled_when_all_callers_disconnect() {
    let upstream = FakeUpstream::start().await;
    upstream.script([Reply::text(ANSWER).stall_after(2), Reply::text("again")]);
    let (server, mut client) = server(|_| (), &upstream).await;
    let mut leader = Events::open(&mut client, ask("Count.")).await;
    leader.started().await;
    let unary = spawn_complete(&client, ask("Count."));
    server.wait_for_requests(2).await;
    drop(leader);
    server.wait_for_errors(1).await;
    unary.abort();
    upstream.wait_for_disconnects(1).await;
    assert_eq!(lookup(&mut client, "Count.").await.outcome(), Outcome::Miss);
    let again = complete(&mut client, "Count.").await;
    assert_eq!((again.outcome(), text(again).as_str()), (Outcome::Upstream, "again"));
    server.wait_for_requests(0).await;
}

#[tokio::test]
async fn an_abandoned_answer_can_be_finished_for_the_cache() {
    let (upstream, gate) = (FakeUpstream::start().await, Gate::new());
    upstream.script([Reply::text(ANSWER).hold_before(2, &gate)]);
    let (server, mut client) = server(|config| config.upstream.finish_abandoned = true, &upstream).await;
    let mut leader = Events::open(&mut client, ask("Count.")).await;
    leader.started().await;
    drop(leader);
    server.wait_for_errors(1).await;
    gate.open();
    until(async || lookup(&mut client.clone(), "Count.").await.outcome() == Outcome::Exact).await;
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn a_follower_takes_the_lead_when_the_leader_fails() {
    let (upstream, gate) = (FakeUpstream::start().await, Gate::new());
    upstream.script([Reply::status(500).hold(&gate), Reply::text(ANSWER)]);
    let (server, mut client) = server(|_| (), &upstream).await;
    let leader = spawn_complete(&client, ask("Count."));
    upstream.wait_for_calls(1).await;
    let followers = [spawn_complete(&client, ask("Count.")), spawn_complete(&client, ask("Count."))];
    let streaming = Events::open(&mut client, ask("Count.")).await;
    server.wait_for_requests(4).await;
    gate.open();
    assert_eq!(leader.await.unwrap().unwrap_err().code(), Code::Unavailable);
    let streamed = streaming.rest().await;
    let mut outcomes = vec![streamed.outcome()];
    assert_eq!(streamed.text, ANSWER);
    for follower in followers {
        let reply = follower.await.unwrap().unwrap();
        outcomes.push(reply.outcome());
        assert_eq!(text(reply), ANSWER);
    }
    outcomes.sort();
    assert_eq!(outcomes, [Outcome::Coalesced, Outcome::Coalesced, Outcome::Upstream]);
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test]
async fn followers_do_not_retry_a_failing_provider_one_by_one() {
    let (upstream, gate) = (FakeUpstream::start().await, Gate::new());
    upstream.script([Reply::status(500).hold(&gate)]).always(Reply::status(500));
    let (server, client) = server(|_| (), &upstream).await;
    let callers: Vec<_> = (0..10).map(|_| spawn_complete(&client, ask("Count."))).collect();
    server.wait_for_requests(10).await;
    gate.open();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap_err().code(), Code::Unavailable);
    }
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test]
async fn a_leaders_shorter_deadline_does_not_bind_its_followers() {
    let upstream = FakeUpstream::start().await;
    upstream.script([Reply::stall(), Reply::text(ANSWER)]);
    let (server, mut client) = server(|_| (), &upstream).await;
    let leader = spawn_complete(&client, short_deadline("Count."));
    upstream.wait_for_calls(1).await;
    let follower = spawn_complete(&client, ask("Count."));
    let streaming = Events::open(&mut client, ask("Count.")).await;
    server.wait_for_requests(3).await;
    leader.await.unwrap().unwrap_err();
    assert_eq!(text(follower.await.unwrap().unwrap()), ANSWER);
    assert_eq!(streaming.rest().await.text, ANSWER);
}

/// The leader's deadline ended an answer for all callers even after it had begun, so a follower with a far deadline
/// saw its stream break off in the middle.
#[tokio::test]
async fn a_leaders_shorter_deadline_does_not_end_a_stream_that_has_begun() {
    let (upstream, gate) = (FakeUpstream::start().await, Gate::new());
    upstream.script([Reply::text(ANSWER).hold_before(2, &gate)]);
    let (_server, mut client) = server(|_| (), &upstream).await;
    let leader = spawn_complete(&client, short_deadline("Count."));
    upstream.wait_for_calls(1).await;
    let mut follower = Events::open(&mut client, ask("Count.")).await;
    follower.started().await;
    assert_eq!(follower.delta().await, "One ");
    leader.await.unwrap().unwrap_err();
    gate.open();
    let streamed = follower.rest().await;
    assert_eq!(
        (streamed.text.as_str(), streamed.outcome()),
        ("two three.", Outcome::Coalesced),
        "{:?}",
        streamed.error
    );
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn callers_with_different_cache_directives_do_not_join() {
    let (upstream, gate) = (FakeUpstream::start().await, Gate::new());
    upstream.always(Reply::text(ANSWER).hold(&gate));
    let (_server, client) = server(|_| (), &upstream).await;
    let different = [
        CacheControl::default(),
        CacheControl { no_store: true, ..CacheControl::default() },
        CacheControl { tags: vec!["a".to_owned()], ..CacheControl::default() },
        CacheControl { no_cache: true, ..CacheControl::default() },
        CacheControl { no_cache: true, ..CacheControl::default() },
    ];
    let callers: Vec<_> =
        different.into_iter().map(|cache| spawn_complete(&client, ask_with("Count.", cache))).collect();
    upstream.wait_for_calls(5).await;
    gate.open();
    for caller in callers {
        assert_eq!(text(caller.await.unwrap().unwrap()), ANSWER);
    }
}

#[tokio::test]
async fn an_interrupted_answer_ends_streams_and_is_retried_for_unary_callers() {
    let (upstream, gate) = (FakeUpstream::start().await, Gate::new());
    upstream.script([Reply::text(ANSWER).hold_before(2, &gate).close_after(3), Reply::text("Another.")]);
    let (server, mut client) = server(|_| (), &upstream).await;
    let mut stream = Events::open(&mut client, ask("Count.")).await;
    stream.started().await;
    assert_eq!(stream.delta().await, "One ");
    let unary = spawn_complete(&client, ask("Count."));
    server.wait_for_requests(2).await;
    gate.open();
    let streamed = stream.rest().await;
    let error = streamed.error.unwrap();
    assert_eq!((error.code(), error.message()), (Code::Unavailable, "the answer broke off"));
    assert!(!streamed.text.contains("Another"), "never text of two answers: {}", streamed.text);
    assert_eq!(text(unary.await.unwrap().unwrap()), "Another.");
    assert_eq!(lookup(&mut client, "Count.").await.completion.unwrap().content, "Another.");
}

#[tokio::test]
async fn an_incomplete_answer_is_not_stored() {
    let upstream = FakeUpstream::start().await;
    let (_server, mut client) = server(|_| (), &upstream).await;
    let whole = || Reply::text(ANSWER);
    for broken in [
        whole().close_after(3),
        whole().reset_after(3),
        whole().without("[DONE]").without("finish_reason\":\"stop"),
        whole().replace("\"stop\"", "\"length\""),
        whole().replace("\"stop\"", "\"content_filter\""),
    ] {
        upstream.script([broken]);
        Events::open(&mut client, ask("Count.")).await.rest().await;
        assert_eq!(lookup(&mut client, "Count.").await.outcome(), Outcome::Miss);
    }
    assert_eq!(stats(&mut client).await.entries, 0);
}

//! Main path of a request over gRPC: exact hit, semantic hit, upstream call, stream.

use promptkeep::grpc::proto::{Attempt, CacheControl, CompleteRequest, Outcome, complete_chunk::Event};
use prost::Message as _;
use tokio_stream::StreamExt as _;
use tonic::Code;

use crate::common::{
    fake_upstream::{FakeUpstream, Reply},
    test_server::{Client, TestServer, ask, complete, exact_config, prompt, semantic_config},
};

#[tokio::test]
async fn a_repeat_is_answered_from_the_cache_and_saves_the_cost() {
    let upstream = FakeUpstream::start().await;
    upstream.script([Reply::text("Open Settings.")]);
    let (_server, mut client) = TestServer::with_client(exact_config(&[&upstream])).await;
    let first = complete(&mut client, "How do I reset my password?").await;
    assert_eq!(first.outcome(), Outcome::Upstream);
    assert_eq!(first.attempts.len(), 1);
    let again = complete(&mut client, "How do I reset my password?").await;
    assert_eq!(again.outcome(), Outcome::Exact);
    assert_eq!(again.completion.as_ref().unwrap().content, "Open Settings.");
    assert_eq!(again.saved_usd, first.completion.unwrap().usage.unwrap().cost_usd);
    assert!(again.saved_usd > 0.0);
    assert!(again.attempts.is_empty());
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn a_paraphrase_is_a_semantic_hit_and_a_near_miss_is_not() {
    let upstream = FakeUpstream::start().await;
    upstream.script([Reply::text("Open Settings."), Reply::text("Do not.")]);
    let (_server, mut client) = TestServer::with_client(semantic_config(&[&upstream])).await;
    complete(&mut client, "How do I reset my password?").await;
    let paraphrase = complete(&mut client, "How can I reset my password?").await;
    assert_eq!(paraphrase.outcome(), Outcome::Semantic, "{}", paraphrase.reason);
    assert_eq!(paraphrase.completion.unwrap().content, "Open Settings.");
    let matched = paraphrase.r#match.unwrap();
    assert_eq!(matched.matched_text, "How do I reset my password?");
    assert!(matched.similarity > 0.9);
    let other = complete(&mut client, "How do I delete my account?").await;
    assert_eq!((other.outcome(), other.reason.as_str()), (Outcome::Upstream, "below_threshold"));
}

/// Returns all events of a stream.
async fn stream(client: &mut Client, request: CompleteRequest) -> Vec<Event> {
    let stream = client.complete_stream(request).await.unwrap().into_inner();
    stream.map(|chunk| chunk.unwrap().event.unwrap()).collect().await
}

fn text_of(events: &[Event]) -> String {
    let delta = |event: &Event| match event {
        Event::Delta(text) => Some(text.clone()),
        _ => None,
    };
    events.iter().filter_map(delta).collect()
}

#[tokio::test]
async fn a_stream_is_forwarded_stored_and_replayed() {
    let upstream = FakeUpstream::start().await;
    upstream.script([Reply::text("One two three.")]);
    let (_server, mut client) = TestServer::with_client(exact_config(&[&upstream])).await;
    for outcome in [Outcome::Upstream, Outcome::Exact] {
        let events = stream(&mut client, ask("Count.")).await;
        let Some(Event::Started(started)) = events.first() else { panic!("{events:?}") };
        assert_eq!(started.outcome(), outcome);
        let Some(Event::Finished(finished)) = events.last() else { panic!("{events:?}") };
        assert_eq!(finished.outcome(), outcome);
        assert_eq!((finished.finish_reason.as_str(), finished.model.as_str()), ("stop", "model-cold"));
        assert_eq!(text_of(&events), "One two three.");
    }
    assert_eq!(complete(&mut client, "Count.").await.completion.unwrap().content, "One two three.");
    assert_eq!(upstream.calls(), 1);
}

#[tokio::test]
async fn no_cache_calls_a_model_and_refreshes_the_entry() {
    let upstream = FakeUpstream::start().await;
    upstream.script([Reply::text("old"), Reply::text("new")]);
    let (_server, mut client) = TestServer::with_client(exact_config(&[&upstream])).await;
    complete(&mut client, "News?").await;
    let cache = CacheControl { no_cache: true, ..CacheControl::default() };
    let request = CompleteRequest { prompt: Some(prompt("News?")), cache: Some(cache) };
    let fresh = client.complete(request).await.unwrap().into_inner();
    assert_eq!((fresh.outcome(), fresh.completion.unwrap().content.as_str()), (Outcome::Bypass, "new"));
    assert_eq!(complete(&mut client, "News?").await.completion.unwrap().content, "new");
}

#[tokio::test]
async fn no_store_stores_nothing() {
    let upstream = FakeUpstream::start().await;
    let (_server, mut client) = TestServer::with_client(exact_config(&[&upstream])).await;
    let cache = CacheControl { no_store: true, ..CacheControl::default() };
    for _ in 0..2 {
        let request = CompleteRequest { prompt: Some(prompt("Secret?")), cache: Some(cache.clone()) };
        assert_eq!(client.complete(request).await.unwrap().into_inner().outcome(), Outcome::Upstream);
    }
    assert_eq!(upstream.calls(), 2);
}

#[tokio::test]
async fn when_every_model_fails_the_details_name_each_attempt() {
    let (cold, warm) = (FakeUpstream::start().await, FakeUpstream::start().await);
    cold.always(Reply::status(503));
    warm.always(Reply::reset());
    let server = TestServer::start(exact_config(&[&cold, &warm])).await;
    let refused = server.client().await.complete(ask("A?")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let status = tonic_types::pb::Status::decode(refused.details()).unwrap();
    let attempts: Vec<_> = status
        .details
        .iter()
        .filter(|detail| detail.type_url.ends_with("/promptkeep.v1.Attempt"))
        .map(|detail| Attempt::decode(detail.value.as_slice()).unwrap())
        .map(|attempt| (attempt.model, attempt.result))
        .collect();
    let named = [("model-cold", "http_503"), ("model-warm", "broken")];
    assert_eq!(attempts, named.map(|(model, result)| (model.to_owned(), result.to_owned())));
}

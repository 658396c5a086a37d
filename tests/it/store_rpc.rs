//! Cache-aside: `Lookup`, then `Store` what one bought oneself. And one entry serves every way of asking.

use promptkeep::{
    config::{Config, StoreKind},
    grpc::proto::{CacheControl, Completion, Outcome, StoreRequest, Usage},
};
use serde_json::{Value, json};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::common::{
    events::{Events, Said},
    fake_upstream::{FakeUpstream, Reply},
    process::{Process, promptkeep},
    test_server::{
        Client, TestServer, ask, complete, exact_config, lookup, prompt, semantic_config, stats, until,
    },
};

fn answer(content: &str) -> Completion {
    Completion {
        content: content.to_owned(),
        tool_calls_json: String::new(),
        finish_reason: "stop".to_owned(),
        model: "mine".to_owned(),
        tier: String::new(),
        usage: Some(Usage { prompt_tokens: 12, completion_tokens: 34, cost_usd: 0.056, estimated: false }),
    }
}

fn keep(text: &str, completion: Completion) -> StoreRequest {
    StoreRequest { prompt: Some(prompt(text)), completion: Some(completion), cache: None }
}

#[tokio::test]
async fn what_was_stored_is_found_exactly_and_by_its_meaning() {
    let server = TestServer::start(semantic_config(&[])).await;
    let mut client = server.client().await;
    assert_eq!(lookup(&mut client, "How do I reset my password?").await.outcome(), Outcome::Miss);
    let stored = client.store(keep("How do I reset my password?", answer("Open Settings."))).await.unwrap();
    let entry_id = stored.into_inner().entry_id;
    for (text, outcome) in
        [("How do I reset my password?", Outcome::Exact), ("How can I reset my password?", Outcome::Semantic)]
    {
        let found = lookup(&mut client, text).await;
        assert_eq!((found.outcome(), found.completion), (outcome, Some(answer("Open Settings."))));
        assert_eq!(found.r#match.unwrap().entry_id, entry_id);
        let completed = complete(&mut client, text).await;
        assert_eq!((completed.outcome(), completed.completion), (outcome, Some(answer("Open Settings."))));
    }
    let refused = client.complete(ask("Something else?")).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::FailedPrecondition, "no upstream model is configured")
    );
}

#[tokio::test]
async fn storing_again_replaces_and_is_no_answered_request() {
    let server = TestServer::start(exact_config(&[])).await;
    let mut client = server.client().await;
    let first = client.store(keep("A?", answer("old"))).await.unwrap().into_inner();
    let second = client.store(keep("A?", answer("new"))).await.unwrap().into_inner();
    assert_eq!(first.entry_id, second.entry_id);
    assert_eq!(lookup(&mut client, "A?").await.completion, Some(answer("new")));
    let seen = stats(&mut client).await;
    assert_eq!((seen.entries, seen.hit_ratio), (1, 1.0), "storing is no miss");
    assert_eq!((seen.requests["stored"], seen.requests["exact"], seen.requests["bypass"]), (2, 1, 0));
}

#[tokio::test]
async fn only_complete_answers_are_stored() {
    let server = TestServer::start(exact_config(&[])).await;
    let mut client = server.client().await;
    let with = |spoil: fn(&mut Completion)| {
        let mut completion = answer("Text.");
        spoil(&mut completion);
        completion
    };
    let cost = |usd| Some(Usage { cost_usd: usd, ..Usage::default() });
    for (completion, field) in [
        (with(|c| c.content.clear()), "completion"),
        (with(|c| c.finish_reason.clear()), "completion"),
        (with(|c| c.finish_reason = "length".to_owned()), "completion"),
        (with(|c| c.finish_reason = "content_filter".to_owned()), "completion"),
        (with(|c| c.finish_reason = "STOP".to_owned()), "completion"),
        (Completion { content: String::new(), tool_calls_json: "[]".to_owned(), ..answer("") }, "completion"),
        (with(|c| c.tool_calls_json = "[".to_owned()), "completion.tool_calls_json"),
        (with(|c| c.tool_calls_json = "{}".to_owned()), "completion.tool_calls_json"),
        (Completion { usage: cost(-1.0), ..answer("Text.") }, "completion.usage.cost_usd"),
        (Completion { usage: cost(f64::NAN), ..answer("Text.") }, "completion.usage.cost_usd"),
    ] {
        let refused = client.store(keep("A?", completion.clone())).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{completion:?}");
        assert_eq!(refused.get_details_bad_request().unwrap().field_violations[0].field, field);
    }
    let missing = StoreRequest { completion: None, ..keep("A?", answer("")) };
    assert_eq!(client.store(missing).await.unwrap_err().message(), "completion: is required");
    assert_eq!(stats(&mut client).await.entries, 0);
}

fn on_disk(folder: &tempfile::TempDir) -> Config {
    let mut config = exact_config(&[]);
    config.store.kind = StoreKind::Embedded;
    config.store.path = folder.path().to_owned();
    config
}

#[tokio::test]
async fn what_was_stored_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(on_disk(&folder)).await;
    server.client().await.store(keep("A?", answer("Kept."))).await.unwrap();
    server.stop().await;
    let server = TestServer::start(on_disk(&folder)).await;
    let found = lookup(&mut server.client().await, "A?").await;
    assert_eq!((found.outcome(), found.completion), (Outcome::Exact, Some(answer("Kept."))));
}

#[tokio::test]
async fn vectors_are_there_after_a_restart() {
    let (upstream, folder) = (FakeUpstream::start().await, tempfile::tempdir().unwrap());
    let start = async || {
        let mut config = semantic_config(&[&upstream]);
        (config.store.kind, config.store.path) = (StoreKind::Embedded, folder.path().to_owned());
        TestServer::start(config).await
    };
    let server = start().await;
    complete(&mut server.client().await, "How do I reset my password?").await;
    server.stop().await;
    let server = start().await;
    until(async || server.get("/readyz").await.0 == 200).await;
    let found = lookup(&mut server.client().await, "How can I reset my password?").await;
    assert_eq!(found.outcome(), Outcome::Semantic);
}

#[tokio::test]
async fn what_was_stored_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let serve = || {
        let mut command = promptkeep(&["serve"]);
        command.env("PROMPTKEEP_CACHE__MODE", "exact").env("PROMPTKEEP_STORE__PATH", folder.path());
        Process::serve(command)
    };
    let server = serve().await;
    let mut client = server.client().await;
    for n in 0..20 {
        client.store(keep(&format!("{n}?"), answer("Kept."))).await.unwrap();
    }
    server.kill();
    let server = serve().await;
    let mut client = server.client().await;
    for n in 0..20 {
        assert_eq!(lookup(&mut client, &format!("{n}?")).await.completion, Some(answer("Kept.")));
    }
}

/// Tool calls in pieces, as models stream them.
fn tool_call_pieces() -> [Value; 3] {
    [
        json!([{ "index": 0, "id": "call_1", "type": "function",
            "function": { "name": "weather", "arguments": "" } }]),
        json!([{ "index": 0, "function": { "arguments": "{\"city\":" } }]),
        json!([{ "index": 0, "function": { "arguments": "\"Oslo\"}" } },
            { "index": 1, "id": "call_2", "type": "function",
              "function": { "name": "time", "arguments": "{}" } }]),
    ]
}

fn tool_calls() -> Value {
    json!([
        { "id": "call_1", "type": "function",
          "function": { "name": "weather", "arguments": "{\"city\":\"Oslo\"}" } },
        { "id": "call_2", "type": "function", "function": { "name": "time", "arguments": "{}" } },
    ])
}

/// Puts the pieces together, as a client of the dialect does.
fn assemble(said: &Said) -> Value {
    let mut calls: Vec<Value> = Vec::new();
    for piece in &said.tool_calls {
        let pieces: Vec<Value> = serde_json::from_str(piece).unwrap();
        for mut piece in pieces {
            let index = piece.as_object_mut().unwrap().remove("index").unwrap().as_u64().unwrap() as usize;
            match calls.get_mut(index) {
                None => calls.push(piece),
                Some(call) => {
                    let more = piece["function"]["arguments"].as_str().unwrap();
                    let all = call["function"]["arguments"].as_str().unwrap().to_owned() + more;
                    call["function"]["arguments"] = all.into();
                }
            }
        }
    }
    calls.into()
}

fn parsed(completion: &Completion) -> Value {
    serde_json::from_str(&completion.tool_calls_json).unwrap()
}

/// Asks in every way and compares: `first` is the way of the first, which is bought.
async fn ask_every_way(client: &mut Client, first_is_stream: bool) {
    if first_is_stream {
        Events::open(client, ask("Weather?")).await.rest().await;
    } else {
        complete(client, "Weather?").await;
    }
    let unary = complete(client, "Weather?").await.completion.unwrap();
    assert_eq!(parsed(&unary), tool_calls());
    assert_eq!((unary.finish_reason.as_str(), unary.content.as_str()), ("tool_calls", ""));
    let usage = unary.usage.unwrap();
    assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.estimated), (10, 5, false));
    assert_eq!(lookup(client, "Weather?").await.completion, Some(unary.clone()));
    let streamed = Events::open(client, ask("Weather?")).await.rest().await;
    assert_eq!(assemble(&streamed), tool_calls());
    let finished = streamed.finished.unwrap();
    assert_eq!((finished.outcome(), finished.usage), (Outcome::Exact, unary.usage));
    assert_eq!((finished.finish_reason, finished.model), (unary.finish_reason, unary.model));
}

#[tokio::test]
async fn tool_calls_and_usage_are_the_same_in_every_way_of_asking() {
    for first_is_stream in [false, true] {
        let (upstream, folder) = (FakeUpstream::start().await, tempfile::tempdir().unwrap());
        upstream.script([Reply::tool_calls(tool_call_pieces())]);
        let mut config = exact_config(&[&upstream]);
        (config.store.kind, config.store.path) = (StoreKind::Embedded, folder.path().to_owned());
        let server = TestServer::start(config.clone()).await;
        ask_every_way(&mut server.client().await, first_is_stream).await;
        server.stop().await;
        let server = TestServer::start(config).await;
        ask_every_way(&mut server.client().await, first_is_stream).await;
        assert_eq!(upstream.calls(), 1);
    }
}

#[tokio::test]
async fn a_live_stream_of_tool_calls_is_the_kept_one() {
    let upstream = FakeUpstream::start().await;
    upstream.script([Reply::tool_calls(tool_call_pieces())]);
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let mut client = server.client().await;
    let live = Events::open(&mut client, ask("Weather?")).await.rest().await;
    assert_eq!((live.outcome(), assemble(&live)), (Outcome::Upstream, tool_calls()));
    let kept = lookup(&mut client, "Weather?").await.completion.unwrap();
    assert_eq!(parsed(&kept), tool_calls());
}

#[tokio::test]
async fn no_store_and_tags_hold_for_stored_answers_too() {
    let server = TestServer::start(exact_config(&[])).await;
    let mut client = server.client().await;
    let cache = CacheControl { tags: vec!["mine".to_owned()], ..CacheControl::default() };
    client.store(StoreRequest { cache: Some(cache), ..keep("A?", answer("Kept.")) }).await.unwrap();
    let removal = promptkeep::grpc::proto::InvalidateRequest { tag: "mine".to_owned(), ..Default::default() };
    assert_eq!(client.invalidate(removal).await.unwrap().into_inner().entries, 1);
    assert_eq!(lookup(&mut client, "A?").await.outcome(), Outcome::Miss);
}

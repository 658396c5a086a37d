//! Cache-aside over gRPC: `Lookup`, then `Store` the caller's completion. One entry serves every RPC.

use promptkeep::{
    config::{Config, StoreKind},
    grpc::proto::{CacheControl, Completion, Outcome, StoreRequest, Usage},
};
use serde_json::{Value, json};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::common::{
    events::{Events, StreamedReply},
    fake_upstream::{FakeUpstream, Reply},
    process::{Process, promptkeep},
    test_server::{
        Client, TestServer, ask, complete, exact_config, lookup, prompt, semantic_config, stats, until,
    },
};

fn answer(content: &str) -> Completion {
    Completion {
        content: content.to_owned(),
        finish_reason: "stop".to_owned(),
        model: "mine".to_owned(),
        usage: Some(Usage { prompt_tokens: 12, completion_tokens: 34, cost_usd: 0.056, ..Usage::default() }),
        ..Completion::default()
    }
}

fn store_request(text: &str, completion: Completion) -> StoreRequest {
    StoreRequest { prompt: Some(prompt(text)), completion: Some(completion), cache: None }
}

#[tokio::test]
async fn a_stored_completion_is_found_exactly_and_semantically() {
    let server = TestServer::start(semantic_config(&[])).await;
    let mut client = server.client().await;
    assert_eq!(lookup(&mut client, "How do I reset my password?").await.outcome(), Outcome::Miss);
    let stored =
        client.store(store_request("How do I reset my password?", answer("Open Settings."))).await.unwrap();
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
async fn storing_again_replaces_the_entry_and_counts_as_no_miss() {
    let server = TestServer::start(exact_config(&[])).await;
    let mut client = server.client().await;
    let first = client.store(store_request("A?", answer("old"))).await.unwrap().into_inner();
    let second = client.store(store_request("A?", answer("new"))).await.unwrap().into_inner();
    assert_eq!(first.entry_id, second.entry_id);
    assert_eq!(lookup(&mut client, "A?").await.completion, Some(answer("new")));
    let seen = stats(&mut client).await;
    assert_eq!((seen.entries, seen.hit_ratio), (1, 1.0), "storing is no miss");
    assert_eq!((seen.requests["stored"], seen.requests["exact"], seen.requests["bypass"]), (2, 1, 0));
}

#[tokio::test]
async fn only_complete_completions_are_stored() {
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
        let refused = client.store(store_request("A?", completion.clone())).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{completion:?}");
        assert_eq!(refused.get_details_bad_request().unwrap().field_violations[0].field, field);
    }
    let missing = StoreRequest { completion: None, ..store_request("A?", answer("")) };
    assert_eq!(client.store(missing).await.unwrap_err().message(), "completion: is required");
    assert_eq!(stats(&mut client).await.entries, 0);
}

/// A stored `cost_usd` of 1e300 made the savings 1e300 after one hit, for ever: counters cannot fall.
#[tokio::test]
async fn figures_that_no_model_call_can_have_are_refused() {
    let upstream = FakeUpstream::start().await;
    let (_server, mut client) = TestServer::with_client(exact_config(&[&upstream])).await;
    let usage = |prompt_tokens, completion_tokens, cost_usd| Usage {
        prompt_tokens,
        completion_tokens,
        cost_usd,
        ..Usage::default()
    };
    let cost = "completion.usage.cost_usd";
    for (model, usage, field) in [
        ("mine", usage(12, 34, 1e300), cost),
        ("mine", usage(12, 34, 10_001.0), cost),
        ("mine", usage(12, 34, -0.01), cost),
        ("mine", usage(12, 34, f64::INFINITY), cost),
        ("mine", usage(12, 34, f64::NAN), cost),
        // The catalog's only model asks 1 and 10 US dollars per million tokens of input and output.
        ("model-cold", usage(1_000_000, 100_000, 2.02), cost),
        ("model-cold", usage(0, 0, 0.02), cost),
        ("mine", usage(100_000_001, 0, 0.0), "completion.usage.prompt_tokens"),
        ("mine", usage(0, u64::MAX, 0.0), "completion.usage.completion_tokens"),
    ] {
        let completion = Completion { model: model.to_owned(), usage: Some(usage), ..answer("Text.") };
        let refused = client.store(store_request("A?", completion)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{usage:?}");
        assert_eq!(refused.get_details_bad_request().unwrap().field_violations[0].field, field, "{usage:?}");
    }
    assert_eq!(stats(&mut client).await.entries, 0);
    for (model, usage) in [
        ("mine", usage(100_000_000, 100_000_000, 10_000.0)),
        // A caller may round up to a cent.
        ("model-cold", usage(1_000_000, 100_000, 2.01)),
    ] {
        let completion = Completion { model: model.to_owned(), usage: Some(usage), ..answer("Text.") };
        client.store(store_request(model, completion.clone())).await.unwrap();
        assert_eq!(lookup(&mut client, model).await.completion, Some(completion));
    }
}

/// The model of a stored answer is whatever its caller wrote. When the catalog did not have it, a hit saved the cost that
/// the caller had stated.
#[tokio::test]
async fn savings_follow_the_prices_of_the_catalog_and_not_the_cost_that_a_caller_states() {
    let upstream = FakeUpstream::start().await;
    let (server, mut client) = TestServer::with_client(semantic_config(&[&upstream])).await;
    let usage = Usage { prompt_tokens: 1000, completion_tokens: 200, cost_usd: 5000.0, ..Usage::default() };
    let stored = Completion { usage: Some(usage), ..answer("Open Settings.") };
    client.store(store_request("How do I reset my password?", stored)).await.unwrap();
    let repeat = complete(&mut client, "How do I reset my password?").await;
    let paraphrase = complete(&mut client, "How can I reset my password?").await;
    assert_eq!((repeat.outcome(), paraphrase.outcome()), (Outcome::Exact, Outcome::Semantic));
    // 1000 tokens of input at 1 US dollar per million, and 200 of output at 10.
    for saved in [repeat.saved_usd, paraphrase.saved_usd] {
        assert!((saved - 0.003).abs() < 1e-9, "{saved}");
    }
    assert!((stats(&mut client).await.saved_usd - 0.006).abs() < 1e-9);
    assert!((server.metric("promptkeep_saved_usd_total", &[]).await - 0.006).abs() < 1e-9);
}

#[tokio::test]
async fn without_a_catalog_a_stored_answer_saves_nothing_that_could_be_priced() {
    let (server, mut client) = TestServer::with_client(exact_config(&[])).await;
    client.store(store_request("A?", answer("Text."))).await.unwrap();
    assert_eq!(complete(&mut client, "A?").await.saved_usd, 0.0);
    assert_eq!(lookup(&mut client, "A?").await.outcome(), Outcome::Exact);
    assert_eq!(server.metric("promptkeep_saved_usd_total", &[]).await, 0.0);
}

fn disk_config(folder: &tempfile::TempDir) -> Config {
    let mut config = exact_config(&[]);
    config.store.kind = StoreKind::Embedded;
    config.store.path = folder.path().to_owned();
    config
}

#[tokio::test]
async fn a_stored_completion_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(disk_config(&folder)).await;
    server.client().await.store(store_request("A?", answer("Stored."))).await.unwrap();
    server.stop().await;
    let server = TestServer::start(disk_config(&folder)).await;
    let found = lookup(&mut server.client().await, "A?").await;
    assert_eq!((found.outcome(), found.completion), (Outcome::Exact, Some(answer("Stored."))));
}

#[tokio::test]
async fn vectors_survive_a_restart() {
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
async fn stored_completions_survive_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let serve = || {
        let mut command = promptkeep(&["serve"]);
        command.env("PROMPTKEEP_CACHE__MODE", "exact").env("PROMPTKEEP_STORE__PATH", folder.path());
        Process::serve(command)
    };
    let server = serve().await;
    let mut client = server.client().await;
    for n in 0..20 {
        client.store(store_request(&format!("{n}?"), answer("Stored."))).await.unwrap();
    }
    server.kill();
    let server = serve().await;
    let mut client = server.client().await;
    for n in 0..20 {
        assert_eq!(lookup(&mut client, &format!("{n}?")).await.completion, Some(answer("Stored.")));
    }
}

/// Tool calls in the pieces in which a model streams them.
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

/// Joins the pieces as an OpenAI client does.
fn assemble(said: &StreamedReply) -> Value {
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

/// Sends one prompt through every RPC and compares the answers; only the first needs the model.
async fn compare_every_rpc(client: &mut Client, first_is_stream: bool) {
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
async fn tool_calls_and_usage_are_equal_in_every_rpc() {
    for first_is_stream in [false, true] {
        let (upstream, folder) = (FakeUpstream::start().await, tempfile::tempdir().unwrap());
        upstream.script([Reply::tool_calls(tool_call_pieces())]);
        let mut config = exact_config(&[&upstream]);
        (config.store.kind, config.store.path) = (StoreKind::Embedded, folder.path().to_owned());
        let server = TestServer::start(config.clone()).await;
        compare_every_rpc(&mut server.client().await, first_is_stream).await;
        server.stop().await;
        let server = TestServer::start(config).await;
        compare_every_rpc(&mut server.client().await, first_is_stream).await;
        assert_eq!(upstream.calls(), 1);
    }
}

#[tokio::test]
async fn a_live_stream_of_tool_calls_equals_the_stored_entry() {
    let upstream = FakeUpstream::start().await;
    upstream.script([Reply::tool_calls(tool_call_pieces())]);
    let server = TestServer::start(exact_config(&[&upstream])).await;
    let mut client = server.client().await;
    let live = Events::open(&mut client, ask("Weather?")).await.rest().await;
    assert_eq!((live.outcome(), assemble(&live)), (Outcome::Upstream, tool_calls()));
    let stored = lookup(&mut client, "Weather?").await.completion.unwrap();
    assert_eq!(parsed(&stored), tool_calls());
}

#[tokio::test]
async fn tags_of_a_stored_completion_invalidate_it() {
    let server = TestServer::start(exact_config(&[])).await;
    let mut client = server.client().await;
    let cache = CacheControl { tags: vec!["mine".to_owned()], ..CacheControl::default() };
    client
        .store(StoreRequest { cache: Some(cache), ..store_request("A?", answer("Stored.")) })
        .await
        .unwrap();
    let removal = promptkeep::grpc::proto::InvalidateRequest { tag: "mine".to_owned(), ..Default::default() };
    assert_eq!(client.invalidate(removal).await.unwrap().into_inner().entries, 1);
    assert_eq!(lookup(&mut client, "A?").await.outcome(), Outcome::Miss);
}

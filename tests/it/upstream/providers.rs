//! Providers that are called in their own way: Azure, further headers and queries, renewed keys, models without streams.

use std::fs;

use promptkeep::{
    config::ProviderKind,
    model::{AttemptResult, Tier},
};
use serde_json::json;

use super::{Fixture, SHORT_TIMEOUT, complete, prompt, results};
use crate::common::fake_upstream::{FakeUpstream, Gate, Reply};

#[tokio::test]
async fn azure_is_called_by_deployment_with_its_own_header() {
    let fake = FakeUpstream::start().await;
    let keys = tempfile::tempdir().unwrap();
    fs::write(keys.path().join("key"), "secret\n").unwrap();
    let mut fixture = Fixture::new(&[(Tier::Cold, &fake)]);
    let provider = &mut fixture.providers[0];
    provider.kind = ProviderKind::Azure;
    provider.base_url = fake.base_url().trim_end_matches("/v1").to_owned();
    provider.query.insert("api-version".to_owned(), "2025-01-01-preview".to_owned());
    provider.api_key_file = keys.path().join("key");
    fixture.models[0].served_as = Some("my gpt".to_owned());
    // Azure's first chunk has the filter's results and no choice.
    let filtered = json!({ "choices": [], "created": 0, "id": "", "model": "", "object": "",
        "prompt_filter_results": [{ "prompt_index": 0, "content_filter_results": {} }] });
    let content = json!({ "choices": [{ "content_filter_results": { "hate": { "filtered": false } },
        "delta": { "content": "Hello" }, "finish_reason": null, "index": 0, "logprobs": null }],
        "object": "chat.completion.chunk" });
    fake.script([Reply::events([filtered, content]).finish("stop").usage(10, 1).done()]);
    let completion = complete(&fixture.build(), &prompt("Hi")).await.unwrap().0;
    assert_eq!(completion.content, "Hello");
    assert_eq!(completion.extra.choice["content_filter_results"]["hate"]["filtered"], json!(false));
    let sent = &fake.requests()[0];
    assert_eq!(sent.path, "/openai/deployments/my%20gpt/chat/completions?api-version=2025-01-01-preview");
    assert_eq!((sent.header("api-key"), sent.header("authorization")), (Some("secret"), None));
}

#[tokio::test]
async fn headers_and_query_are_added_to_each_call() {
    let fake = FakeUpstream::start().await;
    let mut fixture = Fixture::new(&[(Tier::Cold, &fake)]);
    let provider = &mut fixture.providers[0];
    provider.headers.insert("X-Team".to_owned(), "search".to_owned());
    provider.query.insert("beta".to_owned(), "a&b".to_owned());
    complete(&fixture.build(), &prompt("Hi")).await.unwrap();
    let sent = &fake.requests()[0];
    assert_eq!(
        (sent.header("x-team"), sent.path.as_str()),
        (Some("search"), "/v1/chat/completions?beta=a%26b")
    );
}

/// A key that an agent renews every hour had to be brought in by a restart.
#[tokio::test]
async fn a_renewed_key_is_used_at_once() {
    let fake = FakeUpstream::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let mut fixture = Fixture::new(&[(Tier::Cold, &fake)]);
    fixture.providers[0].api_key_file = file.clone();
    fs::write(&file, "one").unwrap();
    let upstreams = fixture.build();
    complete(&upstreams, &prompt("Hi")).await.unwrap();
    fs::write(&file, "two\n").unwrap();
    complete(&upstreams, &prompt("Hi")).await.unwrap();
    // Between removal and the new file, the last key holds.
    fs::remove_file(&file).unwrap();
    complete(&upstreams, &prompt("Hi")).await.unwrap();
    let sent: Vec<_> =
        fake.requests().iter().map(|seen| seen.header("authorization").unwrap().to_owned()).collect();
    assert_eq!(sent, ["Bearer one", "Bearer two", "Bearer two"]);
}

#[tokio::test]
async fn a_model_without_streams_is_asked_for_the_whole_answer() {
    let fake = FakeUpstream::start().await;
    let gate = Gate::new();
    let message = json!({ "role": "assistant", "content": "whole", "reasoning_content": "hm" });
    fake.script([Reply::json(&json!({
        "object": "chat.completion",
        "choices": [{ "index": 0, "message": message, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5 },
    }))
    .hold(&gate)]);
    let mut fixture = Fixture::new(&[(Tier::Cold, &fake)]);
    fixture.models[0].stream = false;
    fixture.upstream.first_token_timeout = SHORT_TIMEOUT;
    let upstreams = fixture.build();
    let call = tokio::spawn(async move { complete(&upstreams, &prompt("Hi")).await });
    fake.wait_for_calls(1).await;
    // A silent model that streams, in the meantime, runs into the first-token timeout.
    let silent = FakeUpstream::start().await;
    silent.script([Reply::stall()]);
    let upstreams =
        Fixture { upstream: fixture.upstream.clone(), ..Fixture::new(&[(Tier::Cold, &silent)]) }.build();
    complete(&upstreams, &prompt("Hi")).await.unwrap_err();
    gate.open();
    let (completion, attempts) = call.await.unwrap().unwrap();
    assert_eq!((completion.content.as_str(), completion.reasoning.unwrap().text.as_str()), ("whole", "hm"));
    assert_eq!(results(&attempts), [AttemptResult::Ok]);
    let body = &fake.requests()[0].body;
    assert_eq!((&body["stream"], body.get("stream_options")), (&json!(false), None));
}

//! Provider replies and how they are read.

use promptkeep::{
    model::{AttemptResult, Tier, Usage},
    prompt::{Delta, FinishReason, Role},
};
use serde_json::json;

use super::{
    Fixture, SHORT_TIMEOUT, SeenAttempts, complete, message, open, open_seen, prompt, read, results,
};
use crate::common::fake_upstream::{FakeUpstream, Gate, Reply, delta};

#[tokio::test]
async fn an_answer_arrives_whole_with_usage_and_cost() {
    let fake = FakeUpstream::start().await;
    fake.script([Reply::text("Hello over there")]);
    let upstreams = Fixture::new(&[(Tier::Cold, &fake)]).build();
    let (completion, attempts, deltas) = read(open(&upstreams, &prompt("Hi")).await.unwrap()).await.unwrap();
    let words: Vec<Delta> = ["Hello ", "over ", "there"].map(|word| Delta::Text(word.to_owned())).into();
    assert_eq!(deltas, words);
    assert_eq!(completion.content, "Hello over there");
    assert_eq!(completion.finish_reason, FinishReason::Stop);
    assert_eq!((completion.model.as_str(), completion.tier.as_str()), ("model-cold", "cold"));
    let usage = Usage { prompt_tokens: 10, completion_tokens: 3, cost_usd: 16e-6, ..Usage::default() };
    assert_eq!(completion.usage, usage);
    assert_eq!(results(&attempts), [AttemptResult::Ok]);
    assert_eq!(attempts[0].usage, usage);
    assert!(attempts[0].first_token.is_some());
}

#[tokio::test]
async fn the_first_token_is_delivered_before_the_rest_is_written() {
    let fake = FakeUpstream::start().await;
    let gate = Gate::new();
    fake.script([Reply::text("one two").hold_before(2, &gate)]);
    let upstreams = Fixture::new(&[(Tier::Cold, &fake)]).build();
    let mut answer = open(&upstreams, &prompt("Hi")).await.unwrap();
    assert_eq!(answer.next().await.unwrap(), Some(Delta::Text("one ".to_owned())));
    gate.open();
    let (completion, ..) = read(answer).await.unwrap();
    assert_eq!(completion.content, "one two");
}

#[tokio::test]
async fn splitting_a_stream_at_any_byte_does_not_change_the_answer() {
    let fake = FakeUpstream::start().await;
    let reply = Reply::text("Zürich ist schön €");
    let upstreams = Fixture::new(&[(Tier::Cold, &fake)]).build();
    for byte in 0..=reply.body_len() {
        fake.script([reply.clone().split_at(byte)]);
        let (completion, _) = complete(&upstreams, &prompt("Hi")).await.unwrap();
        assert_eq!(completion.content, "Zürich ist schön €", "split at {byte}");
        assert_eq!(completion.usage.completion_tokens, 4, "split at {byte}");
    }
}

#[tokio::test]
async fn tool_calls_are_merged_by_index_and_delivered_as_they_arrive() {
    let fake = FakeUpstream::start().await;
    let call = |index: u64, id: &str, name: &str| json!([{ "index": index, "id": id, "type": "function", "function": { "name": name, "arguments": "" } }]);
    let arguments = |index: u64, text: &str| json!([{ "index": index, "function": { "arguments": text } }]);
    let pieces = [
        call(0, "a", "weather"),
        arguments(0, "{\"city\":"),
        call(1, "b", "time"),
        arguments(1, "{}"),
        arguments(0, "1}"),
    ];
    fake.script([Reply::tool_calls(pieces.clone())]);
    let upstreams = Fixture::new(&[(Tier::Cold, &fake)]).build();
    let (completion, _, deltas) = read(open(&upstreams, &prompt("Hi")).await.unwrap()).await.unwrap();
    assert_eq!(deltas, pieces.map(Delta::ToolCalls));
    assert_eq!(completion.finish_reason, FinishReason::ToolCalls);
    let expected = json!([
        { "id": "a", "type": "function", "function": { "name": "weather", "arguments": "{\"city\":1}" } },
        { "id": "b", "type": "function", "function": { "name": "time", "arguments": "{}" } },
    ]);
    assert_eq!(completion.tool_calls, Some(expected));
    assert!(completion.is_complete());
}

#[tokio::test]
async fn a_reply_that_is_not_a_stream_is_read() {
    let fake = FakeUpstream::start().await;
    fake.script([Reply::json(&json!({
        "object": "chat.completion",
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": "whole" }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4 },
    }))]);
    let upstreams = Fixture::new(&[(Tier::Cold, &fake)]).build();
    let (completion, _) = complete(&upstreams, &prompt("Hi")).await.unwrap();
    assert_eq!((completion.content.as_str(), completion.usage.prompt_tokens), ("whole", 3));
}

#[tokio::test]
async fn reasoning_tokens_end_the_wait_for_the_first_token() {
    let fake = FakeUpstream::start().await;
    let thought = delta(&json!({ "content": null, "reasoning_content": "hm" }));
    let gate = Gate::new();
    fake.script([Reply::events([thought, delta(&json!({ "content": "thought" }))])
        .finish("stop")
        .done()
        .hold_before(1, &gate)]);
    let mut fixture = Fixture::new(&[(Tier::Cold, &fake)]);
    fixture.upstream.first_token_timeout = SHORT_TIMEOUT;
    let upstreams = fixture.build();
    let call = tokio::spawn(async move { complete(&upstreams, &prompt("Hi")).await });
    fake.wait_for_calls(1).await;
    // A silent model, in the meantime, runs into the first-token timeout.
    let silent = FakeUpstream::start().await;
    silent.script([Reply::stall()]);
    fixture.providers[0].base_url = silent.base_url();
    open(&fixture.build(), &prompt("Hi")).await.unwrap_err();
    gate.open();
    assert_eq!(call.await.unwrap().unwrap().0.content, "thought");
}

#[tokio::test]
async fn a_finish_reason_without_done_ends_the_answer() {
    let fake = FakeUpstream::start().await;
    fake.script([Reply::text("all of it").without("[DONE]")]);
    let upstreams = Fixture::new(&[(Tier::Cold, &fake)]).build();
    let (completion, _) = complete(&upstreams, &prompt("Hi")).await.unwrap();
    assert_eq!(completion.content, "all of it");
    assert!(completion.is_complete());
}

#[tokio::test]
async fn done_without_a_finish_reason_ends_the_answer() {
    let fake = FakeUpstream::start().await;
    fake.script([Reply::text("all of it").without("\"stop\"")]);
    let upstreams = Fixture::new(&[(Tier::Cold, &fake)]).build();
    let (completion, _) = complete(&upstreams, &prompt("Hi")).await.unwrap();
    assert_eq!(completion.finish_reason, FinishReason::Stop);
}

#[tokio::test]
async fn a_connection_left_open_after_the_end_does_not_delay_the_answer() {
    let fake = FakeUpstream::start().await;
    fake.script([Reply::text("all of it").stall_after(5), Reply::events([]).finish("stop").stall_after(1)]);
    let upstreams = Fixture::new(&[(Tier::Cold, &fake)]).build();
    let (completion, _) = complete(&upstreams, &prompt("Hi")).await.unwrap();
    assert!(completion.is_complete() && completion.usage.estimated);
    let (completion, _) = complete(&upstreams, &prompt("Hi")).await.unwrap();
    assert_eq!((completion.content.as_str(), completion.finish_reason), ("", FinishReason::Stop));
}

#[tokio::test]
async fn truncated_and_filtered_answers_are_delivered_and_not_complete() {
    let fake = FakeUpstream::start().await;
    let upstreams = Fixture::new(&[(Tier::Cold, &fake)]).build();
    for (name, reason) in [("length", FinishReason::Length), ("content_filter", FinishReason::ContentFilter)]
    {
        fake.script([Reply::text("half an ans").replace("\"stop\"", &format!("\"{name}\""))]);
        let (completion, _) = complete(&upstreams, &prompt("Hi")).await.unwrap();
        assert_eq!(completion.finish_reason, reason);
        assert!(!completion.is_complete());
    }
}

#[tokio::test]
async fn an_empty_answer_is_delivered_and_not_complete() {
    let fake = FakeUpstream::start().await;
    fake.script([Reply::text("")]);
    let upstreams = Fixture::new(&[(Tier::Cold, &fake)]).build();
    let (completion, _) = complete(&upstreams, &prompt("Hi")).await.unwrap();
    assert_eq!((completion.content.as_str(), completion.is_complete()), ("", false));
}

#[tokio::test]
async fn tokens_are_estimated_and_marked_when_the_usage_is_missing() {
    let fake = FakeUpstream::start().await;
    fake.script([Reply::text("four bytes are a token").without("\"usage\"")]);
    let upstreams = Fixture::new(&[(Tier::Cold, &fake)]).build();
    let (completion, _) = complete(&upstreams, &prompt("Hi")).await.unwrap();
    assert!(completion.usage.estimated);
    assert!((4..9).contains(&completion.usage.completion_tokens));
    assert!(completion.usage.cost_usd > 0.0);
}

#[tokio::test]
async fn the_provider_receives_the_prompt_and_nothing_else() {
    let fake = FakeUpstream::start().await;
    let mut fixture = Fixture::new(&[(Tier::Cold, &fake)]);
    // Cargo sets this variable in every build, so the test need not change its environment.
    fixture.providers[0].api_key_env = "CARGO_PKG_NAME".to_owned();
    let mut prompt = prompt("What about Rome?");
    prompt.messages.insert(0, message(Role::System, "Be brief."));
    prompt.namespace = "secret-namespace".to_owned();
    prompt.temperature = Some(0.2);
    prompt.max_tokens = Some(50);
    prompt.stop = vec!["END".to_owned()];
    prompt.seed = Some(-3);
    prompt.vary.insert("secret-name".to_owned(), "secret-value".to_owned());
    complete(&fixture.build(), &prompt).await.unwrap();
    let request = &fake.requests()[0];
    assert_eq!(request.path, "/v1/chat/completions");
    assert_eq!(request.header("authorization"), Some("Bearer promptkeep"));
    let expected = json!({
        "model": "model-cold",
        "messages": [
            { "role": "system", "content": "Be brief." },
            { "role": "user", "content": "What about Rome?" },
        ],
        "temperature": 0.2_f32, "max_tokens": 50, "stop": ["END"], "seed": -3,
        "stream": true, "stream_options": { "include_usage": true },
    });
    assert_eq!(request.body.to_string(), expected.to_string().replace("0.20000000298023224", "0.2"));
}

#[tokio::test]
async fn connections_are_reused() {
    let fake = FakeUpstream::start().await;
    let upstreams = Fixture::new(&[(Tier::Cold, &fake)]).build();
    for _ in 0..20 {
        complete(&upstreams, &prompt("Hi")).await.unwrap();
    }
    // The next call may start while the end of the previous body is still being read.
    assert!(fake.connections() <= 2, "{}", fake.connections());
}

#[tokio::test]
async fn a_dropped_answer_cancels_the_call_and_is_reported() {
    let fake = FakeUpstream::start().await;
    fake.script([Reply::text("one two three").stall_after(2)]);
    let upstreams = Fixture::new(&[(Tier::Cold, &fake)]).build();
    let seen = SeenAttempts::default();
    drop(open_seen(&upstreams, &prompt("Hi"), &seen).await.unwrap());
    fake.wait_for_disconnects(1).await;
    assert_eq!(results(&seen.attempts()), [AttemptResult::Cancelled]);
    assert!(seen.attempts()[0].usage.cost_usd > 0.0, "the received tokens are charged");
}

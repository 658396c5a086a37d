//! Tests of the dialect: requests, replies, tool calls and junk.

use std::collections::BTreeMap;

use serde_json::{Map, json};

use super::*;
use crate::prompt::{Message, Prompt, Role};

fn message(role: Role, content: &str) -> Message {
    Message::new(role, content)
}

fn body_of(prompt: &Prompt) -> Value {
    serde_json::from_slice(&encode(prompt, "model-1", true)).expect("JSON")
}

fn full_prompt() -> Prompt {
    let call = json!([{ "id": "a", "type": "function", "function": { "name": "f", "arguments": "{}" } }]);
    Prompt {
        namespace: "never-sent".into(),
        model: "never-sent".into(),
        messages: vec![
            message(Role::System, "s"),
            message(Role::Developer, "d"),
            Message { name: Some("ann".into()), ..message(Role::User, "u") },
            Message { tool_calls: Some(call), ..message(Role::Assistant, "") },
            Message { tool_call_id: Some("a".into()), ..message(Role::Tool, "t") },
        ],
        temperature: Some(0.7),
        top_p: Some(0.5),
        max_tokens: Some(9),
        stop: vec!["x".into()],
        seed: Some(1),
        response_format: Some(json!({ "type": "json_object" })),
        tools: Some(json!([{ "type": "function", "function": { "name": "f" } }])),
        tool_choice: Some(json!("auto")),
        vary: BTreeMap::from([("never-sent".into(), "never-sent".into())]),
        extra: Map::from_iter([("reasoning_effort".into(), json!("low"))]),
        ignored: Map::from_iter([("user".into(), json!("ann"))]),
    }
}

#[test]
fn all_fields_except_namespace_and_vary_are_sent() {
    let body = body_of(&full_prompt());
    assert!(!body.to_string().contains("never-sent"));
    assert_eq!(
        body["messages"],
        json!([
            { "role": "system", "content": "s" },
            { "role": "developer", "content": "d" },
            { "role": "user", "content": "u", "name": "ann" },
            { "role": "assistant", "content": null, "tool_calls": [
                { "id": "a", "type": "function", "function": { "name": "f", "arguments": "{}" } }] },
            { "role": "tool", "content": "t", "tool_call_id": "a" },
        ])
    );
    assert_eq!(body["temperature"], json!(0.7));
    assert_eq!(body["tool_choice"], json!("auto"));
    assert_eq!((&body["reasoning_effort"], &body["user"]), (&json!("low"), &json!("ann")));
    assert_eq!(body["stream_options"], json!({ "include_usage": true }));
}

#[test]
fn unset_fields_are_not_sent() {
    let prompt = Prompt {
        temperature: None,
        top_p: None,
        max_tokens: None,
        stop: vec![],
        seed: None,
        response_format: None,
        tools: None,
        tool_choice: None,
        extra: Map::new(),
        ignored: Map::new(),
        ..full_prompt()
    };
    let body = body_of(&prompt);
    let mut fields: Vec<&str> = body.as_object().expect("object").keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["messages", "model", "stream", "stream_options"]);
}

fn chunk_of(value: &Value) -> Result<Chunk, Malformed> {
    decode_reply(value.to_string().as_bytes())
}

#[test]
fn a_chunk_may_be_empty() {
    for value in [
        json!({ "choices": [] }),
        json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": null }] }),
        json!({ "choices": [{ "delta": { "role": "assistant", "content": null } }] }),
        json!({ "object": "chat.completion.chunk" }),
        json!({ "choices": [{ "index": 1, "delta": { "content": "another choice" } }] }),
        json!({ "choices": null, "usage": null, "object": "chat.completion.chunk" }),
    ] {
        assert_eq!(chunk_of(&value), Ok(Chunk::default()), "{value}");
    }
}

#[test]
fn a_refusal_is_no_text() {
    let chunk = chunk_of(&json!({ "choices": [{ "delta": { "refusal": "I cannot." } }] })).expect("a chunk");
    assert_eq!((chunk.text, chunk.refusal.as_deref()), (None, Some("I cannot.")));
}

#[test]
fn reasoning_is_read_under_both_names_and_anything_but_text_is_ignored() {
    let part = |part: Value| chunk_of(&json!({ "choices": [{ "delta": part }] })).expect("a chunk");
    let thought = |field| Some(Reasoning { text: "hm".to_owned(), field });
    for (delta, expected) in [
        (json!({ "reasoning_content": "hm" }), thought(ReasoningField::ReasoningContent)),
        (json!({ "reasoning": "hm", "reasoning_content": null }), thought(ReasoningField::Reasoning)),
        (json!({ "reasoning": "hm", "reasoning_content": "hm" }), thought(ReasoningField::Both)),
        (json!({ "reasoning_content": "" }), None),
        (json!({ "reasoning_content": 7 }), None),
        (json!({ "reasoning": { "effort": "low" } }), None),
    ] {
        let chunk = part(delta.clone());
        assert_eq!((chunk.reasoning, chunk.is_thinking), (expected, true), "{delta}");
    }
    assert!(!part(json!({ "content": "x", "reasoning": null })).is_thinking);
}

#[test]
fn unknown_fields_of_message_and_choice_are_kept() {
    let chunk = chunk_of(&json!({
        "object": "chat.completion", "system_fingerprint": "fp_1", "service_tier": null, "x_other": 1,
        "choices": [{
            "index": 0, "finish_reason": "stop", "native_finish_reason": "end", "logprobs": null, "stop_reason": null,
            "message": { "role": "assistant", "content": "x", "annotations": [{ "type": "url_citation" }],
                "tool_calls": [], "images": [], "audio": { "id": "a" }, "function_call": null },
        }],
    }))
    .expect("a reply");
    let fields = |value: Value| value.as_object().expect("an object").clone();
    assert_eq!(
        chunk.fields,
        ReplyFields {
            message: fields(json!({ "annotations": [{ "type": "url_citation" }] })),
            choice: fields(json!({ "native_finish_reason": "end" })),
            reply: fields(json!({ "system_fingerprint": "fp_1" })),
        }
    );
}

#[test]
fn parts_and_further_fields_of_messages_are_sent_as_they_came() {
    let parts = json!([{ "type": "text", "text": "a", "cache_control": { "type": "ephemeral" } }]);
    let thought = Map::from_iter([("reasoning_content".to_owned(), json!("hm"))]);
    let prompt = Prompt {
        messages: vec![
            Message { parts: Some(parts.clone()), ..message(Role::User, "a") },
            Message { extra: thought, ..message(Role::Assistant, "b") },
        ],
        ..full_prompt()
    };
    assert_eq!(
        body_of(&prompt)["messages"],
        json!([
            { "role": "user", "content": parts },
            { "role": "assistant", "content": "b", "reasoning_content": "hm" },
        ])
    );
}

#[test]
fn errors_and_other_objects_are_malformed() {
    let cases = [
        (json!({ "error": { "message": "m" } }), Malformed::ErrorObject),
        (json!({ "error": "m", "choices": [] }), Malformed::ErrorObject),
        (json!({ "object": "error", "message": "m", "code": 400 }), Malformed::ErrorObject),
        (json!({ "object": "list", "data": [] }), Malformed::Syntax),
        (json!({}), Malformed::Syntax),
        (json!([]), Malformed::Syntax),
        (json!("text"), Malformed::Syntax),
        (json!({ "choices": 7 }), Malformed::Syntax),
        (json!({ "choices": [{ "delta": { "content": 7 } }] }), Malformed::Syntax),
    ];
    for (value, expected) in cases {
        assert_eq!(chunk_of(&value), Err(expected), "{value}");
    }
}

#[test]
fn usage_is_read_only_when_it_holds_counts() {
    let usage = |usage| chunk_of(&json!({ "choices": [], "usage": usage })).expect("a chunk").usage;
    let expected = ReportedUsage { prompt_tokens: 3, completion_tokens: 4, ..ReportedUsage::default() };
    assert_eq!(
        usage(json!({ "prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7 })),
        Some(expected)
    );
    for junk in
        [json!({}), json!({ "prompt_tokens": -3, "completion_tokens": 4 }), json!("many"), json!(null)]
    {
        assert_eq!(usage(junk), None);
    }
}

#[test]
fn error_messages_are_found_and_shortened() {
    assert_eq!(error_message(br#"{"error":{"message":"too long"}}"#), "too long");
    assert_eq!(error_message(br#"{"error":"too long"}"#), "too long");
    assert_eq!(error_message(br#"{"message":"too long"}"#), "too long");
    assert_eq!(error_message(b"<html>"), "");
    let long = json!({ "error": { "message": "é".repeat(10_000) } }).to_string();
    assert_eq!(error_message(long.as_bytes()).chars().count(), 500);
}

fn merged(pieces: impl IntoIterator<Item = Value>) -> Value {
    let mut calls = ToolCalls::default();
    for piece in pieces {
        calls.add(&mut [piece]).expect("few");
    }
    calls.into_value().unwrap_or_default()
}

#[test]
fn tool_calls_without_an_index_are_joined_by_id() {
    let calls = merged([
        json!({ "id": "a", "type": "function", "function": { "name": "f", "arguments": "{" } }),
        json!({ "function": { "arguments": "}" } }),
        json!({ "id": "b", "type": "function", "function": { "name": "g", "arguments": "[]" } }),
    ]);
    assert_eq!(
        calls,
        json!([
            { "id": "a", "type": "function", "function": { "name": "f", "arguments": "{}" } },
            { "id": "b", "type": "function", "function": { "name": "g", "arguments": "[]" } },
        ])
    );
}

#[test]
fn repeated_and_empty_names_do_not_change_a_call() {
    let calls = merged([
        json!({ "index": 0, "id": "a", "function": { "name": "f", "arguments": "" } }),
        json!({ "index": 0, "id": "", "type": "", "function": { "name": "", "arguments": "1" } }),
        json!({ "index": 0, "id": null, "function": { "name": "f", "arguments": "2" } }),
    ]);
    assert_eq!(calls, json!([{ "id": "a", "function": { "name": "f", "arguments": "12" } }]));
}

#[test]
fn malformed_tool_calls_neither_panic_nor_grow_without_bound() {
    merged([
        json!({ "index": -1 }),
        json!({ "index": u64::MAX }),
        json!({ "id": "x" }),
        json!({ "function": 7 }),
    ]);
    merged([json!({ "function": 7 }), json!({ "function": { "arguments": "x" } }), json!(3)]);
    let mut calls = ToolCalls::default();
    let result = (0..1000).try_for_each(|index| calls.add(&mut [json!({ "index": index })]));
    assert!(result.is_err());
}

#[test]
fn random_bytes_never_panic() {
    let mut random = fastrand::Rng::with_seed(11);
    let words = [
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"choices\"",
        "\"delta\"",
        "\"content\"",
        "\"tool_calls\"",
        "\"usage\"",
        "\"index\"",
        "0",
        "-1",
        "1e999",
        "null",
        "\"\\ud800\"",
        "\u{fffd}",
        "[DONE]",
    ];
    for _ in 0..5000 {
        let text: String = (0..random.usize(..14)).map(|_| words[random.usize(..words.len())]).collect();
        let _ = decode_event(text.as_bytes());
        error_message(text.as_bytes());
    }
}

//! Answers of the chat completions API: the object, and the chunks of its stream.

use std::io::Write as _;

use serde_json::{Value, json};

use super::decode::Shape;
use crate::{
    http::{failure::Failure, reply::unix_seconds, sse::Dialect},
    model::Usage,
    pipeline::{RequestId, Started},
    prompt::{Completion, Delta},
};

/// Writes the chunks of one answer.
#[derive(Debug)]
pub(super) struct ChatDialect {
    /// `data: {"id":…,"choices":`, equal for every chunk.
    opening: Vec<u8>,
    include_usage: bool,
}

impl Dialect for ChatDialect {
    type Options = Shape;

    fn whole(_: &Shape, id: RequestId, completion: &Completion) -> Value {
        let Completion { content, tool_calls, finish_reason, model, tier: _, usage: used } = completion;
        let only_calls = content.is_empty() && tool_calls.is_some();
        let mut message =
            json!({ "role": "assistant", "content": (!only_calls).then_some(content), "refusal": null });
        if let Some(calls) = tool_calls {
            message["tool_calls"] = calls.clone();
        }
        json!({
            "id": format!("chatcmpl-{id}"),
            "object": "chat.completion",
            "created": unix_seconds(),
            "model": model,
            "choices": [{
                "index": 0, "message": message, "logprobs": null, "finish_reason": finish_reason.as_str() }],
            "usage": usage(used),
        })
    }

    fn new(shape: Shape, started: &Started) -> Self {
        let Started { id, model, .. } = started;
        let (created, model) = (unix_seconds(), Value::from(model.as_str()));
        let opening = format!(
            r#"data: {{"id":"chatcmpl-{id}","object":"chat.completion.chunk","created":{created},"model":{model},"choices":"#
        );
        Self { opening: opening.into_bytes(), include_usage: shape.include_usage }
    }

    fn started(&mut self, out: &mut Vec<u8>) {
        self.choice(out, &json!({ "role": "assistant", "content": "" }), None);
    }

    fn delta(&mut self, out: &mut Vec<u8>, delta: &Delta) {
        match delta {
            Delta::Text(text) => self.text(out, text),
            Delta::ToolCalls(calls) => self.choice(out, &json!({ "tool_calls": calls }), None),
        }
    }

    fn finished(&mut self, out: &mut Vec<u8>, completion: &Completion) {
        self.choice(out, &json!({}), Some(completion.finish_reason.as_str()));
        if self.include_usage {
            out.extend_from_slice(&self.opening);
            write(out, &format_args!(r#"[],"usage":{}}}"#, usage(&completion.usage)));
            out.extend_from_slice(b"\n\n");
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn failed(&mut self, out: &mut Vec<u8>, failure: &Failure) {
        write(out, &format_args!("data: {}\n\n", failure.body()));
    }
}

impl ChatDialect {
    /// Writes a text chunk directly: it is the most frequent one, and needs no tree of values.
    fn text(&self, out: &mut Vec<u8>, text: &str) {
        out.extend_from_slice(&self.opening);
        out.extend_from_slice(br#"[{"index":0,"delta":{"content":"#);
        serde_json::to_writer(&mut *out, text).expect("a text serialises, and a Vec takes it");
        out.extend_from_slice(br#"},"finish_reason":null}]"#);
        self.close(out);
    }

    fn choice(&self, out: &mut Vec<u8>, delta: &Value, finish_reason: Option<&str>) {
        let choice = json!([{ "index": 0, "delta": delta, "finish_reason": finish_reason }]);
        out.extend_from_slice(&self.opening);
        write(out, &choice);
        self.close(out);
    }

    /// Ends a chunk. With `include_usage` the API puts a null usage into every chunk before the last.
    fn close(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.include_usage { b",\"usage\":null}\n\n" } else { b"}\n\n" });
    }
}

/// The usage of the upstream call that produced the answer, also when a hit cost nothing.
fn usage(usage: &Usage) -> Value {
    let Usage { prompt_tokens, completion_tokens, .. } = *usage;
    json!({
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens.saturating_add(completion_tokens),
    })
}

fn write(out: &mut Vec<u8>, text: &dyn std::fmt::Display) {
    write!(out, "{text}").expect("writing to a Vec cannot fail");
}

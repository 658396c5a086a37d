//! Answers of the chat completions API: the object, and the chunks of its stream.

use std::io::Write as _;

use serde_json::{Map, Value, json};

use super::decode::Shape;
use crate::{
    http::{
        failure::Failure,
        reply::{Answered, unix_seconds},
        sse::Dialect,
    },
    model::Usage,
    pipeline::{RequestId, Started},
    prompt::{Completion, Delta, Reasoning, ReplyFields},
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

    fn whole(_: &Shape, id: RequestId, answer: &Answered<'_>) -> Value {
        let completion = answer.completion;
        let Completion { finish_reason, model, usage: used, extra, .. } = completion;
        let mut choice = extra.choice.clone();
        choice.extend(fields(json!({
            "index": 0, "message": message(completion), "logprobs": null, "finish_reason": finish_reason.as_str() })));
        let mut reply = extra.reply.clone();
        reply.extend(fields(json!({
            "id": format!("chatcmpl-{id}"),
            "object": "chat.completion",
            "created": unix_seconds(),
            "model": model,
            "choices": [choice],
            "usage": answer.with_hit(usage(used)),
        })));
        Value::Object(reply)
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
            Delta::Reasoning(reasoning) => {
                let mut delta = Map::new();
                insert_reasoning(&mut delta, reasoning);
                self.choice(out, &delta.into(), None);
            }
            Delta::Refusal(text) => self.choice(out, &json!({ "refusal": text }), None),
            Delta::ToolCalls(calls) => self.choice(out, &json!({ "tool_calls": calls }), None),
            Delta::Fields(fields) => self.choice(out, &fields.clone().into(), None),
        }
    }

    fn finished(&mut self, out: &mut Vec<u8>, answer: &Answered<'_>) {
        self.last_choice(out, answer.completion);
        if self.include_usage {
            out.extend_from_slice(&self.opening);
            write(out, &format_args!(r#"[],"usage":{}}}"#, answer.with_hit(usage(&answer.completion.usage))));
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

    /// Writes the chunk with the finish reason, and with the fields of choice and reply that the provider sent.
    fn last_choice(&self, out: &mut Vec<u8>, completion: &Completion) {
        let ReplyFields { message: _, choice, reply } = &completion.extra;
        let mut choice = choice.clone();
        choice.extend(fields(
            json!({ "index": 0, "delta": {}, "finish_reason": completion.finish_reason.as_str() }),
        ));
        out.extend_from_slice(&self.opening);
        write(out, &Value::from(vec![choice]));
        for (name, value) in reply {
            write(out, &format_args!(",{}:{value}", Value::from(name.as_str())));
        }
        self.close(out);
    }

    /// Ends a chunk. With `include_usage` the API puts a null usage into every chunk before the last.
    fn close(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.include_usage { b",\"usage\":null}\n\n" } else { b"}\n\n" });
    }
}

/// The message of a whole answer.
fn message(completion: &Completion) -> Map<String, Value> {
    let Completion { content, reasoning, refusal, tool_calls, extra, .. } = completion;
    let has_no_text = content.is_empty() && (tool_calls.is_some() || refusal.is_some());
    let mut message = extra.message.clone();
    message.extend(fields(
        json!({ "role": "assistant", "content": (!has_no_text).then_some(content), "refusal": refusal }),
    ));
    if let Some(reasoning) = reasoning {
        insert_reasoning(&mut message, reasoning);
    }
    if let Some(calls) = tool_calls {
        message.insert("tool_calls".to_owned(), calls.clone());
    }
    message
}

fn insert_reasoning(into: &mut Map<String, Value>, Reasoning { text, field }: &Reasoning) {
    for name in field.names() {
        into.insert((*name).to_owned(), text.as_str().into());
    }
}

/// The usage of the upstream call that produced the answer, also when a hit cost nothing.
fn usage(usage: &Usage) -> Value {
    let Usage {
        prompt_tokens,
        completion_tokens,
        cached_prompt_tokens,
        cache_write_tokens,
        reasoning_tokens,
        cost_usd: _,
        estimated: _,
    } = *usage;
    let mut block = json!({
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens.saturating_add(completion_tokens),
    });
    if cached_prompt_tokens + cache_write_tokens > 0 {
        block["prompt_tokens_details"] =
            json!({ "cached_tokens": cached_prompt_tokens, "cache_write_tokens": cache_write_tokens });
    }
    if reasoning_tokens > 0 {
        block["completion_tokens_details"] = json!({ "reasoning_tokens": reasoning_tokens });
    }
    block
}

/// The fields of a `json!` object.
fn fields(object: Value) -> Map<String, Value> {
    match object {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn write(out: &mut Vec<u8>, text: &dyn std::fmt::Display) {
    write!(out, "{text}").expect("writing to a Vec cannot fail");
}

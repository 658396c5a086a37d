//! Answers of the Responses API: the object, and the events of its stream.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use crate::{
    http::{
        failure::Failure,
        reply::{Answered, unix_seconds},
        sse::Dialect,
    },
    model::Usage,
    pipeline::{RequestId, Started},
    prompt::{Completion, Delta, FinishReason},
};

/// Prefix of the ids of answers that no provider stores.
pub(super) const ID_PREFIX: &str = "resp_promptkeep_";

/// Fields of the request that the answer repeats.
#[derive(Clone, Debug)]
pub(super) struct Echo(Map<String, Value>);

/// Fields that every object about one answer has.
#[derive(Clone, Debug)]
struct Head {
    id: RequestId,
    created: u64,
}

/// Writes the events of one answer.
#[derive(Debug)]
pub(super) struct ResponsesDialect {
    head: Head,
    echo: Echo,
    model: String,
    sequence: u64,
}

impl Echo {
    pub fn of(body: &Map<String, Value>) -> Self {
        const REPEATED: [&str; 7] =
            ["instructions", "max_output_tokens", "metadata", "temperature", "text", "top_p", "user"];
        let repeat = |name: &str| (name.to_owned(), body.get(name).cloned().unwrap_or_default());
        let mut fields: Map<_, _> = REPEATED.into_iter().map(repeat).collect();
        for (name, default) in [("metadata", json!({})), ("text", json!({ "format": { "type": "text" } }))] {
            if fields[name].is_null() {
                fields.insert(name.to_owned(), default);
            }
        }
        Self(fields)
    }
}

impl Head {
    fn new(id: RequestId) -> Self {
        Self { id, created: unix_seconds() }
    }

    fn message_id(&self) -> String {
        format!("msg_{}", self.id)
    }
}

/// The whole answer as one object.
fn response(head: &Head, echo: &Echo, answer: &Answered<'_>) -> Value {
    let completion = answer.completion;
    let (status, incomplete) = match completion.finish_reason {
        _ if completion.refusal.is_some() => ("incomplete", json!({ "reason": "content_filter" })),
        FinishReason::Stop | FinishReason::ToolCalls => ("completed", Value::Null),
        FinishReason::ContentFilter => ("incomplete", json!({ "reason": "content_filter" })),
        FinishReason::Length | FinishReason::Other(_) => {
            ("incomplete", json!({ "reason": "max_output_tokens" }))
        }
    };
    let mut object = object(head, echo, &completion.model, status);
    object["incomplete_details"] = incomplete;
    object["output"] = json!([message(head, status, &text_of(completion))]);
    object["usage"] = answer.with_hit(usage(&completion.usage));
    object
}

fn object(head: &Head, echo: &Echo, model: &str, status: &str) -> Value {
    let mut object = json!({
        "id": format!("{ID_PREFIX}{}", head.id),
        "object": "response",
        "created_at": head.created,
        "status": status,
        "error": null,
        "incomplete_details": null,
        "model": model,
        "output": [],
        "parallel_tool_calls": true,
        "previous_response_id": null,
        "store": false,
        "tool_choice": "auto",
        "tools": [],
        "truncation": "disabled",
        "usage": null,
    });
    for (name, value) in &echo.0 {
        object[name] = value.clone();
    }
    object
}

fn message(head: &Head, status: &str, text: &str) -> Value {
    json!({
        "type": "message",
        "id": head.message_id(),
        "status": status,
        "role": "assistant",
        "content": [part(text)],
    })
}

/// The text of an answer. A refusal is part of it, and makes the answer incomplete.
fn text_of(completion: &Completion) -> Cow<'_, str> {
    match &completion.refusal {
        None => Cow::Borrowed(&completion.content),
        Some(refusal) => Cow::Owned(format!("{}{refusal}", completion.content)),
    }
}

fn part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [] })
}

fn usage(usage: &Usage) -> Value {
    let Usage { prompt_tokens, completion_tokens, cached_prompt_tokens, reasoning_tokens, .. } = *usage;
    json!({
        "input_tokens": prompt_tokens,
        "input_tokens_details": { "cached_tokens": cached_prompt_tokens },
        "output_tokens": completion_tokens,
        "output_tokens_details": { "reasoning_tokens": reasoning_tokens },
        "total_tokens": prompt_tokens.saturating_add(completion_tokens),
    })
}

impl Dialect for ResponsesDialect {
    type Options = Echo;

    fn whole(echo: &Echo, id: RequestId, answer: &Answered<'_>) -> Value {
        response(&Head::new(id), echo, answer)
    }

    fn new(echo: Echo, started: &Started) -> Self {
        Self { head: Head::new(started.id), echo, model: started.model.clone(), sequence: 0 }
    }

    fn started(&mut self, out: &mut Vec<u8>) {
        let response = object(&self.head, &self.echo, &self.model, "in_progress");
        self.event(out, "response.created", json!({ "response": response }));
        self.event(out, "response.in_progress", json!({ "response": response }));
        let mut item = message(&self.head, "in_progress", "");
        item["content"] = json!([]);
        self.event(out, "response.output_item.added", json!({ "output_index": 0, "item": item }));
        self.in_part(out, "response.content_part.added", json!({ "part": part("") }));
    }

    /// Ignores tool calls: requests with tools are passed on, so there are none. Reasoning is only counted.
    fn delta(&mut self, out: &mut Vec<u8>, delta: &Delta) {
        match delta {
            Delta::Text(text) | Delta::Refusal(text) => {
                self.in_part(out, "response.output_text.delta", json!({ "delta": text, "logprobs": [] }));
            }
            Delta::Reasoning(_) | Delta::ToolCalls(_) | Delta::Fields(_) => {}
        }
    }

    fn finished(&mut self, out: &mut Vec<u8>, answer: &Answered<'_>) {
        let text = text_of(answer.completion);
        self.in_part(out, "response.output_text.done", json!({ "text": text, "logprobs": [] }));
        self.in_part(out, "response.content_part.done", json!({ "part": part(&text) }));
        let response = response(&self.head, &self.echo, answer);
        let item = response["output"][0].clone();
        self.event(out, "response.output_item.done", json!({ "output_index": 0, "item": item }));
        let last =
            if response["status"] == "completed" { "response.completed" } else { "response.incomplete" };
        self.event(out, last, json!({ "response": response }));
    }

    fn failed(&mut self, out: &mut Vec<u8>, failure: &Failure) {
        let error = failure.body()["error"].take();
        let mut response = object(&self.head, &self.echo, &self.model, "failed");
        response["error"] = json!({ "code": "server_error", "message": failure.message });
        self.event(
            out,
            "error",
            json!({ "code": error["code"], "message": error["message"], "param": error["param"] }),
        );
        self.event(out, "response.failed", json!({ "response": response }));
    }
}

impl ResponsesDialect {
    fn in_part(&mut self, out: &mut Vec<u8>, kind: &str, mut data: Value) {
        data["item_id"] = self.head.message_id().into();
        data["output_index"] = 0.into();
        data["content_index"] = 0.into();
        self.event(out, kind, data);
    }

    fn event(&mut self, out: &mut Vec<u8>, kind: &str, mut data: Value) {
        data["type"] = kind.into();
        data["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        out.extend_from_slice(format!("event: {kind}\ndata: {data}\n\n").as_bytes());
    }
}

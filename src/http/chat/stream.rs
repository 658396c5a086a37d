//! The events of a streamed answer in the dialect.

use std::io::Write as _;

use serde_json::{Value, json};

use super::encode::{self, Head};
use crate::{
    pipeline::Started,
    prompt::{Completion, Delta},
};

/// Writes chunks of one answer.
#[derive(Debug)]
pub(in crate::http) struct ChatEvents {
    /// `data: {"id":…,"choices":`, the same for every chunk.
    opening: Vec<u8>,
    include_usage: bool,
}

// === impl ChatEvents ===

impl ChatEvents {
    pub fn new(started: &Started, include_usage: bool) -> Self {
        let Head { id, created, model } = Head::of_model(started.id, started.model.clone());
        let model = Value::from(model);
        let opening = format!(
            r#"data: {{"id":"{id}","object":"chat.completion.chunk","created":{created},"model":{model},"choices":"#
        );
        Self { opening: opening.into_bytes(), include_usage }
    }

    pub fn started(&self, out: &mut Vec<u8>) {
        self.choice(out, &json!({ "role": "assistant", "content": "" }), None);
    }

    pub fn delta(&self, out: &mut Vec<u8>, delta: &Delta) {
        match delta {
            Delta::Text(text) => self.text(out, text),
            Delta::ToolCalls(calls) => self.choice(out, &json!({ "tool_calls": calls }), None),
        }
    }

    pub fn finished(&self, out: &mut Vec<u8>, completion: &Completion) {
        self.choice(out, &json!({}), Some(completion.finish_reason.as_str()));
        if self.include_usage {
            out.extend_from_slice(&self.opening);
            write(out, &format_args!(r#"[],"usage":{}}}"#, encode::usage(&completion.usage)));
            out.extend_from_slice(b"\n\n");
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    /// The commonest chunk, written without a tree.
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

    /// With `include_usage` every chunk but the last has a null one.
    fn close(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.include_usage { b",\"usage\":null}\n\n" } else { b"}\n\n" });
    }
}

fn write(out: &mut Vec<u8>, text: &dyn std::fmt::Display) {
    write!(out, "{text}").expect("a Vec takes everything");
}

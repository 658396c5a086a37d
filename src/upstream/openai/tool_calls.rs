//! Assembler of streamed tool calls: the first piece names the function, later ones append to its arguments,
//! and an index joins them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Tool calls received so far.
#[derive(Debug, Default)]
pub struct ToolCalls {
    by_index: BTreeMap<u64, Map<String, Value>>,
}

/// An answer has more tool calls than [`CALLS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many tool calls")]
pub struct TooMany;

/// Largest number of calls in one answer. OpenAI's limit of parallel calls is 128.
const CALLS_MAX: usize = 256;

impl ToolCalls {
    /// Adds the pieces of one chunk and sets the `index` that some providers leave out.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn add(&mut self, pieces: &mut [Value]) -> Result<(), TooMany> {
        for piece in pieces {
            let Value::Object(piece) = piece else { continue };
            let index = self.index_of(piece);
            piece.insert("index".to_owned(), index.into());
            if !self.by_index.contains_key(&index) && self.by_index.len() >= CALLS_MAX {
                return Err(TooMany);
            }
            merge_call(self.by_index.entry(index).or_default(), piece);
        }
        Ok(())
    }

    /// The calls as the dialect's `tool_calls` array; `None` when there are none.
    pub fn into_value(self) -> Option<Value> {
        let calls: Vec<Value> = self.by_index.into_values().map(Value::Object).collect();
        (!calls.is_empty()).then_some(Value::Array(calls))
    }

    /// The piece's index. Without one, a piece with a new id begins a call, and any other continues the last.
    fn index_of(&self, piece: &Map<String, Value>) -> u64 {
        if let Some(index) = piece.get("index").and_then(Value::as_u64) {
            return index;
        }
        let Some((last, call)) = self.by_index.last_key_value() else { return 0 };
        let is_new = piece.get("id").is_some_and(|id| id.is_string() && Some(id) != call.get("id"));
        if is_new { last.saturating_add(1) } else { *last }
    }
}

fn merge_call(call: &mut Map<String, Value>, piece: &Map<String, Value>) {
    for (name, value) in piece {
        match (name.as_str(), value) {
            ("index", _) | (_, Value::Null) => {}
            ("function", Value::Object(piece)) => merge_function(call, piece),
            // Some providers repeat these as empty strings.
            ("id" | "type", Value::String(text)) if text.is_empty() => {}
            _ => _ = call.insert(name.clone(), value.clone()),
        }
    }
}

fn merge_function(call: &mut Map<String, Value>, piece: &Map<String, Value>) {
    let function = call.entry("function").or_insert_with(|| Value::Object(Map::new()));
    let Value::Object(function) = function else { return };
    for (name, value) in piece {
        match (function.get_mut(name), value) {
            (_, Value::Null) => {}
            (Some(Value::String(arguments)), Value::String(more)) if name == "arguments" => {
                arguments.push_str(more)
            }
            (Some(Value::String(_)), Value::String(more)) if more.is_empty() => {}
            _ => _ = function.insert(name.clone(), value.clone()),
        }
    }
}

//! Deserialisers of the objects that hold an answer. Known fields are read; others are kept, to be passed on.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Map, Value};

/// One choice of a reply or of a chunk.
#[derive(Debug, Default)]
pub(super) struct Choice {
    pub index: u64,
    /// `delta` in a stream, `message` in a whole reply.
    pub part: Option<Part>,
    pub finish_reason: Option<String>,
    pub other: Map<String, Value>,
}

/// The message of a whole reply, or a piece of it.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub content: Option<String>,
    pub refusal: Option<String>,
    pub tool_calls: Option<Vec<Value>>,
    /// Two names of one field; some providers send both.
    pub reasoning: Option<Value>,
    pub reasoning_content: Option<Value>,
    pub other: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum ChoiceName {
    Index,
    Delta,
    Message,
    FinishReason,
    /// Never asked for.
    Logprobs,
    Other(String),
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum PartName {
    Content,
    Refusal,
    ToolCalls,
    Reasoning,
    ReasoningContent,
    Role,
    /// Never asked for: requests for them are forwarded.
    Audio,
    FunctionCall,
    Other(String),
}

/// Adds the fields of a chunk to those received so far. Arrays are joined, and within them the pieces of one item; any
/// other value replaces the one before.
pub(crate) fn merge(into: &mut Map<String, Value>, more: Map<String, Value>) {
    for (name, value) in more {
        match (into.get_mut(&name), value) {
            (Some(Value::Array(items)), Value::Array(more)) => {
                more.into_iter().for_each(|item| merge_item(items, item));
            }
            (_, value) => _ = into.insert(name, value),
        }
    }
}

/// Adds an item to an array. One with the `index` and `type` of the last is its continuation.
fn merge_item(items: &mut Vec<Value>, item: Value) {
    let continues = |last: &Value| {
        item.get("index").is_some_and(|index| last.get("index") == Some(index))
            && last.get("type") == item.get("type")
    };
    let Some(Value::Object(last)) = items.last_mut().filter(|last| continues(last)) else {
        items.push(item);
        return;
    };
    let Value::Object(item) = item else { return };
    for (name, value) in item {
        match (last.get_mut(&name), value) {
            (Some(Value::String(text)), Value::String(more))
                if matches!(name.as_str(), "text" | "summary") =>
            {
                text.push_str(&more);
            }
            (Some(_), Value::Null) => {}
            (_, value) => _ = last.insert(name, value),
        }
    }
}

/// Whether a field says nothing: clients and providers write null and empty lists for absent ones.
fn is_blank(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

fn keep(other: &mut Map<String, Value>, name: String, value: Value) {
    if !is_blank(&value) {
        other.insert(name, value);
    }
}

impl<'de> Deserialize<'de> for Choice {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct ChoiceVisitor;
        impl<'de> Visitor<'de> for ChoiceVisitor {
            type Value = Choice;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a choice")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Choice, A::Error> {
                let mut choice = Choice::default();
                while let Some(name) = map.next_key()? {
                    match name {
                        ChoiceName::Index => choice.index = map.next_value()?,
                        ChoiceName::Delta | ChoiceName::Message => {
                            choice.part = map.next_value::<Option<Part>>()?.or(choice.part);
                        }
                        ChoiceName::FinishReason => choice.finish_reason = map.next_value()?,
                        ChoiceName::Logprobs => _ = map.next_value::<IgnoredAny>()?,
                        ChoiceName::Other(name) => keep(&mut choice.other, name, map.next_value()?),
                    }
                }
                Ok(choice)
            }
        }
        from.deserialize_map(ChoiceVisitor)
    }
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct PartVisitor;
        impl<'de> Visitor<'de> for PartVisitor {
            type Value = Part;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a message")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Part, A::Error> {
                let mut part = Part::default();
                while let Some(name) = map.next_key()? {
                    match name {
                        PartName::Content => part.content = map.next_value()?,
                        PartName::Refusal => part.refusal = map.next_value()?,
                        PartName::ToolCalls => part.tool_calls = map.next_value()?,
                        PartName::Reasoning => part.reasoning = map.next_value()?,
                        PartName::ReasoningContent => part.reasoning_content = map.next_value()?,
                        PartName::Role | PartName::Audio | PartName::FunctionCall => {
                            map.next_value::<IgnoredAny>()?;
                        }
                        PartName::Other(name) => keep(&mut part.other, name, map.next_value()?),
                    }
                }
                Ok(part)
            }
        }
        from.deserialize_map(PartVisitor)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(pieces: &[Value]) -> Value {
        let mut fields = Map::new();
        for piece in pieces {
            merge(&mut fields, piece.as_object().unwrap().clone());
        }
        Value::Object(fields)
    }

    #[test]
    fn pieces_of_one_item_are_joined() {
        let details = |item: Value| json!({ "reasoning_details": [item] });
        let pieces = [
            details(json!({ "type": "reasoning.text", "index": 0, "text": "Let ", "signature": null })),
            details(json!({ "type": "reasoning.text", "index": 0, "text": "me" })),
            details(json!({ "type": "reasoning.text", "index": 0, "text": "", "signature": "s" })),
            details(json!({ "type": "reasoning.encrypted", "index": 0, "data": "x" })),
            details(json!({ "type": "reasoning.encrypted", "index": 1, "data": "y" })),
        ];
        assert_eq!(
            merged(&pieces),
            json!({ "reasoning_details": [
                { "type": "reasoning.text", "index": 0, "text": "Let me", "signature": "s" },
                { "type": "reasoning.encrypted", "index": 0, "data": "x" },
                { "type": "reasoning.encrypted", "index": 1, "data": "y" },
            ] })
        );
    }

    #[test]
    fn fields_that_change_their_type_are_replaced() {
        let pieces = [json!({ "a": [1, 2], "b": 1 }), json!({ "a": [3], "b": [1] }), json!({ "a": "x" })];
        assert_eq!(merged(&pieces), json!({ "a": "x", "b": [1] }));
        assert_eq!(merged(&pieces[..2]), json!({ "a": [1, 2, 3], "b": [1] }));
    }
}

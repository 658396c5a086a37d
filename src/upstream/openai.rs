//! OpenAI chat dialect: encodes requests and decodes replies. Pure functions, which must not panic whatever a
//! reply holds.

mod fields;
mod request;
mod tool_calls;
mod usage;

pub(super) use self::fields::merge as merge_fields;
pub use self::{
    request::encode,
    tool_calls::ToolCalls,
    usage::{ReportedUsage, read as read_usage},
};

use serde::Deserialize;
use serde_json::Value;

use self::fields::{Choice, Part};
use crate::prompt::{FinishReason, REPLY_FIELDS, Reasoning, ReasoningField, ReplyFields};

/// Content of one event of a stream, or of a whole reply.
#[derive(Debug, Default, PartialEq)]
pub struct Chunk {
    pub reasoning: Option<Reasoning>,
    pub text: Option<String>,
    pub refusal: Option<String>,
    /// Never empty.
    pub tool_calls: Option<Vec<Value>>,
    pub finish: Option<FinishReason>,
    pub usage: Option<ReportedUsage>,
    /// The model is thinking, even if the provider does not show what.
    pub is_thinking: bool,
    pub fields: ReplyFields,
}

/// One event of a stream.
#[derive(Debug, PartialEq)]
pub enum Event {
    Chunk(Box<Chunk>),
    /// `[DONE]`.
    Done,
}

/// A reply that does not follow the dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("not a chat completion")]
    Syntax,
    #[error("an error inside a success")]
    ErrorObject,
}

#[derive(Deserialize)]
struct Reply {
    choices: Option<Vec<Choice>>,
    usage: Option<Value>,
    error: Option<Value>,
    /// Distinguishes a chunk without choices from other objects.
    object: Option<String>,
    system_fingerprint: Option<Value>,
    service_tier: Option<Value>,
}

/// Decodes the data of one event of a stream.
///
/// # Errors
/// [`Malformed`].
pub fn decode_event(data: &[u8]) -> Result<Event, Malformed> {
    if data.trim_ascii() == b"[DONE]" {
        return Ok(Event::Done);
    }
    decode_reply(data).map(|chunk| Event::Chunk(Box::new(chunk)))
}

/// Decodes a whole reply or a chunk, which differ only in the name of the field that holds the text.
///
/// # Errors
/// [`Malformed`].
pub fn decode_reply(data: &[u8]) -> Result<Chunk, Malformed> {
    let reply: Reply = serde_json::from_slice(data).map_err(|_| Malformed::Syntax)?;
    let object = reply.object.as_deref().unwrap_or_default();
    if reply.error.is_some() || object == "error" {
        return Err(Malformed::ErrorObject);
    }
    if reply.choices.is_none() && reply.usage.is_none() && !object.starts_with("chat.completion") {
        return Err(Malformed::Syntax);
    }
    let mut chunk = Chunk { usage: reply.usage.as_ref().and_then(read_usage), ..Chunk::default() };
    for (name, value) in REPLY_FIELDS.into_iter().zip([reply.system_fingerprint, reply.service_tier]) {
        chunk.fields.reply.extend(value.map(|value| (name.to_owned(), value)));
    }
    let choice = reply.choices.into_iter().flatten().find(|choice| choice.index == 0);
    if let Some(choice) = choice {
        read_choice(choice, &mut chunk);
    }
    Ok(chunk)
}

/// The provider's message about a refused request, shortened; empty when there is none.
pub fn error_message(body: &[u8]) -> String {
    /// Enough for a sentence; the rest is likely an echo of the request.
    const MESSAGE_CHARS_MAX: usize = 500;
    let reply: Value = serde_json::from_slice(body).unwrap_or_default();
    let message =
        reply.pointer("/error/message").or_else(|| reply.get("error")).or_else(|| reply.get("message"));
    message.and_then(Value::as_str).unwrap_or_default().chars().take(MESSAGE_CHARS_MAX).collect()
}

fn read_choice(choice: Choice, chunk: &mut Chunk) {
    let Choice { index: _, part, finish_reason, other } = choice;
    chunk.fields.choice = other;
    chunk.finish = finish_reason.as_deref().map(FinishReason::parse);
    let Part { content, refusal, tool_calls, reasoning, reasoning_content, other } = part.unwrap_or_default();
    chunk.fields.message = other;
    chunk.is_thinking = reasoning.is_some() || reasoning_content.is_some();
    chunk.reasoning = read_reasoning(reasoning_content, reasoning);
    let non_empty = |text: &String| !text.is_empty();
    chunk.text = content.filter(non_empty);
    chunk.refusal = refusal.filter(non_empty);
    let calls: Vec<Value> = tool_calls.into_iter().flatten().filter(Value::is_object).collect();
    chunk.tool_calls = (!calls.is_empty()).then_some(calls);
}

/// The text of the two fields; anything but text is ignored.
fn read_reasoning(reasoning_content: Option<Value>, reasoning: Option<Value>) -> Option<Reasoning> {
    let text = |value: Option<Value>| match value {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        _ => None,
    };
    match (text(reasoning_content), text(reasoning)) {
        (Some(text), None) => Some(Reasoning { text, field: ReasoningField::ReasoningContent }),
        (None, Some(text)) => Some(Reasoning { text, field: ReasoningField::Reasoning }),
        (Some(text), Some(_)) => Some(Reasoning { text, field: ReasoningField::Both }),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests;

//! OpenAI chat dialect: encodes requests and decodes replies. Pure functions, which must not panic whatever a
//! reply holds.

mod request;
mod tool_calls;

pub use self::{request::encode, tool_calls::ToolCalls};

use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use crate::prompt::FinishReason;

/// Content of one event of a stream, or of a whole reply.
#[derive(Debug, Default, PartialEq)]
pub struct Chunk {
    pub text: Option<String>,
    /// Never empty.
    pub tool_calls: Option<Vec<Value>>,
    pub finish: Option<FinishReason>,
    pub usage: Option<ReportedUsage>,
    /// The model sent reasoning, which callers do not see.
    pub is_thinking: bool,
}

/// Token counts as the provider sent them, unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportedUsage {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
}

/// One event of a stream.
#[derive(Debug, PartialEq)]
pub enum Event {
    Chunk(Chunk),
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
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: u64,
    /// Set in a stream.
    delta: Option<Part>,
    /// Set in a whole reply.
    message: Option<Part>,
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Part {
    content: Option<String>,
    refusal: Option<String>,
    tool_calls: Option<Vec<Value>>,
    /// Two names of one field; some providers send both.
    reasoning: Option<IgnoredAny>,
    reasoning_content: Option<IgnoredAny>,
}

/// Decodes the data of one event of a stream.
///
/// # Errors
/// [`Malformed`].
pub fn decode_event(data: &[u8]) -> Result<Event, Malformed> {
    if data.trim_ascii() == b"[DONE]" {
        return Ok(Event::Done);
    }
    decode_reply(data).map(Event::Chunk)
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
    let Part { content, refusal, tool_calls, reasoning, reasoning_content } =
        choice.delta.or(choice.message).unwrap_or_default();
    chunk.is_thinking = reasoning.is_some() || reasoning_content.is_some();
    let non_empty = |text: &String| !text.is_empty();
    chunk.finish = choice.finish_reason.as_deref().map(FinishReason::parse);
    chunk.text = content.filter(non_empty);
    if let Some(refusal) = refusal.filter(non_empty) {
        // This reason shows the refusal to the caller and keeps it out of the cache.
        chunk.finish = Some(FinishReason::ContentFilter);
        chunk.text.get_or_insert_default().push_str(&refusal);
    }
    let calls: Vec<Value> = tool_calls.into_iter().flatten().filter(Value::is_object).collect();
    chunk.tool_calls = (!calls.is_empty()).then_some(calls);
}

fn read_usage(usage: &Value) -> Option<ReportedUsage> {
    let tokens = |name| usage.get(name).and_then(Value::as_u64);
    Some(ReportedUsage {
        prompt_tokens: tokens("prompt_tokens")?,
        completion_tokens: tokens("completion_tokens")?,
    })
}

#[cfg(test)]
mod tests;

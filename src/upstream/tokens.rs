//! Token estimates from the text alone, since every model has its own tokenizer. Used where the provider
//! reports no usage, and to rule out models before a call.

use crate::prompt::{Message, Prompt};

/// Tokens around a message's content (role, separators).
const MESSAGE_TOKENS: u64 = 4;

/// Estimated tokens of a prompt, including tools and schemas.
pub fn estimate_prompt(prompt: &Prompt) -> u64 {
    let json = |value: &Option<serde_json::Value>| value.as_ref().map_or(0, |v| estimate(&v.to_string()));
    let turns: u64 = prompt.messages.iter().map(estimate_message).sum();
    turns + json(&prompt.tools) + json(&prompt.response_format)
}

/// Estimated tokens of a prompt of one message for each text.
pub fn estimate_texts<'a>(messages: impl IntoIterator<Item = &'a str>) -> u64 {
    messages.into_iter().map(|text| MESSAGE_TOKENS + estimate(text)).sum()
}

/// Context window that a request needs: the prompt's tokens and its largest answer.
pub fn needed(prompt: &Prompt, prompt_tokens: u64) -> u64 {
    prompt_tokens.saturating_add(prompt.max_tokens.unwrap_or(0).into())
}

/// Estimated tokens of a text: about one per four ASCII bytes of English or code, and one per other
/// character.
pub fn estimate(text: &str) -> u64 {
    let ascii = text.bytes().filter(u8::is_ascii).count() as u64;
    let other = text.chars().count() as u64 - ascii;
    ascii.div_ceil(4) + other
}

fn estimate_message(message: &Message) -> u64 {
    let Message { role: _, content, name, tool_call_id: _, tool_calls, parts: _, extra } = message;
    let name = name.as_deref().map_or(0, estimate);
    let calls = tool_calls.as_ref().map_or(0, |calls| estimate(&calls.to_string()));
    let extra: u64 = extra.values().map(|value| estimate(&value.to_string())).sum();
    MESSAGE_TOKENS + estimate(content) + name + calls + extra
}

//! Token counts where the provider sends none, and to rule out models before a call: an estimate from
//! the text alone, since every model has a tokenizer of its own.

use crate::prompt::{Message, Prompt};

/// Tokens of a message's frame (role, separators).
const MESSAGE_TOKENS: u64 = 4;

/// Estimated tokens of the whole prompt, tools and schemas included.
pub fn estimate_prompt(prompt: &Prompt) -> u64 {
    let json = |value: &Option<serde_json::Value>| value.as_ref().map_or(0, |v| estimate(&v.to_string()));
    let turns: u64 = prompt.messages.iter().map(estimate_message).sum();
    turns + json(&prompt.tools) + json(&prompt.response_format)
}

/// What a context window must hold: the prompt's tokens and the longest answer that was asked for.
pub fn wanted(prompt: &Prompt, prompt_tokens: u64) -> u64 {
    prompt_tokens.saturating_add(prompt.max_tokens.unwrap_or(0).into())
}

/// Estimated tokens of a text: four bytes of ASCII are about one token of English or code, and other
/// characters are about one token each.
pub fn estimate(text: &str) -> u64 {
    let ascii = text.bytes().filter(u8::is_ascii).count() as u64;
    let other = text.chars().count() as u64 - ascii;
    ascii.div_ceil(4) + other
}

fn estimate_message(message: &Message) -> u64 {
    let Message { role: _, content, name, tool_call_id: _, tool_calls } = message;
    let name = name.as_deref().map_or(0, estimate);
    let calls = tool_calls.as_ref().map_or(0, |calls| estimate(&calls.to_string()));
    MESSAGE_TOKENS + estimate(content) + name + calls
}

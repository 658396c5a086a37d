//! Encoder of a prompt as a chat request. It asks every model that can for a stream, so that unary and streaming
//! callers share one path.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::prompt::{self, Prompt, Role};

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    stop: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<&'a Value>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
    #[serde(flatten)]
    extra: &'a Map<String, Value>,
    #[serde(flatten)]
    ignored: &'a Map<String, Value>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: Content<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<&'a Value>,
    #[serde(flatten)]
    extra: &'a Map<String, Value>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    /// JSON `null`, for an assistant's message that only calls tools.
    None,
    Text(&'a str),
    /// The parts that the caller sent.
    Parts(&'a Value),
}

/// The body of a request for `prompt` to `model`. The prompt is destructured without `..`, so that a new
/// field does not compile until somebody decides whether providers receive it.
pub fn encode(prompt: &Prompt, model: &str, stream: bool) -> Vec<u8> {
    let Prompt {
        namespace: _,
        model: _,
        messages,
        temperature,
        top_p,
        max_tokens,
        stop,
        seed,
        response_format,
        tools,
        tool_choice,
        vary: _,
        extra,
        ignored,
    } = prompt;
    let request = Request {
        model,
        messages: messages.iter().map(Message::new).collect(),
        temperature: *temperature,
        top_p: *top_p,
        max_tokens: *max_tokens,
        stop,
        seed: *seed,
        response_format: response_format.as_ref(),
        tools: tools.as_ref(),
        tool_choice: tool_choice.as_ref(),
        stream,
        stream_options: stream.then_some(StreamOptions { include_usage: true }),
        extra,
        ignored,
    };
    serde_json::to_vec(&request).expect("strings, numbers and JSON values always serialise")
}

impl<'a> Message<'a> {
    fn new(message: &'a prompt::Message) -> Self {
        let prompt::Message { role, content, name, tool_call_id, tool_calls, parts, extra } = message;
        let only_calls = *role == Role::Assistant && content.is_empty() && tool_calls.is_some();
        Self {
            role: role.as_str(),
            content: match parts {
                Some(parts) => Content::Parts(parts),
                None if only_calls => Content::None,
                None => Content::Text(content),
            },
            name: name.as_deref(),
            tool_call_id: tool_call_id.as_deref(),
            tool_calls: tool_calls.as_ref(),
            extra,
        }
    }
}

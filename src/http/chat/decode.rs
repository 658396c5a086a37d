//! Decodes chat requests into prompts. Every field that can change the answer becomes part of the prompt, and so of its
//! cache key; a request whose answer an entry cannot hold is passed on.

use serde_json::{Map, Value};

use crate::{
    error::Error,
    prompt::{CACHE_MARK, Message, Prompt, Role},
};

/// How the caller wants the answer; no part of the prompt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shape {
    pub stream: bool,
    /// `stream_options.include_usage`
    pub include_usage: bool,
}

/// A decoded request.
#[derive(Debug)]
pub(super) enum Decoded {
    Prompt {
        prompt: Box<Prompt>,
        shape: Shape,
    },
    /// A request whose answer an entry cannot hold: several choices, log probabilities, audio, images.
    Uncacheable {
        /// The part that routing needs.
        route: Box<Prompt>,
        body: Map<String, Value>,
    },
}

type Fields = Map<String, Value>;

pub(super) fn decode(mut body: Fields) -> Result<Decoded, Error> {
    // The official clients send null for an absent field.
    body.retain(|_, value| !value.is_null());
    if is_uncacheable(&body) {
        return Ok(Decoded::Uncacheable { route: Box::new(route(&body)), body });
    }
    let shape = Shape { stream: flag(&mut body, "stream")?, include_usage: include_usage(&mut body) };
    // Both can only have their default here: one choice, no log probabilities.
    body.remove("n");
    body.remove("logprobs");
    let prompt = Prompt {
        namespace: String::new(),
        model: take_text(&mut body, "model")?.unwrap_or_default(),
        messages: messages(body.remove("messages"))?,
        temperature: take_number(&mut body, "temperature")?.map(|number| number as f32),
        top_p: take_number(&mut body, "top_p")?.map(|number| number as f32),
        max_tokens: take_whole(&mut body, "max_tokens")?,
        stop: stop(body.remove("stop"))?,
        seed: take_whole(&mut body, "seed")?,
        response_format: take(&mut body, "response_format", Value::is_object, "an object")?,
        tools: take(&mut body, "tools", Value::is_array, "an array")?,
        tool_choice: take(
            &mut body,
            "tool_choice",
            |v| v.is_string() || v.is_object(),
            "a string or an object",
        )?,
        vary: Default::default(),
        extra: body,
        ignored: Map::new(),
    };
    Ok(Decoded::Prompt { prompt: Box::new(prompt), shape })
}

// === uncacheable requests ===

fn is_uncacheable(body: &Fields) -> bool {
    /// Fields whose answers have parts that an entry cannot hold: audio, citations, deprecated function calls.
    const FIELDS: [&str; 5] = ["audio", "functions", "function_call", "top_logprobs", "web_search_options"];
    let is_not_text = |modalities: &Value| {
        modalities.as_array().is_none_or(|list| list.iter().any(|modality| modality != "text"))
    };
    FIELDS.iter().any(|field| body.contains_key(*field))
        || body.get("n").is_some_and(|n| n.as_f64() != Some(1.0))
        || body.get("logprobs").is_some_and(|wanted| wanted != false)
        || body.get("modalities").is_some_and(is_not_text)
        || turns(body).any(|turn| turn.as_object().is_some_and(has_more_than_text))
}

/// Whether a turn has more than a prompt can hold.
fn has_more_than_text(turn: &Fields) -> bool {
    // A sound that the provider stores, and the predecessor of tool calls.
    let is_more = |name: &str| matches!(name, "audio" | "function_call");
    turn.get("role").is_some_and(|role| role == "function")
        || turn.iter().any(|(name, value)| is_more(name) && !is_blank(value))
        || turn.get("content").and_then(Value::as_array).is_some_and(|parts| !parts.iter().all(is_text_part))
}

/// Whether a field says nothing: clients write null and empty lists for absent ones.
fn is_blank(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

/// Whether a part is just `{"type":"text","text":…}`, perhaps with a cache mark. The key covers its text only.
fn is_text_part(part: &Value) -> bool {
    let Some(part) = part.as_object() else { return false };
    part.get("type").is_some_and(|kind| kind == "text")
        && part.contains_key("text")
        && part.keys().all(|name| matches!(name.as_str(), "type" | "text" | CACHE_MARK))
}

/// The model and texts of a request, for routing. The provider checks everything else.
fn route(body: &Fields) -> Prompt {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let message = |turn: &Value| {
        let role = Role::parse(&text(turn.get("role"))).unwrap_or(Role::User);
        Message::new(role, turn.get("content").map(lossy_text).unwrap_or_default())
    };
    Prompt {
        model: text(body.get("model")),
        messages: turns(body).map(message).collect(),
        ..Prompt::default()
    }
}

fn turns(body: &Fields) -> impl Iterator<Item = &Value> {
    body.get("messages").and_then(Value::as_array).into_iter().flatten()
}

fn lossy_text(content: &Value) -> String {
    let part = |part: &Value| part.get("text").and_then(Value::as_str).map(str::to_owned);
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(part).collect::<Vec<_>>().join("\n"),
        _ => String::new(),
    }
}

// === messages ===

fn messages(value: Option<Value>) -> Result<Vec<Message>, Error> {
    let Some(Value::Array(turns)) = value else { return Err(Error::invalid("messages", "must be an array")) };
    turns.into_iter().enumerate().map(|(n, turn)| message(&format!("messages[{n}]"), turn)).collect()
}

fn message(field: &str, turn: Value) -> Result<Message, Error> {
    let Value::Object(mut turn) = turn else { return Err(Error::invalid(field, "must be an object")) };
    let role = turn.get("role").and_then(Value::as_str).and_then(Role::parse).ok_or_else(|| {
        Error::invalid(format!("{field}.role"), "must be system, developer, user, assistant or tool")
    })?;
    let tool_calls = match turn.remove("tool_calls") {
        None | Some(Value::Null) => None,
        Some(calls @ Value::Array(_)) => Some(calls),
        Some(_) => return Err(Error::invalid(format!("{field}.tool_calls"), "must be an array")),
    };
    let (content, parts) = content(&format!("{field}.content"), turn.remove("content"))?;
    let name = text_or_null(&format!("{field}.name"), turn.remove("name"))?;
    let tool_call_id = text_or_null(&format!("{field}.tool_call_id"), turn.remove("tool_call_id"))?;
    turn.remove("role");
    // Some providers refuse fields that they do not know, even where they are blank.
    turn.retain(|_, value| !is_blank(value));
    Ok(Message { role, content, name, tool_call_id, tool_calls, parts, extra: turn })
}

/// The text of a turn, and its parts if there are any. Texts are joined with line breaks, as servers of open models do.
fn content(field: &str, content: Option<Value>) -> Result<(String, Option<Value>), Error> {
    let Some(Value::Array(parts)) = content else {
        return Ok((text_or_null(field, content)?.unwrap_or_default(), None));
    };
    let mut texts = Vec::with_capacity(parts.len());
    for (n, part) in parts.iter().enumerate() {
        match part.get("text") {
            Some(Value::String(text)) => texts.push(text.as_str()),
            _ => return Err(Error::invalid(format!("{field}[{n}].text"), "must be a string")),
        }
    }
    Ok((texts.join("\n"), Some(Value::Array(parts))))
}

pub(in crate::http) fn text_or_null(field: &str, value: Option<Value>) -> Result<Option<String>, Error> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Error::invalid(field, "must be a string")),
    }
}

// === the other fields ===

fn flag(body: &mut Fields, name: &str) -> Result<bool, Error> {
    match body.remove(name) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(flag),
        Some(_) => Err(Error::invalid(name, "must be true or false")),
    }
}

fn include_usage(body: &mut Fields) -> bool {
    let options = body.remove("stream_options");
    options.is_some_and(|options| options.get("include_usage") == Some(&Value::Bool(true)))
}

fn take_text(body: &mut Fields, name: &str) -> Result<Option<String>, Error> {
    text_or_null(name, body.remove(name))
}

fn take_number(body: &mut Fields, name: &str) -> Result<Option<f64>, Error> {
    let Some(value) = body.remove(name) else { return Ok(None) };
    value.as_f64().map(Some).ok_or_else(|| Error::invalid(name, "must be a number"))
}

fn take_whole<T: TryFrom<i64>>(body: &mut Fields, name: &str) -> Result<Option<T>, Error> {
    let Some(value) = body.remove(name) else { return Ok(None) };
    let number = value.as_i64().and_then(|number| T::try_from(number).ok());
    number.map(Some).ok_or_else(|| Error::invalid(name, "must be a whole number"))
}

fn take(
    body: &mut Fields,
    name: &str,
    is_expected: impl Fn(&Value) -> bool,
    expected: &str,
) -> Result<Option<Value>, Error> {
    match body.remove(name) {
        Some(value) if !is_expected(&value) => Err(Error::invalid(name, format!("must be {expected}"))),
        value => Ok(value),
    }
}

fn stop(value: Option<Value>) -> Result<Vec<String>, Error> {
    let text = |value| match value {
        Value::String(text) => Ok(text),
        _ => Err(Error::invalid("stop", "must be a string or an array of strings")),
    };
    match value {
        None => Ok(Vec::new()),
        Some(Value::Array(texts)) => texts.into_iter().map(text).collect(),
        Some(value) => Ok(vec![text(value)?]),
    }
}

#[cfg(test)]
mod tests;

//! Decodes requests of the Responses API into prompts, where they are plain text.

use serde_json::{Map, Value, json};

use super::dialect::{Echo, ID_PREFIX};
use crate::{
    error::Error,
    http::chat::text_or_null,
    prompt::{Message, Prompt, Role},
};

/// A decoded request.
#[derive(Debug)]
pub(super) enum Decoded {
    Prompt {
        prompt: Box<Prompt>,
        echo: Echo,
        stream: bool,
    },
    /// A request with tools, files, a stored conversation, or anything else that is not text.
    Uncacheable {
        /// The part that routing needs.
        route: Box<Prompt>,
        body: Map<String, Value>,
    },
}

/// Fields of a plain-text request. A request with any other field is passed on.
const PLAIN: [&str; 14] = [
    "input",
    "instructions",
    "max_output_tokens",
    "metadata",
    "model",
    "prompt_cache_key",
    "safety_identifier",
    "service_tier",
    "store",
    "stream",
    "temperature",
    "text",
    "top_p",
    "user",
];

pub(super) fn decode(mut body: Map<String, Value>) -> Result<Decoded, Error> {
    body.retain(|_, value| !value.is_null());
    refuse_our_own_past(&body)?;
    match plain(&body)? {
        Some(prompt) => {
            let stream = body.get("stream") == Some(&Value::Bool(true));
            Ok(Decoded::Prompt { prompt: Box::new(prompt), echo: Echo::of(&body), stream })
        }
        None => {
            let model = body.get("model").and_then(Value::as_str).unwrap_or_default().to_owned();
            let input = body.get("input").map(Value::to_string).unwrap_or_default();
            let route = Prompt { model, messages: vec![turn(Role::User, input)], ..Prompt::default() };
            Ok(Decoded::Uncacheable { route: Box::new(route), body })
        }
    }
}

/// Refuses to continue from an answer of this server: no provider stores it.
fn refuse_our_own_past(body: &Map<String, Value>) -> Result<(), Error> {
    let previous = body.get("previous_response_id").and_then(Value::as_str);
    if previous.is_some_and(|id| id.starts_with(ID_PREFIX)) {
        return Err(Error::invalid(
            "previous_response_id",
            "no provider stored that answer, because it was answered through the cache (store: false): send the \
             conversation as input, or use store: true from the first turn",
        ));
    }
    Ok(())
}

/// The prompt of a plain-text request; `None` for any other.
fn plain(body: &Map<String, Value>) -> Result<Option<Prompt>, Error> {
    let is_plain = body.keys().all(|name| PLAIN.contains(&name.as_str()));
    // With `store: true` the caller will continue from the answer, which only its provider can do.
    if !is_plain || body.get("store") == Some(&Value::Bool(true)) {
        return Ok(None);
    }
    let (Some(messages), Some(response_format)) = (messages(body.get("input")), format(body.get("text")))
    else {
        return Ok(None);
    };
    let number = |name: &str| match body.get(name) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or_else(|| Error::invalid(name, "must be a number")),
    };
    let mut prompt = Prompt {
        model: text_or_null("model", body.get("model").cloned())?.unwrap_or_default(),
        messages,
        temperature: number("temperature")?.map(|number| number as f32),
        top_p: number("top_p")?.map(|number| number as f32),
        max_tokens: max_tokens(body.get("max_output_tokens"))?,
        response_format,
        ..Prompt::default()
    };
    if let Some(instructions) = text_or_null("instructions", body.get("instructions").cloned())? {
        prompt.messages.insert(0, turn(Role::System, instructions));
    }
    for name in ["user", "metadata", "safety_identifier", "prompt_cache_key", "service_tier"] {
        prompt.extra.extend(body.get(name).map(|value| (name.to_owned(), value.clone())));
    }
    Ok(Some(prompt))
}

fn turn(role: Role, content: String) -> Message {
    Message::new(role, content)
}

fn max_tokens(value: Option<&Value>) -> Result<Option<u32>, Error> {
    let Some(value) = value else { return Ok(None) };
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    number.map(Some).ok_or_else(|| Error::invalid("max_output_tokens", "must be a whole number"))
}

fn messages(input: Option<&Value>) -> Option<Vec<Message>> {
    match input? {
        Value::String(text) => Some(vec![turn(Role::User, text.clone())]),
        Value::Array(items) => items.iter().map(message).collect(),
        _ => None,
    }
}

fn message(item: &Value) -> Option<Message> {
    let item = item.as_object()?;
    let is_known = |name: &String| matches!(name.as_str(), "type" | "role" | "content" | "id" | "status");
    if !item.keys().all(is_known) || item.get("type").is_some_and(|kind| kind != "message") {
        return None;
    }
    let role = Role::parse(item.get("role")?.as_str()?)?;
    let content = match item.get("content")? {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(part_text).collect::<Option<Vec<_>>>()?.join("\n"),
        _ => return None,
    };
    Some(turn(role, content))
}

fn part_text(part: &Value) -> Option<&str> {
    let kind = part.get("type")?.as_str()?;
    matches!(kind, "input_text" | "output_text" | "text").then(|| part.get("text")?.as_str()).flatten()
}

/// `text.format` as the chat dialect's `response_format`; `None` when `text` has other fields or formats.
fn format(text: Option<&Value>) -> Option<Option<Value>> {
    let Some(text) = text else { return Some(None) };
    let text = text.as_object()?;
    if text.keys().any(|name| name != "format") {
        return None;
    }
    let Some(format) = text.get("format") else { return Some(None) };
    let mut fields = format.as_object()?.clone();
    let kind = fields.remove("type")?;
    match kind.as_str()? {
        "text" => Some(None),
        "json_object" => Some(Some(json!({ "type": "json_object" }))),
        "json_schema" => Some(Some(json!({ "type": "json_schema", "json_schema": fields }))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt_of(body: Value) -> Option<Prompt> {
        let Value::Object(body) = body else { panic!("an object") };
        match decode(body).unwrap() {
            Decoded::Prompt { prompt, .. } => Some(*prompt),
            Decoded::Uncacheable { .. } => None,
        }
    }

    #[test]
    fn plain_text_decodes_to_the_prompt_of_a_chat_request() {
        let prompt = prompt_of(json!({
            "model": "auto",
            "instructions": "be brief",
            "input": [
                { "role": "user", "content": "a" },
                { "type": "message", "role": "assistant", "content": [{ "type": "output_text", "text": "b" }] },
                { "role": "user", "content": [{ "type": "input_text", "text": "c" }] },
            ],
            "max_output_tokens": 7,
            "text": { "format": { "type": "json_schema", "name": "n", "schema": {} } },
        }))
        .unwrap();
        let turns: Vec<_> = prompt.messages.iter().map(|m| (m.role.as_str(), m.content.as_str())).collect();
        assert_eq!(turns, [("system", "be brief"), ("user", "a"), ("assistant", "b"), ("user", "c")]);
        assert_eq!(prompt.max_tokens, Some(7));
        let schema = json!({ "type": "json_schema", "json_schema": { "name": "n", "schema": {} } });
        assert_eq!(prompt.response_format, Some(schema));
    }

    #[test]
    fn requests_beyond_plain_text_are_passed_on() {
        for more in [
            json!({ "input": "x", "tools": [{ "type": "web_search" }] }),
            json!({ "input": "x", "previous_response_id": "resp_of_a_provider" }),
            json!({ "input": "x", "store": true }),
            json!({ "input": "x", "text": { "verbosity": "low" } }),
            json!({ "input": [{ "type": "function_call_output", "call_id": "c", "output": "1" }] }),
            json!({ "input": [{ "role": "user", "content": [{ "type": "input_image", "image_url": "u" }] }] }),
            json!({ "prompt": { "id": "p" } }),
        ] {
            assert_eq!(prompt_of(more.clone()), None, "{more}");
        }
    }

    #[test]
    fn continuing_from_an_unstored_answer_is_refused() {
        let body = json!({ "input": "x", "previous_response_id": format!("{ID_PREFIX}1") });
        let Value::Object(body) = body else { panic!("an object") };
        assert_eq!(decode(body).unwrap_err().field(), Some("previous_response_id"));
    }
}

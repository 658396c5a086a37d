//! Decodes proto messages into domain types. Every error names the field.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value};

use super::proto;
use crate::{
    entry::{EntryId, Selector},
    error::Error,
    model::Usage,
    outcome::Verdict,
    pipeline::{RequestId, Subject},
    prompt::{
        CacheControl, Completion, FinishReason, Keep, Message, Prompt, REASONING_FIELDS, REPLY_FIELDS,
        Reasoning, ReasoningField, ReplyFields, Role,
    },
};

/// Longest window of `GetStats`.
const WINDOW_MAX: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn prompt(field: &str, prompt: Option<proto::Prompt>) -> Result<Prompt, Error> {
    let prompt = prompt.ok_or_else(|| Error::invalid(field, "is required"))?;
    let messages = prompt.messages.into_iter().enumerate();
    Ok(Prompt {
        namespace: prompt.namespace,
        model: prompt.model,
        messages: messages
            .map(|(n, message)| decode_message(&format!("{field}.messages[{n}]"), message))
            .collect::<Result<_, _>>()?,
        temperature: prompt.temperature,
        top_p: prompt.top_p,
        max_tokens: prompt.max_tokens,
        stop: prompt.stop,
        seed: prompt.seed,
        response_format: json(
            &format!("{field}.response_format_json"),
            &prompt.response_format_json,
            Value::is_object,
            "an object",
        )?,
        tools: json(&format!("{field}.tools_json"), &prompt.tools_json, Value::is_array, "an array")?,
        tool_choice: json(
            &format!("{field}.tool_choice_json"),
            &prompt.tool_choice_json,
            |value| value.is_string() || value.is_object(),
            "a string or an object",
        )?,
        vary: prompt.vary.into_iter().collect::<BTreeMap<_, _>>(),
        extra: object(&format!("{field}.extra_json"), &prompt.extra_json)?,
        ignored: Map::new(),
    })
}

/// Refuses messages above `server.max_request`.
pub(super) fn check_size(
    field: &str,
    message: Option<&impl prost::Message>,
    max_request: usize,
) -> Result<(), Error> {
    let size = message.map_or(0, prost::Message::encoded_len);
    if size <= max_request {
        return Ok(());
    }
    Err(Error::invalid(field, format!("has {size} bytes, more than the {max_request} of server.max_request")))
}

fn decode_message(field: &str, message: proto::Message) -> Result<Message, Error> {
    let proto::Message { role, content, name, tool_call_id, tool_calls_json, reasoning_content, extra_json } =
        message;
    let role = Role::parse(&role).ok_or_else(|| {
        Error::invalid(format!("{field}.role"), "must be system, developer, user, assistant or tool")
    })?;
    let tool_calls =
        json(&format!("{field}.tool_calls_json"), &tool_calls_json, Value::is_array, "an array")?;
    let mut extra = object(&format!("{field}.extra_json"), &extra_json)?;
    if !reasoning_content.is_empty() {
        let [name, _] = REASONING_FIELDS;
        if extra.insert(name.to_owned(), reasoning_content.into()).is_some() {
            return Err(Error::invalid(
                format!("{field}.extra_json"),
                format!("{name} has a field of its own"),
            ));
        }
    }
    Ok(Message {
        name: present(name),
        tool_call_id: present(tool_call_id),
        tool_calls,
        extra,
        ..Message::new(role, content)
    })
}

/// A JSON object; empty where the text is.
fn object(field: &str, text: &str) -> Result<Map<String, Value>, Error> {
    match json(field, text, Value::is_object, "an object")? {
        Some(Value::Object(fields)) => Ok(fields),
        _ => Ok(Map::new()),
    }
}

/// The text, unless it is empty: proto3 has no other way to omit a string.
fn present(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn json(
    field: &str,
    text: &str,
    is_expected: impl Fn(&Value) -> bool,
    expected: &str,
) -> Result<Option<Value>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    // serde's message has a position but does not quote the text.
    let value: Value =
        serde_json::from_str(text).map_err(|error| Error::invalid(field, format!("is not JSON: {error}")))?;
    if !is_expected(&value) {
        return Err(Error::invalid(field, format!("must be {expected}")));
    }
    Ok(Some(value))
}

pub(super) fn cache_control(cache: Option<proto::CacheControl>) -> Result<CacheControl, Error> {
    let cache = cache.unwrap_or_default();
    Ok(CacheControl {
        no_cache: cache.no_cache,
        no_store: cache.no_store,
        exact_only: cache.exact_only,
        min_similarity: cache.min_similarity,
        max_error_rate: cache.max_error_rate,
        ttl: duration("cache.ttl", cache.ttl)?,
        max_age: duration("cache.max_age", cache.max_age)?,
        tags: cache.tags,
        keep: keep(cache.keep)?,
        verify: cache.verify,
    })
}

fn keep(keep: i32) -> Result<Option<Keep>, Error> {
    match proto::Keep::try_from(keep) {
        Ok(proto::Keep::Unspecified) => Ok(None),
        Ok(proto::Keep::All) => Ok(Some(Keep::All)),
        Ok(proto::Keep::Careful) => Ok(Some(Keep::Careful)),
        Err(_) => Err(Error::invalid("cache.keep", "is unknown")),
    }
}

fn duration(field: &str, duration: Option<prost_types::Duration>) -> Result<Option<Duration>, Error> {
    let converted = duration.map(Duration::try_from).transpose();
    converted.map_err(|_| Error::invalid(field, "must not be negative"))
}

pub(super) fn completion(completion: Option<proto::Completion>) -> Result<Completion, Error> {
    let completion = completion.ok_or_else(|| Error::invalid("completion", "is required"))?;
    let usage = completion.usage.unwrap_or_default();
    Ok(Completion {
        tool_calls: json(
            "completion.tool_calls_json",
            &completion.tool_calls_json,
            Value::is_array,
            "an array",
        )?,
        content: completion.content,
        finish_reason: FinishReason::parse(&completion.finish_reason),
        model: completion.model,
        tier: completion.tier,
        usage: decode_usage(usage),
        reasoning: present(completion.reasoning_content)
            .map(|text| Reasoning { text, field: ReasoningField::ReasoningContent }),
        refusal: present(completion.refusal),
        extra: reply_fields(&completion.extra_json)?,
    })
}

const fn decode_usage(usage: proto::Usage) -> Usage {
    let proto::Usage {
        prompt_tokens,
        completion_tokens,
        cost_usd,
        estimated,
        cached_prompt_tokens,
        cache_write_tokens,
        reasoning_tokens,
    } = usage;
    Usage {
        prompt_tokens,
        completion_tokens,
        cached_prompt_tokens,
        cache_write_tokens,
        reasoning_tokens,
        cost_usd,
        estimated,
    }
}

fn reply_fields(text: &str) -> Result<ReplyFields, Error> {
    const FIELD: &str = "completion.extra_json";
    let mut objects = object(FIELD, text)?;
    let mut take = |name: &str| match objects.remove(name) {
        None => Ok(Map::new()),
        Some(Value::Object(fields)) => Ok(fields),
        Some(_) => Err(Error::invalid(FIELD, format!("{name} must be an object"))),
    };
    let fields = ReplyFields { message: take("message")?, choice: take("choice")?, reply: take("reply")? };
    if !objects.is_empty() {
        return Err(Error::invalid(FIELD, "must have no other keys than message, choice and reply"));
    }
    if !fields.reply.keys().all(|name| REPLY_FIELDS.contains(&name.as_str())) {
        let message = format!("reply may only have {}", REPLY_FIELDS.join(" and "));
        return Err(Error::invalid(FIELD, message));
    }
    Ok(fields)
}

/// The criteria, and the prompt if one of them is a prompt.
pub(super) fn selector(request: proto::InvalidateRequest) -> Result<(Selector, Option<Prompt>), Error> {
    let proto::InvalidateRequest { entry_id, namespace, model, tag, prompt: of_prompt, dry_run: _ } = request;
    let id = present(entry_id).map(|text| entry("entry_id", &text)).transpose()?;
    let of_prompt = of_prompt.map(|message| prompt("prompt", Some(message))).transpose()?;
    let selector = Selector {
        id,
        namespace: present(namespace),
        model: present(model),
        tags: present(tag).into_iter().collect(),
        ..Selector::default()
    };
    if selector == Selector::default() && of_prompt.is_none() {
        return Err(Error::invalid(
            "entry_id",
            "one of entry_id, namespace, model, tag or prompt is required",
        ));
    }
    Ok((selector, of_prompt))
}

fn entry(field: &str, text: &str) -> Result<EntryId, Error> {
    EntryId::parse(text).ok_or_else(|| Error::invalid(field, "must be 32 hex digits"))
}

/// The subjects of the feedback, the more precise one first, and its verdict.
pub(super) fn feedback(request: &proto::FeedbackRequest) -> Result<(Vec<Subject>, Verdict), Error> {
    let verdict = match request.verdict() {
        proto::Verdict::Unspecified => return Err(Error::invalid("verdict", "is required")),
        proto::Verdict::Up => Verdict::Up,
        proto::Verdict::Down => Verdict::Down,
        proto::Verdict::Escalated => Verdict::Escalated,
        proto::Verdict::WrongHit => Verdict::WrongHit,
    };
    let mut subjects = Vec::new();
    if !request.request_id.is_empty() {
        let id = RequestId::parse(&request.request_id);
        subjects
            .push(Subject::Reply(id.ok_or_else(|| Error::invalid("request_id", "must be 32 hex digits"))?));
    }
    if !request.entry_id.is_empty() {
        subjects.push(Subject::Entry(entry("entry_id", &request.entry_id)?));
    }
    if subjects.is_empty() {
        return Err(Error::invalid("request_id", "request_id or entry_id is required"));
    }
    Ok((subjects, verdict))
}

pub(super) fn stats_request(
    request: proto::GetStatsRequest,
) -> Result<(Option<Duration>, Option<String>), Error> {
    let window = duration("window", request.window)?;
    if window.is_some_and(|window| window.is_zero() || window > WINDOW_MAX) {
        return Err(Error::invalid("window", "must be above 0 and at most 24 hours"));
    }
    Ok((window, present(request.namespace)))
}

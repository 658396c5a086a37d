//! Prompts, completions and cache directives in the form that all layers share. This module knows no transport.
//! Tools, tool calls and response formats keep the JSON of the OpenAI dialect.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value};

use crate::{error::Error, model::Usage};

/// Fields of the OpenAI dialect's request that [`Prompt`] has a field for, or that the server sets itself.
/// [`Prompt::extra`] must not contain them.
pub const OWN_FIELDS: [&str; 12] = [
    "max_tokens",
    "messages",
    "model",
    "response_format",
    "seed",
    "stop",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_p",
];

/// Fields of the OpenAI dialect's messages that [`Message`] has a field for. [`Message::extra`] must not contain them.
pub const OWN_MESSAGE_FIELDS: [&str; 5] = ["content", "name", "role", "tool_call_id", "tool_calls"];

/// Field by which callers mark what a provider should keep in its own cache. It changes the price of an answer, not the
/// answer, so no key covers it.
pub const CACHE_MARK: &str = "cache_control";

/// Names of the field that holds a model's reasoning; most providers use the first.
pub const REASONING_FIELDS: [&str; 2] = ["reasoning_content", "reasoning"];

/// Fields of a provider's reply that [`ReplyFields::reply`] may have.
pub const REPLY_FIELDS: [&str; 2] = ["system_fingerprint", "service_tier"];

/// Maximum length of a namespace in bytes. Statistics keep a copy of each name, so names must stay short.
pub const NAMESPACE_BYTES_MAX: usize = 256;

/// Maximum number of tags of an entry.
const TAGS_MAX: usize = 64;
/// Maximum length of a tag in bytes.
const TAG_BYTES_MAX: usize = 1024;

/// A prompt. A semantic hit may differ in the last user text only; everything else must be equal.
///
/// The default is an empty prompt, which is not valid: fill it and call [`Prompt::validate`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prompt {
    /// Group of entries that may answer each other's prompts. Empty before admission: the default.
    pub namespace: String,
    /// Model id, tier name or `auto`. Empty before admission: the default.
    pub model: String,
    /// The conversation, oldest first, with at least one user turn.
    pub messages: Vec<Message>,
    /// Sampling temperature, 0 to 2.
    pub temperature: Option<f32>,
    /// Nucleus sampling mass, in (0, 1].
    pub top_p: Option<f32>,
    /// Maximum number of completion tokens, at least 1.
    pub max_tokens: Option<u32>,
    /// Sequences that stop the completion, in the caller's order.
    pub stop: Vec<String>,
    /// Seed for deterministic sampling.
    pub seed: Option<i64>,
    /// The OpenAI dialect's `response_format`.
    pub response_format: Option<Value>,
    /// The OpenAI dialect's `tools`.
    pub tools: Option<Value>,
    /// The OpenAI dialect's `tool_choice`.
    pub tool_choice: Option<Value>,
    /// Other attributes that the answer depends on. Part of the key, never sent to a model.
    pub vary: BTreeMap<String, String>,
    /// Further fields of the OpenAI dialect's request, such as `reasoning_effort`. Sent unchanged, and part of
    /// the key. Must not contain any of [`OWN_FIELDS`].
    pub extra: Map<String, Value>,
    /// Further fields that the answer does not depend on, such as `user`. Sent unchanged, and not part of the key.
    pub ignored: Map<String, Value>,
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Author of the turn.
    pub role: Role,
    /// Text of the turn; may be empty beside tool calls.
    pub content: String,
    /// Name of the author, if the caller gave one.
    pub name: Option<String>,
    /// For [`Role::Tool`]: id of the call that this turn answers.
    pub tool_call_id: Option<String>,
    /// For [`Role::Assistant`]: its tool calls, as the OpenAI dialect's `tool_calls` array.
    pub tool_calls: Option<Value>,
    /// The array of text parts, where the caller sent one: `content` is their texts, joined with line breaks. Sent in
    /// place of `content`. Not part of the key, which covers `content`.
    pub parts: Option<Value>,
    /// Further fields of the turn, such as `reasoning_content`. Sent unchanged, and part of the key. Must not contain
    /// any of [`OWN_MESSAGE_FIELDS`].
    pub extra: Map<String, Value>,
}

/// Author of a [`Message`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    System,
    Developer,
    User,
    Assistant,
    Tool,
}

/// Cache directives of one request. The default leaves everything to the server's configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CacheControl {
    /// Bypass the cache: always call a model.
    pub no_cache: bool,
    /// Do not store the answer.
    pub no_store: bool,
    /// Accept exact hits only.
    pub exact_only: bool,
    /// Minimum cosine similarity of a semantic hit, 0 to 1. Can only tighten the server's limit.
    pub min_similarity: Option<f32>,
    /// Maximum fraction of requests that may get a wrong answer, 0 to 1.
    pub max_error_rate: Option<f32>,
    /// TTL of the entry that this request stores. Can only shorten the server's TTL.
    pub ttl: Option<Duration>,
    /// Maximum age of an entry that may answer this request.
    pub max_age: Option<Duration>,
    /// Labels by which the stored entry can be invalidated.
    pub tags: Vec<String>,
    /// Replaces the server's `cache.keep` for this request.
    pub keep: Option<Keep>,
    /// Whether a verifier may be asked about this request: `false` forbids it; `true` asks before serving where the server
    /// would only ask in the background.
    pub verify: Option<bool>,
}

/// What the cache stores for personal or time-dependent prompts and for prompts that ask for variety.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Keep {
    /// Stores them like any other prompt.
    All,
    /// Reuses answers to personal and time-dependent prompts within `careful_ttl` and for the same person and moment only,
    /// and stores nothing for prompts that ask for variety.
    Careful,
}

/// A complete answer of a model. The default is an empty one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Completion {
    /// Text of the answer; may be empty beside tool calls.
    pub content: String,
    /// What the model thought before it answered, if the provider shows it.
    pub reasoning: Option<Reasoning>,
    /// The model's words where it refuses to answer.
    pub refusal: Option<String>,
    /// The OpenAI dialect's `tool_calls` array.
    pub tool_calls: Option<Value>,
    /// Why the model stopped.
    pub finish_reason: FinishReason,
    /// Id of the model that produced the answer.
    pub model: String,
    /// Tier of that model; empty when it is not in the catalog.
    pub tier: String,
    /// Tokens and cost of the model call.
    pub usage: Usage,
    /// Further fields of the provider's reply.
    pub extra: ReplyFields,
}

/// Text that a model thought, and the name by which its provider sends it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reasoning {
    pub text: String,
    pub field: ReasoningField,
}

/// Which of [`REASONING_FIELDS`] a provider uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReasoningField {
    #[default]
    ReasoningContent,
    Reasoning,
    /// Two fields with one text.
    Both,
}

/// Fields of a provider's reply that are only passed on, by the object that holds them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplyFields {
    /// Of the message, such as `annotations`.
    pub message: Map<String, Value>,
    /// Of the choice, such as `content_filter_results`.
    pub choice: Map<String, Value>,
    /// Of the reply itself, only [`REPLY_FIELDS`].
    pub reply: Map<String, Value>,
}

/// Why a model stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FinishReason {
    #[default]
    Stop,
    ToolCalls,
    Length,
    ContentFilter,
    /// A value that this version does not know. Such an answer is never stored.
    Other(String),
}

/// The next piece of an answer that is being streamed.
#[derive(Clone, Debug, PartialEq)]
pub enum Delta {
    /// More of what the model thinks.
    Reasoning(Reasoning),
    /// More text.
    Text(String),
    /// More of a refusal.
    Refusal(String),
    /// The OpenAI dialect's `delta.tool_calls` array.
    ToolCalls(Value),
    /// Further fields of the OpenAI dialect's `delta`, such as `annotations`.
    Fields(Map<String, Value>),
}

// === impl Prompt ===

impl Prompt {
    /// Returns the text in which a semantic hit may differ: the last turn, if it is a user's and not blank.
    pub fn fuzzy_text(&self) -> Option<&str> {
        let last = self.messages.last()?;
        let is_text = last.role == Role::User && !last.content.trim().is_empty();
        is_text.then_some(last.content.as_str())
    }

    /// Takes the further fields of these names out of the key.
    pub fn ignore(&mut self, names: &[String]) {
        for name in names {
            if let Some((name, value)) = self.extra.remove_entry(name) {
                self.ignored.insert(name, value);
            }
        }
    }

    /// Checks the rules that the types do not enforce.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the first offending field.
    pub fn validate(&self) -> Result<(), Error> {
        if self.messages.is_empty() {
            return Err(Error::invalid("prompt.messages", "must not be empty"));
        }
        if !self.messages.iter().any(|m| m.role == Role::User) {
            return Err(Error::invalid("prompt.messages", "needs at least one message of role user"));
        }
        if self.namespace.len() > NAMESPACE_BYTES_MAX {
            let message = format!("must not be longer than {NAMESPACE_BYTES_MAX} bytes");
            return Err(Error::invalid("prompt.namespace", message));
        }
        check_range(
            "prompt.temperature",
            self.temperature,
            |t| (0.0..=2.0).contains(&t),
            "must be from 0 to 2",
        )?;
        check_range("prompt.top_p", self.top_p, |p| p > 0.0 && p <= 1.0, "must be above 0 and at most 1")?;
        if self.max_tokens == Some(0) {
            return Err(Error::invalid("prompt.max_tokens", "must be at least 1"));
        }
        if let Some(field) = OWN_FIELDS.into_iter().find(|field| self.extra.contains_key(*field)) {
            return Err(Error::invalid("prompt.extra", format!("{field} has a field of its own")));
        }
        for (n, message) in self.messages.iter().enumerate() {
            if let Some(field) =
                OWN_MESSAGE_FIELDS.into_iter().find(|field| message.extra.contains_key(*field))
            {
                let path = format!("prompt.messages[{n}].extra");
                return Err(Error::invalid(path, format!("{field} has a field of its own")));
            }
        }
        Ok(())
    }
}

/// Checks an optional number. NaN fails every range test, so it is refused too.
fn check_range(
    field: &str,
    value: Option<f32>,
    ok: impl Fn(f32) -> bool,
    message: &str,
) -> Result<(), Error> {
    match value {
        Some(v) if !ok(v) => Err(Error::invalid(field, message)),
        _ => Ok(()),
    }
}

// === impl Role ===

impl Role {
    /// Returns the name used by the OpenAI dialect and the gRPC contract.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }

    /// Parses a name of [`Role::as_str`].
    pub fn parse(name: &str) -> Option<Self> {
        [Self::System, Self::Developer, Self::User, Self::Assistant, Self::Tool]
            .into_iter()
            .find(|role| role.as_str() == name)
    }
}

/// Returns the longest prefix of `text` that has at most `bytes_max` bytes and ends between characters.
pub fn prefix(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

// === impl Message ===

impl Message {
    /// Creates a turn without name and tool calls.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            name: None,
            tool_call_id: None,
            tool_calls: None,
            parts: None,
            extra: Map::new(),
        }
    }
}

// === impl CacheControl ===

impl CacheControl {
    /// Checks the rules that the types do not enforce.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the first offending field.
    pub fn validate(&self) -> Result<(), Error> {
        let share = |v: f32| (0.0..=1.0).contains(&v);
        check_range("cache.min_similarity", self.min_similarity, share, "must be from 0 to 1")?;
        check_range("cache.max_error_rate", self.max_error_rate, share, "must be from 0 to 1")?;
        if self.ttl.is_some_and(|ttl| ttl.is_zero()) {
            return Err(Error::invalid("cache.ttl", "must be positive"));
        }
        if self.tags.iter().any(String::is_empty) {
            return Err(Error::invalid("cache.tags", "must not be empty"));
        }
        if self.tags.len() > TAGS_MAX || self.tags.iter().any(|tag| tag.len() > TAG_BYTES_MAX) {
            let message = format!("must be at most {TAGS_MAX}, none longer than {TAG_BYTES_MAX} bytes");
            return Err(Error::invalid("cache.tags", message));
        }
        Ok(())
    }
}

// === impl Completion ===

impl Completion {
    /// Whether the answer may be stored: not truncated, not filtered, not refused, not empty.
    pub fn is_complete(&self) -> bool {
        let has_tool_calls =
            self.tool_calls.as_ref().and_then(Value::as_array).is_some_and(|calls| !calls.is_empty());
        let has_content = !self.content.is_empty() || has_tool_calls;
        has_content
            && self.refusal.is_none()
            && matches!(self.finish_reason, FinishReason::Stop | FinishReason::ToolCalls)
    }
}

// === impl ReasoningField ===

impl ReasoningField {
    /// Returns the field's names in the OpenAI dialect.
    pub const fn names(self) -> &'static [&'static str] {
        let [content, reasoning] = &REASONING_FIELDS;
        match self {
            Self::ReasoningContent => std::slice::from_ref(content),
            Self::Reasoning => std::slice::from_ref(reasoning),
            Self::Both => &REASONING_FIELDS,
        }
    }

    /// Returns the fields that a stream has used which now uses `other`.
    pub fn and(self, other: Self) -> Self {
        if self == other { self } else { Self::Both }
    }
}

// === impl ReplyFields ===

impl ReplyFields {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        let Self { message, choice, reply } = self;
        message.is_empty() && choice.is_empty() && reply.is_empty()
    }

    /// Size as JSON in bytes.
    pub fn size_bytes(&self) -> usize {
        let Self { message, choice, reply } = self;
        let size = |fields: &Map<String, Value>| {
            fields.iter().map(|(name, value)| name.len() + value.to_string().len()).sum::<usize>()
        };
        size(message) + size(choice) + size(reply)
    }
}

// === impl FinishReason ===

impl FinishReason {
    /// Returns the name used by the OpenAI dialect and the gRPC contract.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Stop => "stop",
            Self::ToolCalls => "tool_calls",
            Self::Length => "length",
            Self::ContentFilter => "content_filter",
            Self::Other(name) => name,
        }
    }

    /// Parses a name of [`FinishReason::as_str`]. Never fails: an unknown name becomes [`FinishReason::Other`].
    pub fn parse(name: &str) -> Self {
        match name {
            "stop" => Self::Stop,
            "tool_calls" => Self::ToolCalls,
            "length" => Self::Length,
            "content_filter" => Self::ContentFilter,
            other => Self::Other(other.to_owned()),
        }
    }
}

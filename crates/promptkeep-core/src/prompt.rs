//! What a caller asks and what it gets: prompts, completions and cache directives, as the rest of the
//! crate sees them. Knows no transport and no provider dialect.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value};

use crate::{error::Error, model::Usage};

/// Fields of the OpenAI dialect's request that [`Prompt`] has a place of its own for, or that this server
/// sets itself: never among [`Prompt::extra`].
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

/// Longest namespace. Statistics keep one for each, so they must stay short.
pub const NAMESPACE_BYTES_MAX: usize = 256;

/// Most tags of an entry, and the longest.
const TAGS_MAX: usize = 64;
const TAG_BYTES_MAX: usize = 1024;

/// A validated prompt. Everything but the last user text must be equal for a semantic hit. The default is an empty
/// one, to be filled.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prompt {
    /// Groups entries that may answer one another. Never empty.
    pub namespace: String,
    /// Model id, tier name or `auto`. Never empty.
    pub model: String,
    /// The conversation, oldest first, with at least one user turn.
    pub messages: Vec<Message>,
    /// Sampling temperature, 0 to 2.
    pub temperature: Option<f32>,
    /// Nucleus sampling mass, in (0, 1].
    pub top_p: Option<f32>,
    /// Limit of completion tokens, at least 1.
    pub max_tokens: Option<u32>,
    /// Sequences that end the completion, in the caller's order.
    pub stop: Vec<String>,
    /// Seed of deterministic sampling.
    pub seed: Option<i64>,
    /// The OpenAI dialect's `response_format`.
    pub response_format: Option<Value>,
    /// The OpenAI dialect's `tools`.
    pub tools: Option<Value>,
    /// The OpenAI dialect's `tool_choice`.
    pub tool_choice: Option<Value>,
    /// Whatever else the answer depends on. Part of the key, never sent to a model.
    pub vary: BTreeMap<String, String>,
    /// Further fields of the OpenAI dialect's request, such as `reasoning_effort`: sent as they are, and
    /// part of the key. None of [`OWN_FIELDS`].
    pub extra: Map<String, Value>,
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub role: Role,
    pub content: String,
    /// Author, when the caller names one.
    pub name: Option<String>,
    /// For [`Role::Tool`]: the call that this turn answers.
    pub tool_call_id: Option<String>,
    /// For [`Role::Assistant`]: the calls it made.
    pub tool_calls: Option<Value>,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    System,
    Developer,
    User,
    Assistant,
    Tool,
}

/// How one request may use the cache.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CacheControl {
    /// Do not answer from the cache.
    pub no_cache: bool,
    /// Do not keep the answer.
    pub no_store: bool,
    /// Accept only an exact repeat.
    pub exact_only: bool,
    /// Lowest cosine similarity of a semantic hit; can only tighten the server's limit.
    pub min_similarity: Option<f32>,
    /// Largest accepted share of wrong answers among requests.
    pub max_error_rate: Option<f32>,
    /// Life of an answer kept by this request; can only shorten the server's.
    pub ttl: Option<Duration>,
    /// Oldest acceptable entry.
    pub max_age: Option<Duration>,
    /// Labels for invalidation.
    pub tags: Vec<String>,
    /// Instead of the server's `cache.keep`.
    pub keep: Option<Keep>,
}

/// What the cache stores for personal or time-dependent prompts and for prompts that ask for variety.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Keep {
    /// Stores them like any other prompt.
    All,
    /// Stores personal and time-dependent prompts for exact repeats within `careful_ttl`, and nothing for prompts
    /// that ask for variety.
    Careful,
}

/// A model's whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    pub content: String,
    /// The OpenAI dialect's `tool_calls` array.
    pub tool_calls: Option<Value>,
    pub finish_reason: FinishReason,
    /// Id of the model that wrote it.
    pub model: String,
    /// Tier of that model; empty when it is not in the catalog.
    pub tier: String,
    pub usage: Usage,
}

/// Why a model stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinishReason {
    Stop,
    ToolCalls,
    Length,
    ContentFilter,
    /// A value that this version does not know. Never kept.
    Other(String),
}

/// The next piece of an answer in the making.
#[derive(Clone, Debug, PartialEq)]
pub enum Delta {
    Text(String),
    /// The OpenAI dialect's `delta.tool_calls` array.
    ToolCalls(Value),
}

// === impl Prompt ===

impl Prompt {
    /// A prompt that only says which model is asked, for requests that are passed on as they are.
    pub fn routed_as(model: String) -> Self {
        Self {
            namespace: String::new(),
            model,
            messages: Vec::new(),
            temperature: None,
            top_p: None,
            max_tokens: None,
            stop: Vec::new(),
            seed: None,
            response_format: None,
            tools: None,
            tool_choice: None,
            vary: BTreeMap::new(),
            extra: Map::new(),
        }
    }

    /// The text that a semantic hit may differ in: the last turn, when it is a user's and not blank.
    pub fn fuzzy_text(&self) -> Option<&str> {
        let last = self.messages.last()?;
        let is_text = last.role == Role::User && !last.content.trim().is_empty();
        is_text.then_some(last.content.as_str())
    }

    /// Checks what the types cannot say.
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
        Ok(())
    }
}

/// NaN is in no range, so it is refused too.
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
    /// The name in the OpenAI dialect and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }

    /// Parses [`Role::as_str`]'s names.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::System, Self::Developer, Self::User, Self::Assistant, Self::Tool]
            .into_iter()
            .find(|role| role.as_str() == name)
    }
}

/// The beginning of `text`, at most `bytes_max` bytes of it, cut between characters.
pub fn prefix(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

// === impl Message ===

impl Message {
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into(), name: None, tool_call_id: None, tool_calls: None }
    }
}

// === impl CacheControl ===

impl CacheControl {
    /// Checks what the types cannot say.
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
    /// Whether the answer may be kept: whole, not filtered, not empty.
    pub fn is_complete(&self) -> bool {
        let called_something =
            self.tool_calls.as_ref().and_then(Value::as_array).is_some_and(|calls| !calls.is_empty());
        let said_something = !self.content.is_empty() || called_something;
        said_something && matches!(self.finish_reason, FinishReason::Stop | FinishReason::ToolCalls)
    }
}

// === impl FinishReason ===

impl FinishReason {
    /// The name in the OpenAI dialect and on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Stop => "stop",
            Self::ToolCalls => "tool_calls",
            Self::Length => "length",
            Self::ContentFilter => "content_filter",
            Self::Other(name) => name,
        }
    }

    /// Never fails: unknown names are kept as they are.
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

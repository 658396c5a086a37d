//! The canonical encoding of a prompt, and its two hashes: the [`Scope`], which must be equal for a semantic hit, and
//! the [`CacheKey`], which must be equal for an exact hit.
//!
//! Encoding, version 1: every field is a tag byte followed by its value. Strings and lists are preceded by their
//! length as a little-endian `u64`, so no two prompts share an encoding. JSON is encoded as a tree with sorted keys,
//! so its formatting is irrelevant. Text is never normalised: to a model, prompts that differ in one byte are
//! different prompts. An absent value differs from an explicit default, because the default belongs to the provider.

use std::fmt;

use serde_json::{Map, Value};

use crate::prompt::{CACHE_MARK, Message, Prompt};

/// Domain of the scope's hash. Its version must change with the encoding; golden tests pin both.
const SCOPE_CONTEXT: &str = "promptkeep 2026-11 scope v1";
/// Domain of the key's hash.
const KEY_CONTEXT: &str = "promptkeep 2026-11 key v1";

/// Exact identity of a prompt, including tenant and namespace: 32 bytes of BLAKE3, printed as hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey([u8; 32]);

/// Identity of a prompt without its last user text: 32 bytes of BLAKE3, printed as hex. Entries of one scope differ
/// in the last user text only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope([u8; 32]);

/// Owner of an entry. Part of every key, so tenants cannot read each other's entries.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// One tenant, by its configured name.
    Tenant(String),
    /// All tenants that list the namespace in `shared_namespaces`.
    Shared,
}

/// Tag byte of a field in the encoding. Never renumber.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum Field {
    Owner = 1,
    Namespace = 2,
    Model = 3,
    Messages = 4,
    Temperature = 5,
    TopP = 6,
    MaxTokens = 7,
    Stop = 8,
    Seed = 9,
    ResponseFormat = 10,
    Tools = 11,
    ToolChoice = 12,
    Vary = 13,
    Extra = 14,
    MessageExtra = 15,
}

/// Tag bytes of JSON values and of optional values. Never renumber.
mod kind {
    pub const ABSENT: u8 = 0;
    pub const PRESENT: u8 = 1;
    pub const NULL: u8 = 2;
    pub const FALSE: u8 = 3;
    pub const TRUE: u8 = 4;
    pub const INTEGER: u8 = 5;
    pub const FLOAT: u8 = 6;
    pub const STRING: u8 = 7;
    pub const ARRAY: u8 = 8;
    pub const OBJECT: u8 = 9;
}

/// Hashes the canonical encoding while it is written.
struct Encoder {
    hasher: blake3::Hasher,
    /// Buffer of small fields. BLAKE3 uses SIMD on many kilobytes at once, and a list of tools of 100 KB has about
    /// 10,000 fields.
    buffer: Vec<u8>,
}

/// Size of the buffer: the input of BLAKE3's widest kernel.
const BUFFER_BYTES: usize = 16 * 1024;

/// Returns both hashes of a prompt of `owner`.
pub fn of(owner: &Owner, prompt: &Prompt) -> (CacheKey, Scope) {
    let scope = Scope::of(owner, prompt);
    (CacheKey::in_scope(scope, prompt.fuzzy_text()), scope)
}

// === impl CacheKey ===

impl CacheKey {
    /// Hashes the scope with the last user text, which together cover the whole prompt.
    fn in_scope(scope: Scope, text: Option<&str>) -> Self {
        let mut encoder = Encoder::new(KEY_CONTEXT);
        encoder.write(&scope.0);
        encoder.option(text, Encoder::string);
        Self(encoder.finish())
    }

    /// Restores a key from [`CacheKey::as_bytes`].
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns a number in [0, 1) derived from the key, uniformly distributed over keys.
    pub fn share(&self) -> f64 {
        let [.., a, b, c, d] = self.0;
        f64::from(u32::from_le_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0)
    }
}

// === impl Scope ===

impl Scope {
    fn of(owner: &Owner, prompt: &Prompt) -> Self {
        let mut encoder = Encoder::new(SCOPE_CONTEXT);
        encode(owner, prompt, &mut encoder, |_, _| ());
        Self(encoder.finish())
    }

    /// Returns the names of the fields hashed into the scope and their encoded sizes in bytes, for `Explain`.
    pub fn parts(owner: &Owner, prompt: &Prompt) -> Vec<(&'static str, u64)> {
        let mut parts = Vec::new();
        let mut written = 0;
        encode(owner, prompt, &mut Encoder::new(SCOPE_CONTEXT), |field, total| {
            parts.push((field.as_str(), total - written));
            written = total;
        });
        parts
    }

    /// Returns the first four bytes as a short name. Scopes of one namespace rarely share it.
    pub fn tag(&self) -> u32 {
        let [a, b, c, d, ..] = self.0;
        u32::from_le_bytes([a, b, c, d])
    }

    /// Restores a scope from [`Scope::as_bytes`].
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Encodes every field of `prompt` except the last user text. Calls `done` after each field with the number of bytes
/// written so far. Destructures without `..`, so a new field of [`Prompt`] does not compile until it is encoded here.
fn encode(owner: &Owner, prompt: &Prompt, to: &mut Encoder, mut done: impl FnMut(Field, u64)) {
    let Prompt {
        namespace,
        model,
        messages,
        temperature,
        top_p,
        max_tokens,
        stop,
        seed,
        response_format,
        tools,
        tool_choice,
        vary,
        extra,
        ignored: _,
    } = prompt;
    let mut field = |field: Field, write: &mut dyn FnMut(&mut Encoder)| {
        to.byte(field as u8);
        write(to);
        done(field, to.count());
    };
    field(Field::Owner, &mut |e| e.owner(owner));
    field(Field::Namespace, &mut |e| e.string(namespace));
    field(Field::Model, &mut |e| e.string(model));
    field(Field::Messages, &mut |e| e.messages(messages, prompt.fuzzy_text().is_some()));
    field(Field::Temperature, &mut |e| e.option(*temperature, Encoder::float));
    field(Field::TopP, &mut |e| e.option(*top_p, Encoder::float));
    field(Field::MaxTokens, &mut |e| e.option(*max_tokens, |e, n| e.integer(n.into())));
    field(Field::Stop, &mut |e| e.list(stop, |e, s| e.string(s)));
    field(Field::Seed, &mut |e| e.option(*seed, |e, n| e.integer(n.into())));
    field(Field::ResponseFormat, &mut |e| e.option(response_format.as_ref(), Encoder::json));
    field(Field::Tools, &mut |e| e.option(tools.as_ref(), Encoder::tools));
    field(Field::ToolChoice, &mut |e| e.option(tool_choice.as_ref(), Encoder::json));
    field(Field::Vary, &mut |e| {
        e.length(vary.len());
        for (name, value) in vary {
            e.string(name);
            e.string(value);
        }
    });
    // These write nothing where there is nothing, so prompts without extra fields keep the keys of earlier versions.
    // Unambiguous only because they are the last, in this order.
    if has_more_than_mark(extra) {
        field(Field::Extra, &mut |e| e.unmarked(extra));
    }
    if messages.iter().any(|message| has_more_than_mark(&message.extra)) {
        field(Field::MessageExtra, &mut |e| e.list(messages, |e, message| e.unmarked(&message.extra)));
    }
}

/// Whether a map has more than a [`CACHE_MARK`].
fn has_more_than_mark(extra: &Map<String, Value>) -> bool {
    extra.keys().any(|name| name != CACHE_MARK)
}

/// The tools without their cache marks; `None` if they have none.
fn without_marks(tools: &Value) -> Option<Value> {
    let is_marked = |tool: &Value| {
        tool.get(CACHE_MARK).is_some() || tool.get("function").is_some_and(|f| f.get(CACHE_MARK).is_some())
    };
    tools.as_array()?.iter().any(is_marked).then(|| {
        let mut tools = tools.clone();
        for tool in tools.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            tool.remove(CACHE_MARK);
            if let Some(function) = tool.get_mut("function").and_then(Value::as_object_mut) {
                function.remove(CACHE_MARK);
            }
        }
        tools
    })
}

// === impl Field ===

impl Field {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "tenant",
            Self::Namespace => "namespace",
            Self::Model => "model",
            Self::Messages => "messages",
            Self::Temperature => "temperature",
            Self::TopP => "top_p",
            Self::MaxTokens => "max_tokens",
            Self::Stop => "stop",
            Self::Seed => "seed",
            Self::ResponseFormat => "response_format",
            Self::Tools => "tools",
            Self::ToolChoice => "tool_choice",
            Self::Vary => "vary",
            Self::Extra => "extra",
            Self::MessageExtra => "message_extra",
        }
    }
}

// === impl Encoder ===

impl Encoder {
    fn new(context: &str) -> Self {
        Self { hasher: blake3::Hasher::new_derive_key(context), buffer: Vec::new() }
    }

    fn finish(mut self) -> [u8; 32] {
        self.hasher.update(&self.buffer);
        self.hasher.finalize().into()
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.hasher.update(&self.buffer);
            self.buffer.clear();
        }
        if bytes.len() > BUFFER_BYTES {
            self.hasher.update(bytes);
        } else {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Bytes written so far.
    fn count(&self) -> u64 {
        self.hasher.count() + self.buffer.len() as u64
    }

    fn byte(&mut self, byte: u8) {
        self.write(&[byte]);
    }

    fn length(&mut self, length: usize) {
        self.write(&(length as u64).to_le_bytes());
    }

    fn string(&mut self, text: &str) {
        self.length(text.len());
        self.write(text.as_bytes());
    }

    fn integer(&mut self, n: i128) {
        self.write(&n.to_le_bytes());
    }

    /// Adding 0.0 turns -0.0 into 0.0: samplers treat them alike.
    fn float(&mut self, x: f32) {
        self.write(&(x + 0.0).to_le_bytes());
    }

    fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            None => self.byte(kind::ABSENT),
            Some(value) => {
                self.byte(kind::PRESENT);
                write(self, value);
            }
        }
    }

    fn list<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Self, &T)) {
        self.length(items.len());
        for item in items {
            write(self, item);
        }
    }

    fn owner(&mut self, owner: &Owner) {
        match owner {
            Owner::Tenant(name) => {
                self.byte(1);
                self.string(name);
            }
            Owner::Shared => self.byte(2),
        }
    }

    /// With `last_is_fuzzy`, leaves out the content of the last message, which only the key covers.
    fn messages(&mut self, messages: &[Message], last_is_fuzzy: bool) {
        self.length(messages.len());
        for (position, message) in messages.iter().enumerate() {
            // `parts` repeat the content, and `extra` follows all messages.
            let Message { role, content, name, tool_call_id, tool_calls, parts: _, extra: _ } = message;
            let is_fuzzy = last_is_fuzzy && position + 1 == messages.len();
            self.string(role.as_str());
            self.option((!is_fuzzy).then_some(content), |e, text| e.string(text));
            self.option(name.as_ref(), |e, text| e.string(text));
            self.option(tool_call_id.as_ref(), |e, text| e.string(text));
            self.option(tool_calls.as_ref(), Self::json);
        }
    }

    /// Encodes objects by sorted key, and equal whole numbers alike in every notation (1, 1.0, 1e0).
    fn json(&mut self, value: &Value) {
        match value {
            Value::Null => self.byte(kind::NULL),
            Value::Bool(false) => self.byte(kind::FALSE),
            Value::Bool(true) => self.byte(kind::TRUE),
            Value::Number(n) => self.json_number(n),
            Value::String(text) => {
                self.byte(kind::STRING);
                self.string(text);
            }
            Value::Array(items) => {
                self.byte(kind::ARRAY);
                self.list(items, Self::json);
            }
            Value::Object(map) => {
                self.byte(kind::OBJECT);
                self.object(map);
            }
        }
    }

    fn tools(&mut self, tools: &Value) {
        match without_marks(tools) {
            Some(tools) => self.json(&tools),
            None => self.json(tools),
        }
    }

    fn object(&mut self, map: &Map<String, Value>) {
        self.fields(map.iter().collect());
    }

    /// An object without its [`CACHE_MARK`].
    fn unmarked(&mut self, map: &Map<String, Value>) {
        self.fields(map.iter().filter(|(name, _)| *name != CACHE_MARK).collect());
    }

    fn fields(&mut self, mut fields: Vec<(&String, &Value)>) {
        self.length(fields.len());
        // serde_json keeps the written order when any crate in the build enables its `preserve_order` feature.
        fields.sort_unstable_by_key(|(name, _)| name.as_str());
        for (name, value) in fields {
            self.string(name);
            self.json(value);
        }
    }

    fn json_number(&mut self, n: &serde_json::Number) {
        /// 2^126, which an `i128` holds. A whole float of any size converts to an integer exactly.
        const WHOLE_MAX: f64 = 85_070_591_730_234_615_865_843_651_857_942_052_864.0;
        let float = n.as_f64().unwrap_or(f64::NAN);
        if let Some(integer) = n.as_i128() {
            self.byte(kind::INTEGER);
            self.integer(integer);
        } else if float.fract() == 0.0 && float.abs() <= WHOLE_MAX {
            self.byte(kind::INTEGER);
            self.integer(float as i128);
        } else {
            self.byte(kind::FLOAT);
            self.write(&float.to_le_bytes());
        }
    }
}

macro_rules! show_as_hex {
    ($($hash:ty),*) => {$(
        impl fmt::Display for $hash {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
            }
        }

        impl fmt::Debug for $hash {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($hash))
            }
        }
    )*};
}

show_as_hex!(CacheKey, Scope);

#[cfg(test)]
mod tests;

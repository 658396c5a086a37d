//! The binary encoding of an entry, for stores that keep bytes.
//!
//! A version byte; an eight-byte checksum of the rest; then the fields in the order of [`encode`]. Numbers are
//! LEB128 unless a function says otherwise. Strings, lists and vectors follow their length, optional values a flag.
//! A new field is a new version and goes to the end. Every version stays readable, which tests of committed bytes
//! verify:
//!
//! - 1: fields up to the tags. `stale_for` is zero, `difficulty` is `None`.
//! - 2: adds `stale_for`, `difficulty` and the key of the entry that an alias stood for.
//! - 3: the checksum is XXH3 instead of the first bytes of blake3, which took a seventh of the time of a read from
//!   Redis.
//! - 4: no aliases. One of an earlier version has no answer of its own and is refused.
//! - 5: adds reasoning, refusal, the tokens that are part of others, and further fields of the reply.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use promptkeep_core::codec::{Malformed, Reader};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    embed::Embedding,
    entry::Entry,
    key::{CacheKey, Owner, Scope},
    model::{Difficulty, Usage},
    prompt::{Completion, FinishReason, Reasoning, ReasoningField, ReplyFields},
};

/// First byte of what [`encode`] writes.
pub const VERSION: u8 = 5;

/// Version byte and checksum.
const HEADER: usize = 9;

/// Bytes that cannot be decoded. Carries none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("written by a newer version (entry codec {0}, this one knows {VERSION})")]
    Newer(u8),
    #[error("damaged entry: {0}")]
    Damaged(&'static str),
    #[error("an alias, which this version does not serve")]
    Alias,
}

/// Kinds of owners on disk. Never renumber.
mod owner {
    pub const TENANT: u8 = 1;
    pub const SHARED: u8 = 2;
}

/// Difficulties on disk. Never renumber.
mod difficulty {
    pub const EASY: u8 = 1;
    pub const MODERATE: u8 = 2;
    pub const HARD: u8 = 3;
}

/// Fields of reasoning on disk. Never renumber.
mod reasoning {
    pub const REASONING_CONTENT: u8 = 1;
    pub const REASONING: u8 = 2;
    pub const BOTH: u8 = 3;
}

/// Whether to decode the vector or only to step over it.
#[derive(Clone, Copy)]
enum Vector {
    Read,
    Skip,
}

/// Encodes an entry. A new field of [`Entry`] does not compile until it is encoded here.
pub fn encode(entry: &Entry) -> Vec<u8> {
    let Entry {
        key,
        scope,
        owner,
        namespace,
        requested_model,
        text,
        embedding,
        embedder,
        completion,
        tags,
        created,
        expires,
        stale_for,
        difficulty,
    } = entry;
    let mut to = Writer::with_capacity(size_hint(entry));
    to.0.extend_from_slice(key.as_bytes());
    to.0.extend_from_slice(scope.as_bytes());
    to.time(*created);
    to.time(*expires);
    to.owner(owner);
    to.string(namespace);
    to.string(requested_model);
    to.option(text.as_deref(), Writer::string);
    to.string(embedder);
    to.option(embedding.as_ref(), Writer::embedding);
    to.completion(completion);
    to.number(tags.len() as u64);
    tags.iter().for_each(|tag| to.string(tag));
    to.duration(*stale_for);
    to.option(*difficulty, Writer::difficulty);
    to.reply_details(completion);
    to.finish()
}

/// Decodes an entry.
///
/// # Errors
/// [`CodecError`]. Never panics and never allocates more than a small multiple of `bytes`.
pub fn decode(bytes: &[u8]) -> Result<Entry, CodecError> {
    decode_with(bytes, Vector::Read)
}

/// Decodes an entry without its vector, which is larger than the rest and already in the index.
///
/// # Errors
/// As [`decode`]. Only the checksum detects a damaged vector.
pub fn decode_answer(bytes: &[u8]) -> Result<Entry, CodecError> {
    decode_with(bytes, Vector::Skip)
}

fn decode_with(bytes: &[u8], vector: Vector) -> Result<Entry, CodecError> {
    let (version, mut from) = checked(bytes)?;
    let from = &mut from;
    let (key, scope) = (CacheKey::from_bytes(from.array()?), Scope::from_bytes(from.array()?));
    let (created, expires) = (time(from)?, time(from)?);
    let owner = owner(from)?;
    let (namespace, requested_model) = (from.string()?, from.string()?);
    let text = from.option(Reader::string)?;
    let embedder = from.string()?;
    let embedding = match vector {
        Vector::Read => from.option(embedding)?,
        Vector::Skip => from.option(|from| components(from).map(drop))?.and(None),
    };
    let mut completion = completion(from)?;
    let tags = from.list(Reader::string)?;
    let (stale_for, difficulty) = match version {
        1 => (Duration::ZERO, None),
        _ => (Duration::from_nanos(from.leb128()?), from.option(difficulty)?),
    };
    let alias_of = if matches!(version, 2 | 3) { from.option(Reader::array::<32>)? } else { None };
    if version >= 5 {
        reply_details(from, &mut completion)?;
    }
    from.end()?;
    if alias_of.is_some() {
        return Err(CodecError::Alias);
    }
    Ok(Entry {
        key,
        scope,
        owner,
        namespace,
        requested_model,
        text,
        embedding,
        embedder,
        completion,
        tags,
        created,
        expires,
        stale_for,
        difficulty,
    })
}

/// Enough for most entries, so that encoding allocates once.
fn size_hint(entry: &Entry) -> usize {
    /// Keys, times, names and lengths.
    const FIXED: usize = 256;
    let text = entry.text.as_ref().map_or(0, String::len);
    let vector = entry.embedding.as_ref().map_or(0, |e| size_of_val(e.as_slice()));
    let reasoning = entry.completion.reasoning.as_ref().map_or(0, |reasoning| reasoning.text.len());
    FIXED + text + vector + entry.completion.content.len() + reasoning
}

fn checksum(version: u8, payload: &[u8]) -> [u8; 8] {
    if version >= 3 {
        return xxh3_64(payload).to_le_bytes();
    }
    let mut sum = [0; 8];
    sum.copy_from_slice(&blake3::hash(payload).as_bytes()[..8]);
    sum
}

// === writing ===

/// Appends fields after room for the header.
struct Writer(Vec<u8>);

impl Writer {
    fn with_capacity(payload: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEADER + payload);
        bytes.resize(HEADER, 0);
        Self(bytes)
    }

    fn finish(mut self) -> Vec<u8> {
        let sum = checksum(VERSION, &self.0[HEADER..]);
        self.0[0] = VERSION;
        self.0[1..HEADER].copy_from_slice(&sum);
        self.0
    }

    fn number(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    fn string(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.0.push(value.is_some().into());
        if let Some(value) = value {
            write(self, value);
        }
    }

    /// Nanoseconds since 1970, eight bytes little-endian. Times outside 1970 to 2554 are clamped.
    fn time(&mut self, time: SystemTime) {
        let nanos = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        self.0.extend_from_slice(&u64::try_from(nanos).unwrap_or(u64::MAX).to_le_bytes());
    }

    /// Nanoseconds, at most 584 years.
    fn duration(&mut self, duration: Duration) {
        self.number(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    fn difficulty(&mut self, difficulty: Difficulty) {
        self.0.push(match difficulty {
            Difficulty::Easy => difficulty::EASY,
            Difficulty::Moderate => difficulty::MODERATE,
            Difficulty::Hard => difficulty::HARD,
        });
    }

    fn owner(&mut self, owner: &Owner) {
        match owner {
            Owner::Tenant(name) => {
                self.0.push(owner::TENANT);
                self.string(name);
            }
            Owner::Shared => self.0.push(owner::SHARED),
        }
    }

    /// Four bytes little-endian for each component.
    fn embedding(&mut self, embedding: &Embedding) {
        let components = embedding.as_slice();
        self.number(components.len() as u64);
        components.iter().for_each(|x| self.0.extend_from_slice(&x.to_le_bytes()));
    }

    fn completion(&mut self, completion: &Completion) {
        let Completion {
            content,
            tool_calls,
            finish_reason,
            model,
            tier,
            usage,
            reasoning: _,
            refusal: _,
            extra: _,
        } = completion;
        let Usage {
            prompt_tokens,
            completion_tokens,
            cost_usd,
            estimated,
            cached_prompt_tokens: _,
            cache_write_tokens: _,
            reasoning_tokens: _,
        } = usage;
        self.string(content);
        self.option(tool_calls.as_ref(), |w, json| w.string(&json.to_string()));
        self.string(finish_reason.as_str());
        self.string(model);
        self.string(tier);
        self.number(*prompt_tokens);
        self.number(*completion_tokens);
        self.0.extend_from_slice(&cost_usd.to_le_bytes());
        self.0.push((*estimated).into());
    }

    /// The fields of a completion that version 5 added.
    fn reply_details(&mut self, completion: &Completion) {
        self.option(completion.reasoning.as_ref(), |w, Reasoning { text, field }| {
            w.0.push(match field {
                ReasoningField::ReasoningContent => reasoning::REASONING_CONTENT,
                ReasoningField::Reasoning => reasoning::REASONING,
                ReasoningField::Both => reasoning::BOTH,
            });
            w.string(text);
        });
        self.option(completion.refusal.as_deref(), Self::string);
        self.number(completion.usage.cached_prompt_tokens);
        self.number(completion.usage.cache_write_tokens);
        self.number(completion.usage.reasoning_tokens);
        let ReplyFields { message, choice, reply } = &completion.extra;
        for fields in [message, choice, reply] {
            let json = (!fields.is_empty()).then(|| serde_json::to_string(fields).expect("JSON serialises"));
            self.option(json.as_deref(), Self::string);
        }
    }
}

// === reading ===

/// Verifies the checksum; returns the version and a reader of the fields.
fn checked(bytes: &[u8]) -> Result<(u8, Reader<'_>), CodecError> {
    let mut from = Reader::new(bytes);
    let version = from.byte()?;
    match version {
        1..=VERSION => {}
        0 => return Err(CodecError::Damaged("version 0")),
        newer => return Err(CodecError::Newer(newer)),
    }
    if from.array()? != checksum(version, from.rest()) {
        return Err(CodecError::Damaged("checksum"));
    }
    Ok((version, from))
}

fn time(from: &mut Reader<'_>) -> Result<SystemTime, Malformed> {
    UNIX_EPOCH.checked_add(Duration::from_nanos(from.u64()?)).ok_or(Malformed("time"))
}

fn difficulty(from: &mut Reader<'_>) -> Result<Difficulty, Malformed> {
    match from.byte()? {
        difficulty::EASY => Ok(Difficulty::Easy),
        difficulty::MODERATE => Ok(Difficulty::Moderate),
        difficulty::HARD => Ok(Difficulty::Hard),
        _ => Err(Malformed("difficulty")),
    }
}

fn owner(from: &mut Reader<'_>) -> Result<Owner, Malformed> {
    match from.byte()? {
        owner::TENANT => from.string().map(Owner::Tenant),
        owner::SHARED => Ok(Owner::Shared),
        _ => Err(Malformed("owner")),
    }
}

fn embedding(from: &mut Reader<'_>) -> Result<Embedding, Malformed> {
    let components = components(from)?.iter().map(|component| f32::from_le_bytes(*component));
    Embedding::of_unit_length(components.collect()).ok_or(Malformed("embedding"))
}

fn components<'a>(from: &mut Reader<'a>) -> Result<&'a [[u8; 4]], Malformed> {
    let length = from.length(size_of::<f32>())?;
    Ok(from.take(length * size_of::<f32>())?.as_chunks().0)
}

fn completion(from: &mut Reader<'_>) -> Result<Completion, Malformed> {
    let content = from.string()?;
    let tool_calls =
        from.option(|from| serde_json::from_str(&from.string()?).map_err(|_| Malformed("JSON")))?;
    let finish_reason = FinishReason::parse(&from.string()?);
    let (model, tier) = (from.string()?, from.string()?);
    let usage = Usage {
        prompt_tokens: from.leb128()?,
        completion_tokens: from.leb128()?,
        cost_usd: from.f64()?,
        estimated: from.flag()?,
        ..Usage::default()
    };
    Ok(Completion { content, tool_calls, finish_reason, model, tier, usage, ..Completion::default() })
}

/// The fields of a completion that version 5 added.
fn reply_details(from: &mut Reader<'_>, to: &mut Completion) -> Result<(), Malformed> {
    to.reasoning = from.option(|from| {
        let field = match from.byte()? {
            reasoning::REASONING_CONTENT => ReasoningField::ReasoningContent,
            reasoning::REASONING => ReasoningField::Reasoning,
            reasoning::BOTH => ReasoningField::Both,
            _ => return Err(Malformed("field of reasoning")),
        };
        Ok(Reasoning { text: from.string()?, field })
    })?;
    to.refusal = from.option(Reader::string)?;
    to.usage.cached_prompt_tokens = from.leb128()?;
    to.usage.cache_write_tokens = from.leb128()?;
    to.usage.reasoning_tokens = from.leb128()?;
    let fields = |from: &mut Reader<'_>| -> Result<_, Malformed> {
        let json = from.option(Reader::string)?;
        json.map_or_else(
            || Ok(Default::default()),
            |json| serde_json::from_str(&json).map_err(|_| Malformed("JSON")),
        )
    };
    to.extra = ReplyFields { message: fields(from)?, choice: fields(from)?, reply: fields(from)? };
    Ok(())
}

impl From<Malformed> for CodecError {
    fn from(Malformed(what): Malformed) -> Self {
        Self::Damaged(what)
    }
}

#[cfg(test)]
mod tests;

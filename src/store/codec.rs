//! An entry as bytes, for stores that keep bytes.
//!
//! The version byte; a checksum of the rest, eight bytes; then the fields in the order of [`encode`]. Numbers are LEB128 unless said otherwise; strings, lists and vectors are preceded by their
//! length; an optional value by 0 or 1. A new field is a new version, and goes to the end. Every version
//! is read for ever, which tests of committed bytes pin:
//!
//! - 1: up to the tags. Not kept past its expiry, difficulty unknown.
//! - 2: `stale_for`, `difficulty` and `alias_of`.
//! - 3: the checksum is XXH3, where it was the first bytes of blake3: it tells damage as well, and that took a
//!   seventh of the time of a read from Redis.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    embed::Embedding,
    entry::Entry,
    key::{CacheKey, Owner, Scope},
    model::{Difficulty, Usage},
    prompt::{Completion, FinishReason},
};

/// First byte of what [`encode`] writes.
pub const VERSION: u8 = 3;

/// Version byte and checksum.
const HEADER: usize = 9;

/// Why bytes are not an entry. Carries nothing of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("written by a newer version (entry codec {0}, this one knows {VERSION})")]
    Newer(u8),
    #[error("damaged entry: {0}")]
    Damaged(&'static str),
}

/// What precedes an owner. Never renumber.
mod owner {
    pub const TENANT: u8 = 1;
    pub const SHARED: u8 = 2;
}

/// A difficulty as a byte. Never renumber.
mod difficulty {
    pub const EASY: u8 = 1;
    pub const MODERATE: u8 = 2;
    pub const HARD: u8 = 3;
}

/// The bytes of `entry`. A new field of [`Entry`] does not compile until its place here is decided.
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
        alias_of,
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
    to.option(*alias_of, |to, key| to.0.extend_from_slice(key.as_bytes()));
    to.finish()
}

/// The entry in `bytes`.
///
/// # Errors
/// [`CodecError`]; never panics and never allocates more than a small multiple of `bytes`.
pub fn decode(bytes: &[u8]) -> Result<Entry, CodecError> {
    decode_with(bytes, Vector::Read)
}

/// The same without its vector, which takes more time and room than the rest, and is in the index.
///
/// # Errors
/// As [`decode`]; a damaged vector is found by the checksum only.
pub fn decode_answer(bytes: &[u8]) -> Result<Entry, CodecError> {
    decode_with(bytes, Vector::Skip)
}

/// What to do with a vector.
#[derive(Clone, Copy)]
enum Vector {
    Read,
    Skip,
}

fn decode_with(bytes: &[u8], vector: Vector) -> Result<Entry, CodecError> {
    let (version, mut from) = Reader::checked(bytes)?;
    let key = CacheKey::from_bytes(from.array()?);
    let scope = Scope::from_bytes(from.array()?);
    let (created, expires) = (from.time()?, from.time()?);
    let owner = from.owner()?;
    let (namespace, requested_model) = (from.string()?, from.string()?);
    let text = from.option(Reader::string)?;
    let embedder = from.string()?;
    let embedding = match vector {
        Vector::Read => from.option(Reader::embedding)?,
        Vector::Skip => from.option(Reader::skip_embedding)?.and(None),
    };
    let completion = from.completion()?;
    let tags = from.list(Reader::string)?;
    let (stale_for, difficulty, alias_of) = match version {
        1 => (Duration::ZERO, None, None),
        _ => (from.duration()?, from.option(Reader::difficulty)?, from.option(Reader::key)?),
    };
    from.end()?;
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
        alias_of,
    })
}

/// Enough for most entries, so that encoding allocates once.
fn size_hint(entry: &Entry) -> usize {
    /// Keys, times, names and lengths.
    const FIXED: usize = 256;
    let text = entry.text.as_ref().map_or(0, String::len);
    let vector = entry.embedding.as_ref().map_or(0, |e| size_of_val(e.as_slice()));
    FIXED + text + vector + entry.completion.content.len()
}

fn checksum(version: u8, payload: &[u8]) -> [u8; 8] {
    if version >= 3 {
        return xxh3_64(payload).to_le_bytes();
    }
    let mut sum = [0; 8];
    sum.copy_from_slice(&blake3::hash(payload).as_bytes()[..8]);
    sum
}

/// Appends to the bytes.
struct Writer(Vec<u8>);

/// Takes from the front of the bytes.
struct Reader<'a>(&'a [u8]);

// === impl Writer ===

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

    /// Nanoseconds since 1970, eight bytes little-endian; times outside of 1970 to 2554 are moved there.
    fn time(&mut self, time: SystemTime) {
        let nanos = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        self.0.extend_from_slice(&u64::try_from(nanos).unwrap_or(u64::MAX).to_le_bytes());
    }

    /// Nanoseconds; more than 584 years are cut to that.
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
        let Completion { content, tool_calls, finish_reason, model, tier, usage } = completion;
        let Usage { prompt_tokens, completion_tokens, cost_usd, estimated } = usage;
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
}

// === impl Reader ===

impl<'a> Reader<'a> {
    /// The version, and the fields, whose checksum is right.
    fn checked(bytes: &'a [u8]) -> Result<(u8, Self), CodecError> {
        let mut header = Self(bytes);
        let version = header.byte()?;
        match version {
            1..=VERSION => {}
            0 => return Err(CodecError::Damaged("version 0")),
            newer => return Err(CodecError::Newer(newer)),
        }
        let sum = header.array()?;
        if sum != checksum(version, header.0) {
            return Err(CodecError::Damaged("checksum"));
        }
        Ok((version, header))
    }

    /// Whatever is left would be a field that was not understood.
    fn end(&self) -> Result<(), CodecError> {
        if self.0.is_empty() { Ok(()) } else { Err(CodecError::Damaged("bytes after the end")) }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], CodecError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(CodecError::Damaged("too short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(CodecError::Damaged("too short"))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, CodecError> {
        self.array().map(|[byte]| byte)
    }

    fn key(&mut self) -> Result<CacheKey, CodecError> {
        self.array().map(CacheKey::from_bytes)
    }

    fn flag(&mut self) -> Result<bool, CodecError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CodecError::Damaged("flag")),
        }
    }

    fn number(&mut self) -> Result<u64, CodecError> {
        let mut n = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            n |= bits << shift;
            if byte < 0x80 {
                return Ok(n);
            }
        }
        Err(CodecError::Damaged("number"))
    }

    /// A length that the bytes left could hold, each element being `unit` bytes or more.
    fn length(&mut self, unit: usize) -> Result<usize, CodecError> {
        let length = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        if length <= self.0.len() / unit { Ok(length) } else { Err(CodecError::Damaged("length")) }
    }

    fn string(&mut self) -> Result<String, CodecError> {
        let length = self.length(1)?;
        let text = str::from_utf8(self.take(length)?).map_err(|_| CodecError::Damaged("UTF-8"))?;
        Ok(text.to_owned())
    }

    fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Option<T>, CodecError> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    fn list<T>(&mut self, read: impl Fn(&mut Self) -> Result<T, CodecError>) -> Result<Vec<T>, CodecError> {
        let length = self.length(1)?;
        (0..length).map(|_| read(self)).collect()
    }

    fn time(&mut self) -> Result<SystemTime, CodecError> {
        let nanos = u64::from_le_bytes(self.array()?);
        UNIX_EPOCH.checked_add(Duration::from_nanos(nanos)).ok_or(CodecError::Damaged("time"))
    }

    fn duration(&mut self) -> Result<Duration, CodecError> {
        self.number().map(Duration::from_nanos)
    }

    fn difficulty(&mut self) -> Result<Difficulty, CodecError> {
        match self.byte()? {
            difficulty::EASY => Ok(Difficulty::Easy),
            difficulty::MODERATE => Ok(Difficulty::Moderate),
            difficulty::HARD => Ok(Difficulty::Hard),
            _ => Err(CodecError::Damaged("difficulty")),
        }
    }

    fn owner(&mut self) -> Result<Owner, CodecError> {
        match self.byte()? {
            owner::TENANT => self.string().map(Owner::Tenant),
            owner::SHARED => Ok(Owner::Shared),
            _ => Err(CodecError::Damaged("owner")),
        }
    }

    fn embedding(&mut self) -> Result<Embedding, CodecError> {
        let length = self.length(size_of::<f32>())?;
        let bytes = self.take(length * size_of::<f32>())?;
        let components = bytes.as_chunks().0.iter().map(|component| f32::from_le_bytes(*component));
        Embedding::of_unit_length(components.collect()).ok_or(CodecError::Damaged("embedding"))
    }

    fn skip_embedding(&mut self) -> Result<(), CodecError> {
        let length = self.length(size_of::<f32>())?;
        self.take(length * size_of::<f32>()).map(drop)
    }

    fn completion(&mut self) -> Result<Completion, CodecError> {
        let content = self.string()?;
        let tool_calls = self.option(Self::json)?;
        let finish_reason = FinishReason::parse(&self.string()?);
        let (model, tier) = (self.string()?, self.string()?);
        let usage = Usage {
            prompt_tokens: self.number()?,
            completion_tokens: self.number()?,
            cost_usd: f64::from_le_bytes(self.array()?),
            estimated: self.flag()?,
        };
        Ok(Completion { content, tool_calls, finish_reason, model, tier, usage })
    }

    fn json(&mut self) -> Result<Value, CodecError> {
        serde_json::from_str(&self.string()?).map_err(|_| CodecError::Damaged("JSON"))
    }
}

#[cfg(test)]
mod tests;

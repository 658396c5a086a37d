//! Events between replicas: elements of a stream, as JSON, so that a later version may add kinds and fields. An unknown
//! kind is skipped. That is safe: its changes are found when Redis is read, or cost a hit, but nothing wrong is served.

use std::collections::HashMap;

use redis::{Cmd, Value, cmd};
use serde::{Deserialize, Serialize};

use super::log::Position;
use crate::{
    entry::{EntryId, Selector},
    key::{CacheKey, Owner},
};

/// An event with its sender.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The replica that sent it and ignores it itself.
    pub replica: String,
    /// Set if the replica copied it from another region.
    pub origin: Option<Origin>,
    pub event: Event,
}

/// Where an event happened first.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin {
    pub region: String,
    /// Position of an invalidation in the log of that region.
    pub at: Position,
}

/// One event between replicas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// Entries were stored under these keys.
    Stored { keys: Vec<Key> },
    /// The entries under these keys were removed: invalidated, expired or evicted.
    Removed { keys: Vec<Key> },
    /// Every older entry that matches is invalid.
    Invalidated { matching: Matching },
    /// The replica published a learner event. The message is binary, so it has a field of its own in the stream.
    Learned {
        #[serde(skip)]
        message: Vec<u8>,
    },
    /// The stream was created. It is never empty, so that every reader has a position in it.
    Opened,
}

/// A cache key, in hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(pub CacheKey);

/// A [`Selector`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Matching {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    owners: Vec<OwnerName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Key>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OwnerName {
    Tenant(String),
    Shared,
}

impl Message {
    /// The command that appends it to `stream`, which is trimmed to about `length`.
    pub fn append(&self, stream: &str, length: usize) -> Cmd {
        // Strings, lists and options always serialise.
        let event = serde_json::to_vec(&self.event).unwrap_or_default();
        let mut command = cmd("XADD");
        command.arg(stream).arg("MAXLEN").arg("~").arg(length).arg("*");
        command.arg("replica").arg(&self.replica).arg("event").arg(event);
        if let Event::Learned { message } = &self.event {
            command.arg("lesson").arg(message.as_slice());
        }
        if let Some(Origin { region, at }) = &self.origin {
            command.arg("region").arg(region).arg("at").arg(at.to_string());
        }
        command
    }

    /// `None` for an unknown kind or malformed fields.
    pub fn read(fields: &HashMap<String, Value>) -> Option<Self> {
        let field = |name| redis::from_redis_value_ref::<Vec<u8>>(fields.get(name)?).ok();
        let text = |name| String::from_utf8(field(name)?).ok();
        let origin = match text("region") {
            Some(region) => Some(Origin { region, at: text("at")?.parse().ok()? }),
            None => None,
        };
        let mut event = serde_json::from_slice(&field("event")?).ok()?;
        if let Event::Learned { message } = &mut event {
            *message = field("lesson")?;
        }
        Some(Self { replica: text("replica")?, origin, event })
    }
}

impl Serialize for Key {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(blake3::Hash::from_bytes(*self.0.as_bytes()).to_hex().as_str())
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hex = String::deserialize(deserializer)?;
        let bytes = blake3::Hash::from_hex(&hex).map_err(serde::de::Error::custom)?;
        Ok(Self(CacheKey::from_bytes(*bytes.as_bytes())))
    }
}

impl From<&Selector> for Matching {
    fn from(selector: &Selector) -> Self {
        let Selector { owners, id, key, namespace, model, tags } = selector.clone();
        let name = |owner| match owner {
            Owner::Tenant(name) => OwnerName::Tenant(name),
            Owner::Shared => OwnerName::Shared,
        };
        Self {
            owners: owners.into_iter().map(name).collect(),
            id: id.map(|id| id.to_string()),
            key: key.map(Key),
            namespace,
            model,
            tags,
        }
    }
}

impl Matching {
    /// `None` if the id is malformed.
    pub fn selector(self) -> Option<Selector> {
        let Self { owners, id, key, namespace, model, tags } = self;
        let owner = |name| match name {
            OwnerName::Tenant(name) => Owner::Tenant(name),
            OwnerName::Shared => Owner::Shared,
        };
        let id = match id {
            Some(id) => Some(EntryId::parse(&id)?),
            None => None,
        };
        let owners = owners.into_iter().map(owner).collect();
        Some(Selector { owners, id, key: key.map(|key| key.0), namespace, model, tags })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_read_from_a_stream_as_written() {
        let key = CacheKey::from_bytes([7; 32]);
        let all = Selector {
            owners: vec![Owner::Tenant("acme".to_owned()), Owner::Shared],
            id: Some(key.into()),
            key: Some(key),
            namespace: Some("docs".to_owned()),
            model: Some("gpt-4o".to_owned()),
            tags: vec!["a".to_owned()],
        };
        for selector in [Selector::default(), all] {
            let event = Event::Invalidated { matching: Matching::from(&selector) };
            let json = serde_json::to_string(&event).unwrap();
            let Event::Invalidated { matching } = serde_json::from_str(&json).unwrap() else {
                panic!("{json}")
            };
            assert_eq!(matching.selector(), Some(selector));
        }
    }

    /// Other versions read these bytes.
    #[test]
    fn the_encoding_of_events_is_stable() {
        let keys = || vec![Key(CacheKey::from_bytes([0xab; 32]))];
        let hex = "ab".repeat(32);
        let matching = Matching { namespace: Some("docs".to_owned()), ..Matching::default() };
        for (event, json) in [
            (Event::Stored { keys: keys() }, format!(r#"{{"kind":"stored","keys":["{hex}"]}}"#)),
            (Event::Removed { keys: keys() }, format!(r#"{{"kind":"removed","keys":["{hex}"]}}"#)),
            (Event::Opened, r#"{"kind":"opened"}"#.to_owned()),
            (Event::Learned { message: Vec::new() }, r#"{"kind":"learned"}"#.to_owned()),
            (
                Event::Invalidated { matching },
                r#"{"kind":"invalidated","matching":{"namespace":"docs"}}"#.to_owned(),
            ),
        ] {
            assert_eq!(serde_json::to_string(&event).unwrap(), json);
            assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
        }
    }

    #[test]
    fn a_learner_message_is_a_field_of_its_own() {
        let event = Event::Learned { message: vec![0, 255, 1] };
        let message = Message { replica: "r".to_owned(), origin: None, event };
        let command = message.append("stream", 10);
        let words: Vec<_> = command.args_iter().collect();
        let redis::Arg::Simple(lesson) = words[words.len() - 1] else { panic!("a word") };
        let value = |bytes: &[u8]| Value::BulkString(bytes.to_vec());
        let mut fields: HashMap<_, _> =
            [("replica", value(b"r")), ("event", value(br#"{"kind":"learned"}"#)), ("lesson", value(lesson))]
                .map(|(name, value)| (name.to_owned(), value))
                .into();
        assert_eq!(Message::read(&fields), Some(message));
        fields.remove("lesson");
        assert_eq!(Message::read(&fields), None);
    }

    #[test]
    fn unknown_kinds_are_skipped_and_unknown_fields_ignored() {
        let read = |event: &str| {
            let value = |text: &str| Value::BulkString(text.as_bytes().to_vec());
            let fields = [("replica", value("r")), ("event", value(event)), ("later", value("x"))];
            Message::read(&fields.map(|(name, value)| (name.to_owned(), value)).into())
        };
        assert_eq!(read(r#"{"kind":"dreamt","of":"sheep"}"#), None);
        assert_eq!(read(r#"{"kind":"opened","at":"noon"}"#).unwrap().event, Event::Opened);
        assert_eq!(read("junk"), None);
    }
}

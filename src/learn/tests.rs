use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use serde_json::json;

use super::{namespace::lock, *};
use crate::{
    config::Config,
    decide::{features, learner::Origin},
    entry::{Entry, Selector},
    model::Usage,
    prompt::FinishReason,
    store::{Durability, NoteVersion, Op, StoreError},
};

fn calling(user: &str, id: &str) -> Completion {
    let arguments = format!("{{\"user\": \"{user}\", \"action\": \"grant\", \"role\": \"admin\"}}");
    Completion {
        content: String::new(),
        tool_calls: Some(json!([{"id": id, "function": {"name": "change_role", "arguments": arguments}}])),
        finish_reason: FinishReason::ToolCalls,
        model: String::new(),
        tier: String::new(),
        usage: Usage::default(),
    }
}

/// Compared by their words, calls for two users were the same.
#[test]
fn calls_with_other_arguments_are_other_calls() {
    let (anna, berta) = (calling("anna", "call_1"), calling("berta", "call_1"));
    assert_ne!(calls(&anna), calls(&berta));
    assert_eq!(calls(&anna), calls(&calling("anna", "call_2")), "ids mean nothing");
    assert_ne!(calls(&anna), calls(&Completion { tool_calls: None, ..anna.clone() }));
}

#[test]
fn namespaces_have_notes_of_their_own() {
    let id = |owner: Owner, name: &str| NamespaceId { owner, name: name.to_owned() }.note();
    let tenant = |name: &str| Owner::Tenant(name.to_owned());
    let notes = [
        id(tenant("a"), "b/c"),
        id(tenant("a/b"), "c"),
        id(tenant("a"), "c"),
        id(Owner::Shared, "c"),
        id(tenant("shared"), "c"),
    ];
    let distinct: std::collections::HashSet<_> = notes.iter().collect();
    assert_eq!(distinct.len(), notes.len());
}

/// Notes and lessons; the rest of a store is not used here.
#[derive(Default)]
struct Notes {
    notes: Mutex<HashMap<String, Vec<u8>>>,
    told: Mutex<Vec<Vec<u8>>>,
    is_away: AtomicBool,
    /// A note that others always write first.
    refused: String,
}

impl Notes {
    fn answer<T>(&self, op: Op, value: T) -> Result<T, StoreError> {
        let is_away = self.is_away.load(Ordering::Relaxed);
        if is_away { Err(StoreError { op, cause: "away".to_owned() }) } else { Ok(value) }
    }
}

#[async_trait]
impl Store for Notes {
    async fn put_note(&self, name: &str, note: Note, _: Option<NoteVersion>) -> Result<bool, StoreError> {
        let is_put = name != self.refused;
        if is_put {
            lock(&self.notes).insert(name.to_owned(), note.bytes);
        }
        self.answer(Op::Put, is_put)
    }

    async fn note(&self, name: &str) -> Result<Option<Note>, StoreError> {
        self.answer(Op::Get, lock(&self.notes).get(name).cloned().map(Note::of))
    }

    async fn tell(&self, lesson: Vec<u8>) -> Result<bool, StoreError> {
        lock(&self.told).push(lesson);
        self.answer(Op::Tell, true)
    }

    async fn get(&self, _: CacheKey) -> Result<Option<Arc<Entry>>, StoreError> {
        Ok(None)
    }

    async fn put(&self, _: Arc<Entry>, _: Durability) -> Result<(), StoreError> {
        Ok(())
    }

    async fn remove(&self, _: &Selector, _: bool) -> Result<Vec<CacheKey>, StoreError> {
        Ok(Vec::new())
    }

    async fn scan(&self, _: Option<CacheKey>, _: usize) -> Result<Vec<Arc<Entry>>, StoreError> {
        Ok(Vec::new())
    }

    async fn expire(&self, _: u64, _: usize) -> Result<Vec<CacheKey>, StoreError> {
        Ok(Vec::new())
    }

    fn entries(&self) -> u64 {
        0
    }

    fn unreadable(&self) -> u64 {
        0
    }

    async fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

fn learning(store: &Arc<Notes>) -> Learning {
    let config = Config::default().cache.learning;
    let store: Arc<dyn Store> = Arc::clone(store) as _;
    Learning::new(&config, (store, Duration::from_secs(60)), Arc::new(Metrics::new())).unwrap()
}

/// What another process tells of a pair that it parted.
async fn parted(store: &Arc<Notes>) -> Vec<u8> {
    let other = learning(store);
    other.part(&*other.namespace(&Owner::Shared, "docs").await, key(1), key(2));
    other.tell_once().await;
    let told = lock(&store.told).pop();
    told.unwrap()
}

fn key(n: u8) -> CacheKey {
    CacheKey::from_bytes([n; 32])
}

/// A namespace that went from memory and was asked in again counted its labels anew, under the same name: others
/// took them for known.
#[tokio::test]
async fn a_namespace_that_is_opened_again_is_heard() {
    let learning = learning(&Arc::default());
    let id = NamespaceId { owner: Owner::Shared, name: "docs".to_owned() };
    let mut other = learning.fresh(&id);
    for _ in 0..2 {
        let mut opened = learning.fresh(&id);
        let scored = opened.score(&[0.5; features::COUNT], 1);
        opened.observe(&scored, Label::compared(1.0), Origin::Miss { best: true });
        assert_eq!(other.hear(&opened.lesson().unwrap()), 1);
    }
}

/// A pair from another region was forgotten when the note of its namespace could not be read at that moment.
#[tokio::test]
async fn a_pair_waits_until_its_namespace_can_be_read() {
    let store = Arc::new(Notes::default());
    let (message, learning) = (parted(&store).await, learning(&store));
    store.is_away.store(true, Ordering::Relaxed);
    learning.hear_message(&message, true).await;
    learning.take_in_unread().await;
    assert!(learning.known(&Owner::Shared, "docs").is_none());
    store.is_away.store(false, Ordering::Relaxed);
    learning.take_in_unread().await;
    assert!(learning.known(&Owner::Shared, "docs").unwrap().is_apart(key(1), key(2)));
}

/// Every replica wrote the whole note for each pair that one of them had parted, and had written down.
#[tokio::test]
async fn only_pairs_from_far_are_written_down_again() {
    let store = Arc::new(Notes::default());
    let message = parted(&store).await;
    for is_far in [false, true] {
        let learning = learning(&store);
        learning.hear_message(&message, is_far).await;
        let namespace = learning.known(&Owner::Shared, "docs").unwrap();
        assert!(namespace.is_apart(key(1), key(2)));
        assert_eq!(namespace.claim_save(Instant::now(), Duration::ZERO), is_far);
    }
}

/// At shutdown one note that others always wrote first cost the notes after it.
#[tokio::test]
async fn a_note_that_cannot_be_replaced_does_not_keep_others_from_being_written() {
    for refused in ["a", "b"] {
        let id = |name: &str| NamespaceId { owner: Owner::Shared, name: name.to_owned() };
        let store = Arc::new(Notes { refused: id(refused).note(), ..Notes::default() });
        let learning = learning(&store);
        for name in ["a", "b"] {
            learning.part(&*learning.namespace(&Owner::Shared, name).await, key(1), key(2));
        }
        learning.save_all().await;
        let written: Vec<_> = lock(&store.notes).keys().cloned().collect();
        assert_eq!(written, [id(if refused == "a" { "b" } else { "a" }).note()]);
    }
}

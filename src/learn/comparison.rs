//! Comparison of a model's answer with those of the near entries: how much it speaks for or against their prompts asking
//! the same. It runs off the request path.

use std::sync::Arc;

use quick_cache::sync::Cache;
use serde_json::Value;
use tokio::task::spawn_blocking;

use super::{Compared, ScoredCandidates};
use crate::{
    decide::{
        answer::{self, Answer, Prompts, Similarity},
        learner::Label,
        table::Table,
        text::Analysis,
    },
    embed::{Embedded, Embedder, Embedding},
    entry::Candidate,
    prompt::{Completion, prefix},
};

/// Bytes of an answer that are compared.
const COMPARED_BYTES_MAX: usize = 16 * 1024;

/// Answers whose vectors are kept, so that an entry's answer is embedded once.
const VECTORS_MAX: usize = 4096;

/// Times that a text which has too many tokens is halved.
const HALVINGS_MAX: usize = 4;

/// Evidence of function calls, which are either equal or do different things.
const CALLS_EVIDENCE: f32 = 2.5;

/// Compares answers by their words and, where there is an embedder, by their vectors.
pub(super) struct Comparer {
    embedder: Option<Arc<dyn Embedder>>,
    /// By a hash of the answer.
    vectors: Cache<[u8; 32], Arc<Vectors>>,
}

/// The vectors of an answer's beginning and opening.
struct Vectors {
    beginning: Embedding,
    opening: Embedding,
}

impl Comparer {
    pub(super) fn new(embedder: Option<Arc<dyn Embedder>>) -> Self {
        Self { embedder, vectors: Cache::new(VECTORS_MAX) }
    }

    /// Compares the answer to `prompt` with those of the candidates.
    pub(super) async fn compare(
        &self,
        near: ScoredCandidates,
        prompt: &str,
        answer: &Completion,
    ) -> Option<Compared> {
        let new = self.vectors(&answer.content).await;
        let mut similarities = Vec::with_capacity(near.candidates.len());
        for candidate in &near.candidates {
            let entry = self.vectors(&candidate.entry.completion.content).await;
            similarities.push(new.as_ref().zip(entry).map(|(new, entry)| new.similarity(&entry)));
        }
        let (prompt, answer) = (prompt.to_owned(), answer.clone());
        spawn_blocking(move || compare_all(near, &prompt, &answer, &similarities)).await.ok()
    }

    /// Vectors of an answer; `None` where there is no embedder or it is overloaded.
    async fn vectors(&self, content: &str) -> Option<Arc<Vectors>> {
        let embedder = self.embedder.as_deref()?;
        let (beginning, opening) = (answer::beginning(content), answer::opening(content));
        if opening.trim().is_empty() {
            return None;
        }
        let key = *blake3::hash(beginning.as_bytes()).as_bytes();
        let make = async {
            let beginning = embed(embedder, beginning).await.ok_or(())?;
            let opening = embed(embedder, opening).await.ok_or(())?;
            Ok::<_, ()>(Arc::new(Vectors { beginning, opening }))
        };
        self.vectors.get_or_insert_async(&key, make).await.ok()
    }
}

impl Vectors {
    fn similarity(&self, other: &Self) -> Similarity {
        Similarity {
            beginning: self.beginning.similarity(&other.beginning),
            opening: self.opening.similarity(&other.opening),
        }
    }
}

/// Vector of `text`, or of as much of its beginning as the model takes.
async fn embed(embedder: &dyn Embedder, mut text: &str) -> Option<Embedding> {
    for _ in 0..=HALVINGS_MAX {
        match embedder.embed(text).await.ok()? {
            Embedded::Vector { embedding, .. } => return Some(embedding),
            Embedded::OverWindow { .. } => text = prefix(text, text.len() / 2),
        }
    }
    None
}

fn compare_all(
    near: ScoredCandidates,
    prompt: &str,
    answer: &Completion,
    similarities: &[Option<Similarity>],
) -> Compared {
    let prompt = Analysis::of(prompt);
    let prepared = prepare(answer);
    let table = near.namespace.table();
    let label = |(candidate, similarity): (&Candidate, &Option<Similarity>)| {
        let entry = Analysis::of(candidate.text());
        let prompts = Prompts { new: &prompt, entry: &entry, similarity: candidate.similarity };
        let other = &candidate.entry.completion;
        let evidence = if answer.tool_calls.is_some() || other.tool_calls.is_some() {
            if calls(answer) == calls(other) { CALLS_EVIDENCE } else { -CALLS_EVIDENCE }
        } else {
            by_text(table, &prepared, &prepare(other), *similarity, prompts)
        };
        Label::compared(evidence)
    };
    let labels = near.candidates.iter().zip(similarities).map(label).collect();
    Compared { near, labels, verified: 0.0, is_stored: false }
}

fn prepare(answer: &Completion) -> Answer {
    Answer::of(prefix(&answer.content, COMPARED_BYTES_MAX))
}

/// Evidence of two texts; 0 if either says nothing about what was asked.
fn by_text(
    table: &Table,
    new: &Answer,
    entry: &Answer,
    similarity: Option<Similarity>,
    prompts: Prompts<'_>,
) -> f32 {
    if new.says_nothing() || entry.says_nothing() {
        return 0.0;
    }
    table.evidence(&answer::features(new, entry, similarity, prompts))
}

/// The function calls of an answer in order, with their arguments and without their ids. Calls that do different things
/// share most of their words, so they are either equal or different.
pub(super) fn calls(answer: &Completion) -> Vec<(Value, Value)> {
    let calls = answer.tool_calls.as_ref().and_then(Value::as_array);
    let call = |call: &Value| {
        let function = &call["function"];
        let arguments = function["arguments"].as_str().and_then(|text| serde_json::from_str(text).ok());
        (function["name"].clone(), arguments.unwrap_or_else(|| function["arguments"].clone()))
    };
    calls.into_iter().flatten().map(call).collect()
}

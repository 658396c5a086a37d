//! A stream of requests, prepared for policies that decide by the similarity of the nearest entry.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use promptkeep::{
    decide::{
        answer::{self, Answer, Prompts},
        table::Table,
        text::Analysis,
    },
    embed::{Embedded, Embedder},
    offline::tune::Row,
};

use crate::Result;

/// See the [module](self).
pub struct Stream {
    requests: Vec<Request>,
    /// Cosine of each request to every earlier one; negative infinity between scopes.
    similarities: Vec<Vec<f32>>,
    table: Arc<Table>,
}

struct Request {
    /// Only requests of one scope can answer each other.
    scope: usize,
    /// Equal for equal prompts.
    prompt: usize,
    class: usize,
    analysis: Analysis,
    answer: Answer,
}

/// The cache of a policy.
pub struct Entries<'a> {
    stream: &'a Stream,
    /// Requests whose answers are candidates for semantic hits.
    candidates: Vec<usize>,
    /// Request whose answer is stored, by prompt.
    exact: HashMap<usize, usize>,
}

impl Stream {
    pub async fn new(rows: &[Row], embedder: &dyn Embedder) -> Result<Self> {
        let (mut scopes, mut prompts, mut classes) = (HashMap::new(), HashMap::new(), HashMap::new());
        let mut vectors = Vec::new();
        let mut requests = Vec::new();
        for row in rows {
            let scope = number(&mut scopes, (&row.system, &row.turns));
            let prompt = number(&mut prompts, (scope, &row.text));
            let class = number(&mut classes, &row.class);
            requests.push(Request {
                scope,
                prompt,
                class,
                analysis: Analysis::of(&row.text),
                answer: Answer::of(&row.answer()),
            });
            vectors.push(match embedder.embed(&row.text).await? {
                Embedded::Vector { embedding, .. } => Some(embedding),
                Embedded::OverWindow { .. } => None,
            });
        }
        let similarity = |i: usize, j: usize| match (&vectors[i], &vectors[j]) {
            (Some(a), Some(b)) if requests[i].scope == requests[j].scope => a.similarity(b),
            _ => f32::NEG_INFINITY,
        };
        let similarities = (0..rows.len()).map(|i| (0..i).map(|j| similarity(i, j)).collect()).collect();
        Ok(Self { requests, similarities, table: Table::embedded()? })
    }

    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Counts requests with an earlier request of their class.
    pub fn possible(&self) -> usize {
        let mut seen = HashSet::new();
        self.requests.iter().filter(|request| !seen.insert(request.class)).count()
    }

    /// Whether the entry's answer is right for the request, by the ground truth.
    pub fn is_right(&self, request: usize, entry: usize) -> bool {
        self.requests[request].class == self.requests[entry].class
    }

    /// Whether the two answers speak for equal prompts: the only label that a policy gets.
    pub fn has_equal_answers(&self, request: usize, entry: usize) -> bool {
        let similarity = self.similarities[request][entry];
        let (new, old) = (&self.requests[request], &self.requests[entry]);
        let prompts = Prompts { new: &new.analysis, entry: &old.analysis, similarity };
        self.table.evidence(&answer::features(&new.answer, &old.answer, None, prompts)) > 0.0
    }
}

/// Numbers things in order of first appearance.
fn number<T: std::hash::Hash + Eq>(numbers: &mut HashMap<T, usize>, thing: T) -> usize {
    let next = numbers.len();
    *numbers.entry(thing).or_insert(next)
}

impl<'a> Entries<'a> {
    pub fn new(stream: &'a Stream) -> Self {
        Self { stream, candidates: Vec::new(), exact: HashMap::new() }
    }

    /// Returns the entry of an equal prompt. Every policy serves it, because an exact repeat needs no decision.
    pub fn exact(&self, request: usize) -> Option<usize> {
        self.exact.get(&self.stream.requests[request].prompt).copied()
    }

    /// Returns the nearest candidate of the scope and its cosine.
    pub fn nearest(&self, request: usize) -> Option<(usize, f32)> {
        let similarities = &self.stream.similarities[request];
        let all = self.candidates.iter().map(|entry| (*entry, similarities[*entry]));
        all.max_by(|a, b| a.1.total_cmp(&b.1)).filter(|(_, similarity)| similarity.is_finite())
    }

    /// Stores the request's answer for its exact repeats and, if wanted, as a candidate for semantic hits.
    pub fn add(&mut self, request: usize, is_candidate: bool) {
        self.exact.insert(self.stream.requests[request].prompt, request);
        if is_candidate {
            self.candidates.push(request);
        }
    }
}

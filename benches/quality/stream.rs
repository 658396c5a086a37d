//! The requests of a stream, ready for arms that decide by the nearest entry's similarity.

use std::collections::{HashMap, HashSet};

use promptkeep::{
    decide::answer::Answer,
    embed::{Embedded, Embedder},
    tune::Row,
};

use crate::Result;

/// See the [module](self).
pub struct Stream {
    requests: Vec<Request>,
    /// Of each request to those before it: the cosine; nothing where they are of different scopes.
    similarities: Vec<Vec<f32>>,
}

struct Request {
    /// What must be equal for one to answer the other.
    scope: usize,
    /// Equal for equal prompts.
    prompt: usize,
    class: usize,
    answer: Answer,
}

/// A cache that keeps what it buys, and judges what it serves.
pub struct Entries<'a> {
    stream: &'a Stream,
    /// Requests whose answers may be served to others.
    kept: Vec<usize>,
    /// The request whose answer a prompt has, by the prompt.
    exact: HashMap<usize, usize>,
}

// === impl Stream ===

impl Stream {
    pub async fn new(rows: &[Row], embedder: &dyn Embedder) -> Result<Self> {
        let (mut scopes, mut prompts, mut classes) = (HashMap::new(), HashMap::new(), HashMap::new());
        let mut vectors = Vec::new();
        let mut requests = Vec::new();
        for row in rows {
            let scope = number(&mut scopes, (&row.system, &row.turns));
            let prompt = number(&mut prompts, (scope, &row.text));
            let class = number(&mut classes, &row.class);
            requests.push(Request { scope, prompt, class, answer: Answer::of(&row.answer()) });
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
        Ok(Self { requests, similarities })
    }

    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Requests of which an earlier one has the class.
    pub fn possible(&self) -> usize {
        let mut seen = HashSet::new();
        self.requests.iter().filter(|request| !seen.insert(request.class)).count()
    }

    /// The ground truth.
    pub fn is_right(&self, request: usize, entry: usize) -> bool {
        self.requests[request].class == self.requests[entry].class
    }

    /// What comparing both answers says, once both were bought: the only label that an arm gets.
    pub fn says_the_same(&self, request: usize, entry: usize) -> bool {
        self.requests[request].answer.same(&self.requests[entry].answer) > 0.5
    }
}

/// Numbers things in the order in which they are first seen.
fn number<T: std::hash::Hash + Eq>(numbers: &mut HashMap<T, usize>, thing: T) -> usize {
    let next = numbers.len();
    *numbers.entry(thing).or_insert(next)
}

// === impl Entries ===

impl<'a> Entries<'a> {
    pub fn of(stream: &'a Stream) -> Self {
        Self { stream, kept: Vec::new(), exact: HashMap::new() }
    }

    /// The entry of the same prompt, word by word. Every arm serves it: whatever the cache, a repeat needs no
    /// decision.
    pub fn exact(&self, request: usize) -> Option<usize> {
        self.exact.get(&self.stream.requests[request].prompt).copied()
    }

    /// The nearest entry of the scope, and its cosine.
    pub fn nearest(&self, request: usize) -> Option<(usize, f32)> {
        let similarities = &self.stream.similarities[request];
        let all = self.kept.iter().map(|entry| (*entry, similarities[*entry]));
        all.max_by(|a, b| a.1.total_cmp(&b.1)).filter(|(_, similarity)| similarity.is_finite())
    }

    /// The request's answer was bought; others are served it when it is `kept` as an entry.
    pub fn bought(&mut self, request: usize, kept: bool) {
        self.exact.insert(self.stream.requests[request].prompt, request);
        if kept {
            self.kept.push(request);
        }
    }
}

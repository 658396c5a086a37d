//! What the pipeline answers, before a door encodes it.

use std::{sync::Arc, time::SystemTime};

use super::asked::ToKeep;
use crate::{
    embed::Embedding,
    entry::{Candidate, Entry},
    feedback::RequestId,
    learn::{Near, Pair},
    model::Attempt,
    outcome::{MissReason, Outcome},
    prompt::{Completion, Delta},
};

/// A cached answer.
#[derive(Clone, Debug)]
pub struct Hit {
    pub outcome: Outcome,
    pub entry: Arc<Entry>,
    /// Cosine; 1 for an exact hit.
    pub similarity: f32,
    /// Probability that the answer is right; 1 for an exact hit, 0 where none is estimated.
    pub confidence: f32,
    /// Of a semantic hit of mode `bounded`: what feedback on it is about.
    pub pair: Option<Pair>,
    /// It is past its TTL, and being bought again.
    pub is_stale: bool,
}

/// Why the cache did not answer.
#[derive(Clone, Debug)]
pub struct Missed {
    pub reason: MissReason,
    /// The nearest entry, when there was one.
    pub nearest: Option<Match>,
}

/// The entry that answered or came nearest, as callers see it.
#[derive(Clone, Debug)]
pub struct Match {
    pub entry: Arc<Entry>,
    pub similarity: f32,
    pub confidence: f32,
    /// It is past its TTL, and being bought again.
    pub is_stale: bool,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub id: RequestId,
    pub outcome: Outcome,
    pub answer: Source,
    pub matched: Option<Match>,
    /// Why the cache did not answer.
    pub reason: Option<MissReason>,
    pub saved_usd: f64,
}

/// Where the text of a reply is.
#[derive(Clone, Debug)]
pub enum Source {
    Entry(Arc<Entry>),
    Bought(Arc<Bought>),
}

/// An answer that a model just gave.
#[derive(Debug)]
pub struct Bought {
    pub completion: Completion,
    pub attempts: Vec<Attempt>,
    pub missed: Missed,
}

/// One event of a streamed answer, in this order: one `Started`, deltas, one `Finished`.
#[derive(Clone, Debug)]
pub enum Chunk {
    Started(Started),
    Delta(Delta),
    Finished(Reply),
}

/// What is known when the first token comes.
#[derive(Clone, Debug)]
pub struct Started {
    pub id: RequestId,
    pub outcome: Outcome,
    pub matched: Option<Match>,
    pub model: String,
    pub tier: String,
}

// === impl Hit ===

impl Hit {
    pub(super) fn exact(entry: Arc<Entry>) -> Self {
        Self { outcome: Outcome::Exact, entry, similarity: 1.0, confidence: 1.0, pair: None, is_stale: false }
    }

    pub(super) fn stale(entry: Arc<Entry>) -> Self {
        Self { is_stale: true, ..Self::exact(entry) }
    }

    pub(super) fn semantic(candidate: &Candidate) -> Self {
        let (entry, similarity) = (Arc::clone(&candidate.entry), candidate.similarity);
        Self { outcome: Outcome::Semantic, similarity, confidence: 0.0, ..Self::exact(entry) }
    }

    /// By what was learned: the candidate of `near` at `index`.
    pub(super) fn learned(near: &Near, index: usize, confidence: f32) -> Self {
        Self { confidence, pair: Some(near.pair(index)), ..Self::semantic(&near.candidates[index]) }
    }

    /// As callers see it.
    pub fn matched(&self) -> Match {
        let Self { entry, similarity, confidence, is_stale, .. } = self;
        Match {
            entry: Arc::clone(entry),
            similarity: *similarity,
            confidence: *confidence,
            is_stale: *is_stale,
        }
    }
}

// === impl Missed ===

impl Missed {
    pub(super) fn without_candidate(reason: MissReason) -> Self {
        Self { reason, nearest: None }
    }

    /// `confidence`: probability that its answer is right; 0 where none is estimated.
    pub(super) fn near(reason: MissReason, candidate: &Candidate, confidence: f32) -> Self {
        let Candidate { entry, similarity, .. } = candidate;
        let nearest =
            Match { entry: Arc::clone(entry), similarity: *similarity, confidence, is_stale: false };
        Self { reason, nearest: Some(nearest) }
    }
}

// === impl Bought ===

impl Bought {
    /// What is kept of it.
    pub(super) fn to_keep(&self, embedding: Option<Embedding>) -> ToKeep {
        let difficulty = self.attempts.iter().find_map(|attempt| attempt.reason.difficulty());
        ToKeep { completion: self.completion.clone(), embedding, difficulty }
    }
}

// === impl Match ===

impl Match {
    /// Time since the answer was produced.
    pub fn age(&self) -> std::time::Duration {
        self.entry.age(SystemTime::now())
    }
}

// === impl Reply ===

impl Reply {
    /// The answer itself.
    pub fn completion(&self) -> &Completion {
        match &self.answer {
            Source::Entry(entry) => &entry.completion,
            Source::Bought(bought) => &bought.completion,
        }
    }

    /// The model calls made for this answer by this caller.
    pub fn attempts(&self) -> &[Attempt] {
        match &self.answer {
            Source::Bought(bought) if self.outcome != Outcome::Coalesced => &bought.attempts,
            _ => &[],
        }
    }
}

//! The pipeline's answers, before a server encodes them.

use std::{sync::Arc, time::SystemTime};

use super::replies::RequestId;
use crate::{
    entry::{Candidate, Entry},
    learn::{Pair, ScoredCandidates},
    model::Attempt,
    outcome::{Approval, MissReason, Outcome},
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
    /// Set for a semantic hit: why the entry was good enough.
    pub approval: Option<Approval>,
    /// Id of the model that said the answer fits.
    pub verified_by: Option<Arc<str>>,
    /// Set for a semantic hit of mode `bounded`: the pair that feedback labels.
    pub pair: Option<Pair>,
    /// The entry is past its TTL and being replaced.
    pub is_stale: bool,
}

/// Why the cache did not answer.
#[derive(Clone, Debug)]
pub struct Missed {
    pub reason: MissReason,
    /// The nearest entry, if there was one.
    pub nearest: Option<Match>,
}

/// The entry that answered or came nearest, as callers see it.
#[derive(Clone, Debug)]
pub struct Match {
    pub entry: Arc<Entry>,
    pub similarity: f32,
    pub confidence: f32,
    /// Why the entry was served; `None` unless it is a semantic hit.
    pub approval: Option<Approval>,
    /// Id of the model that said the answer fits.
    pub verified_by: Option<Arc<str>>,
    /// The entry is past its TTL and being replaced.
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
    Upstream(Arc<UpstreamCompletion>),
}

/// A completion that a model just produced.
#[derive(Debug)]
pub struct UpstreamCompletion {
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

/// The part of a reply that is known before the first token.
#[derive(Clone, Debug)]
pub struct Started {
    pub id: RequestId,
    pub outcome: Outcome,
    pub matched: Option<Match>,
    pub model: String,
    pub tier: String,
}

impl Hit {
    pub(super) fn exact(entry: Arc<Entry>) -> Self {
        Self {
            outcome: Outcome::Exact,
            entry,
            similarity: 1.0,
            confidence: 1.0,
            approval: None,
            verified_by: None,
            pair: None,
            is_stale: false,
        }
    }

    pub(super) fn stale(entry: Arc<Entry>) -> Self {
        Self { is_stale: true, ..Self::exact(entry) }
    }

    pub(super) fn semantic(candidate: &Candidate) -> Self {
        let (entry, similarity) = (Arc::clone(&candidate.entry), candidate.similarity);
        let approval = Some(Approval::Surface);
        Self { outcome: Outcome::Semantic, similarity, confidence: 0.0, approval, ..Self::exact(entry) }
    }

    /// The hit of mode `bounded` on the candidate of `scored` at `index`.
    pub(super) fn learned(scored: &ScoredCandidates, index: usize, confidence: f32) -> Self {
        Self {
            confidence,
            approval: Some(scored.approval(index)),
            verified_by: scored.verifier(index).cloned(),
            pair: Some(scored.pair(index)),
            ..Self::semantic(&scored.candidates[index])
        }
    }

    /// The match as callers see it.
    pub fn matched(&self) -> Match {
        let Self { entry, similarity, confidence, approval, verified_by, is_stale, .. } = self;
        Match {
            approval: *approval,
            verified_by: verified_by.clone(),
            entry: Arc::clone(entry),
            similarity: *similarity,
            confidence: *confidence,
            is_stale: *is_stale,
        }
    }
}

impl Missed {
    pub(super) fn without_candidate(reason: MissReason) -> Self {
        Self { reason, nearest: None }
    }

    /// `confidence`: probability that the candidate's answer is right; 0 where none is estimated.
    pub(super) fn near(reason: MissReason, candidate: &Candidate, confidence: f32) -> Self {
        let Candidate { entry, similarity, .. } = candidate;
        let nearest = Match {
            entry: Arc::clone(entry),
            similarity: *similarity,
            confidence,
            approval: None,
            verified_by: None,
            is_stale: false,
        };
        Self { reason, nearest: Some(nearest) }
    }
}

impl Match {
    /// Time since the answer was produced.
    pub fn age(&self) -> std::time::Duration {
        self.entry.age(SystemTime::now())
    }
}

impl Reply {
    /// The answer itself.
    pub fn completion(&self) -> &Completion {
        match &self.answer {
            Source::Entry(entry) => &entry.completion,
            Source::Upstream(completed) => &completed.completion,
        }
    }

    /// The model calls made for this answer by this caller.
    pub fn attempts(&self) -> &[Attempt] {
        match &self.answer {
            Source::Upstream(completed) if self.outcome != Outcome::Coalesced => &completed.attempts,
            _ => &[],
        }
    }
}

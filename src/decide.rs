//! Whether a near-duplicate may be served, and why not. Pure and synchronous: texts, similarities and a
//! policy in, a decision out. Knows no store, index or transport.
//!
//! Mode `static` serves the nearest entry whose similarity reaches the limit and to which no
//! [`guard`] objects. The guards' tables are English; texts of other languages are compared in what
//! is written alike everywhere, which makes the guards weaker there but never stricter.

pub mod answer;
pub mod boost;
pub mod features;
pub mod guard;
pub mod keep;
pub mod learner;
mod lexicon;
pub mod logistic;
mod quantity;
pub mod rarity;
mod roles;
mod similar;
pub mod simulate;
pub mod table;
pub mod text;

use std::sync::Arc;

use crate::{
    cache::entry::Entry,
    config::{CacheConfig, Mode},
    outcome::MissReason,
    prompt::CacheControl,
};
use text::Analysis;

/// A lexical difference that changes the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guard {
    Numbers,
    Units,
    Dates,
    Negation,
    Antonyms,
    Quoted,
    Code,
    Direction,
    Entities,
    Format,
    Language,
    /// Another thing is asked about the same things.
    Question,
    /// Long texts with different words.
    Wording,
}

/// An entry near the prompt.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub entry: Arc<Entry>,
    /// Cosine similarity of the two texts, -1 to 1.
    pub similarity: f32,
}

/// What the server and the caller allow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// False: only exact hits are wanted.
    pub semantic: bool,
    /// Lowest cosine similarity of a hit.
    pub min_similarity: f32,
}

/// What to do with a prompt that has near entries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decision {
    /// Answer with this candidate.
    Serve {
        /// Index among the candidates.
        candidate: usize,
        /// Probability that the answer is right; 0 where the mode estimates none.
        confidence: f32,
    },
    /// Answer with none of them, for what stood against the nearest.
    Refuse {
        reason: MissReason,
        /// Index of the nearest candidate, if there is any.
        nearest: Option<usize>,
    },
}

/// One verdict on one candidate.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    pub name: &'static str,
    pub passed: bool,
    /// What differs, or the figure that was compared.
    pub detail: String,
}

/// All verdicts on one candidate.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    pub checks: Vec<Check>,
    /// Whether it would be served if no nearer one was.
    pub accepted: bool,
}

/// Decides by similarity and guards. `candidates` are nearest first; one that is refused does not
/// hide an acceptable one behind it.
pub fn decide(policy: &Policy, text: &str, candidates: &[Candidate]) -> Decision {
    if !policy.semantic {
        return Decision::Refuse { reason: MissReason::Disabled, nearest: None };
    }
    let mut first_reason = None;
    let mut analysis = None;
    for (index, candidate) in candidates.iter().enumerate() {
        let reason = if candidate.similarity < policy.min_similarity {
            Some(MissReason::BelowThreshold)
        } else {
            let analysis = analysis.get_or_insert_with(|| Analysis::of(text));
            first_objection(analysis, &candidate.entry).map(MissReason::Guard)
        };
        let Some(reason) = reason else { return Decision::Serve { candidate: index, confidence: 0.0 } };
        first_reason.get_or_insert(reason);
    }
    let nearest = (!candidates.is_empty()).then_some(0);
    Decision::Refuse { reason: first_reason.unwrap_or(MissReason::NoCandidate), nearest }
}

/// Every verdict on every candidate, in their order, for `Explain`.
pub fn explain(policy: &Policy, text: &str, candidates: &[Candidate]) -> Vec<Explained> {
    let analysis = Analysis::of(text);
    candidates.iter().map(|candidate| explain_one(policy, &analysis, candidate)).collect()
}

fn explain_one(policy: &Policy, analysis: &Analysis, candidate: &Candidate) -> Explained {
    let near = candidate.similarity >= policy.min_similarity;
    let figures = format!("{:.4} of at least {:.4}", candidate.similarity, policy.min_similarity);
    let mut checks = vec![Check { name: "similarity", passed: near, detail: figures }];
    let other = Analysis::of(candidate.entry.text.as_deref().unwrap_or_default());
    checks.extend(guard::ALL.map(|guard| {
        let objection = guard::objection(guard, analysis, &other);
        Check { name: guard.name(), passed: objection.is_none(), detail: objection.unwrap_or_default() }
    }));
    let accepted = policy.semantic && candidate.entry.text.is_some() && checks.iter().all(|c| c.passed);
    Explained { checks, accepted }
}

/// The first guard that objects to `entry`.
fn first_objection(analysis: &Analysis, entry: &Entry) -> Option<Guard> {
    let other = Analysis::of(entry.text.as_deref().unwrap_or_default());
    guard::ALL.into_iter().find(|guard| guard::objection(*guard, analysis, &other).is_some())
}

// === impl Policy ===

impl Policy {
    /// The stricter of what the server and the caller want.
    pub fn new(config: &CacheConfig, control: &CacheControl) -> Self {
        let asked = control.min_similarity.unwrap_or(config.min_similarity);
        Self {
            semantic: config.mode != Mode::Exact && !control.exact_only,
            min_similarity: config.min_similarity.max(asked),
        }
    }
}

// === impl Guard ===

impl Guard {
    /// The label of the miss it causes.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Numbers => "guard_numbers",
            Self::Units => "guard_units",
            Self::Dates => "guard_dates",
            Self::Negation => "guard_negation",
            Self::Antonyms => "guard_antonyms",
            Self::Quoted => "guard_quoted",
            Self::Code => "guard_code",
            Self::Direction => "guard_direction",
            Self::Entities => "guard_entities",
            Self::Format => "guard_format",
            Self::Language => "guard_language",
            Self::Question => "guard_question",
            Self::Wording => "guard_wording",
        }
    }

    /// The name of its verdict in `Explain`.
    pub fn name(self) -> &'static str {
        self.reason().trim_start_matches("guard_")
    }
}

#[cfg(test)]
mod tests;

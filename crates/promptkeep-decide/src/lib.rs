//! Whether a near-duplicate may be served, and why not. Pure and synchronous: texts, similarities and a
//! policy in, a decision out. Knows no store, index or transport.
//!
//! Mode `bounded` serves the entry of which a [`learner`] is sure enough to stay inside the error budgets;
//! the server holds one for each namespace.
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
pub mod table;
pub mod text;

use promptkeep_core::{
    entry::Candidate,
    outcome::{Guard, MissReason},
};

use learner::Budget;
use text::Analysis;

/// What the server and the caller allow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Policy {
    /// Only exact hits are wanted.
    Exact,
    /// Guards, and the lowest cosine similarity of a hit.
    Static { min_similarity: f32 },
    /// What was learned, inside error budgets.
    Bounded(Bounds),
}

/// What mode `bounded` keeps to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    pub budget: Budget,
    /// Lowest cosine similarity of a candidate.
    pub min_similarity: f32,
    /// Least share of the hits that is checked.
    pub audit_rate: f32,
    /// Mode `shadow`: everything but the serving.
    pub shadow: bool,
}

/// Entries less similar than this are no candidates of mode `bounded`: none of them was ever right often
/// enough, and comparing their answers teaches little.
pub const BOUNDED_SIMILARITY_MIN: f32 = 0.6;

/// What to do with a prompt that has near entries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decision {
    /// Answer with this candidate.
    Serve {
        /// Index among the candidates.
        candidate: usize,
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

/// Decides by similarity and guards, as mode `static` does. `candidates` are nearest first; one that is
/// refused does not hide an acceptable one behind it.
pub fn by_guards(min_similarity: f32, text: &str, candidates: &[Candidate]) -> Decision {
    let mut first_reason = None;
    let mut analysis = None;
    for (index, candidate) in candidates.iter().enumerate() {
        let reason = if candidate.similarity < min_similarity {
            Some(MissReason::BelowThreshold)
        } else {
            let analysis = analysis.get_or_insert_with(|| Analysis::of(text));
            first_objection(analysis, candidate).map(MissReason::Guard)
        };
        let Some(reason) = reason else { return Decision::Serve { candidate: index } };
        first_reason.get_or_insert(reason);
    }
    let nearest = (!candidates.is_empty()).then_some(0);
    Decision::Refuse { reason: first_reason.unwrap_or(MissReason::NoCandidate), nearest }
}

/// Every verdict of mode `static` on every candidate, in their order, for `Explain`.
pub fn explain_guards(min_similarity: f32, text: &str, candidates: &[Candidate]) -> Vec<Explained> {
    let analysis = Analysis::of(text);
    candidates.iter().map(|candidate| explain_one(min_similarity, &analysis, candidate)).collect()
}

fn explain_one(min_similarity: f32, analysis: &Analysis, candidate: &Candidate) -> Explained {
    let near = candidate.similarity >= min_similarity;
    let figures = format!("{:.4} of at least {min_similarity:.4}", candidate.similarity);
    let mut checks = vec![Check { name: "similarity", passed: near, detail: figures }];
    let other = Analysis::of(candidate.text());
    checks.extend(guard::ALL.map(|guard| {
        let objection = guard::objection(guard, analysis, &other);
        Check { name: guard.name(), passed: objection.is_none(), detail: objection.unwrap_or_default() }
    }));
    let accepted = checks.iter().all(|c| c.passed);
    Explained { checks, accepted }
}

/// The first guard that objects to `candidate`.
fn first_objection(analysis: &Analysis, candidate: &Candidate) -> Option<Guard> {
    let other = Analysis::of(candidate.text());
    guard::ALL.into_iter().find(|guard| guard::objection(*guard, analysis, &other).is_some())
}

#[cfg(test)]
mod tests;

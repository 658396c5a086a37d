//! Whether a near-duplicate may be served, and why not. Pure and synchronous: texts, similarities and a
//! policy in, a decision out. Knows no store, index or transport.
//!
//! Mode `bounded` serves the entry of which a [`learner`] is sure enough to stay inside the error budgets;
//! [`crate::learn`] holds one for each namespace.
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
    key::CacheKey,
    outcome::{Guard, MissReason},
    prompt::CacheControl,
};
use learner::Budget;
use text::Analysis;

/// An entry near the prompt.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Whose answer would be served.
    pub entry: Arc<Entry>,
    /// What the prompt is near to, when that is a paraphrase of the entry's own text.
    pub alias: Option<Arc<Entry>>,
    /// Cosine similarity of the two texts, -1 to 1.
    pub similarity: f32,
}

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

// === impl Policy ===

impl Policy {
    /// The stricter of what the server and the caller want.
    pub fn new(config: &CacheConfig, namespace: &str, control: &CacheControl) -> Self {
        let asked = control.min_similarity.unwrap_or(0.0);
        match config.mode(namespace) {
            _ if control.exact_only => Self::Exact,
            Mode::Exact => Self::Exact,
            Mode::Static => Self::Static { min_similarity: config.min_similarity.max(asked) },
            mode @ (Mode::Bounded | Mode::Shadow) => {
                let mut budget = config.budget(namespace);
                budget.max_error_rate = budget.max_error_rate.min(control.max_error_rate.unwrap_or(1.0));
                let shadow = mode == Mode::Shadow;
                Self::Bounded(Bounds {
                    budget,
                    min_similarity: asked.max(BOUNDED_SIMILARITY_MIN),
                    // What is not served costs nothing to check.
                    audit_rate: if shadow { 1.0 } else { config.audit_rate },
                    shadow,
                })
            }
        }
    }
}

// === impl Candidate ===

impl Candidate {
    /// The key under which it was found: the alias's, or the entry's own.
    pub fn key(&self) -> CacheKey {
        self.alias.as_ref().unwrap_or(&self.entry).key
    }

    /// What the prompt is near to.
    pub fn text(&self) -> &str {
        self.alias.as_ref().unwrap_or(&self.entry).text.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;

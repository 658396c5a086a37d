//! Decides whether a cached answer fits a similar prompt. Pure and synchronous: texts, similarities and a policy in,
//! a decision with its reason out. Knows no store, index or transport.
//!
//! * [`text`] analyses a text once: words, numbers with units, dates, quotations, code, roles.
//! * [`guard`] compares two analyses. Mode `static` serves the most similar entry that reaches the similarity
//!   threshold and to which no guard objects: see [`by_guards`].
//! * [`features`] turns a pair into numbers, and a [`learner`] turns these into the probability that the entry's
//!   answer is right. Mode `bounded` serves an entry while the expected errors stay within the error budgets. The
//!   learner starts from a trained [`table`] and learns online from labels: [`answer`] compares the answers of a
//!   pair.
//! * [`reuse`] detects prompts whose answers must not be reused: personal and time-dependent ones.
//! * [`surface`] detects texts that differ in nothing but case, end marks, politeness, contractions and typing mistakes.
//! * [`boost`], [`logistic`] and [`rarity`] are the parts of the table, which its training needs too.
//!
//! The lexicon is English. In other languages the guards compare only what is written alike everywhere, so they miss
//! more differences there but object to no more paraphrases.
//!
//! # Example
//!
//! ```
//! use promptkeep_core::outcome::Guard;
//! use promptkeep_decide::{
//!     features::{self, Neighbourhood},
//!     guard,
//!     learner::Learner,
//!     surface::Difference,
//!     table::Table,
//!     text::Analysis,
//! };
//!
//! let cached = Analysis::of("How do I enable 2FA?");
//! let paraphrase = Analysis::of("How can I enable 2FA please?");
//! let opposite = Analysis::of("How do I disable 2FA?");
//!
//! // Guards: the opposite is refused, the paraphrase passes all of them.
//! assert!(guard::objects(Guard::Antonyms, &opposite, &cached));
//! assert!(guard::ALL.into_iter().all(|guard| !guard::objects(guard, &paraphrase, &cached)));
//!
//! // A learner that has seen nothing scores pairs by the trained table. 0.95 is the similarity of the embeddings.
//! let table = Table::embedded()?;
//! let learner = Learner::new(table.clone(), 1);
//! let logit = |new: &Analysis| {
//!     let features = features::of(new, &cached, 0.95, Neighbourhood::default(), &table.rarity);
//!     learner.score(&features, Difference::Wording, 0).logit
//! };
//! assert!(logit(&paraphrase) > logit(&opposite));
//! # Ok::<(), promptkeep_decide::table::TableError>(())
//! ```

pub mod answer;
pub mod boost;
pub mod features;
pub mod guard;
pub mod learner;
mod lexicon;
pub mod logistic;
mod overlap;
mod quantity;
pub mod rarity;
pub mod reuse;
mod roles;
mod similar;
pub mod surface;
pub mod table;
pub mod text;
mod word;

use promptkeep_core::{
    entry::Candidate,
    outcome::{Guard, MissReason},
};

use learner::Budget;
use text::Analysis;

/// Policy of a lookup: what the server and the caller allow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Policy {
    /// Exact hits only.
    Exact,
    /// Guards, and a minimum cosine similarity, in [-1, 1].
    Static { min_similarity: f32 },
    /// The learner, within error budgets.
    Bounded(Bounds),
}

/// Limits of mode `bounded`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Error budgets.
    pub budget: Budget,
    /// Minimum cosine similarity of a candidate, in [-1, 1].
    pub min_similarity: f32,
    /// Minimum fraction of hits that are audited, 0 to 1.
    pub audit_rate: f32,
    /// Mode `shadow`: decides and learns, but serves no semantic hit.
    pub shadow: bool,
}

/// Minimum cosine similarity of a candidate in mode `bounded`. In measurements, less similar entries were never right
/// often enough, and their labels taught little.
pub const BOUNDED_SIMILARITY_MIN: f32 = 0.6;

/// Decision on a prompt and its candidates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decision {
    /// Serve this candidate.
    Serve {
        /// Index among the candidates.
        candidate: usize,
    },
    /// Serve none of the candidates.
    Refuse {
        /// What was wrong with the most similar candidate.
        reason: MissReason,
        /// Index of the most similar candidate, if there is any.
        nearest: Option<usize>,
    },
}

/// Result of one check on one candidate.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// Name of the check in `Explain`.
    pub name: &'static str,
    /// Whether the candidate passed.
    pub passed: bool,
    /// The difference found, or the number that was compared.
    pub detail: String,
}

/// Results of all checks on one candidate.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    /// The checks in order.
    pub checks: Vec<Check>,
    /// Whether the candidate would be served if no more similar one is.
    pub accepted: bool,
}

/// Decides by similarity and guards, as in mode `static`. `candidates` are ordered from the most to the least
/// similar; the first acceptable one is served, even if more similar ones are refused.
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

/// Returns all checks of mode `static` on each candidate, in the order of `candidates`, for `Explain`.
pub fn explain_guards(min_similarity: f32, text: &str, candidates: &[Candidate]) -> Vec<Explained> {
    let analysis = Analysis::of(text);
    candidates.iter().map(|candidate| explain_one(min_similarity, &analysis, candidate)).collect()
}

fn explain_one(min_similarity: f32, analysis: &Analysis, candidate: &Candidate) -> Explained {
    let passed = candidate.similarity >= min_similarity;
    let detail = format!("{:.4} of at least {min_similarity:.4}", candidate.similarity);
    let mut checks = vec![Check { name: "similarity", passed, detail }];
    let other = Analysis::of(candidate.text());
    checks.extend(guard::ALL.map(|guard| {
        let objection = guard::objection(guard, analysis, &other);
        Check { name: guard.name(), passed: objection.is_none(), detail: objection.unwrap_or_default() }
    }));
    let accepted = checks.iter().all(|c| c.passed);
    Explained { checks, accepted }
}

/// Returns the first guard that objects to `candidate`.
fn first_objection(analysis: &Analysis, candidate: &Candidate) -> Option<Guard> {
    let other = Analysis::of(candidate.text());
    guard::ALL.into_iter().find(|guard| guard::objects(*guard, analysis, &other))
}

#[cfg(test)]
mod tests;

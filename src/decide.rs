//! Whether a near-duplicate may be served, and why not.

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
        }
    }
}
use std::sync::Arc;
#[derive(Clone, Debug)]
pub struct Candidate {
    pub entry: Arc<crate::cache::entry::Entry>,
    pub similarity: f32,
}
pub struct Policy {
    pub semantic: bool,
    pub min_similarity: f32,
}
pub enum Decision {
    Serve { candidate: usize, confidence: f32 },
    Refuse { reason: crate::outcome::MissReason, nearest: Option<usize> },
}
impl Policy {
    pub fn new(c: &crate::config::CacheConfig, cc: &crate::prompt::CacheControl) -> Self {
        Self { semantic: true, min_similarity: c.min_similarity.max(cc.min_similarity.unwrap_or(0.0)) }
    }
}
pub fn decide(p: &Policy, _text: &str, c: &[Candidate]) -> Decision {
    match c.iter().position(|c| c.similarity >= p.min_similarity) {
        Some(candidate) => Decision::Serve { candidate, confidence: 0.0 },
        None => Decision::Refuse { reason: crate::outcome::MissReason::BelowThreshold, nearest: Some(0) },
    }
}
pub fn explain(_: &Policy, _: &str, _: &[Candidate]) -> Vec<Explained> {
    vec![]
}
#[derive(Debug)]
pub struct Check {
    pub name: &'static str,
    pub passed: bool,
    pub detail: String,
}
#[derive(Debug)]
pub struct Explained {
    pub checks: Vec<Check>,
    pub accepted: bool,
}

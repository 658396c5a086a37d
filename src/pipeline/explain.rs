//! How a lookup would be decided, step by step, without changing or counting anything.

use super::{Asked, Judged, Match, Pipeline, Request};
use crate::{
    config::Mode,
    decide::{Candidate, Check},
    embed::Embedded,
    error::Error,
    key::Scope,
    outcome::Outcome,
};

/// Everything that decides a lookup.
#[derive(Debug)]
pub struct Explanation {
    pub outcome: Outcome,
    /// Why not a semantic hit; empty when it is one.
    pub reason: &'static str,
    pub cache_key: String,
    pub scope: String,
    /// Parts of the scope with their sizes in bytes.
    pub scope_parts: Vec<(&'static str, u64)>,
    pub mode: Mode,
    /// What a candidate must reach.
    pub threshold: f32,
    /// Why the threshold is where it is.
    pub threshold_reason: &'static str,
    /// Tokens of the last user text; 0 when it was not embedded.
    pub tokens: u32,
    /// Nearest first.
    pub candidates: Vec<Explained>,
}

/// One near entry and what the checks said.
#[derive(Debug)]
pub struct Explained {
    pub matched: Match,
    pub checks: Vec<Check>,
    pub accepted: bool,
}

//! How a lookup would be decided, step by step, without changing or counting anything.

use std::sync::Arc;

use super::{Asked, CANDIDATES_BOUNDED, CANDIDATES_STATIC, Match, Pipeline, Request, entries::within};
use crate::{
    config::Mode,
    decide::{self, Bounds, Decision, Explained, Policy, learner::Budget},
    embed::{Embedded, Embedding},
    entry::Candidate,
    error::Error,
    key::Scope,
    model::Route,
    outcome::{MissReason, Outcome},
};

/// Everything that decides a lookup.
#[derive(Debug)]
pub struct Explanation {
    pub outcome: Outcome,
    /// Why it is no semantic hit.
    pub reason: Option<MissReason>,
    /// [`Pipeline::complete`] would serve an answer past its TTL, and buy it again.
    pub would_serve_stale: bool,
    /// Hex.
    pub cache_key: String,
    /// Hex.
    pub scope: String,
    /// Parts of the scope with their encoded sizes in bytes.
    pub scope_parts: Vec<(&'static str, u64)>,
    pub mode: Mode,
    /// What a candidate must reach.
    pub threshold: f32,
    /// Why the threshold is where it is.
    pub threshold_reason: String,
    /// The budgets that hold for this request; `None` where the mode has none.
    pub budget: Option<Budget>,
    /// Tokens of the last user text; 0 when they were not counted.
    pub tokens: u32,
    /// Where a miss would be sent first.
    pub route: Option<Route>,
    /// Nearest first.
    pub candidates: Vec<(Match, Explained)>,
}

// === impl Pipeline ===

impl Pipeline {
    /// Explains what [`Pipeline::lookup`] would answer.
    ///
    /// # Errors
    /// As a lookup.
    pub async fn explain(&self, request: Request) -> Result<Explanation, Error> {
        let asked = self.admit(request)?;
        within(asked.deadline, self.explain_asked(&asked)).await
    }

    async fn explain_asked(&self, asked: &Asked) -> Explanation {
        let mut explanation = Explanation::of(asked);
        if self.exact(asked).await.is_some() {
            explanation.outcome = Outcome::Exact;
            explanation.reason = None;
        }
        explanation.would_serve_stale = self.would_serve_stale(asked).await;
        match self.vector(asked).await {
            Ok((embedding, tokens)) => {
                explanation.tokens = tokens;
                explanation.route = self.upstreams.route(&asked.prompt, Some(&embedding));
                self.explain_candidates(asked, &embedding, &mut explanation).await;
            }
            Err((reason, tokens)) => {
                explanation.tokens = tokens;
                explanation.route = self.upstreams.route(&asked.prompt, None);
                explanation.miss(reason);
            }
        }
        explanation
    }

    async fn vector(&self, asked: &Asked) -> Result<(Embedding, u32), (MissReason, u32)> {
        let enabled = self.embedder.as_ref().filter(|_| asked.mode() != Mode::Exact);
        let embedder = enabled.ok_or((MissReason::Disabled, 0))?;
        let text = asked.prompt.fuzzy_text().ok_or((MissReason::NotText, 0))?;
        if asked.bound().is_some() {
            return Err((MissReason::NotKept, 0));
        }
        match embedder.embed(text).await {
            Ok(Embedded::Vector { embedding, tokens }) => Ok((embedding, tokens)),
            Ok(Embedded::OverWindow { tokens }) => Err((MissReason::OverWindow, tokens)),
            Err(_) => Err((MissReason::EmbeddingUnavailable, 0)),
        }
    }

    async fn explain_candidates(&self, asked: &Asked, embedding: &Embedding, to: &mut Explanation) {
        let policy = if asked.cache.no_cache { Policy::Exact } else { asked.policy() };
        let count = match policy {
            Policy::Exact => return to.miss(MissReason::Disabled),
            Policy::Static { .. } => CANDIDATES_STATIC,
            Policy::Bounded(_) => CANDIDATES_BOUNDED,
        };
        match (self.search(asked, embedding, count).await, policy) {
            (Err(reason), _) => to.miss(reason),
            (Ok(candidates), Policy::Bounded(bounds)) => {
                self.explain_learned(asked, &bounds, candidates, to).await;
            }
            (Ok(candidates), _) => explain_guards(asked, &candidates, to),
        }
    }

    async fn explain_learned(
        &self,
        asked: &Asked,
        bounds: &Bounds,
        candidates: Vec<Candidate>,
        to: &mut Explanation,
    ) {
        let near = self.near(asked, bounds, candidates).await;
        let outlook = near.namespace().outlook(&near, &bounds.budget);
        match near.best() {
            None => to.miss(MissReason::NoCandidate),
            Some(best) if outlook.candidates[best].accepted && !bounds.shadow => to.semantic_hit(),
            Some(_) => to.miss(outlook.refusal),
        }
        (to.threshold, to.threshold_reason) = (outlook.threshold, outlook.threshold_reason);
        let candidates = near.candidates.iter().zip(outlook.candidates).enumerate();
        to.candidates = candidates
            .map(|(index, (candidate, view))| {
                let explained =
                    Explained { checks: view.checks(near.features(index)), accepted: view.accepted };
                (matched(candidate, view.probability), explained)
            })
            .collect();
    }
}

fn explain_guards(asked: &Asked, candidates: &[Candidate], to: &mut Explanation) {
    let text = asked.prompt.fuzzy_text().unwrap_or_default();
    match decide::by_guards(to.threshold, text, candidates) {
        Decision::Serve { .. } => to.semantic_hit(),
        Decision::Refuse { reason, .. } => to.miss(reason),
    }
    let verdicts = decide::explain_guards(to.threshold, text, candidates);
    to.candidates = candidates.iter().map(|candidate| matched(candidate, 0.0)).zip(verdicts).collect();
}

fn matched(candidate: &Candidate, confidence: f32) -> Match {
    Match {
        entry: Arc::clone(&candidate.entry),
        similarity: candidate.similarity,
        confidence,
        is_stale: false,
    }
}

// === impl Explanation ===

impl Explanation {
    fn of(asked: &Asked) -> Self {
        let configured = asked.settings.cache.min_similarity;
        let (threshold, threshold_reason, budget) = match asked.policy() {
            Policy::Exact => (1.0, "exact hits only", None),
            Policy::Static { min_similarity } if min_similarity > configured => {
                (min_similarity, "cache.min_similarity of the request", None)
            }
            Policy::Static { min_similarity } => (min_similarity, "cache.min_similarity", None),
            Policy::Bounded(bounds) => (0.0, "no candidate to decide on", Some(bounds.budget)),
        };
        Self {
            outcome: Outcome::Miss,
            reason: Some(MissReason::Disabled),
            would_serve_stale: false,
            cache_key: asked.key.to_string(),
            scope: asked.scope.to_string(),
            scope_parts: Scope::parts(&asked.owner, &asked.prompt),
            mode: asked.mode(),
            threshold,
            threshold_reason: threshold_reason.to_owned(),
            budget,
            tokens: 0,
            route: None,
            candidates: Vec::new(),
        }
    }

    /// An exact hit stays one, whatever its neighbours.
    fn semantic_hit(&mut self) {
        if self.outcome != Outcome::Exact {
            self.outcome = Outcome::Semantic;
            self.reason = None;
        }
    }

    fn miss(&mut self, reason: MissReason) {
        if self.outcome != Outcome::Exact {
            self.reason = Some(reason);
        }
    }
}

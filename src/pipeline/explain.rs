//! How a lookup would be decided, step by step, without changing or counting anything.

use super::{Asked, Match, Pipeline, Request, entries::within};
use crate::{
    config::Mode,
    decide::{self, Candidate, Decision, Explained, Policy},
    embed::{Embedded, Embedding},
    error::Error,
    key::Scope,
    outcome::{MissReason, Outcome},
    upstream::Route,
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
    pub threshold_reason: &'static str,
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
        let policy = asked.policy();
        let mut explanation = Explanation::of(asked, &policy);
        if self.exact(asked).await.is_some() {
            explanation.outcome = Outcome::Exact;
            explanation.reason = None;
        }
        explanation.would_serve_stale = self.would_serve_stale(asked).await;
        match self.vector(asked).await {
            Ok((embedding, tokens)) => {
                explanation.tokens = tokens;
                explanation.route = self.upstreams.route(&asked.prompt, Some(&embedding));
                self.explain_candidates(asked, &policy, &embedding, &mut explanation).await;
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
        let enabled = self.embedder.as_ref().filter(|_| asked.settings.cache.mode != Mode::Exact);
        let embedder = enabled.ok_or((MissReason::Disabled, 0))?;
        let text = asked.prompt.fuzzy_text().ok_or((MissReason::NotText, 0))?;
        match embedder.embed(text).await {
            Ok(Embedded::Vector { embedding, tokens }) => Ok((embedding, tokens)),
            Ok(Embedded::OverWindow { tokens }) => Err((MissReason::OverWindow, tokens)),
            Err(_) => Err((MissReason::EmbeddingUnavailable, 0)),
        }
    }

    async fn explain_candidates(
        &self,
        asked: &Asked,
        policy: &Policy,
        embedding: &Embedding,
        explanation: &mut Explanation,
    ) {
        if asked.cache.no_cache || asked.cache.exact_only {
            return explanation.miss(MissReason::Disabled);
        }
        let candidates = match self.search(asked, embedding).await {
            Ok(candidates) => candidates,
            Err(reason) => return explanation.miss(reason),
        };
        let text = asked.prompt.fuzzy_text().unwrap_or_default();
        match decide::decide(policy, text, &candidates) {
            Decision::Serve { .. } if asked.settings.cache.mode == Mode::Shadow => {
                explanation.miss(MissReason::Disabled);
            }
            Decision::Serve { .. } => explanation.semantic_hit(),
            Decision::Refuse { reason, .. } => explanation.miss(reason),
        }
        let verdicts = decide::explain(policy, text, &candidates);
        explanation.candidates = candidates.into_iter().map(near).zip(verdicts).collect();
    }
}

fn near(Candidate { entry, similarity }: Candidate) -> Match {
    Match { entry, similarity, confidence: 0.0, is_stale: false }
}

// === impl Explanation ===

impl Explanation {
    fn of(asked: &Asked, policy: &Policy) -> Self {
        let stricter = policy.min_similarity > asked.settings.cache.min_similarity;
        Self {
            outcome: Outcome::Miss,
            reason: Some(MissReason::Disabled),
            would_serve_stale: false,
            cache_key: asked.key.to_string(),
            scope: asked.scope.to_string(),
            scope_parts: Scope::parts(&asked.owner, &asked.prompt),
            mode: asked.settings.cache.mode,
            threshold: policy.min_similarity,
            threshold_reason: if stricter {
                "cache.min_similarity of the request"
            } else {
                "cache.min_similarity"
            },
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

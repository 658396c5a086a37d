//! `Explain`: the decision on a lookup with everything that led to it. It runs the search that serves, but counts no
//! request and teaches nothing.

use std::sync::Arc;

use super::{
    AdmittedRequest, Match, Pipeline, Request,
    semantic::{Found, Searched},
    within,
};
use crate::{
    config::Mode,
    decide::{
        self, Bounds, Decision, Explained, Policy,
        learner::{Budget, ErrorRate, Price, Reckoning},
    },
    entry::Candidate,
    error::Error,
    key::Scope,
    learn::ScoredCandidates,
    model::Route,
    outcome::{MissReason, Outcome},
};

/// Everything that decides a lookup.
#[derive(Debug)]
pub struct Explanation {
    pub outcome: Outcome,
    /// Why the lookup would not be a semantic hit.
    pub reason: Option<MissReason>,
    /// [`Pipeline::complete`] would serve a stale answer and replace it.
    pub would_serve_stale: bool,
    /// Hex.
    pub cache_key: String,
    /// Hex.
    pub scope: String,
    /// Parts of the scope with their encoded sizes in bytes.
    pub scope_parts: Vec<(&'static str, u64)>,
    pub mode: Mode,
    /// Similarity (mode `static`) or probability (mode `bounded`) that a candidate must reach.
    pub threshold: f32,
    /// Why the threshold is where it is.
    pub threshold_reason: String,
    /// The request's error budgets; `None` where the mode has none.
    pub budget: Option<Budget>,
    /// Whether a verifier would be asked first, and why; empty where none may be asked.
    pub verification: String,
    /// Tokens of the last user text; 0 when they were not counted.
    pub tokens: u32,
    /// The model that a miss would be sent to first.
    pub route: Option<Route>,
    /// Nearest first.
    pub candidates: Vec<(Match, Explained)>,
}

impl Pipeline {
    /// Explains what [`Pipeline::lookup`] would answer.
    ///
    /// # Errors
    /// The errors of a lookup.
    pub async fn explain(&self, request: Request) -> Result<Explanation, Error> {
        let request = self.admission.admit(request)?;
        within(request.deadline, self.explain_admitted(&request)).await
    }

    async fn explain_admitted(&self, request: &AdmittedRequest) -> Explanation {
        let mut explanation = Explanation::of(request);
        if self.exact.get(request).await.is_some() {
            explanation.outcome = Outcome::Exact;
            explanation.reason = None;
        }
        explanation.would_serve_stale = self.exact.would_serve_stale(request).await;
        let searched = self.semantic.search(request).await;
        let (embedding, tokens) = match &searched {
            Ok(searched) => (Some(&searched.embedding), searched.tokens),
            Err(skipped) => (skipped.embedding.as_ref(), skipped.tokens),
        };
        explanation.tokens = tokens;
        explanation.route = self.model_calls.upstreams.route(&request.prompt, embedding);
        match searched {
            Err(skipped) => explanation.miss(skipped.reason),
            Ok(Searched { found: Found::Static { min_similarity, candidates }, .. }) => {
                explain_guards(request, min_similarity, &candidates, &mut explanation);
            }
            Ok(Searched { found: Found::Bounded { bounds, scored, none }, embedding, .. }) => {
                let price = self.verification.price(request, &scored, &embedding);
                explain_learner(&bounds, &scored, none, price, &mut explanation);
            }
        }
        explanation
    }
}

fn explain_learner(
    bounds: &Bounds,
    scored: &ScoredCandidates,
    none: MissReason,
    price: Option<Price>,
    to: &mut Explanation,
) {
    let Some(best) = scored.best() else { return to.miss(none) };
    let assessment = scored.namespace().assess(scored, &bounds.budget, price);
    match assessment.candidates[best].accepted {
        true if bounds.shadow => to.miss(MissReason::Disabled),
        true => to.semantic_hit(),
        false => to.miss(assessment.refusal),
    }
    let reckoning = assessment.reckoning.as_ref().filter(|_| to.outcome != Outcome::Exact);
    to.verification = reckoning.map(explain_reckoning).unwrap_or_default();
    (to.threshold, to.threshold_reason) = (assessment.threshold, assessment.threshold_reason);
    let candidates = scored.candidates.iter().zip(assessment.candidates).enumerate();
    to.candidates = candidates
        .map(|(index, (candidate, view))| {
            let explained =
                Explained { checks: view.checks(scored.features(index)), accepted: view.accepted };
            (matched(candidate, view.probability), explained)
        })
        .collect();
}

/// In shares of what a right hit saves.
fn explain_reckoning(reckoning: &Reckoning) -> String {
    let Reckoning { serve, ask, asked, hits, price, errors } = reckoning;
    let verdict = if reckoning.asks() { "a verifier is asked" } else { "no verifier is asked" };
    let rate = |rate: ErrorRate| {
        format!("{:.1} % ({:.1} to {:.1})", 100.0 * rate.rate, 100.0 * rate.low, 100.0 * rate.high)
    };
    format!(
        "{verdict}: in units of what a right hit saves, serving is worth {serve:.3}, and asking about {asked} is worth \
         {ask:.3} with {hits:.2} probable hits, at a price of {:.3} and {:.3} for each further one; the verifier's false \
         yes is {}, its false no {}",
        price.call,
        price.further,
        rate(errors.false_same),
        rate(errors.false_different),
    )
}

fn explain_guards(
    request: &AdmittedRequest,
    min_similarity: f32,
    candidates: &[Candidate],
    to: &mut Explanation,
) {
    let text = request.prompt.fuzzy_text().unwrap_or_default();
    match decide::by_guards(min_similarity, text, candidates) {
        Decision::Serve { .. } => to.semantic_hit(),
        Decision::Refuse { reason, .. } => to.miss(reason),
    }
    let verdicts = decide::explain_guards(min_similarity, text, candidates);
    to.candidates = candidates.iter().map(|candidate| matched(candidate, 0.0)).zip(verdicts).collect();
}

fn matched(candidate: &Candidate, confidence: f32) -> Match {
    Match {
        entry: Arc::clone(&candidate.entry),
        similarity: candidate.similarity,
        confidence,
        approval: None,
        verified_by: None,
        is_stale: false,
    }
}

impl Explanation {
    fn of(request: &AdmittedRequest) -> Self {
        let configured = request.settings.cache.min_similarity;
        let (threshold, threshold_reason, budget) = match request.policy() {
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
            cache_key: request.key.to_string(),
            scope: request.scope.to_string(),
            scope_parts: Scope::parts(&request.owner, &request.prompt),
            mode: request.mode(),
            threshold,
            threshold_reason: threshold_reason.to_owned(),
            budget,
            verification: String::new(),
            tokens: 0,
            route: None,
            candidates: Vec::new(),
        }
    }

    /// An exact hit stays exact, whatever its neighbours.
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

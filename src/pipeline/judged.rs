//! What the cache says about a prompt that is no exact repeat, by mode.

use super::{Asked, Hit, Missed, Pipeline};
use crate::{
    decide::{self, Bounds, Decision, learner::Verdict},
    embed::Embedding,
    entry::Candidate,
    learn::{Check, Near},
    outcome::MissReason,
};

/// What the cache says about a prompt that is no exact repeat.
pub(super) enum Judged {
    /// With what is needed to check it, when it is to be.
    Hit(Hit, Option<(Near, Embedding)>),
    Miss(Missed, Known),
}

/// What was found out about a prompt before its answer is bought.
#[derive(Default)]
pub(super) struct Known {
    pub(super) embedding: Option<Embedding>,
    /// What the answer will be compared with.
    pub(super) near: Option<Near>,
}

// === impl Judged ===

impl Judged {
    pub(super) fn miss(reason: MissReason, embedding: Embedding) -> Self {
        Self::Miss(Missed::without_candidate(reason), Known { embedding: Some(embedding), near: None })
    }
}

// === impl Pipeline ===

impl Pipeline {
    /// Whether one of them may answer, in mode `static`.
    pub(super) fn decide_by_guards(
        asked: &Asked,
        min_similarity: f32,
        candidates: &[Candidate],
        embedding: Embedding,
    ) -> Judged {
        let text = asked.prompt.fuzzy_text().unwrap_or_default();
        match decide::by_guards(min_similarity, text, candidates) {
            Decision::Serve { candidate } => Judged::Hit(Hit::semantic(&candidates[candidate]), None),
            Decision::Refuse { reason, nearest } => {
                let missed = match nearest.and_then(|nearest| candidates.get(nearest)) {
                    Some(candidate) => Missed::near(reason, candidate, 0.0),
                    None => Missed::without_candidate(reason),
                };
                Judged::Miss(missed, Known { embedding: Some(embedding), near: None })
            }
        }
    }

    /// Whether one of them may answer, by what was learned of the namespace. A prompt without candidates
    /// counts too: one of the budgets is a share of all requests.
    pub(super) async fn decide_by_learning(
        &self,
        asked: &Asked,
        bounds: Bounds,
        found: Result<Vec<Candidate>, MissReason>,
        embedding: Embedding,
    ) -> Judged {
        let (candidates, without) = found
            .map_or_else(|reason| (Vec::new(), reason), |candidates| (candidates, MissReason::NoCandidate));
        let mut near = self.near(asked, &bounds, candidates).await;
        let (reason, confidence) = match near.namespace().decide(&near, &bounds.budget, bounds.audit_rate) {
            Verdict::Serve { candidate, probability, audit } => {
                let entry = near.candidates[candidate].key();
                near.check = audit.map(|propensity| Check { entry, propensity });
                if !bounds.shadow {
                    let hit = Hit::learned(&near, candidate, probability);
                    return Judged::Hit(hit, near.check.map(|_| (near, embedding)));
                }
                (MissReason::Disabled, probability)
            }
            Verdict::Below { probability } => (MissReason::BelowThreshold, probability),
            Verdict::Learning { probability } => (MissReason::Learning, probability),
            Verdict::Blown => (MissReason::OverBudget, 0.0),
            Verdict::Nothing => (without, 0.0),
        };
        let missed = match near.best() {
            Some(best) => Missed::near(reason, &near.candidates[best], confidence),
            None => Missed::without_candidate(reason),
        };
        Judged::Miss(missed, Known { embedding: Some(embedding), near: Some(near) })
    }

    /// What the namespace knows of those candidates that are near enough. Counts nothing.
    pub(super) async fn near(&self, asked: &Asked, bounds: &Bounds, mut candidates: Vec<Candidate>) -> Near {
        candidates.retain(|candidate| candidate.similarity >= bounds.min_similarity);
        let namespace = self.learning.namespace(&asked.owner, &asked.prompt.namespace).await;
        namespace.near((asked.key, asked.scope), asked.prompt.fuzzy_text().unwrap_or_default(), candidates)
    }

    /// Of a hit that is to be checked the caller of a lookup is asked to buy the answer, and to bring it.
    pub(super) fn for_lookup(&self, asked: &Asked, judged: Judged) -> Judged {
        let Judged::Hit(hit, Some((near, embedding))) = judged else { return judged };
        if let Some(check) = near.check {
            self.learning.expect_check(asked.key, check);
        }
        let missed = Missed { reason: MissReason::Audit, nearest: Some(hit.matched()) };
        Judged::Miss(missed, Known { embedding: Some(embedding), near: Some(near) })
    }
}

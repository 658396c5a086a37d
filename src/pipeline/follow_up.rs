//! The step after the answer: learns from it and audits hits. It runs when the caller has its answer.

use std::sync::Arc;

use super::{
    AdmittedRequest, Decision, Keeping, Missed, ModelCalls, NewAnswer, UpstreamCompletion, Verification,
    semantic::{AuditedHit, SemanticContext},
    verification::Routed,
};
use crate::{
    cache::Cache,
    error::Error,
    learn::{Learning, ScoredCandidates},
    outcome::MissReason,
    prompt::Completion,
    store::Durability,
};

/// Learns from answers and audits hits.
pub(super) struct FollowUps {
    pub learning: Arc<Learning>,
    pub cache: Arc<Cache>,
    pub model_calls: Arc<ModelCalls>,
    pub keeping: Arc<Keeping>,
    pub verification: Arc<Verification>,
}

/// Who produced an answer.
#[derive(Clone, Copy, PartialEq)]
enum AnswerBy {
    Model,
    Caller,
}

/// Work that a flight leaves to be done after its answer.
pub(super) enum FollowUp {
    Nothing,
    /// A model answered: compare its answer with those of the near entries.
    Learn {
        scored: ScoredCandidates,
        completed: Arc<UpstreamCompletion>,
    },
    /// The cache answered: audit the hit.
    Audit(AuditedHit),
}

impl FollowUp {
    pub(super) fn of_hit(audit: Option<AuditedHit>) -> Self {
        audit.map_or(Self::Nothing, Self::Audit)
    }

    pub(super) fn of_completion(context: SemanticContext, completed: Arc<UpstreamCompletion>) -> Self {
        match context {
            SemanticContext { scored: Some(scored), .. } if !scored.candidates.is_empty() => {
                Self::Learn { scored, completed }
            }
            _ => Self::Nothing,
        }
    }
}

impl FollowUps {
    pub(super) fn new(
        learning: &Arc<Learning>,
        cache: &Arc<Cache>,
        model_calls: &Arc<ModelCalls>,
        keeping: &Arc<Keeping>,
        verification: &Arc<Verification>,
    ) -> Arc<Self> {
        Arc::new(Self {
            learning: Arc::clone(learning),
            cache: Arc::clone(cache),
            model_calls: Arc::clone(model_calls),
            keeping: Arc::clone(keeping),
            verification: Arc::clone(verification),
        })
    }

    pub(super) async fn run(&self, request: &Arc<AdmittedRequest>, follow_up: FollowUp) {
        match follow_up {
            FollowUp::Nothing => {}
            FollowUp::Learn { scored, completed } => {
                self.learn(request, scored, &completed.completion, AnswerBy::Model).await;
            }
            FollowUp::Audit(audit) => {
                // A failed audit is skipped; its calls are still counted.
                let _ = self.audit(request, audit).await;
            }
        }
    }

    /// Turns an audited hit of a `Lookup` into a miss, so that the caller calls its own model and stores the answer.
    pub(super) fn ask_caller_to_audit(&self, request: &AdmittedRequest, decision: Decision) -> Decision {
        let Decision::Serve { hit, audit: Some(AuditedHit { scored, embedding }) } = decision else {
            return decision;
        };
        if let Some(audit) = scored.audit {
            self.learning.expect_audit(request.key, audit);
        }
        let missed = Missed { reason: MissReason::Audit, nearest: Some(hit.matched()) };
        Decision::Miss {
            missed,
            context: SemanticContext { embedding: Some(embedding), scored: Some(scored) },
        }
    }

    /// Learns from an answer that a caller stored after its lookup missed. The stored text stays as it is.
    pub(super) async fn learn_from_stored(
        &self,
        request: &Arc<AdmittedRequest>,
        context: SemanticContext,
        completion: &Completion,
    ) {
        let Some(mut scored) = context.scored else { return };
        scored.audit = self.learning.take_audit(request.key);
        if scored.candidates.is_empty() {
            return;
        }
        self.learn(request, scored, completion, AnswerBy::Caller).await;
    }

    /// Compares the answer with those of the near entries, asks a model if the comparison is sampled for verification,
    /// and teaches the learner.
    async fn learn(
        &self,
        request: &Arc<AdmittedRequest>,
        scored: ScoredCandidates,
        completion: &Completion,
        by: AnswerBy,
    ) {
        let Some(text) = request.prompt.fuzzy_text().filter(|_| completion.is_complete()) else { return };
        let routed = match by {
            AnswerBy::Model => Routed::To(&completion.model),
            AnswerBy::Caller => Routed::By(None),
        };
        let scored = self.verification.decide_postponed(request, routed, scored).await;
        let Some(mut compared) = self.learning.compare(scored, text, completion).await else { return };
        if by == AnswerBy::Caller {
            compared.set_stored();
        }
        self.verification.label(request, routed, completion, &mut compared).await;
        self.learning.learn(compared).await;
    }

    /// Asks a model for the answer to a prompt that a near entry answered, keeps it and learns from it.
    async fn audit(&self, request: &Arc<AdmittedRequest>, audit: AuditedHit) -> Result<(), Error> {
        let AuditedHit { scored, embedding } = audit;
        let completed = self.model_calls.audit(request, &embedding).await?;
        let cached = self.cache.get_or_expired(request.key).await;
        let may_keep = cached.is_none() && !request.cache.no_store;
        if may_keep && completed.completion.is_complete() {
            let answer = NewAnswer::of(&completed, Some(embedding));
            // A store failure is counted in the cache.
            let _ = self.keeping.keep(request, answer, Durability::Queued).await;
        }
        self.learn(request, scored, &completed.completion, AnswerBy::Model).await;
        Ok(())
    }
}

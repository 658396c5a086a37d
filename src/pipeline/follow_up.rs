//! The step after the answer: learns from it, audits hits and makes aliases. It runs when the caller has its answer.

use std::sync::Arc;

use super::{
    AdmittedRequest, Decision, Keeping, Missed, ModelCalls, NewAnswer, UpstreamCompletion, Verification,
    semantic::{AuditedHit, SemanticContext},
};
use crate::{
    cache::Cache,
    embed::Embedding,
    error::Error,
    key::CacheKey,
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
    pub verification: Verification,
}

/// Work that a flight leaves to be done after its answer.
pub(super) enum FollowUp {
    Nothing,
    /// A model answered: compare its answer with those of the near entries.
    Learn {
        scored: ScoredCandidates,
        embedding: Option<Embedding>,
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
            SemanticContext { scored: Some(scored), embedding } if !scored.candidates.is_empty() => {
                Self::Learn { scored, embedding, completed }
            }
            _ => Self::Nothing,
        }
    }
}

impl FollowUps {
    pub(super) async fn run(&self, request: &AdmittedRequest, follow_up: FollowUp) {
        match follow_up {
            FollowUp::Nothing => {}
            FollowUp::Learn { scored, embedding, completed } => {
                self.learn(request, scored, embedding, &completed.completion).await;
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
        request: &AdmittedRequest,
        context: SemanticContext,
        completion: &Completion,
    ) {
        let Some(mut scored) = context.scored else { return };
        scored.audit = self.learning.take_audit(request.key);
        if scored.candidates.is_empty() {
            return;
        }
        let Some(target) = self.compare_and_learn(request, scored, completion).await else { return };
        let is_equal = self.cache.get(target).await.is_some_and(|entry| {
            entry.completion.content == completion.content
                && entry.completion.tool_calls == completion.tool_calls
        });
        if is_equal {
            self.keeping.alias(request, target, context.embedding, completion).await;
        }
    }

    /// Learns from an answer. When it agrees with the answer of a near entry, the prompt becomes that entry's alias.
    async fn learn(
        &self,
        request: &AdmittedRequest,
        scored: ScoredCandidates,
        embedding: Option<Embedding>,
        completion: &Completion,
    ) {
        if !completion.is_complete() {
            return;
        }
        let target = self.compare_and_learn(request, scored, completion).await;
        if let Some(target) = target.filter(|_| !request.cache.no_store) {
            self.keeping.alias(request, target, embedding, completion).await;
        }
    }

    /// Compares the answer with those of the near entries, asks a model if the comparison is sampled for verification,
    /// and teaches the learner. Returns the entry whose answer agrees.
    async fn compare_and_learn(
        &self,
        request: &AdmittedRequest,
        scored: ScoredCandidates,
        completion: &Completion,
    ) -> Option<CacheKey> {
        let mut compared = self.learning.compare(scored, completion).await?;
        self.verification.verify(request, completion, &mut compared).await;
        self.learning.learn(compared).await
    }

    /// Asks a model for the answer to a prompt that a near entry answered, keeps it and learns from it.
    async fn audit(&self, request: &AdmittedRequest, audit: AuditedHit) -> Result<(), Error> {
        let AuditedHit { scored, embedding } = audit;
        let completed = self.model_calls.audit(request, &embedding).await?;
        let cached = self.cache.get_unresolved(request.key).await;
        let may_keep = cached.is_none_or(|entry| entry.alias_of.is_some()) && !request.cache.no_store;
        if may_keep && completed.completion.is_complete() {
            let answer = NewAnswer::of(&completed, Some(embedding.clone()));
            // A store failure is counted in the cache.
            let _ = self.keeping.keep(request, answer, Durability::Queued).await;
        }
        self.learn(request, scored, Some(embedding), &completed.completion).await;
        Ok(())
    }
}

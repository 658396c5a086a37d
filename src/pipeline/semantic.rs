//! The semantic lookup: embeds the last user text, searches its scope, and decides whether a near entry may be
//! served. `Explain` runs the same search and assesses its candidates without counting them.

use std::{sync::Arc, time::Instant};

use super::{AdmittedRequest, Eligibility, Hit, Missed, Verification};
use crate::{
    cache::Cache,
    config::Mode,
    decide::{
        self, Bounds, Policy,
        learner::Verdict,
        reuse::{self, NoReuse},
    },
    embed::{Embedded, Embedder, Embedding},
    entry::Candidate,
    learn::{Learning, ScoredCandidates},
    outcome::MissReason,
    telemetry::metrics::Metrics,
};

/// Nearest entries of a scope that mode `static` looks at.
const CANDIDATES_STATIC: usize = 8;
/// Nearest entries that mode `bounded` looks at. Its learners are trained with as many.
pub(super) const CANDIDATES_BOUNDED: usize = 4;
/// So many times more entries are looked at for a prompt about one person or moment, since most of those near it are about
/// others.
const PARTICULAR: usize = 8;

/// Finds entries by the meaning of the last user text.
pub(super) struct SemanticLookup {
    pub embedder: Option<Arc<dyn Embedder>>,
    pub cache: Arc<Cache>,
    pub learning: Arc<Learning>,
    pub eligibility: Eligibility,
    pub verification: Arc<Verification>,
    pub metrics: Arc<Metrics>,
}

/// Result of the semantic lookup.
pub(super) enum Looked {
    Decided(Decision),
    /// A verifier is to be asked first.
    Verify(Pending),
}

/// A decision that waits for a verifier.
#[derive(Clone)]
pub(super) struct Pending {
    pub near: ScoredCandidates,
    /// Indices of the candidates to ask about, most probable first.
    pub asked: Vec<usize>,
    pub bounds: Bounds,
    pub embedding: Embedding,
}

/// Verdicts on candidates, by index, and the model that gave them.
pub(super) struct Verdicts {
    pub of: Vec<(usize, bool)>,
    pub by: String,
}

/// Whether the semantic lookup may ask a verifier.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Verifying {
    Allowed,
    Forbidden,
}

/// The answer of the semantic lookup.
pub(super) enum Decision {
    /// `audit`: set when this hit was drawn for an audit.
    Serve {
        hit: Hit,
        audit: Option<AuditedHit>,
    },
    Miss {
        missed: Missed,
        context: SemanticContext,
    },
}

/// A semantic hit that is checked against a new answer of a model.
pub(super) struct AuditedHit {
    pub scored: ScoredCandidates,
    pub embedding: Embedding,
}

/// What the lookup found out about a prompt that a model has to answer.
#[derive(Default)]
pub(super) struct SemanticContext {
    pub embedding: Option<Embedding>,
    /// The entries whose answers the new one is compared with.
    pub scored: Option<ScoredCandidates>,
}

/// The entries near a prompt, before the decision.
pub(super) struct Searched {
    pub embedding: Embedding,
    /// Tokens of the last user text.
    pub tokens: u32,
    pub found: Found,
}

/// The candidates, by mode.
pub(super) enum Found {
    Static {
        min_similarity: f32,
        candidates: Vec<Candidate>,
    },
    Bounded {
        bounds: Bounds,
        scored: ScoredCandidates,
        /// Reason of the miss when no candidate is near enough.
        none: MissReason,
    },
}

/// Why a prompt was not searched for.
pub(super) struct Skipped {
    pub reason: MissReason,
    pub embedding: Option<Embedding>,
    /// Tokens of the last user text; 0 when they were not counted.
    pub tokens: u32,
}

impl SemanticLookup {
    /// Searches and decides, and counts the request for the namespace's error budgets.
    pub(super) async fn decide(&self, request: &AdmittedRequest, verifying: Verifying) -> Looked {
        request.no_reuse().into_iter().for_each(|reason| self.metrics.not_reusable(reason));
        let Searched { embedding, found, .. } = match self.search(request).await {
            Ok(searched) => searched,
            Err(skipped) => return Looked::Decided(Decision::miss(skipped.reason, skipped.embedding)),
        };
        match found {
            Found::Static { min_similarity, candidates } => {
                Looked::Decided(decide_by_guards(request, min_similarity, &candidates, embedding))
            }
            Found::Bounded { bounds, scored, none } => {
                let price = (verifying == Verifying::Allowed)
                    .then(|| self.verification.price(request, &scored, &embedding))
                    .flatten();
                let (budget, audit_rate) = (&bounds.budget, bounds.audit_rate);
                match scored.namespace().decide(&scored, budget, audit_rate, price) {
                    Verdict::Verify { asked, .. } => {
                        Looked::Verify(Pending { near: scored, asked, bounds, embedding })
                    }
                    verdict => Looked::Decided(conclude(&bounds, scored, &verdict, none, embedding)),
                }
            }
        }
    }

    /// Embeds a prompt that comes with its answer and, in mode `bounded`, finds the entries to compare.
    pub(super) async fn for_stored_answer(&self, request: &AdmittedRequest) -> SemanticContext {
        let embedding = match self.embed(request).await {
            Ok((embedding, _)) => embedding,
            Err(_skipped) => return SemanticContext::default(),
        };
        let scored = match request.policy() {
            Policy::Bounded(bounds) => {
                let found = self.nearest(request, &embedding, CANDIDATES_BOUNDED).await.ok();
                match found {
                    Some(candidates) => Some(self.score(request, &bounds, candidates).await),
                    None => None,
                }
            }
            Policy::Exact | Policy::Static { .. } => None,
        };
        SemanticContext { embedding: Some(embedding), scored }
    }

    /// Embeds and searches, without counting the request.
    ///
    /// # Errors
    /// The reason for skipping the search, with the embedding if there is one: the new entry needs it.
    pub(super) async fn search(&self, request: &AdmittedRequest) -> Result<Searched, Skipped> {
        let (embedding, tokens) = self.embed(request).await?;
        let skip = |reason| Skipped { reason, embedding: Some(embedding.clone()), tokens };
        let found = match request.lookup_policy() {
            Policy::Exact => return Err(skip(MissReason::Disabled)),
            Policy::Static { min_similarity } => {
                let candidates = self.nearest(request, &embedding, CANDIDATES_STATIC).await.map_err(skip)?;
                Found::Static { min_similarity, candidates }
            }
            Policy::Bounded(bounds) => {
                let found = self.nearest(request, &embedding, CANDIDATES_BOUNDED).await;
                let mut none = found.as_ref().err().copied().unwrap_or(MissReason::NoCandidate);
                let (rejected, candidates): (Vec<_>, _) = found
                    .unwrap_or_default()
                    .into_iter()
                    .partition(|candidate| self.verification.has_rejected(request, &candidate.entry));
                if !rejected.is_empty() {
                    none = MissReason::NotVerified;
                }
                let scored = self.score(request, &bounds, candidates).await;
                Found::Bounded { bounds, scored, none }
            }
        };
        Ok(Searched { embedding, tokens, found })
    }

    /// The vector of the last user text, and its number of tokens.
    async fn embed(&self, request: &AdmittedRequest) -> Result<(Embedding, u32), Skipped> {
        let skip = |reason, tokens| Skipped { reason, embedding: None, tokens };
        let enabled = self.embedder.as_ref().filter(|_| request.mode() != Mode::Exact);
        let embedder = enabled.ok_or_else(|| skip(MissReason::Disabled, 0))?;
        let text = request.prompt.fuzzy_text().ok_or_else(|| skip(MissReason::NotText, 0))?;
        if request.no_reuse() == Some(NoReuse::Variety) {
            return Err(skip(MissReason::NotReusable, 0));
        }
        let started = Instant::now();
        let embedded = embedder.embed(text).await;
        self.metrics.embed(started);
        request.trace.step("embed", started);
        match embedded {
            Ok(Embedded::Vector { embedding, tokens }) => Ok((embedding, tokens)),
            Ok(Embedded::OverWindow { tokens }) => Err(skip(MissReason::OverWindow, tokens)),
            Err(error) => {
                tracing::warn!(%error, "embedding failed");
                Err(skip(MissReason::EmbeddingUnavailable, 0))
            }
        }
    }

    /// The nearest entries of the scope that this caller may be served.
    async fn nearest(
        &self,
        request: &AdmittedRequest,
        embedding: &Embedding,
        count: usize,
    ) -> Result<Vec<Candidate>, MissReason> {
        if !self.cache.tiers.has_scope(request.scope) {
            return Err(MissReason::ScopeEmpty);
        }
        let started = Instant::now();
        let particulars = request.particulars();
        let searched =
            count * if particulars.as_ref().is_some_and(|own| !own.is_empty()) { PARTICULAR } else { 1 };
        let mut nearest = self.cache.nearest(request.scope, embedding, searched).await;
        request.trace.step("search", started);
        nearest.retain(|candidate| candidate.entry.key != request.key);
        if let Some(own) = particulars {
            let of = |candidate: &Candidate| candidate.entry.text.as_deref().map(reuse::particulars);
            nearest.retain(|candidate| of(candidate).as_ref() == Some(&own));
            nearest.truncate(count);
        }
        self.eligibility.filter(request, embedding, nearest)
    }

    /// The candidates that are similar enough, scored by the namespace's learner.
    async fn score(
        &self,
        request: &AdmittedRequest,
        bounds: &Bounds,
        mut candidates: Vec<Candidate>,
    ) -> ScoredCandidates {
        candidates.retain(|candidate| candidate.similarity >= bounds.min_similarity);
        let namespace = self.learning.namespace(&request.owner, &request.prompt.namespace).await;
        let text = request.prompt.fuzzy_text().unwrap_or_default();
        namespace.score(request.key, request.scope, text, candidates)
    }
}

impl Decision {
    pub(super) fn serve(hit: Hit) -> Self {
        Self::Serve { hit, audit: None }
    }

    fn near_miss(
        reason: MissReason,
        confidence: f32,
        scored: ScoredCandidates,
        embedding: Embedding,
    ) -> Self {
        let missed = match scored.best() {
            Some(best) => Missed::near(reason, &scored.candidates[best], confidence),
            None => Missed::without_candidate(reason),
        };
        Self::Miss { missed, context: SemanticContext { embedding: Some(embedding), scored: Some(scored) } }
    }

    fn miss(reason: MissReason, embedding: Option<Embedding>) -> Self {
        let missed = Missed::without_candidate(reason);
        Self::Miss { missed, context: SemanticContext { embedding, scored: None } }
    }
}

/// Mode `static`: a fixed similarity and the guards.
fn decide_by_guards(
    request: &AdmittedRequest,
    min_similarity: f32,
    candidates: &[Candidate],
    embedding: Embedding,
) -> Decision {
    let text = request.prompt.fuzzy_text().unwrap_or_default();
    match decide::by_guards(min_similarity, text, candidates) {
        decide::Decision::Serve { candidate } => Decision::serve(Hit::semantic(&candidates[candidate])),
        decide::Decision::Refuse { reason, nearest } => {
            let missed = match nearest.and_then(|nearest| candidates.get(nearest)) {
                Some(candidate) => Missed::near(reason, candidate, 0.0),
                None => Missed::without_candidate(reason),
            };
            Decision::Miss { missed, context: SemanticContext { embedding: Some(embedding), scored: None } }
        }
    }
}

impl Pending {
    /// Decides by what a verifier said, which has been learned from; without verdicts, as if there were no verifier.
    pub(super) fn decide(self, verdicts: Option<&Verdicts>, audit_rate: f32) -> Decision {
        let Self { mut near, bounds, embedding, .. } = self;
        let verdict = match verdicts {
            Some(Verdicts { of, by }) => {
                near.set_verdicts(of, by);
                let rate = bounds.audit_rate.max(audit_rate);
                near.namespace().decide_verified(&near, &bounds.budget, rate)
            }
            None => near.namespace().decide_unverified(&near, &bounds.budget, bounds.audit_rate),
        };
        let none = if verdicts.is_some() { MissReason::NotVerified } else { MissReason::NoCandidate };
        conclude(&bounds, near, &verdict, none, embedding)
    }

    /// Leaves the answer to a model, and the verifier for later.
    pub(super) fn postpone(mut self) -> Decision {
        self.near.pending = self.asked;
        Decision::near_miss(MissReason::Disabled, 0.0, self.near, self.embedding)
    }

    /// Leaves the answer to a model.
    pub(super) fn give_up(self) -> Decision {
        let Self { near, embedding, .. } = self;
        Decision::near_miss(MissReason::BelowThreshold, 0.0, near, embedding)
    }
}

/// Modes `bounded` and `shadow`: what the verdict of the namespace's learner means. A prompt without candidates counts
/// too, since one of the budgets is a share of all requests. `none` is the reason of a miss without a candidate.
fn conclude(
    bounds: &Bounds,
    mut scored: ScoredCandidates,
    verdict: &Verdict,
    none: MissReason,
    embedding: Embedding,
) -> Decision {
    let (reason, confidence) = match *verdict {
        Verdict::Serve { candidate, probability, audit } => {
            scored.set_audit(candidate, probability, audit);
            if !bounds.shadow {
                let hit = Hit::learned(&scored, candidate, probability);
                let audit = scored.audit.is_some().then_some(AuditedHit { scored, embedding });
                return Decision::Serve { hit, audit };
            }
            (MissReason::Disabled, probability)
        }
        Verdict::Below { probability } => (MissReason::BelowThreshold, probability),
        Verdict::Learning { probability } => (MissReason::Learning, probability),
        Verdict::OverBudget => (MissReason::OverBudget, 0.0),
        Verdict::Nothing | Verdict::Verify { .. } => (none, 0.0),
    };
    let reason = if scored.is_refuted() { MissReason::NotVerified } else { reason };
    Decision::near_miss(reason, confidence, scored, embedding)
}

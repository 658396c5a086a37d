//! Which cached entries a caller may be served: fresh enough for it, and of a good enough tier.

use super::AdmittedRequest;
use crate::{
    embed::Embedding,
    entry::{Candidate, Entry},
    model::Difficulty,
    outcome::MissReason,
    upstream::Upstreams,
};

/// The rules of age and tier that every served entry must pass.
#[derive(Clone)]
pub(super) struct Eligibility {
    upstreams: Upstreams,
}

impl Eligibility {
    pub(super) fn new(upstreams: Upstreams) -> Self {
        Self { upstreams }
    }

    /// Whether this caller may be served the entry found under its own key.
    pub(super) fn serves(&self, request: &AdmittedRequest, entry: &Entry) -> bool {
        request.accepts(entry) && self.is_good_enough(request, entry.difficulty, entry)
    }

    /// The nearest entries that this caller may be served.
    ///
    /// # Errors
    /// The reason when there is none.
    pub(super) fn filter(
        &self,
        request: &AdmittedRequest,
        embedding: &Embedding,
        mut candidates: Vec<Candidate>,
    ) -> Result<Vec<Candidate>, MissReason> {
        candidates.retain(|candidate| request.accepts(&candidate.entry));
        if candidates.is_empty() {
            return Err(MissReason::NoCandidate);
        }
        let classified = self.upstreams.difficulty(&request.prompt, Some(embedding));
        candidates.retain(|Candidate { entry, .. }| {
            // An entry of this very prompt keeps the class it was answered with.
            let stored = entry.difficulty.filter(|_| entry.key == request.key);
            self.is_good_enough(request, stored.or(classified), entry)
        });
        if candidates.is_empty() { Err(MissReason::LowerTier) } else { Ok(candidates) }
    }

    /// Whether a prompt of this difficulty class would be routed to no higher tier than the entry's.
    pub(super) fn is_good_enough(
        &self,
        request: &AdmittedRequest,
        difficulty: Option<Difficulty>,
        entry: &Entry,
    ) -> bool {
        request.settings.cache.serve_lower_tier
            || !self.upstreams.wants_higher_tier(&request.prompt, difficulty, &entry.completion)
    }
}

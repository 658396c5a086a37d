//! Which kept answers a caller may be given: fresh enough for it, and of a tier that is good enough.

use super::{Asked, Pipeline};
use crate::{
    embed::Embedding,
    entry::{Candidate, Entry},
    model::Difficulty,
    outcome::MissReason,
};

// === impl Pipeline ===

impl Pipeline {
    /// Whether this caller may be given what answered the same prompt before.
    pub(super) fn serves(&self, asked: &Asked, entry: &Entry) -> bool {
        self.may_be_named(asked, entry)
            && asked.accepts(entry)
            && self.is_good_enough(asked, entry.difficulty, entry)
    }

    /// Whether the prompt may be another name of the entry that answers it: where near entries may answer,
    /// and only for as long as they may.
    fn may_be_named(&self, asked: &Asked, entry: &Entry) -> bool {
        if entry.key == asked.key {
            return entry.alias_of.is_none();
        }
        let namespace = || self.learning.known(&asked.owner, &asked.prompt.namespace);
        asked.may_alias() && namespace().is_none_or(|namespace| !namespace.is_blown())
    }

    /// Those of the nearest entries that this caller may be given, if any.
    pub(super) fn servable(
        &self,
        asked: &Asked,
        embedding: &Embedding,
        mut candidates: Vec<Candidate>,
    ) -> Result<Vec<Candidate>, MissReason> {
        candidates.retain(|candidate| asked.accepts(&candidate.entry));
        if candidates.is_empty() {
            return Err(MissReason::NoCandidate);
        }
        let judged = self.upstreams.difficulty(&asked.prompt, Some(embedding));
        candidates.retain(|Candidate { entry, .. }| {
            // Of the same prompt, what was said when it was bought holds.
            let known = entry.difficulty.filter(|_| entry.key == asked.key);
            self.is_good_enough(asked, known.or(judged), entry)
        });
        if candidates.is_empty() { Err(MissReason::LowerTier) } else { Ok(candidates) }
    }

    /// Whether the router would ask no higher tier now, the prompt being judged `difficulty`.
    pub(super) fn is_good_enough(
        &self,
        asked: &Asked,
        difficulty: Option<Difficulty>,
        entry: &Entry,
    ) -> bool {
        asked.settings.cache.serve_lower_tier
            || !self.upstreams.outranks(&asked.prompt, difficulty, &entry.completion)
    }
}

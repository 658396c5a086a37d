//! The near entries of one prompt, and what was thought of each before its answer was bought.

use std::sync::Arc;

use super::Namespace;
use crate::{
    decide::{
        Candidate,
        features::Features,
        learner::{Origin, Scored},
    },
    key::CacheKey,
    metrics::LabelOrigin,
};

/// See the module.
#[derive(Clone, Debug)]
pub struct Near {
    pub(super) namespace: Arc<Namespace>,
    pub(super) prompt: CacheKey,
    /// Nearest first.
    pub candidates: Vec<Candidate>,
    /// Of each candidate.
    pub(super) features: Vec<Features>,
    pub(super) scored: Vec<Scored>,
    /// The one that would have been served, or was, and is to be checked.
    pub check: Option<Check>,
}

/// Probability that a pair must have had before its answers were compared, to be made one entry: nobody
/// checks it later.
const LIKELY: f32 = 0.5;

/// A hit to be checked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Check {
    /// What was found, see [`Candidate::key`].
    pub entry: CacheKey,
    /// With which probability it was chosen.
    pub propensity: f32,
}

/// A prompt and the entry that answered it, as the model saw them, for whoever says afterwards how good that was.
#[derive(Clone, Debug)]
pub struct Pair {
    namespace: Arc<Namespace>,
    scored: Scored,
}

// === impl Near ===

impl Near {
    /// Whose traffic it is.
    pub fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    /// Of the candidate at `index`.
    pub fn features(&self, index: usize) -> &Features {
        &self.features[index]
    }

    /// The prompt and the candidate at `index`.
    pub fn pair(&self, index: usize) -> Pair {
        Pair { namespace: Arc::clone(&self.namespace), scored: self.scored[index].clone() }
    }

    /// Index of the candidate that would be served if it was sure enough.
    pub fn best(&self) -> Option<usize> {
        Scored::best(&self.scored)
    }

    /// Teaches the namespace what the answers' comparison says.
    pub(super) fn observe(&self, labels: &[f32], mut count: impl FnMut(LabelOrigin, f32)) {
        let best = self.best();
        self.namespace.set_dirty();
        let mut learner = self.namespace.learner();
        for (index, (scored, same)) in self.scored.iter().zip(labels).enumerate() {
            let key = self.candidates[index].key();
            match self.check.filter(|check| check.entry == key) {
                Some(Check { propensity, .. }) => {
                    learner.observe(scored, *same, Origin::Audit { propensity });
                    count(LabelOrigin::Audit, *same);
                }
                None => {
                    let best = self.check.is_none() && best == Some(index);
                    learner.observe(scored, *same, Origin::Miss { best });
                    count(LabelOrigin::Miss, *same);
                }
            }
        }
    }

    /// The surest candidate whose answer is `certainly` the same, going by the comparison, and by what was
    /// thought of the pair before, as answers to different questions can look alike too.
    pub(super) fn same_as(&self, labels: &[f32], certainly: f32) -> Option<CacheKey> {
        let learner = self.namespace.learner();
        let agreed = |i: &usize| {
            let (before, _) = learner.estimate(&self.scored[*i]);
            let entry = self.candidates[*i].entry.key;
            entry != self.prompt
                && !self.namespace.is_apart(self.prompt, entry)
                && before >= LIKELY
                && labels[*i] >= certainly
                && learner.belief(before, labels[*i]) >= certainly
        };
        let surest = (0..labels.len())
            .filter(agreed)
            .max_by(|a, b| self.scored[*a].logit.total_cmp(&self.scored[*b].logit));
        surest.map(|index| self.candidates[index].entry.key)
    }
}

// === impl Pair ===

impl Pair {
    pub(super) fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    pub(super) fn teach(&self, same: bool) {
        self.namespace.set_dirty();
        self.namespace.learner().observe(&self.scored, f32::from(u8::from(same)), Origin::Feedback);
    }
}

//! The near entries of one prompt, and what was thought of each before its answer was bought.

use std::sync::Arc;

use super::Namespace;
use crate::{
    decide::{
        features::Features,
        learner::{Label, Origin, Scored},
    },
    entry::Candidate,
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

/// The near entries of a prompt whose answer was bought, and what that answer says of theirs.
#[derive(Clone, Debug)]
pub struct Compared {
    pub(super) near: Near,
    /// Of each candidate.
    pub(super) labels: Vec<Label>,
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

    fn checked(&self) -> Option<usize> {
        let check = self.check?;
        self.candidates.iter().position(|candidate| candidate.key() == check.entry)
    }
}

// === impl Compared ===

impl Compared {
    /// The candidate whose label decides most: the one that was served, or would have been.
    pub fn decisive(&self) -> Option<(usize, &Candidate)> {
        let index = self.near.checked().or_else(|| self.near.best())?;
        Some((index, &self.near.candidates[index]))
    }

    /// Whose traffic it is.
    pub fn namespace(&self) -> &Arc<Namespace> {
        &self.near.namespace
    }

    /// Somebody knows better than the comparison.
    pub fn judge(&mut self, index: usize, same: bool) {
        self.labels[index] = Label::judged(same);
    }

    /// Teaches the namespace.
    pub(super) fn observe(&self, mut count: impl FnMut(LabelOrigin, f32)) {
        let Near { namespace, scored, check, .. } = &self.near;
        let (best, checked) = (self.near.best(), self.near.checked());
        namespace.set_dirty();
        let mut learner = namespace.learner();
        for (index, (scored, label)) in scored.iter().zip(&self.labels).enumerate() {
            let (origin, counted) = match check.filter(|_| checked == Some(index)) {
                Some(Check { propensity, .. }) => (Origin::Audit { propensity }, LabelOrigin::Audit),
                None => (Origin::Miss { best: check.is_none() && best == Some(index) }, LabelOrigin::Miss),
            };
            learner.observe(scored, *label, origin);
            count(counted, label.same);
        }
    }

    /// The surest candidate whose answer is `certainly` the same, going by the comparison, and by what was
    /// thought of the pair before, as answers to different questions can look alike too.
    pub(super) fn same_as(&self, certainly: f32) -> Option<CacheKey> {
        let Near { namespace, prompt, candidates, scored, .. } = &self.near;
        let learner = namespace.learner();
        let agreed = |i: &usize| {
            let (before, _) = learner.estimate(&scored[*i]);
            let (entry, same) = (candidates[*i].entry.key, self.labels[*i].same);
            entry != *prompt
                && !namespace.is_apart(*prompt, entry)
                && before >= LIKELY
                && same >= certainly
                && learner.belief(before, same) >= certainly
        };
        let surest = (0..self.labels.len())
            .filter(agreed)
            .max_by(|a, b| scored[*a].logit.total_cmp(&scored[*b].logit));
        surest.map(|index| candidates[index].entry.key)
    }
}

// === impl Pair ===

impl Pair {
    pub(super) fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    pub(super) fn teach(&self, same: bool) {
        self.namespace.set_dirty();
        self.namespace.learner().observe(&self.scored, Label::told(same), Origin::Feedback);
    }
}

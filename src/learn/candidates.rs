//! Candidates of a prompt: the nearest entries with their features and scores, and what they teach once the prompt is
//! answered.

use std::sync::Arc;

use super::Namespace;
use crate::{
    decide::{
        features::Features,
        learner::{Label, LabelSource, Origin, Scored},
    },
    entry::Candidate,
    key::CacheKey,
    telemetry::metrics::LabelOrigin,
};

/// The nearest entries of a prompt, with their features and scores.
#[derive(Clone, Debug)]
pub struct ScoredCandidates {
    pub(super) namespace: Arc<Namespace>,
    /// Nearest first.
    pub candidates: Vec<Candidate>,
    /// One per candidate.
    pub(super) features: Vec<Features>,
    /// One per candidate.
    pub(super) scored: Vec<Scored>,
    /// Set if a hit, served or only decided, is to be audited.
    pub audit: Option<Audit>,
}

/// Candidates whose answers were compared with a model's answer to the prompt.
#[derive(Clone, Debug)]
pub struct Compared {
    pub(super) near: ScoredCandidates,
    /// One per candidate.
    pub(super) labels: Vec<Label>,
    /// Probability with which a model is asked about an audit.
    pub(super) verified: f32,
    pub(super) is_stored: bool,
}

/// An audit of a hit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Audit {
    /// Key of the entry that was hit.
    pub entry: CacheKey,
    /// Probability with which the hit was chosen.
    pub propensity: f32,
}

/// A prompt and the entry that answered it, as the model saw them, for later feedback.
#[derive(Clone, Debug)]
pub struct Pair {
    namespace: Arc<Namespace>,
    scored: Scored,
}

impl ScoredCandidates {
    pub fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    /// Features of the candidate at `index`.
    pub fn features(&self, index: usize) -> &Features {
        &self.features[index]
    }

    /// The prompt and the candidate at `index`.
    pub fn pair(&self, index: usize) -> Pair {
        Pair { namespace: Arc::clone(&self.namespace), scored: self.scored[index].clone() }
    }

    /// Index of the most probable candidate.
    pub fn best(&self) -> Option<usize> {
        Scored::best(&self.scored)
    }

    fn audited(&self) -> Option<usize> {
        let audit = self.audit?;
        self.candidates.iter().position(|candidate| candidate.entry.key == audit.entry)
    }
}

impl Compared {
    /// The candidate whose label matters most: the one that was or would have been served.
    pub fn decisive(&self) -> Option<(usize, &Candidate)> {
        let index = self.near.audited().or_else(|| self.near.best())?;
        Some((index, &self.near.candidates[index]))
    }

    pub fn namespace(&self) -> &Arc<Namespace> {
        &self.near.namespace
    }

    /// Replaces the label of a candidate by a verifier's.
    pub fn set_verified(&mut self, index: usize, same: bool) {
        self.labels[index] = self.labels[index].verified(same);
    }

    /// The answer came from a caller, which may say anything: unless a model verifies it, it teaches little and judges
    /// no audit.
    pub fn set_stored(&mut self) {
        self.is_stored = true;
        self.labels.iter_mut().for_each(|label| *label = label.stored());
    }

    /// Teaches the namespace; `count` gets every label.
    pub(super) fn observe(&self, mut count: impl FnMut(LabelOrigin, f32)) {
        let ScoredCandidates { namespace, scored, audit, .. } = &self.near;
        let (best, audited) = (self.near.best(), self.near.audited());
        namespace.saving.set_unsaved();
        let mut learner = namespace.learner();
        for (index, (scored, label)) in scored.iter().zip(&self.labels).enumerate() {
            let is_trusted = !self.is_stored || label.source != LabelSource::Comparison;
            let (origin, counted) = match audit.filter(|_| audited == Some(index) && is_trusted) {
                Some(Audit { propensity, .. }) => {
                    (Origin::Audit { propensity, verified: self.verified }, LabelOrigin::Audit)
                }
                None => {
                    let best = audit.is_none() && best == Some(index) && is_trusted;
                    (Origin::Miss { best }, LabelOrigin::Miss)
                }
            };
            learner.observe(scored, *label, origin);
            count(counted, label.evidence);
        }
    }
}

impl Pair {
    pub(super) fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    /// Learns from feedback.
    pub(super) fn observe(&self, same: bool) {
        self.namespace.saving.set_unsaved();
        self.namespace.learner().observe(&self.scored, Label::reported(same), Origin::Feedback);
    }
}

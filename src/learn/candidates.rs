//! Candidates of a prompt: the nearest entries with their features and scores, and what they teach once the prompt is
//! answered.

use std::sync::Arc;

use super::Namespace;
use crate::{
    decide::{
        Bounds,
        features::Features,
        learner::{Label, LabelSource, Origin, Scored, Verdict},
    },
    entry::Candidate,
    key::CacheKey,
    outcome::Approval,
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
    /// What a verifier said of each candidate before the prompt was answered. It has been learned from.
    pub(super) verdicts: Vec<Option<bool>>,
    /// Id of the model that gave the verdicts.
    pub(super) verifier: Option<Arc<str>>,
    /// Candidates that mode `shadow` would have asked a verifier about, most probable first.
    pub pending: Vec<usize>,
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
    /// Probability that the answer was right when it was served.
    pub probability: f32,
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

    /// Why the candidate at `index` would be served.
    pub fn approval(&self, index: usize) -> Approval {
        if self.is_verified(index) {
            Approval::Verified
        } else if self.namespace.is_variant(self, index) {
            Approval::Surface
        } else {
            Approval::Learned
        }
    }

    /// Index of the most probable candidate.
    pub fn best(&self) -> Option<usize> {
        Scored::best(&self.scored)
    }

    /// Sets what a verifier said of candidates, by index, after it has been learned from.
    pub fn set_verdicts(&mut self, verdicts: &[(usize, bool)], verifier: &str) {
        self.verifier = Some(verifier.into());
        verdicts.iter().for_each(|(index, fits)| self.verdicts[*index] = Some(*fits));
    }

    /// Whether a verifier said that the answer at `index` fits.
    pub fn is_verified(&self, index: usize) -> bool {
        self.verdicts[index] == Some(true)
    }

    /// Id of the model that said the answer at `index` fits.
    pub fn verifier(&self, index: usize) -> Option<&Arc<str>> {
        self.verifier.as_ref().filter(|_| self.is_verified(index))
    }

    /// Whether a verifier was asked and said that none fits.
    pub fn is_refuted(&self) -> bool {
        let mut verdicts = self.verdicts.iter().flatten().peekable();
        verdicts.peek().is_some() && verdicts.all(|fits| !fits)
    }

    /// Indices of the candidates that no verifier was asked about.
    pub fn unverified(&self) -> impl Iterator<Item = usize> {
        self.verdicts.iter().enumerate().filter(|(_, verdict)| verdict.is_none()).map(|(index, _)| index)
    }

    /// Notes the hit on the candidate at `index`, which is audited if it was chosen with this propensity.
    pub fn set_audit(&mut self, index: usize, probability: f32, propensity: Option<f32>) {
        let entry = self.candidates[index].entry.key;
        self.audit = propensity.map(|propensity| Audit { entry, propensity, probability });
    }

    /// Mode `shadow`: decides by the verdicts, and notes the hit there would have been.
    pub fn decide_audit(&mut self, bounds: &Bounds) {
        let verdict = self.namespace.decide_verified(self, &bounds.budget, bounds.audit_rate);
        if let Verdict::Serve { candidate, probability, audit } = verdict {
            self.set_audit(candidate, probability, audit);
        }
    }

    /// Index of the candidate whose hit is audited.
    pub fn audited(&self) -> Option<usize> {
        let audit = self.audit?;
        self.candidates.iter().position(|candidate| candidate.entry.key == audit.entry)
    }
}

impl Compared {
    pub fn near(&self) -> &ScoredCandidates {
        &self.near
    }

    pub fn namespace(&self) -> &Arc<Namespace> {
        &self.near.namespace
    }

    /// Replaces the label of a candidate by a verifier's.
    pub fn set_verified(&mut self, index: usize, same: bool) {
        self.labels[index] = self.labels[index].verified(same);
    }

    /// Replaces the label of a candidate by that of a better model than the verifier which approved the hit.
    pub fn set_reviewed(&mut self, index: usize, same: bool) {
        self.labels[index] = self.labels[index].reviewed(same);
    }

    /// Notes that a model is asked about the audit.
    pub fn expect_verdict(&mut self) {
        self.verified = 1.0;
    }

    /// The answer came from a caller, which may say anything: unless a model verifies it, it teaches little and judges
    /// no audit.
    pub fn set_stored(&mut self) {
        self.is_stored = true;
        self.labels.iter_mut().for_each(|label| *label = label.stored());
    }

    /// Teaches the namespace; `count` gets the log-likelihood ratio of every label.
    pub(super) fn observe(&self, mut count: impl FnMut(LabelOrigin, f32)) {
        let ScoredCandidates { namespace, scored, verdicts, audit, .. } = &self.near;
        let (best, audited) = (self.near.best(), self.near.audited());
        namespace.saving.set_unsaved();
        let mut learner = namespace.learner();
        for (index, (scored, label)) in scored.iter().zip(&self.labels).enumerate() {
            if verdicts[index].is_some() && audited != Some(index) {
                continue;
            }
            let is_trusted = !self.is_stored || label.source != LabelSource::Comparison;
            let (origin, counted) = match audit.filter(|_| audited == Some(index) && is_trusted) {
                Some(Audit { propensity, probability, .. }) => {
                    let (approved, verified) = (verdicts[index] == Some(true), self.verified);
                    (Origin::Audit { propensity, probability, approved, verified }, LabelOrigin::Audit)
                }
                None => {
                    let best = audit.is_none() && best == Some(index) && is_trusted;
                    (Origin::Miss { best }, LabelOrigin::Miss)
                }
            };
            learner.observe(scored, *label, origin);
            count(counted, label.log_ratio());
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

//! Labels: whether the answers of two prompts are the same, who says so, and why it was asked.

/// Share of the evidence of a comparison that counts, and the most that does. Comparisons are not independent: near
/// misses of one frame get answers of one frame. On sources of real answers that the evidence was not trained on, a
/// quarter of it never made the probabilities worse than the prompts' alone.
const COMPARED_SCALE: f32 = 0.25;
const COMPARED_MAX: f32 = 4.0;
/// Error rates of a better model than the verifier: false yes, false no.
const REVIEW_ERRORS: (f32, f32) = (0.02, 0.05);
/// Error rates of feedback.
const FEEDBACK_ERRORS: (f32, f32) = (0.02, 0.02);
/// Observations that the comparison with a caller's own answer counts for.
const STORED_WEIGHT: f32 = 0.25;
/// Observations that one feedback counts for.
const FEEDBACK_WEIGHT: f32 = 4.0;

/// What was observed about whether two prompts ask the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Label {
    /// Log-likelihood ratio: positive speaks for "same", 0 says nothing. Without the verdict, whose weight depends on
    /// how often the verifier errs.
    pub evidence: f32,
    /// Whether a verifier said that the answer fits.
    pub verdict: Option<bool>,
    pub source: LabelSource,
    /// Evidence of the comparison, whoever the label is from. Irrelevant for feedback.
    pub(super) comparison: f32,
    /// Observations that the label counts for.
    pub(super) weight: f32,
}

/// Who says whether the answers are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelSource {
    /// A comparison of the answers.
    Comparison,
    /// A model that verified the answers.
    Verifier,
    /// A caller.
    Feedback,
}

/// How a label came about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Origin {
    /// A model answered the request. `best`: the label is about the entry that would have been served.
    Miss { best: bool },
    /// A hit was audited, which it was chosen for with the probability `propensity`, and whose answer was right with the
    /// probability `probability` when it was served; `approved`: a verifier had said yes. `verified` is the probability
    /// with which a verifier is asked about such an audit, 0 where none is.
    Audit { propensity: f32, probability: f32, approved: bool, verified: f32 },
    /// A caller reported on a hit.
    Feedback,
}

impl Label {
    /// From comparing two answers, see [`Table::evidence`](crate::table::Table::evidence).
    pub fn compared(evidence: f32) -> Self {
        let evidence = (COMPARED_SCALE * evidence).clamp(-COMPARED_MAX, COMPARED_MAX);
        Self { evidence, verdict: None, source: LabelSource::Comparison, comparison: evidence, weight: 1.0 }
    }

    /// The label if one of the answers came from a caller.
    #[must_use]
    pub fn stored(self) -> Self {
        Self { weight: self.weight * STORED_WEIGHT, ..self }
    }

    /// The label after a model verified the answers.
    #[must_use]
    pub fn verified(self, same: bool) -> Self {
        Self { evidence: 0.0, verdict: Some(same), source: LabelSource::Verifier, weight: 1.0, ..self }
    }

    /// What a verifier said before the prompt had an answer of its own.
    pub fn verdict(fits: bool) -> Self {
        Self::compared(0.0).verified(fits)
    }

    /// The label of a hit that a verifier approved, after a better model verified it too. The verifier's yes has been
    /// learned from.
    #[must_use]
    pub fn reviewed(self, same: bool) -> Self {
        let evidence = evidence(same, REVIEW_ERRORS);
        Self { evidence, verdict: None, source: LabelSource::Verifier, weight: 1.0, ..self }
    }

    /// From a caller's feedback.
    pub fn reported(same: bool) -> Self {
        let evidence = evidence(same, FEEDBACK_ERRORS);
        Self {
            evidence,
            verdict: None,
            source: LabelSource::Feedback,
            comparison: evidence,
            weight: FEEDBACK_WEIGHT,
        }
    }

    /// Log-likelihood ratio of what the label says; infinite for a verdict, whose weight depends on its verifier's errors.
    pub fn log_ratio(&self) -> f32 {
        match self.verdict {
            Some(true) => f32::INFINITY,
            Some(false) => f32::NEG_INFINITY,
            None => self.evidence,
        }
    }

    /// Yes or no as 1 or 0; not a number if the evidence says nothing.
    pub(super) fn same(&self) -> f32 {
        if let Some(fits) = self.verdict {
            f32::from(u8::from(fits))
        } else if self.evidence == 0.0 || self.evidence.is_nan() {
            f32::NAN
        } else {
            f32::from(u8::from(self.evidence > 0.0))
        }
    }

    /// What the comparison says, as 1 or 0; in between if it says nothing.
    pub(super) fn compared_same(&self) -> f32 {
        0.5 + 0.5 * self.comparison.signum() * f32::from(u8::from(self.comparison != 0.0))
    }
}

/// Log-likelihood ratio of a yes or no with these rates of false yes and false no.
fn evidence(yes: bool, (false_yes, false_no): (f32, f32)) -> f32 {
    let ratio = if yes { (1.0 - false_no) / false_yes } else { false_no / (1.0 - false_yes) };
    ratio.ln()
}

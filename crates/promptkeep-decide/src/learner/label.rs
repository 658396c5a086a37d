//! Labels: whether the answers of two prompts are the same, who says so, and why it was asked.

/// Weights of labels by source; a comparison of words counts one.
const VERIFIER_WEIGHT: f32 = 2.0;
const FEEDBACK_WEIGHT: f32 = 8.0;

/// Whether two answers are the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Label {
    /// 0 to 1.
    pub same: f32,
    /// Comparisons that the label counts for.
    pub(super) weight: f32,
}

/// How a label came about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Origin {
    /// A model answered the request. `best`: the label is about the entry that would have been served.
    Miss { best: bool },
    /// A hit was audited, which it was chosen for with this probability.
    Audit { propensity: f32 },
    /// A caller reported on a hit.
    Feedback,
}

impl Label {
    /// From comparing the words of two answers.
    pub const fn compared(same: f32) -> Self {
        Self { same, weight: 1.0 }
    }

    /// From a model that verified the answers.
    pub const fn verified(same: bool) -> Self {
        Self { same: if same { 1.0 } else { 0.0 }, weight: VERIFIER_WEIGHT }
    }

    /// From a caller's feedback.
    pub const fn reported(same: bool) -> Self {
        Self { same: if same { 1.0 } else { 0.0 }, weight: FEEDBACK_WEIGHT }
    }
}

//! What is learned from: whether the answers of a pair are the same, who says so, and how the pair came
//! to be asked about.

/// Weights of labels by who gives them; a comparison of words counts one.
const JUDGE_WEIGHT: f32 = 2.0;
const FEEDBACK_WEIGHT: f32 = 8.0;

/// Whether two answers are the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Label {
    /// 0 to 1.
    pub same: f32,
    /// Comparisons that it counts for.
    pub(super) weight: f32,
}

/// How a label came about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Origin {
    /// An answer was bought. `best`: its counterpart is the entry that would have been served.
    Miss { best: bool },
    /// A served answer was checked, chosen with this probability.
    Audit { propensity: f32 },
    /// A caller spoke of an answer that it was served.
    Feedback,
}

// === impl Label ===

impl Label {
    /// Of comparing the words of two answers.
    pub const fn compared(same: f32) -> Self {
        Self { same, weight: 1.0 }
    }

    /// A model was asked.
    pub const fn judged(same: bool) -> Self {
        Self { same: if same { 1.0 } else { 0.0 }, weight: JUDGE_WEIGHT }
    }

    /// A caller said so.
    pub const fn told(same: bool) -> Self {
        Self { same: if same { 1.0 } else { 0.0 }, weight: FEEDBACK_WEIGHT }
    }
}

//! How often the sources of labels err, and what that means for a share of labels that say "different".

/// Share of wrong answers that is typical of a cache, to compare sources of labels by.
const TYPICAL_WRONG: f64 = 0.05;
/// Width of the interval of a share, in standard deviations.
const TYPICAL_DEVIATIONS: f64 = 6.0;

/// An error rate: the best guess, and the interval that holds it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ErrorRate {
    pub rate: f32,
    pub low: f32,
    pub high: f32,
}

/// Error rates of one source of labels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SourceErrors {
    /// Fraction of wrong answers that the label calls the same.
    pub false_same: ErrorRate,
    /// Fraction of right answers that the label calls different.
    pub false_different: ErrorRate,
}

/// Error rates of all sources of labels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LabelErrors {
    pub comparison: SourceErrors,
    pub verifier: SourceErrors,
    pub feedback: SourceErrors,
}

/// A share of wrong answers and its interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Share {
    pub rate: f64,
    pub low: f64,
    pub high: f64,
}

// === impl ErrorRate ===

impl ErrorRate {
    pub const fn new(rate: f32, low: f32, high: f32) -> Self {
        Self { rate, low, high }
    }

    /// A rate that is known.
    pub const fn exactly(rate: f32) -> Self {
        Self::new(rate, rate, rate)
    }
}

// === impl LabelErrors ===

impl LabelErrors {
    /// Where a namespace has no better figures. Those of the comparison are measured on probable pairs of ten sources of
    /// real answers, each left out of the training: the centre, and the lowest and highest of the sources with enough
    /// pairs. They are wide, so without verifier and feedback little is known, and that is what is reported.
    pub const ASSUMED: Self = Self {
        comparison: SourceErrors {
            false_same: ErrorRate::new(0.40, 0.01, 0.77),
            false_different: ErrorRate::new(0.15, 0.01, 0.38),
        },
        verifier: SourceErrors {
            false_same: ErrorRate::new(0.02, 0.005, 0.08),
            false_different: ErrorRate::new(0.05, 0.01, 0.12),
        },
        feedback: SourceErrors {
            false_same: ErrorRate::new(0.01, 0.0, 0.02),
            false_different: ErrorRate::new(0.01, 0.0, 0.02),
        },
    };
}

// === impl SourceErrors ===

impl SourceErrors {
    /// Returns the share of wrong answers, given the share of labels that say "different". The interval is the union
    /// over all error rates within their intervals. The inverse grows with the share and with `false_same`, and falls
    /// with `false_different`, so two corners suffice.
    ///
    /// Source: Rogan and Gladen, "Estimating prevalence from the results of a screening test" (1978).
    pub(super) fn correct(&self, different: Share) -> Share {
        let Self { false_same: same, false_different: diff } = self;
        if diff.high + same.high >= 1.0 {
            // The label may say nothing.
            return Share { rate: different.rate, low: 0.0, high: 1.0 };
        }
        // Fewer labels say "different" (or "same") than the errors alone would make: the lowest error rate is too high
        // for these answers, so none is subtracted.
        let diff_low = if different.rate < f64::from(diff.low) { 0.0 } else { diff.low };
        let same_low = if 1.0 - different.rate < f64::from(same.low) { 0.0 } else { same.low };
        let low = invert(different.low, diff.high, same_low);
        let high = invert(different.high, diff_low, same.high);
        Share { rate: invert(different.rate, diff.rate, same.rate).clamp(low, high), low, high }
    }

    /// About the width of the corrected interval that so many `trials` give, whatever their labels.
    pub(super) fn typical_width(&self, trials: f64) -> f64 {
        let [low, rate, high] =
            [self.false_different.low, self.false_different.rate, self.false_different.high].map(f64::from);
        let scale = 1.0 - rate - f64::from(self.false_same.rate);
        let different = (rate + scale * TYPICAL_WRONG).clamp(0.0, 1.0);
        let sampling = TYPICAL_DEVIATIONS * (different * (1.0 - different) / trials).sqrt();
        if scale > 0.0 { (high - low + sampling) / scale } else { f64::INFINITY }
    }
}

/// Solves different = wrong × (1 − false_same) + (1 − wrong) × false_different for `wrong`.
fn invert(different: f64, false_different: f32, false_same: f32) -> f64 {
    let (false_different, false_same) = (f64::from(false_different), f64::from(false_same));
    ((different - false_different) / (1.0 - false_different - false_same)).clamp(0.0, 1.0)
}

//! The error rates of a model that verifies answers, estimated from its own verdicts on pairs about which the prompts say
//! much: a yes to a pair that surely differs is false, and so is a no to one that surely asks the same.

use super::{
    Example,
    wrong_rate::{ErrorRate, SourceErrors},
};
use crate::logistic::posterior;

/// Rates before any verdict, and the number of pairs that they are believed like.
const FALSE_YES: (f64, f64) = (0.03, 20.0);
const FALSE_NO: (f64, f64) = (0.06, 20.0);
/// Half the width of an interval, in standard deviations: each end is passed with 5 %.
const DEVIATIONS: f64 = 1.64;
/// Steps of the estimate, which alternates between the rates and which pairs differ.
const STEPS: usize = 12;

/// A verdict, and what else is known about the pair.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verified {
    /// Logit of the pair asking the same, without the verdict.
    pub logit: f64,
    pub fits: bool,
    pub weight: f64,
}

/// A verifier's error rates over several namespaces.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeasuredErrors {
    pub errors: SourceErrors,
    /// Verdicts that the rates are estimated from. With none they are those assumed of a new verifier.
    pub verdicts: u64,
}

/// Verdicts on pairs of one kind: the false ones and all, each with the counts of the prior.
#[derive(Clone, Copy)]
struct Counts {
    wrong: f64,
    all: f64,
}

impl SourceErrors {
    /// Of a verifier that nothing is known about.
    pub fn of_new_verifier() -> Self {
        Self::of(Counts::of(FALSE_YES), Counts::of(FALSE_NO))
    }

    /// The rates under which the verdicts are most probable (the expectation-maximisation of Dawid and Skene, 1979).
    pub(super) fn estimate(verdicts: &[Verified]) -> Self {
        let mut errors = Self::of_new_verifier();
        for _ in 0..STEPS {
            let (mut yes, mut no) = (Counts::of(FALSE_YES), Counts::of(FALSE_NO));
            for Verified { logit, fits, weight } in verdicts {
                let same = posterior(*logit, errors.evidence(*fits).into());
                yes.add(*fits, weight * (1.0 - same));
                no.add(!*fits, weight * same);
            }
            errors = Self::of(yes, no);
        }
        errors
    }

    fn of(yes: Counts, no: Counts) -> Self {
        Self { false_same: yes.rate(), false_different: no.rate() }
    }

    /// Log-likelihood ratio of a verdict.
    pub fn evidence(&self, fits: bool) -> f32 {
        let (false_yes, false_no) = (self.false_same.rate, self.false_different.rate);
        let ratio = if fits { (1.0 - false_no) / false_yes } else { false_no / (1.0 - false_yes) };
        ratio.ln()
    }

    /// Log-likelihood ratio of a yes if the rates are the worst of their intervals.
    pub fn cautious_yes(&self) -> f32 {
        ((1.0 - self.false_different.high) / self.false_same.high).ln().max(0.0)
    }
}

impl MeasuredErrors {
    /// Means of the rates and of the ends of their intervals, weighted by the verdicts. So the interval holds the mean
    /// error rate if each namespace's interval holds its own, and it is wider than one from all verdicts would be.
    pub fn pool(namespaces: impl IntoIterator<Item = Self>) -> Self {
        let measured: Vec<Self> = namespaces.into_iter().filter(|one| one.verdicts > 0).collect();
        let verdicts = measured.iter().map(|one| one.verdicts).sum();
        if verdicts == 0 {
            return Self { errors: SourceErrors::of_new_verifier(), verdicts };
        }
        let mean = |part: fn(&SourceErrors) -> f32| {
            let sum: f64 =
                measured.iter().map(|one| one.verdicts as f64 * f64::from(part(&one.errors))).sum();
            (sum / verdicts as f64) as f32
        };
        let false_same = ErrorRate::new(
            mean(|errors| errors.false_same.rate),
            mean(|errors| errors.false_same.low),
            mean(|errors| errors.false_same.high),
        );
        let false_different = ErrorRate::new(
            mean(|errors| errors.false_different.rate),
            mean(|errors| errors.false_different.low),
            mean(|errors| errors.false_different.high),
        );
        Self { errors: SourceErrors { false_same, false_different }, verdicts }
    }
}

impl Verified {
    pub fn of(example: &Example, logit: f64, weight: f32) -> Option<Self> {
        let fits = example.verdict?;
        Some(Self { logit: logit + f64::from(example.evidence), fits, weight: weight.into() })
    }
}

impl Counts {
    fn of((rate, all): (f64, f64)) -> Self {
        Self { wrong: rate * all, all }
    }

    fn add(&mut self, is_wrong: bool, weight: f64) {
        self.wrong += if is_wrong { weight } else { 0.0 };
        self.all += weight;
    }

    fn rate(self) -> ErrorRate {
        let rate = self.wrong / self.all;
        let half = DEVIATIONS * (rate * (1.0 - rate) / self.all).sqrt();
        ErrorRate::new(rate as f32, (rate - half).max(0.0) as f32, (rate + half).min(1.0) as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Verdicts on pairs with these probabilities, of a verifier that errs at these rates.
    fn verdicts(false_yes: f32, false_no: f32) -> Vec<Verified> {
        let mut random = fastrand::Rng::with_seed(3);
        let verdict = |n: usize| {
            let probability = [0.01, 0.02, 0.1, 0.4, 0.9, 0.98][n % 6];
            let same = random.f32() < probability;
            let fits = same != (random.f32() < if same { false_no } else { false_yes });
            let p = f64::from(probability);
            Verified { logit: (p / (1.0 - p)).ln(), fits, weight: 1.0 }
        };
        (0..3000).map(verdict).collect()
    }

    #[test]
    fn error_rates_are_found_from_verdicts_alone() {
        for (false_yes, false_no) in [(0.02, 0.05), (0.15, 0.05), (0.05, 0.2), (0.0, 0.0)] {
            let SourceErrors { false_same, false_different } =
                SourceErrors::estimate(&verdicts(false_yes, false_no));
            for (found, truth) in [(false_same, false_yes), (false_different, false_no)] {
                assert!((found.rate - truth).abs() < 0.02, "{found:?} instead of {truth}");
                assert!(
                    found.low <= truth + 0.005 && truth <= found.high + 0.005,
                    "{found:?} without {truth}"
                );
            }
        }
    }

    #[test]
    fn pooled_rates_are_weighted_by_their_verdicts() {
        let measured = |rate: f32, verdicts| {
            let errors = SourceErrors {
                false_same: ErrorRate::new(rate, rate / 2.0, rate * 2.0),
                false_different: ErrorRate::exactly(0.0),
            };
            MeasuredErrors { errors, verdicts }
        };
        let pooled = MeasuredErrors::pool([measured(0.1, 300), measured(0.2, 100), measured(0.9, 0)]);
        let ErrorRate { rate, low, high } = pooled.errors.false_same;
        assert_eq!(pooled.verdicts, 400);
        for (found, expected) in [(rate, 0.125), (low, 0.0625), (high, 0.25)] {
            assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
        }
        let unknown = MeasuredErrors::pool([measured(0.9, 0)]);
        assert_eq!(unknown, MeasuredErrors { errors: SourceErrors::of_new_verifier(), verdicts: 0 });
    }

    #[test]
    fn without_verdicts_the_prior_is_wide() {
        let SourceErrors { false_same, .. } = SourceErrors::estimate(&[]);
        assert_eq!(SourceErrors::estimate(&[]), SourceErrors::of_new_verifier());
        assert!(false_same.high > 2.0 * false_same.rate);
    }
}

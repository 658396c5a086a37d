//! The share of wrong answers among the semantic hits served so far, estimated from audits.
//!
//! An audited hit counts for one over the probability of its audit, so that the audits stand for all hits. The best
//! label there is judges it: a caller's feedback, else a verifier's verdict, else the comparison of the two answers.
//! Hits of three kinds are estimated apart, and their shares are added up by the hits that they stand for:
//!
//! - Hits with feedback. Callers report what they please, so these hits stand for none but themselves.
//! - Hits that a verifier might have been asked about. It was asked about a random part, with known probability, so
//!   its verdicts stand for all of them. The comparison, known for all, is the control variate: its mean over the
//!   verified part is off by as much as chance made that part differ, whatever the comparison's own errors.
//! - Hits that only the comparison judges. Its errors are known roughly, and the interval is as wide as that makes it.
//!
//! All sums are additive, so replicas' tallies are added, and a later label replaces an earlier one by a subtraction
//! and an addition. The interval holds the truth at every look with 95 %, however often somebody looks and however the
//! truth drifts, see [`boundary`]. That the weights are divided by their sum and that the control variate's coefficient
//! comes from the same audits is right for many audits; simulation shows that the interval holds for few too
//! (`tests/coverage.rs`).
//!
//! Sources: Hájek's ratio estimator (1971) for the weights; Angelopoulos, Duchi and Zrnic, "PPI++: Efficient
//! prediction-powered inference" (2023), for the control variate.

mod boundary;
mod errors;

use promptkeep_core::codec::{Malformed, Reader, ensure};

use super::label::{Label, LabelSource};
use errors::Share;
pub use errors::{ErrorRate, LabelErrors, SourceErrors};

/// Smallest probability of an audit or a verification that is believed; one hit must not stand for all others.
const PROBABILITY_MIN: f64 = 1e-4;
/// Smallest probability of no verification. Verdicts can be missing although every audit is to be verified.
const UNVERIFIED_MIN: f64 = 0.05;
/// Pseudo-variance of the control variate, times the square of the number of verdicts.
const DOUBT: f64 = 2.0;
/// Sums below this are rounding, and differences below this part of a sum.
const NOTHING: f64 = 1e-12;
const ROUNDING: f64 = 1e-6;

/// An audited hit and its best label.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Audited {
    /// Probability with which the hit was chosen for the audit.
    pub propensity: f32,
    /// Probability with which a verifier is asked about such an audit; 0 where none is. May depend on the comparison,
    /// not on anything else that tells whether the answer is wrong.
    pub verified: f32,
    pub label: Label,
}

/// Sums over audited hits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Tally {
    verified: Verified,
    /// Not verified, although they might have been: sums of the comparison.
    unverified: Sums,
    /// Never to be verified: sums of the comparison.
    compared: Sums,
    reported: Sums,
}

/// Sums over hits of one kind. `x` is how wrong the label calls the answer, from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sums {
    count: f64,
    /// Hits that they stand for: Σ 1 / propensity.
    hits: f64,
    /// Σ w, with the weight w = 1 / (propensity × the probability of the label).
    weight: f64,
    /// Largest w; no sum.
    heaviest: f64,
    /// Σ w x.
    wrong: f64,
    /// Σ w x².
    square: f64,
}

/// Sums over verified hits: of the verdict `x`, and of the comparison `y`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Verified {
    verdict: Sums,
    /// Σ w y.
    compared: f64,
    /// Σ w y².
    square: f64,
    /// Σ w x y.
    both: f64,
}

/// Audits by the source of their best label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct LabelCounts {
    pub comparison: u64,
    pub verifier: u64,
    pub feedback: u64,
}

/// Share of wrong answers among semantic hits, with an interval that holds it with 95 % at every look.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct WrongHits {
    pub rate: f32,
    pub low: f32,
    pub high: f32,
    /// Hits chosen for an audit so far.
    #[serde(rename = "checked")]
    pub checks: u64,
    /// Completed audits.
    pub labels: LabelCounts,
}

/// The share of labels of one kind of hits that say "different".
#[derive(Clone, Copy, Debug)]
struct Stratum<'a> {
    /// Hits that they stand for.
    hits: f64,
    different: f64,
    /// Equally weighted audits that would know `different` as well.
    trials: f64,
    /// Equally weighted audits that would know `hits` as well.
    drawn: f64,
    errors: &'a SourceErrors,
}

// === impl Audited ===

impl Audited {
    /// One over the probability of the audit; `None` if the numbers make no sense.
    fn weight(&self) -> Option<f64> {
        let (same, comparison) = (self.label.same(), self.label.compared_same());
        let valid = self.propensity > 0.0 && [same, comparison].iter().all(|same| (0.0..=1.0).contains(same));
        valid.then(|| 1.0 / f64::from(self.propensity).clamp(PROBABILITY_MIN, 1.0))
    }
}

// === impl Tally ===

impl Tally {
    /// The sums of one hit; `None` if its numbers make no sense.
    pub fn of(audited: &Audited) -> Option<Self> {
        let mut tally = Self::default();
        let weight = audited.weight()?;
        let (same, comparison, source) =
            (audited.label.same(), audited.label.compared_same(), audited.label.source);
        let (wrong, compared) = (1.0 - f64::from(same), 1.0 - f64::from(comparison));
        let verified = f64::from(audited.verified).min(1.0);
        match source {
            LabelSource::Feedback => tally.reported = Sums::of(weight, 1.0, wrong),
            LabelSource::Verifier => {
                // A verdict that nobody expected stands for itself.
                let verified = if verified > 0.0 { verified.max(PROBABILITY_MIN) } else { 1.0 };
                tally.verified = Verified::of(Sums::of(weight, verified, wrong), wrong, compared);
            }
            LabelSource::Comparison if verified > 0.0 => {
                tally.unverified = Sums::of(weight, (1.0 - verified).max(UNVERIFIED_MIN), compared);
            }
            LabelSource::Comparison => tally.compared = Sums::of(weight, 1.0, compared),
        }
        Some(tally)
    }

    pub fn add(&mut self, other: &Self) {
        let mut other = *other;
        let heaviest = self.parts().map(|sums| sums.heaviest);
        self.all().zip(other.all()).for_each(|(sum, other)| *sum += *other);
        for ((sums, other), heaviest) in self.parts().into_iter().zip(other.parts()).zip(heaviest) {
            sums.heaviest = heaviest.max(other.heaviest);
        }
    }

    /// Replaces the label of a hit, unless the hit is not among the sums.
    pub fn replace(&mut self, before: &Self, after: &Self) {
        let (mut replaced, mut before) = (*self, *before);
        replaced.add(after);
        before.parts().into_iter().for_each(|sums| sums.heaviest = 0.0);
        let mut is_known = true;
        for (sum, before) in replaced.all().zip(before.all()) {
            is_known &= *sum - *before > -ROUNDING * *before - NOTHING;
            *sum = (*sum - *before).max(0.0);
        }
        if is_known {
            *self = replaced;
        }
    }

    pub fn decay(&mut self, factor: f64) {
        self.all().for_each(|sum| *sum *= factor);
    }

    fn parts(&mut self) -> [&mut Sums; 4] {
        let Self { verified, unverified, compared, reported } = self;
        [&mut verified.verdict, unverified, compared, reported]
    }

    /// In the order of the encoding.
    fn all(&mut self) -> impl Iterator<Item = &mut f64> {
        let Self { verified, unverified, compared, reported } = self;
        let Verified { verdict, compared: of_verified, square, both } = verified;
        [verdict, unverified, compared, reported].into_iter().flat_map(Sums::all).chain([
            of_verified,
            square,
            both,
        ])
    }

    pub fn encode(&self, to: &mut Vec<u8>) {
        let mut sums = *self;
        sums.all().for_each(|sum| to.extend(sum.to_le_bytes()));
    }

    pub fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut tally = Self::default();
        for sum in tally.all() {
            *sum = from.f64()?;
            // Sums over all learners must not overflow.
            ensure((0.0..1e100).contains(sum), "sum")?;
        }
        Ok(tally)
    }

    pub fn labels(&self) -> LabelCounts {
        LabelCounts {
            comparison: (self.unverified.count + self.compared.count).round() as u64,
            verifier: self.verified.verdict.count.round() as u64,
            feedback: self.reported.count.round() as u64,
        }
    }

    /// The estimate; `checks` is passed on.
    pub fn estimate(&self, errors: &LabelErrors, checks: u64) -> WrongHits {
        let strata = self.strata(errors);
        let spread: f64 = strata.iter().flatten().map(|s| s.hits * s.hits / s.drawn).sum();
        let total: f64 = strata.iter().flatten().map(|s| s.hits).sum();
        let Some(Share { rate, low, high }) = sum(&strata, |s, part| s.wrong(part, total * total / spread))
        else {
            return WrongHits { checks, ..WrongHits::UNKNOWN };
        };
        let [rate, low, high] = [rate, low, high].map(|share| share.clamp(0.0, 1.0) as f32);
        WrongHits { rate, low, high, checks, labels: self.labels() }
    }

    /// Whether the whole interval is above `limit`. Cheap where even the labels themselves are not.
    pub fn is_above(&self, limit: f32, errors: &LabelErrors) -> bool {
        let of_labels = sum(&self.strata(errors), |stratum, _| stratum.wrong_by_labels());
        of_labels.is_some_and(|share| share.low > limit.into()) && self.estimate(errors, 0).low > limit
    }

    fn strata<'a>(&self, errors: &'a LabelErrors) -> [Option<Stratum<'a>>; 3] {
        let direct = |sums: &Sums, errors| {
            let (different, trials) = (sums.mean(), sums.trials());
            sums.is_some().then_some(Stratum { hits: sums.hits, different, trials, drawn: trials, errors })
        };
        [
            direct(&self.reported, &errors.feedback),
            direct(&self.compared, &errors.comparison),
            self.verifiable(errors),
        ]
    }

    /// Hits that a verifier might have been asked about. The comparison judges them as long as the number of verdicts
    /// leaves more open than its errors do. The choice must not depend on what the labels say.
    fn verifiable<'a>(&self, errors: &'a LabelErrors) -> Option<Stratum<'a>> {
        let (verdict, unverified) = (&self.verified.verdict, &self.unverified);
        let few = unverified.is_some()
            && errors.comparison.typical_width(unverified.trials())
                < errors.verifier.typical_width(verdict.trials());
        let (different, trials, errors) = if few {
            (unverified.mean(), unverified.trials(), &errors.comparison)
        } else {
            let (different, trials) = self.verified.controlled(unverified);
            (different, trials, &errors.verifier)
        };
        let (hits, drawn) = (verdict.hits + unverified.hits, verdict.trials() + unverified.trials());
        let any = verdict.is_some() || unverified.is_some();
        any.then_some(Stratum { hits, different, trials, drawn, errors })
    }
}

// === impl Stratum ===

/// Adds up the shares of the strata by the hits that they stand for; `share` gets a stratum and its part of all hits.
fn sum(strata: &[Option<Stratum<'_>>], share: impl Fn(&Stratum<'_>, f64) -> Share) -> Option<Share> {
    let total: f64 = strata.iter().flatten().map(|stratum| stratum.hits).sum();
    let mut sum = Share::default();
    for stratum in strata.iter().flatten() {
        let part = stratum.hits / total;
        let Share { rate, low, high } = share(stratum, part);
        sum.rate += part * rate;
        sum.low += part * low;
        sum.high += part * high;
    }
    (total > 0.0).then_some(sum)
}

impl Stratum<'_> {
    /// The share if chance had no part in it: the labels may err, but stand for all hits.
    fn wrong_by_labels(&self) -> Share {
        let Self { different, errors, .. } = *self;
        errors.correct(Share { rate: different, low: different, high: different })
    }

    /// Share of wrong answers in a stratum that is the fraction `part` of all hits, known from `drawn` equally weighted
    /// audits. Which audits fall into the stratum is chance too: the interval is that of the share of all hits which
    /// are in the stratum and labelled "different", with the variance of the product of two estimates.
    fn wrong(&self, part: f64, drawn: f64) -> Share {
        let Self { different, trials, errors, .. } = *self;
        let of_part = part * (1.0 - different) / trials + different * (1.0 - part) / drawn;
        let trials = if of_part > 0.0 { (1.0 - part * different) / of_part } else { trials / part };
        let (low, high) = boundary::interval(part * different, trials);
        errors.correct(Share { rate: different, low: (low / part).min(1.0), high: (high / part).min(1.0) })
    }
}

// === impl Sums ===

impl Sums {
    /// Of one hit with the `weight` of its audit, the `probability` of the label, and the label.
    fn of(weight: f64, probability: f64, wrong: f64) -> Self {
        let (hits, weight) = (weight, weight / probability);
        let (wrong, square) = (weight * wrong, weight * wrong * wrong);
        Self { count: 1.0, hits, weight, heaviest: weight, wrong, square }
    }

    /// In the order of the encoding.
    fn all(&mut self) -> [&mut f64; 6] {
        let Self { count, hits, weight, heaviest, wrong, square } = self;
        [count, hits, weight, heaviest, wrong, square]
    }

    /// Whether there are any hits. Every hit weighs 1 or more; what decay leaves of one is none.
    fn is_some(&self) -> bool {
        self.count.min(self.hits).min(self.weight).min(self.heaviest) > NOTHING
    }

    /// Weighted mean of the labels, 0 without any.
    fn mean(&self) -> f64 {
        if self.is_some() { (self.wrong / self.weight).min(1.0) } else { 0.0 }
    }

    /// Audits of the same weight that tell as much at least, see [`boundary`].
    fn trials(&self) -> f64 {
        if self.is_some() { (self.weight / self.heaviest).min(self.count) } else { 0.0 }
    }

    /// Estimated variance of the mean.
    fn variance(&self) -> f64 {
        if self.is_some() {
            (self.square / self.weight - self.mean().powi(2)).max(0.0) / self.trials()
        } else {
            0.0
        }
    }
}

// === impl Verified ===

impl Verified {
    fn of(verdict: Sums, wrong: f64, compared: f64) -> Self {
        let weight = verdict.weight;
        let (square, both) = (weight * compared * compared, weight * wrong * compared);
        Self { verdict, compared: weight * compared, square, both }
    }

    /// The share of "different" that the verifier would have found on the verified and the `unverified` hits together,
    /// and the equally weighted verdicts that would know it as well. With the mean verdict V, the mean comparison C of
    /// the verified part and C′ of the unverified one, it is V − κ (C − C′), which has the least variance at
    /// κ = cov(V, C) / (var C + var C′). A pseudo-variance keeps κ small while few verdicts tell the covariance.
    fn controlled(&self, unverified: &Sums) -> (f64, f64) {
        let Self { verdict, compared, square, both } = self;
        let (mean, trials) = (verdict.mean(), verdict.trials());
        if !unverified.is_some() || !verdict.is_some() {
            return (mean, trials);
        }
        let [compared, square, both] = [compared, square, both].map(|sum| sum / verdict.weight);
        let variance = (square - compared * compared).max(0.0) / trials + unverified.variance();
        let covariance = (both - mean * compared) / trials;
        let doubt = DOUBT / trials.powi(2);
        let factor = (covariance / (variance + doubt)).clamp(0.0, 1.0);
        let before = verdict.variance();
        let after = (before - 2.0 * factor * covariance + factor * factor * variance).max(0.0);
        let gain = ((before + doubt) / (after + doubt)).max(1.0);
        ((mean - factor * (compared - unverified.mean())).clamp(0.0, 1.0), trials * gain)
    }
}

// === impl WrongHits ===

impl WrongHits {
    /// The estimate before any audit.
    pub const UNKNOWN: Self = Self {
        rate: 0.0,
        low: 0.0,
        high: 1.0,
        checks: 0,
        labels: LabelCounts { comparison: 0, verifier: 0, feedback: 0 },
    };
}

#[cfg(test)]
mod tests;

//! Which hits are checked, and what the checks say about all of them.

use super::Budget;
use crate::decide::table::Reader;

/// Checks that a young namespace makes of its first hits, spread as this many over the number of hits.
const EARLY: f32 = 100.0;
/// Most checks as a share of all requests, over the share of the hits that is checked: a young namespace
/// checks more of its hits, and it has few of them.
const COST_MAX: f32 = 2.0;
/// Checks after which an older one counts half.
const HALF_LIFE: f32 = 300.0;
/// Requests without hits after which findings count half.
const REST: f64 = 2000.0;
/// Pseudo-counts of errors as expected: how many surprises it takes to believe them.
const BELIEF: f32 = 3.0;

/// Bookkeeping of checked hits.
#[derive(Clone, Debug)]
pub struct Audits {
    random: fastrand::Rng,
    hits: u64,
    checks: u64,
    /// Faded sums over checked hits, weighted by one over their propensity.
    weight: f64,
    square: f64,
    differing: f64,
    /// Faded sums, unweighted.
    count: f64,
    observed: f64,
    expected: f64,
}

/// Share of wrong answers among semantic hits, with a 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WrongHits {
    pub rate: f32,
    pub low: f32,
    pub high: f32,
    /// Checked hits behind it, ever.
    pub checks: u64,
}

// === impl Audits ===

impl Audits {
    pub fn new(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            hits: 0,
            checks: 0,
            weight: 0.0,
            square: 0.0,
            differing: 0.0,
            count: 0.0,
            observed: 0.0,
            expected: 0.0,
        }
    }

    /// Little-endian; the random sequence is not kept.
    pub fn encode(&self, to: &mut Vec<u8>) {
        to.extend(self.hits.to_le_bytes());
        to.extend(self.checks.to_le_bytes());
        let sums = [self.weight, self.square, self.differing, self.count, self.observed, self.expected];
        sums.iter().for_each(|sum| to.extend((*sum as f32).to_le_bytes()));
    }

    /// Reads what [`Audits::encode`] wrote.
    pub fn decode(from: &mut Reader<'_>, seed: u64) -> Option<Self> {
        let (hits, checks) = (from.u64()?, from.u64()?);
        let sums = from.floats(6)?;
        let sum = |i: usize| f64::from(sums[i]);
        let random = fastrand::Rng::with_seed(seed ^ hits);
        let valid = checks <= hits && sums.iter().all(|s| *s >= 0.0);
        valid.then(|| Self {
            random,
            hits,
            checks,
            weight: sum(0),
            square: sum(1),
            differing: sum(2),
            count: sum(3),
            observed: sum(4),
            expected: sum(5),
        })
    }

    /// While nothing is served nothing is checked either: old findings fade, so that the namespace may be
    /// tried again.
    pub fn rest(&mut self) {
        let keep = 0.5_f64.powf(1.0 / REST);
        self.fade(keep);
    }

    fn fade(&mut self, keep: f64) {
        for sum in [
            &mut self.weight,
            &mut self.square,
            &mut self.differing,
            &mut self.count,
            &mut self.observed,
            &mut self.expected,
        ] {
            *sum *= keep;
        }
    }

    /// Counts a hit and says with which probability it was chosen to be checked, if it was. `rate`: least
    /// share of the hits that is checked; 0 checks none of them, 1 all.
    pub fn draw(&mut self, requests: u64, rate: f32) -> Option<f32> {
        self.hits += 1;
        if rate == 0.0 {
            return None;
        }
        let propensity = (EARLY / self.hits as f32).clamp(rate, 1.0);
        let affordable = rate >= 1.0 || (self.checks as f32) < COST_MAX * rate * requests as f32;
        (affordable && self.random.f32() < propensity).then(|| {
            self.checks += 1;
            propensity
        })
    }

    /// The outcome of a check.
    pub fn observe(&mut self, probability: f32, same: f32, propensity: f32) {
        let keep = 0.5_f64.powf(1.0 / f64::from(HALF_LIFE));
        let weight = 1.0 / f64::from(propensity);
        self.fade(keep);
        self.weight += weight;
        self.square += weight * weight;
        self.differing += weight * f64::from(1.0 - same);
        self.count += 1.0;
        self.observed += f64::from(1.0 - same);
        self.expected += f64::from(1.0 - probability);
    }

    /// Observed over expected errors; `missed` of the labels say "different" by mistake.
    pub fn surplus(&self, missed: f32) -> f32 {
        let wrong = (self.observed as f32 - missed * self.count as f32).max(0.0);
        (wrong + BELIEF) / (self.expected as f32 + BELIEF)
    }

    /// Whether even the lower end of the estimate is far beyond the budget: nothing but exact hits then.
    /// `missed` of the labels say "different" by mistake, or a few of those would close a namespace.
    pub fn is_blown(&self, budget: &Budget, missed: f32) -> bool {
        let estimate = self.estimate(missed);
        self.count > 20.0 && estimate.low > 2.0 * budget.max_wrong_hits
    }

    /// Hits that were chosen to be checked, ever.
    pub const fn checks(&self) -> u64 {
        self.checks
    }

    /// Adds the findings of another namespace, to report both as one.
    pub fn add(&mut self, other: &Self) {
        self.hits += other.hits;
        self.checks += other.checks;
        self.weight += other.weight;
        self.square += other.square;
        self.differing += other.differing;
    }

    /// Inverse-propensity estimate with Wilson's interval over the effective number of checks.
    pub fn estimate(&self, missed: f32) -> WrongHits {
        if self.weight == 0.0 {
            return WrongHits { checks: self.checks, ..WrongHits::UNKNOWN };
        }
        let n = self.weight * self.weight / self.square;
        let (low, high) = wilson(self.differing / self.weight, n);
        let corrected = |rate: f64| ((rate as f32 - missed) / (1.0 - missed)).clamp(0.0, 1.0);
        let rate = corrected(self.differing / self.weight);
        WrongHits { rate, low: corrected(low), high: corrected(high), checks: self.checks }
    }
}

// === impl WrongHits ===

impl WrongHits {
    /// Before anything is checked.
    pub const UNKNOWN: Self = Self { rate: 0.0, low: 0.0, high: 1.0, checks: 0 };
}

/// 95 % interval of a share seen in `n` trials.
fn wilson(rate: f64, n: f64) -> (f64, f64) {
    const Z: f64 = 1.96;
    let scale = 1.0 + Z * Z / n;
    let centre = rate + Z * Z / (2.0 * n);
    let half = Z * (rate * (1.0 - rate) / n + Z * Z / (4.0 * n * n)).sqrt();
    ((centre - half) / scale, (centre + half) / scale)
}

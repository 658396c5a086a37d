//! The probability itself: pooled weights moved by the namespace's labels, a small forest for what is
//! not linear, and a calibration by what was foreseen.

use super::{
    EXAMPLES_MAX, Example, HALF_LIFE, ScopeTag,
    scopes::{Levels, Seen},
};
use crate::{
    boost::{self, Forest, Growth, Rows, Target},
    features,
    logistic::{Labelled, Noise, Prior, Weights, sigmoid},
    table::{Bins, INPUTS, Inputs, Table},
};

/// Standard deviation of a namespace's weights around the pooled ones.
const SPREAD: f32 = 0.6;
/// Noise of comparisons before anything is known:
/// one answer in thirty is off the point, and either of the two may be.
const NOISE: Noise = Noise { missed: 0.06, invented: 0.01 };
/// Labels that the assumption about noise is worth.
const NOISE_BELIEF: f64 = 1000.0;
/// Beyond this share labels cannot be told from noise.
const MISSED_MAX: f64 = 0.10;
/// Labels before a correction is fitted, and fits of the weights between two of its.
const CORRECT_AFTER: usize = 600;
const CORRECT_EVERY: u32 = 5;
/// Precision of the belief that logits need no shift and no scale.
const CALIBRATION_BELIEF: (f64, f64) = (150.0, 600.0);
/// Most hits that one checked hit stands for in the calibration.
const AUDIT_WEIGHT_MAX: f32 = 10.0;
/// Taken off the logits of texts in languages that the features know little of, while no labels of such texts
/// are there, and how many of them halve it. A third of the features are blind there, so what passes for a
/// paraphrase may differ in a negation.
const FOREIGN_DOUBT: f32 = 2.0;
const FOREIGN_BELIEF: f32 = 150.0;
const GROWTH: Growth =
    Growth { trees: 60, leaves: 7, rate: 0.08, hessian_min: 3.0, ridge: 3.0, features: 0.5, seed: 7 };

/// See the module.
#[derive(Clone, Debug)]
pub struct Model {
    weights: Weights,
    correction: Forest,
    levels: Levels,
    pub noise: Noise,
    /// Calibrated logit: first + second × logit.
    pub calibration: (f64, f64),
    /// Taken off the logits of texts in other languages.
    foreign_doubt: f32,
    fits: u32,
}

// === impl Model ===

impl Model {
    pub fn of_prior(table: &Table) -> Self {
        let precision = precision();
        let prior = Prior { mean: &table.weights, precision: &precision };
        Self {
            weights: Weights::of_prior(&prior),
            correction: Forest::default(),
            levels: Levels::default(),
            noise: NOISE,
            calibration: (0.0, 1.0),
            foreign_doubt: FOREIGN_DOUBT,
            fits: 0,
        }
    }

    /// Logit before calibration.
    pub fn logit(&self, inputs: &Inputs, bins: &Bins, scope: ScopeTag) -> f32 {
        self.weights.logit(inputs) as f32 + self.correction.logit(bins) + self.levels.of(scope)
    }

    /// The logit with what is taken off for the language.
    pub fn doubted(&self, logit: f32, english: bool) -> f32 {
        if english { logit } else { logit - self.foreign_doubt }
    }

    /// Standard deviation of the logit.
    pub fn deviation(&self, inputs: &Inputs) -> f32 {
        self.weights.deviation(inputs) as f32
    }

    /// The probability to act on.
    pub fn probability(&self, logit: f32, deviation: f32) -> f32 {
        let (shift, scale) = self.calibration;
        // The mean of the sigmoid over a Gaussian logit, in MacKay's approximation.
        let spread = 1.0 + std::f64::consts::PI / 8.0 * f64::from(deviation * deviation);
        sigmoid((shift + scale * f64::from(logit)) / spread.sqrt()) as f32
    }

    /// The model after `examples`, starting from this one; `now` is the number of the last request.
    pub(super) fn fit(&self, table: &Table, examples: &[Example], now: u64) -> Self {
        let inputs: Vec<Inputs> = examples.iter().map(|e| table.inputs_with(&e.bins, e.forest)).collect();
        let precision = precision();
        let prior = Prior { mean: &table.weights, precision: &precision };
        let weight = |e: &Example| e.weight * 0.5_f32.powf((now - e.at) as f32 / HALF_LIFE);
        let labels: Vec<Labelled<'_>> = examples
            .iter()
            .zip(&inputs)
            .map(|(e, inputs)| Labelled {
                inputs,
                offset: self.levels.of(e.scope),
                same: e.same,
                weight: weight(e),
            })
            .collect();
        let weights = self.weights.fit(&labels, &prior, &self.noise);
        let noise = noise(&weights, &labels, &self.noise);
        let mut next = Self { weights, noise, fits: self.fits + 1, ..self.clone() };
        if examples.len() >= CORRECT_AFTER && self.fits.is_multiple_of(CORRECT_EVERY) {
            next.correction = next.correct(examples, &labels);
        }
        let seen = |(e, label): (&Example, &Labelled<'_>)| Seen {
            scope: e.scope,
            logit: f64::from(next.correction.logit(&e.bins)) + next.weights.logit(label.inputs),
            same: f64::from(e.same),
            weight: f64::from(label.weight),
        };
        next.levels = Levels::fit(examples.iter().zip(&labels).map(seen).collect(), &next.noise);
        next.calibration = calibrate(examples, &next.noise);
        let foreign = examples.iter().filter(|e| !e.english).map(weight).sum::<f32>();
        next.foreign_doubt = FOREIGN_DOUBT * FOREIGN_BELIEF / (FOREIGN_BELIEF + foreign);
        next
    }

    /// Trees that start from the linear logit, fitted to what the labels probably mean.
    fn correct(&self, examples: &[Example], labels: &[Labelled<'_>]) -> Forest {
        let bins: Vec<u8> = examples.iter().flat_map(|e| e.bins).collect();
        let targets: Vec<Target> = labels
            .iter()
            .map(|l| {
                let logit = self.weights.logit(l.inputs) + f64::from(l.offset);
                let label = self.noise.posterior(sigmoid(logit), f64::from(l.same)) as f32;
                Target { label, weight: l.weight, logit: logit as f32 }
            })
            .collect();
        boost::fit(Rows { bins: &bins, width: features::COUNT }, &targets, &GROWTH)
    }
}

fn precision() -> [f32; INPUTS] {
    let mut precision = [1.0 / (SPREAD * SPREAD); INPUTS];
    // The level differs most between namespaces.
    precision[0] = 0.25;
    precision
}

/// Share of pairs believed the same that are labelled different, around what was assumed.
fn noise(weights: &Weights, labels: &[Labelled<'_>], before: &Noise) -> Noise {
    let (mut same, mut missed) = (NOISE_BELIEF, NOISE_BELIEF * NOISE.missed);
    for label in labels.iter().take(EXAMPLES_MAX) {
        let p = sigmoid(weights.logit(label.inputs) + f64::from(label.offset));
        if p < 0.9 {
            continue;
        }
        let truth = before.posterior(p, f64::from(label.same));
        same += truth;
        missed += truth * f64::from(1.0 - label.same);
    }
    Noise { missed: (missed / same).min(MISSED_MAX), invented: before.invented }
}

/// Shift and scale of the logits under which what was foreseen of the best candidates came true.
fn calibrate(examples: &[Example], noise: &Noise) -> (f64, f64) {
    let (mut shift, mut scale) = (0.0, 1.0);
    for _ in 0..8 {
        let (mut g0, mut g1) = (-CALIBRATION_BELIEF.0 * shift, -CALIBRATION_BELIEF.1 * (scale - 1.0));
        let (mut h00, mut h01, mut h11) = (CALIBRATION_BELIEF.0, 0.0, CALIBRATION_BELIEF.1);
        for (e, (logit, weight)) in examples.iter().filter_map(|e| e.foreseen.map(|f| (e, f))) {
            let z = f64::from(logit);
            let p = sigmoid(shift + scale * z);
            let weight = f64::from(weight.min(AUDIT_WEIGHT_MAX));
            let slope = weight * (noise.posterior(p, f64::from(e.same)) - p);
            let curve = weight * p * (1.0 - p);
            g0 += slope;
            g1 += slope * z;
            h00 += curve;
            h01 += curve * z;
            h11 += curve * z * z;
        }
        let det = h00 * h11 - h01 * h01;
        let (d0, d1) = ((h11 * g0 - h01 * g1) / det, (h00 * g1 - h01 * g0) / det);
        shift = (shift + d0.clamp(-0.5, 0.5)).clamp(-3.0, 3.0);
        scale = (scale + d1.clamp(-0.2, 0.2)).clamp(0.3, 1.5);
    }
    (shift, scale)
}

//! The model of a namespace: pooled weights updated by its labels, a small forest for what is not linear, and a
//! calibration by earlier predictions.

use super::{
    EXAMPLES_MAX, Example, HALF_LIFE, ScopeTag,
    scopes::{Levels, ScopeLabel},
};
use crate::{
    boost::{self, Forest, Growth, Rows, Target},
    features,
    logistic::{Labelled, Noise, Prior, Weights, sigmoid},
    table::{Bins, INPUTS, Inputs, Table},
};

/// Standard deviation of a namespace's weights around the pooled ones.
const SPREAD: f32 = 0.6;
/// Prior label noise of comparisons: one answer in thirty is off the point, and either of the two may be.
const NOISE: Noise = Noise { missed: 0.06, invented: 0.01 };
/// Labels that the noise prior counts for.
const NOISE_BELIEF: f64 = 1000.0;
/// Highest share of missed labels; beyond it labels cannot be distinguished from noise.
const MISSED_MAX: f64 = 0.10;
/// Labels before a correction is fitted, and fits of the weights between two corrections.
const CORRECT_AFTER: usize = 600;
const CORRECT_EVERY: u32 = 5;
/// Precision of the prior that logits need no shift and no scale.
const CALIBRATION_BELIEF: (f64, f64) = (150.0, 600.0);
/// Largest number of hits that one audited hit stands for in the calibration.
const AUDIT_WEIGHT_MAX: f32 = 10.0;
/// Penalty on the logits of texts in languages that the features know little about. A third of the features are blind
/// there, so an apparent paraphrase may differ in a negation.
const LANGUAGE_PENALTY: f32 = 2.0;
/// Labels of such texts that halve the penalty.
const LANGUAGE_LABELS: f32 = 150.0;
const GROWTH: Growth =
    Growth { trees: 60, leaves: 7, rate: 0.08, hessian_min: 3.0, ridge: 3.0, features: 0.5, seed: 7 };

/// The fitted model of one namespace.
#[derive(Clone, Debug)]
pub struct Model {
    weights: Weights,
    correction: Forest,
    levels: Levels,
    pub noise: Noise,
    /// Shift and scale: the calibrated logit is shift + scale × logit.
    pub calibration: (f64, f64),
    /// Subtracted from the logits of texts in other languages.
    language_penalty: f32,
    fits: u32,
}

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
            language_penalty: LANGUAGE_PENALTY,
            fits: 0,
        }
    }

    /// Logit before calibration.
    pub fn logit(&self, inputs: &Inputs, bins: &Bins, scope: ScopeTag) -> f32 {
        self.weights.logit(inputs) as f32 + self.correction.logit(bins) + self.levels.of(scope)
    }

    /// Logit after the penalty for other languages.
    pub fn penalised(&self, logit: f32, english: bool) -> f32 {
        if english { logit } else { logit - self.language_penalty }
    }

    /// Standard deviation of the logit.
    pub fn deviation(&self, inputs: &Inputs) -> f32 {
        self.weights.deviation(inputs) as f32
    }

    /// Calibrated probability, uncertainty included.
    pub fn probability(&self, logit: f32, deviation: f32) -> f32 {
        let (shift, scale) = self.calibration;
        // The mean of the sigmoid over a Gaussian logit, in MacKay's approximation.
        let spread = 1.0 + std::f64::consts::PI / 8.0 * f64::from(deviation * deviation);
        sigmoid((shift + scale * f64::from(logit)) / spread.sqrt()) as f32
    }

    /// Fits a model to `examples`, starting from this one; `now` is the number of the last request.
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
        let scope_label = |(e, label): (&Example, &Labelled<'_>)| ScopeLabel {
            scope: e.scope,
            logit: f64::from(next.correction.logit(&e.bins)) + next.weights.logit(label.inputs),
            same: f64::from(e.same),
            weight: f64::from(label.weight),
        };
        next.levels = Levels::fit(examples.iter().zip(&labels).map(scope_label).collect(), &next.noise);
        next.calibration = calibrate(examples, &next.noise);
        let others = examples.iter().filter(|e| !e.english).map(weight).sum::<f32>();
        next.language_penalty = LANGUAGE_PENALTY * LANGUAGE_LABELS / (LANGUAGE_LABELS + others);
        next
    }

    /// Fits trees on top of the linear logit, to the probable truth behind the labels.
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
    // The intercept differs most between namespaces.
    precision[0] = 0.25;
    precision
}

/// Share of equal pairs that are labelled different, starting from the prior.
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

/// Shift and scale of the logits under which earlier predictions of the best candidates came true.
fn calibrate(examples: &[Example], noise: &Noise) -> (f64, f64) {
    let (mut shift, mut scale) = (0.0, 1.0);
    for _ in 0..8 {
        let (mut g0, mut g1) = (-CALIBRATION_BELIEF.0 * shift, -CALIBRATION_BELIEF.1 * (scale - 1.0));
        let (mut h00, mut h01, mut h11) = (CALIBRATION_BELIEF.0, 0.0, CALIBRATION_BELIEF.1);
        for (e, (logit, weight)) in examples.iter().filter_map(|e| e.predicted.map(|f| (e, f))) {
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

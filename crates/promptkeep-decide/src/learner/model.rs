//! The model of a namespace: pooled weights updated by its labels, a small forest for what is not linear, and a
//! calibration by earlier predictions.

use super::{
    Example, HALF_LIFE, ScopeTag,
    scopes::{Levels, ScopeLabel},
    verifier::Verified,
    wrong_rate::SourceErrors,
};
use crate::{
    boost::{self, Forest, Growth, Rows, Target},
    features,
    logistic::{Labelled, Prior, Weights, posterior, sigmoid},
    table::{Bins, INPUTS, Inputs, Table},
};

/// Standard deviation of a namespace's weights around the pooled ones, and precision of its intercept. On sources that
/// the pooled weights were not trained on, wider ones made wrong hits that audits found too late.
const SPREAD: f32 = 0.1;
const INTERCEPT_PRECISION: f32 = 16.0;
/// Largest shift of the evidence of comparisons, and steps to find it.
const CENTRE_MAX: f64 = 3.0;
const CENTRE_STEPS: usize = 12;
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

    /// Fits a model and the error rates of the verifier to `examples`, starting from this one; `now` is the number of the
    /// last request.
    pub(super) fn fit(
        &self,
        table: &Table,
        examples: &[Example],
        now: u64,
        verifier: &SourceErrors,
    ) -> (Self, SourceErrors) {
        let of = |e: &Example| table.inputs_with(&e.bins, e.forest);
        let given = examples;
        let examples: Vec<Example> = given.iter().filter(|e| !e.review).copied().collect();
        let examples = examples.as_slice();
        let inputs: Vec<Inputs> = examples.iter().map(of).collect();
        let precision = precision();
        let prior = Prior { mean: &table.weights, precision: &precision };
        let weight = |e: &Example| e.weight * 0.5_f32.powf((now - e.at) as f32 / HALF_LIFE);
        let shift = centre(table, examples, &inputs);
        let total = |e: &Example| {
            let verdict = e.verdict.map_or(0.0, |fits| verifier.evidence(fits));
            e.evidence + verdict + if e.compared { shift } else { 0.0 }
        };
        let weighed: Vec<Example> = examples.iter().map(|e| Example { evidence: total(e), ..*e }).collect();
        let examples = weighed.as_slice();
        let labels: Vec<Labelled<'_>> = examples
            .iter()
            .zip(&inputs)
            .map(|(e, inputs)| Labelled {
                inputs,
                offset: self.levels.of(e.scope),
                evidence: e.evidence,
                weight: weight(e),
            })
            .collect();
        let weights = self.weights.fit(&labels, &prior);
        let mut next = Self { weights, fits: self.fits + 1, ..self.clone() };
        if examples.len() >= CORRECT_AFTER && self.fits.is_multiple_of(CORRECT_EVERY) {
            next.correction = next.correct(examples, &labels);
        }
        let scope_label = |(e, label): (&Example, &Labelled<'_>)| ScopeLabel {
            scope: e.scope,
            logit: f64::from(next.correction.logit(&e.bins)) + next.weights.logit(label.inputs),
            evidence: f64::from(e.evidence),
            weight: f64::from(label.weight),
        };
        next.levels = Levels::fit(examples.iter().zip(&labels).map(scope_label).collect());
        next.calibration = calibrate(examples);
        let others = examples.iter().filter(|e| !e.english).map(weight).sum::<f32>();
        next.language_penalty = LANGUAGE_PENALTY * LANGUAGE_LABELS / (LANGUAGE_LABELS + others);
        let verdicts = given.iter().filter(|e| e.verdict.is_some()).filter_map(|e| {
            Verified::of(e, next.weights.logit(&of(e)) + f64::from(self.levels.of(e.scope)), weight(e))
        });
        let verifier = SourceErrors::estimate(&verdicts.collect::<Vec<_>>());
        (next, verifier)
    }

    /// Fits trees on top of the linear logit, to the probable truth behind the labels.
    fn correct(&self, examples: &[Example], labels: &[Labelled<'_>]) -> Forest {
        let bins: Vec<u8> = examples.iter().flat_map(|e| e.bins).collect();
        let targets: Vec<Target> = labels
            .iter()
            .map(|l| {
                let logit = self.weights.logit(l.inputs) + f64::from(l.offset);
                let label = posterior(logit, f64::from(l.evidence)) as f32;
                Target { label, weight: l.weight, logit: logit as f32 }
            })
            .collect();
        boost::fit(Rows { bins: &bins, width: features::COUNT }, &targets, &GROWTH)
    }
}

/// Shift of the evidence of comparisons, never upwards, under which it makes no more pairs equal than the prompts do. How
/// alike answers are in general differs from namespace to namespace, so a comparison tells pairs apart but not how
/// many of them are equal: only labels of another making open a namespace wider than the prompts do.
fn centre(table: &Table, examples: &[Example], inputs: &[Inputs]) -> f32 {
    let pairs: Vec<(f64, f64, f64)> = examples
        .iter()
        .zip(inputs)
        .filter(|(e, _)| e.compared)
        .map(|(e, inputs)| {
            let logit = inputs.iter().zip(&table.weights).map(|(x, w)| f64::from(x * w)).sum();
            (logit, f64::from(e.evidence), f64::from(e.weight))
        })
        .collect();
    let (mut low, mut high) = (-CENTRE_MAX, CENTRE_MAX);
    for _ in 0..CENTRE_STEPS {
        let shift = 0.5 * (low + high);
        let change = |(logit, evidence, weight): &(f64, f64, f64)| {
            weight * (posterior(*logit, evidence + shift) - sigmoid(*logit))
        };
        if pairs.iter().map(change).sum::<f64>() > 0.0 { high = shift } else { low = shift }
    }
    (0.5 * (low + high)).min(0.0) as f32
}

fn precision() -> [f32; INPUTS] {
    let mut precision = [1.0 / (SPREAD * SPREAD); INPUTS];
    precision[0] = INTERCEPT_PRECISION;
    precision
}

/// Shift and scale of the logits under which earlier predictions of the best candidates came true, by labels that are
/// worth more than a comparison of answers.
fn calibrate(examples: &[Example]) -> (f64, f64) {
    let (mut shift, mut scale) = (0.0, 1.0);
    for _ in 0..8 {
        let (mut g0, mut g1) = (-CALIBRATION_BELIEF.0 * shift, -CALIBRATION_BELIEF.1 * (scale - 1.0));
        let (mut h00, mut h01, mut h11) = (CALIBRATION_BELIEF.0, 0.0, CALIBRATION_BELIEF.1);
        let trusted = examples.iter().filter(|e| !e.compared);
        for (e, (logit, weight)) in trusted.filter_map(|e| e.predicted.map(|f| (e, f))) {
            let z = f64::from(logit);
            let calibrated = shift + scale * z;
            let p = sigmoid(calibrated);
            let weight = f64::from(weight.min(AUDIT_WEIGHT_MAX));
            let slope = weight * (posterior(calibrated, f64::from(e.evidence)) - p);
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

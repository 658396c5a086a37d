//! Bayesian logistic regression on evidence: the most probable weights under a Gaussian prior, and the
//! curvature of the posterior there (Laplace approximation) as their uncertainty.

use super::table::{INPUTS, Inputs};

/// Maximum number of Newton steps of one fit. A fit starts from the weights of the previous one, so few are needed.
const STEPS_MAX: usize = 12;
/// A fit ends when every weight moves by less than this.
const MOVE_MIN: f64 = 1e-3;
/// Maximum number of times that a step is halved before the fit ends.
const HALVINGS_MAX: usize = 8;

/// One labelled pair.
#[derive(Clone, Copy, Debug)]
pub struct Labelled<'a> {
    /// Inputs of the linear model.
    pub inputs: &'a Inputs,
    /// Constant added to the linear logit.
    pub offset: f32,
    /// Log-likelihood ratio of what was observed: how much more probable it is if the pair asks the same.
    pub evidence: f32,
    /// Number of observations that it counts for.
    pub weight: f32,
}

/// Gaussian prior of the weights, with [`INPUTS`] independent components.
#[derive(Clone, Copy, Debug)]
pub struct Prior<'a> {
    /// Mean of each weight.
    pub mean: &'a [f32],
    /// Inverse variance of each weight.
    pub precision: &'a [f32],
}

/// Weights and their uncertainty.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// Most probable weights, one for each of the [`INPUTS`].
    pub mean: Vec<f64>,
    /// Cholesky factor of the precision matrix, [`INPUTS`] × [`INPUTS`] by rows; only the lower triangle is used.
    factor: Vec<f64>,
}

/// Probability that a pair asks the same after `evidence`, a log-likelihood ratio, given the `logit` before it.
pub fn posterior(logit: f64, evidence: f64) -> f64 {
    sigmoid(logit + evidence)
}

// === impl Weights ===

impl Weights {
    /// Returns the mean and precision of the prior.
    pub fn of_prior(prior: &Prior<'_>) -> Self {
        let mean = prior.mean.iter().map(|m| f64::from(*m)).collect();
        let mut factor = vec![0.0; INPUTS * INPUTS];
        for (i, precision) in prior.precision.iter().enumerate() {
            factor[i * INPUTS + i] = f64::from(*precision).sqrt();
        }
        Self { mean, factor }
    }

    /// Returns the linear logit of `inputs`.
    pub fn logit(&self, inputs: &Inputs) -> f64 {
        self.mean.iter().zip(inputs).map(|(w, x)| w * f64::from(*x)).sum()
    }

    /// Returns the standard deviation of the logit of `inputs`.
    pub fn deviation(&self, inputs: &Inputs) -> f64 {
        let mut solved = [0.0; INPUTS];
        for i in 0..INPUTS {
            let row = &self.factor[i * INPUTS..i * INPUTS + i];
            let known: f64 = row.iter().zip(&solved).map(|(l, z)| l * z).sum();
            solved[i] = (f64::from(inputs[i]) - known) / self.factor[i * INPUTS + i];
        }
        solved.iter().map(|z| z * z).sum::<f64>().sqrt()
    }

    /// Fits the weights to `labels`, starting from `self`. Only takes steps that lower the loss, so the fit cannot
    /// diverge.
    pub fn fit(&self, labels: &[Labelled<'_>], prior: &Prior<'_>) -> Self {
        let mut mean = self.mean.clone();
        let mut loss = loss(&mean, labels, prior);
        for _ in 0..STEPS_MAX {
            let (gradient, mut hessian) = derivatives(&mean, labels, prior);
            if !cholesky(&mut hessian) {
                break;
            }
            let step = solve(&hessian, &gradient);
            let Some((next, lower)) = shorten(&mean, &step, loss, |m| self::loss(m, labels, prior)) else {
                break;
            };
            let moved = mean.iter().zip(&next).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            (mean, loss) = (next, lower);
            if moved < MOVE_MIN {
                break;
            }
        }
        let mut factor = information(&mean, labels, prior);
        if !cholesky(&mut factor) {
            factor.clone_from(&self.factor);
        }
        Self { mean, factor }
    }
}

/// Halves the step until it lowers the loss. `None` when no step does.
fn shorten(mean: &[f64], step: &[f64], loss: f64, of: impl Fn(&[f64]) -> f64) -> Option<(Vec<f64>, f64)> {
    let mut share = 1.0;
    for _ in 0..HALVINGS_MAX {
        let next: Vec<f64> = mean.iter().zip(step).map(|(m, s)| m + share * s).collect();
        let lower = of(&next);
        if lower < loss {
            return Some((next, lower));
        }
        share *= 0.5;
    }
    None
}

/// Returns the probability of a logit.
pub fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

fn dot(mean: &[f64], label: &Labelled<'_>) -> f64 {
    let linear: f64 = mean.iter().zip(label.inputs).map(|(w, x)| w * f64::from(*x)).sum();
    linear + f64::from(label.offset)
}

/// Returns the negative log posterior, up to a constant.
fn loss(mean: &[f64], labels: &[Labelled<'_>], prior: &Prior<'_>) -> f64 {
    let mut loss = 0.0;
    for (i, m) in mean.iter().enumerate() {
        let off = m - f64::from(prior.mean[i]);
        loss += 0.5 * off * off * f64::from(prior.precision[i]);
    }
    for label in labels {
        let p = sigmoid(dot(mean, label));
        let ratio = f64::from(label.evidence).exp();
        // Divided by the larger of the two likelihoods, which does not depend on the weights.
        let likelihood = (p * ratio + 1.0 - p) / ratio.max(1.0);
        loss -= f64::from(label.weight) * likelihood.max(1e-12).ln();
    }
    loss
}

/// Returns the gradient of the log posterior and a positive definite curvature. The curvature is that of the expected
/// complete likelihood: the true value of each label has the probability that the current weights give it.
fn derivatives(mean: &[f64], labels: &[Labelled<'_>], prior: &Prior<'_>) -> (Vec<f64>, Vec<f64>) {
    let mut gradient: Vec<f64> =
        (0..INPUTS).map(|i| -(mean[i] - f64::from(prior.mean[i])) * f64::from(prior.precision[i])).collect();
    let mut hessian = diagonal(prior);
    for label in labels {
        let logit = dot(mean, label);
        let p = sigmoid(logit);
        let weight = f64::from(label.weight);
        let slope = weight * (posterior(logit, label.evidence.into()) - p);
        gradient.iter_mut().zip(label.inputs).for_each(|(g, x)| *g += slope * f64::from(*x));
        add_outer(&mut hessian, label.inputs, weight * (p * (1.0 - p)).max(1e-6));
    }
    (gradient, hessian)
}

/// Returns the observed information: the curvature of the prior and of what the evidence really says. Evidence that
/// leaves a pair as uncertain as before adds nothing.
fn information(mean: &[f64], labels: &[Labelled<'_>], prior: &Prior<'_>) -> Vec<f64> {
    let mut information = diagonal(prior);
    for label in labels {
        let logit = dot(mean, label);
        let (p, truth) = (sigmoid(logit), posterior(logit, label.evidence.into()));
        let known = (p * (1.0 - p) - truth * (1.0 - truth)).max(0.0);
        add_outer(&mut information, label.inputs, f64::from(label.weight) * known);
    }
    information
}

fn diagonal(prior: &Prior<'_>) -> Vec<f64> {
    let mut matrix = vec![0.0; INPUTS * INPUTS];
    for (i, precision) in prior.precision.iter().enumerate() {
        matrix[i * INPUTS + i] = f64::from(*precision);
    }
    matrix
}

/// Adds `weight` times the outer product of `inputs` to the lower triangle.
fn add_outer(matrix: &mut [f64], inputs: &Inputs, weight: f64) {
    for (i, x) in inputs.iter().enumerate() {
        let scaled = weight * f64::from(*x);
        let row = &mut matrix[i * INPUTS..=i * INPUTS + i];
        row.iter_mut().zip(inputs).for_each(|(m, y)| *m += scaled * f64::from(*y));
    }
}

/// Replaces the lower triangle by its Cholesky factor. Returns false when the matrix is not positive definite.
fn cholesky(matrix: &mut [f64]) -> bool {
    for i in 0..INPUTS {
        for j in 0..=i {
            let (a, b) = (&matrix[i * INPUTS..i * INPUTS + j], &matrix[j * INPUTS..j * INPUTS + j]);
            let sum: f64 = a.iter().zip(b).map(|(x, y)| x * y).sum();
            let rest = matrix[i * INPUTS + j] - sum;
            if i == j {
                if rest.is_nan() || rest <= 0.0 {
                    return false;
                }
                matrix[i * INPUTS + i] = rest.sqrt();
            } else {
                matrix[i * INPUTS + j] = rest / matrix[j * INPUTS + j];
            }
        }
    }
    true
}

/// Solves `L Lᵀ x = b` for the lower triangle `L` in `factor`.
fn solve(factor: &[f64], b: &[f64]) -> Vec<f64> {
    let mut x = b.to_vec();
    for i in 0..INPUTS {
        let known: f64 = (0..i).map(|j| factor[i * INPUTS + j] * x[j]).sum();
        x[i] = (x[i] - known) / factor[i * INPUTS + i];
    }
    for i in (0..INPUTS).rev() {
        let known: f64 = (i + 1..INPUTS).map(|j| factor[j * INPUTS + i] * x[j]).sum();
        x[i] = (x[i] - known) / factor[i * INPUTS + i];
    }
    x
}

//! The policy of vCache (Schroeder et al., "vCache: Verified Semantic Prompt Caching", arXiv 2502.03771), written
//! from its formulas: every entry learns a threshold from its own observations.
//!
//! Only the nearest entry is considered. Its observations are pairs (s, c): the similarity of a request to it, and
//! whether the model's answer to that request equals the entry's. The probability that its answer is right at
//! similarity s is modelled as
//!
//! > L(s, t, γ) = 1 / (1 + exp(−γ (s − t))),
//!
//! with t̂ and γ̂ of maximum likelihood. The model is called with probability
//!
//! > τ = min over ε of 1 − δ / (1 − (1 − ε) L(s, t′(ε), γ̂)),
//!
//! where t′(ε) is the upper end of t's confidence interval at level 1 − ε. Then a served answer is wrong with
//! probability at most (1 − τ)(1 − (1 − ε) L) ≤ δ.
//!
//! Where the paper leaves a choice, this follows its released implementation: an entry starts with the observations
//! (0, different) and (1, equal), it is not served before it has six, and an answer equal to the nearest entry's does
//! not become an entry.

use super::stream::{Entries, Stream};
use crate::Served;

/// Observations before an entry is served, including those that it starts with.
const OBSERVATIONS_MIN: usize = 6;
const START: [(f64, bool); 2] = [(0.0, false), (1.0, true)];

/// Number of levels tried for ε, evenly spaced between 0 and 1.
const LEVELS: usize = 50;

/// Runs over the stream, because the policy is randomised.
const RUNS: u64 = 5;

/// Variance of t̂ where similarity separates the observations, so that the likelihood has no maximum: the values that
/// the authors found in simulations, for six observations and for many.
const SEPARATED: (f64, f64) = (0.035, 0.01);

/// Keeps the fit finite where the likelihood has no maximum; far too weak to move an existing maximum.
const RIDGE: f64 = 1e-6;
const STEPS: usize = 100;

/// Estimate of one entry's threshold.
#[derive(Clone, Copy, Debug)]
struct Fit {
    threshold: f64,
    slope: f64,
    variance: f64,
}

/// Returns the mean over a few runs.
pub fn run(stream: &Stream, delta: f64) -> Served {
    let mut mean = Served::default();
    for seed in 0..RUNS {
        let served = run_once(stream, delta, seed);
        mean.correct += served.correct / RUNS as f64;
        mean.wrong += served.wrong / RUNS as f64;
    }
    mean
}

fn run_once(stream: &Stream, delta: f64, seed: u64) -> Served {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut entries = Entries::new(stream);
    let mut observations = vec![START.to_vec(); stream.len()];
    let mut served = Served::default();
    for request in 0..stream.len() {
        if let Some(entry) = entries.exact(request) {
            served.count(stream.is_right(request, entry));
            continue;
        }
        let Some((entry, similarity)) = entries.nearest(request) else {
            entries.add(request, true);
            continue;
        };
        let similarity = f64::from(similarity);
        if random.f64() > explore(&observations[entry], similarity, delta) {
            served.count(stream.is_right(request, entry));
        } else {
            let is_equal = stream.has_equal_answers(request, entry);
            observations[entry].push((similarity, is_equal));
            entries.add(request, !is_equal);
        }
    }
    served
}

/// Returns τ, the probability of calling the model.
fn explore(observations: &[(f64, bool)], similarity: f64, delta: f64) -> f64 {
    if observations.len() < OBSERVATIONS_MIN {
        return 1.0;
    }
    let fit = Fit::of(observations);
    let level = |n: usize| (n as f64 + 0.5) / LEVELS as f64;
    let tau = |epsilon: f64| {
        let threshold = (fit.threshold + quantile(1.0 - epsilon) * fit.variance.sqrt()).clamp(0.0, 1.0);
        let right = (1.0 - epsilon) * sigmoid(fit.slope * (similarity - threshold));
        1.0 - delta / (1.0 - right)
    };
    (0..LEVELS).map(|n| tau(level(n))).fold(1.0, f64::min)
}

fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

/// Returns a quantile of the standard normal distribution, by bisection of its distribution function.
fn quantile(probability: f64) -> f64 {
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        *if normal(middle) < probability { &mut low } else { &mut high } = middle;
    }
    (low + high) / 2.0
}

/// The normal distribution function, by Abramowitz and Stegun's formula 7.1.26, accurate to 1.5e-7.
fn normal(z: f64) -> f64 {
    const A: [f64; 5] = [0.254_829_592, -0.284_496_736, 1.421_413_741, -1.453_152_027, 1.061_405_429];
    let x = z.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let tail = A.iter().rev().fold(0.0, |sum, a| (sum + a) * t) * (-x * x).exp();
    if z < 0.0 { tail / 2.0 } else { 1.0 - tail / 2.0 }
}

impl Fit {
    /// Fits the logit a + γ s by Newton's method, so t = −a / γ. The variance follows by the delta method.
    fn of(observations: &[(f64, bool)]) -> Self {
        let (mut a, mut slope) = (0.0, 1.0);
        for _ in 0..STEPS {
            let (gradient, [h0, h1, h2]) = derivatives(observations, a, slope);
            let det = h0 * h2 - h1 * h1;
            let (da, db) =
                ((h2 * gradient[0] - h1 * gradient[1]) / det, (h0 * gradient[1] - h1 * gradient[0]) / det);
            // Long steps overshoot where the likelihood is flat.
            let scale = (20.0 / da.abs().max(db.abs())).min(1.0);
            a += scale * da;
            slope += scale * db;
            if da.abs().max(db.abs()) < 1e-8 {
                break;
            }
        }
        let slope = slope.max(1e-6);
        let variance = if is_separated(observations) {
            let few = OBSERVATIONS_MIN as f64 / observations.len() as f64;
            (SEPARATED.0 * few * few).max(SEPARATED.1)
        } else {
            let (_, [h0, h1, h2]) = derivatives(observations, a, slope);
            let (by_a, by_slope) = (-1.0 / slope, a / (slope * slope));
            let det = h0 * h2 - h1 * h1;
            (by_a * by_a * h2 - 2.0 * by_a * by_slope * h1 + by_slope * by_slope * h0) / det
        };
        Self { threshold: (-a / slope).clamp(0.0, 1.0), slope, variance }
    }
}

/// Returns the gradient of the log likelihood and its negative second derivatives by aa, aγ and γγ.
fn derivatives(observations: &[(f64, bool)], a: f64, slope: f64) -> ([f64; 2], [f64; 3]) {
    let mut gradient = [-RIDGE * a, -RIDGE * slope];
    let mut curvature = [RIDGE, 0.0, RIDGE];
    for (s, is_equal) in observations {
        let p = sigmoid(a + slope * s);
        let miss = f64::from(u8::from(*is_equal)) - p;
        gradient[0] += miss;
        gradient[1] += miss * s;
        let w = p * (1.0 - p);
        curvature[0] += w;
        curvature[1] += w * s;
        curvature[2] += w * s * s;
    }
    (gradient, curvature)
}

/// Whether every "equal" has a higher similarity than every "different".
fn is_separated(observations: &[(f64, bool)]) -> bool {
    let of =
        |wanted: bool| observations.iter().filter(move |(_, is_equal)| *is_equal == wanted).map(|(s, _)| *s);
    of(true).fold(f64::INFINITY, f64::min) > of(false).fold(f64::NEG_INFINITY, f64::max)
}

//! A confidence sequence for a share: intervals that hold it at every look with one probability.
//!
//! For trials with the means m₁, m₂, … and k successes among n, the ratio of a mixture of likelihoods to the likelihood
//! at the running mean p = (m₁ + … + mₙ) / n is at most a nonnegative martingale that starts at 1, because the logarithm
//! is concave. It ever exceeds 1/α with a probability of at most α (Ville's inequality), so the shares at which it stays
//! below 1/α hold the running mean at all times, also when it drifts. With a mixture of beta distributions the ratio has
//! a closed form in k and n.
//!
//! For weighted audits: let a hit be audited with the probability 1 / w, w ≤ W, and get a label x from 0 to 1 with the
//! mean m. Then exp(λ w x) for an audit, and 1 for none, is at most 1 + m (exp(λ W) − 1) / W on average, for either sign
//! of λ. So k = Σ w x / W takes the place of successes in as many trials as hits, each with the mean m / W. The heaviest
//! weight covers the case that all wrong hits are among those that are audited the least; a variance estimated from the
//! few audits there does not, and missed up to 9 % of simulated streams. Callers pass Σ w / W as the number of trials,
//! of mean m each: they divide by the sum of the weights, so how many hits were audited does not matter.
//!
//! Sources: Robbins, "Statistical methods related to the law of the iterated logarithm" (1970); Howard, Ramdas, McAuliffe
//! and Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences" (2021), the beta-binomial mixture.

/// One minus the confidence.
const ALPHA: f64 = 0.05;

/// Weights and parameters of the mixed beta distributions. Most weight is near the shares of a good cache; the rest
/// keeps the interval narrow when half of the labels say "different".
const MIXTURE: [(f64, f64, f64); 2] = [(0.8, 1.0, 12.0), (0.2, 2.0, 2.0)];

/// Most trials that are believed. Beyond it the logarithms lose the precision that the ratio needs.
const TRIALS_MAX: f64 = 1e9;

/// Halvings of the distance to an end of the interval.
const HALVINGS: usize = 26;

/// Returns the ends of the interval for a `share` seen in `trials`, which need not be whole numbers.
pub(super) fn interval(share: f64, trials: f64) -> (f64, f64) {
    let trials = trials.clamp(0.0, TRIALS_MAX);
    let successes = share * trials;
    let floor = ALPHA.ln() + log_mixture(successes, trials - successes);
    let holds = |p: f64| log_likelihood(p, successes, trials - successes) > floor;
    (end(share, 0.0, holds), end(share, 1.0, holds))
}

/// The last point from `inside` towards `limit` that `holds`, or a point just beyond it.
fn end(mut inside: f64, limit: f64, holds: impl Fn(f64) -> bool) -> f64 {
    if holds(limit) {
        return limit;
    }
    let mut outside = limit;
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(inside, outside);
        *(if holds(middle) { &mut inside } else { &mut outside }) = middle;
    }
    outside
}

fn log_likelihood(p: f64, successes: f64, failures: f64) -> f64 {
    // 0 × ln 0 is 0 here.
    let term = |count: f64, p: f64| if count > 0.0 { count * p.ln() } else { 0.0 };
    term(successes, p) + term(failures, 1.0 - p)
}

fn log_mixture(successes: f64, failures: f64) -> f64 {
    let logs = MIXTURE.map(|(weight, a, b): (f64, f64, f64)| {
        weight.ln() + log_beta(a + successes, b + failures) - log_beta(a, b)
    });
    let max = logs.into_iter().fold(f64::NEG_INFINITY, f64::max);
    max + logs.iter().map(|log| (log - max).exp()).sum::<f64>().ln()
}

fn log_beta(a: f64, b: f64) -> f64 {
    log_gamma(a) + log_gamma(b) - log_gamma(a + b)
}

/// Logarithm of the gamma function for x > 0: Stirling's series beyond 8, and Γ(x + 1) = x Γ(x) below.
fn log_gamma(x: f64) -> f64 {
    const LOG_ROOT_TAU: f64 = 0.918_938_533_204_672_7;
    let (mut z, mut product) = (x, 1.0);
    while z < 8.0 {
        product *= z;
        z += 1.0;
    }
    let series = (1.0 / 12.0 - (1.0 / 360.0 - 1.0 / (1260.0 * z * z)) / (z * z)) / z;
    (z - 0.5) * z.ln() - z + LOG_ROOT_TAU + series - product.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gamma_function_is_right() {
        for (x, log) in
            [(1.0, 0.0), (2.0, 0.0), (0.5, 0.572_364_942_924_700_1), (11.0, 15.104_412_573_075_516)]
        {
            assert!((log_gamma(x) - log).abs() < 1e-9, "{x}");
        }
    }

    #[test]
    fn an_interval_holds_its_share_and_narrows() {
        for share in [0.0, 0.01, 0.1, 0.5, 0.9, 1.0] {
            let mut width = 1.0;
            for trials in [0.0, 1.0, 10.0, 100.0, 1e4, 1e8, 1e15] {
                let (low, high) = interval(share, trials);
                assert!((0.0..=share).contains(&low) && (share..=1.0).contains(&high), "{share} of {trials}");
                assert!(high - low <= width, "{share} of {trials}");
                width = high - low;
            }
        }
        assert_eq!(interval(0.3, 0.0), (0.0, 1.0));
    }
}

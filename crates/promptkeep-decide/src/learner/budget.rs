//! The threshold: the lowest probability that may be served within two error budgets.

use super::{asking, wrong_rate::SourceErrors};
use crate::logistic::sigmoid;

/// Allowed shares of wrong answers. Both apply.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Among all requests.
    pub max_error_rate: f32,
    /// Among semantic hits.
    pub max_wrong_hits: f32,
}

/// Shares of the budgets that expected errors may use. The rest covers what the model does not know.
const MARGIN_REQUESTS: f32 = 0.42;
const MARGIN_HITS: f32 = 0.75;
/// The share of the budget of requests where the labels are those of a good verifier.
const MARGIN_VERIFIED: f32 = 0.6;
/// Upper ends of a verifier's rate of false yes: below the first it is good, above the second no better than none.
const GOOD_VERIFIER: (f32, f32) = (0.035, 0.065);

/// Logits of the thresholds that are tried: the lowest, the step, and their number.
const LOWEST: f64 = -2.0;
const STEP: f64 = 0.1;
const STEPS: usize = 111;

/// Factors on expected errors: errors that audits observed over those that the model expected. A factor below 1 applies
/// to the budget of hits only, because every audit is one of them; the budget of requests was exceeded on some kinds of
/// traffic when it applied there too.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Surplus {
    pub of_requests: f32,
    pub of_hits: f32,
}

/// Lowest factor on the expected errors of hits, however few were observed.
const SURPLUS_MIN: f32 = 0.8;

/// The best candidate of a recent request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Estimate {
    pub probability: f32,
    /// Price of asking a verifier, where one could be asked.
    pub price: Option<f32>,
}

/// What recent requests would have got, which gives the threshold for any budget.
#[derive(Clone, Debug, Default)]
pub struct Threshold {
    /// By threshold, lowest first.
    steps: Vec<Step>,
    /// Number of recent requests, including those without a candidate.
    requests: usize,
    /// Share of the budget of requests that expected errors may use.
    margin: f32,
    pub surplus: Surplus,
}

/// What a threshold would have served.
#[derive(Clone, Copy, Debug)]
struct Step {
    threshold: f32,
    hits: f32,
    wrong: f32,
}

impl Surplus {
    /// `observed` is the multiple of the expected errors; `warm_up` multiplies both factors while there are few labels.
    pub fn new(observed: f32, warm_up: f32) -> Self {
        Self { of_requests: warm_up * observed.max(1.0), of_hits: warm_up * observed.max(SURPLUS_MIN) }
    }
}

impl Default for Surplus {
    fn default() -> Self {
        Self::new(1.0, 1.0)
    }
}

impl Threshold {
    /// Of the best candidates of so many recent `requests`.
    pub(super) fn new(best: &[Estimate], requests: usize, surplus: Surplus, errors: &SourceErrors) -> Self {
        let step = |n| {
            let threshold = sigmoid(LOWEST + STEP * n as f64) as f32;
            let mut step = Step { threshold, hits: 0.0, wrong: 0.0 };
            for Estimate { probability, price } in best {
                let expected = asking::of_best(*probability, threshold, errors, *price);
                step.hits += expected.hits;
                step.wrong += expected.wrong;
            }
            step
        };
        Self { steps: (0..STEPS).map(step).collect(), requests, margin: margin(errors), surplus }
    }

    /// Whether no fit has set it yet.
    pub fn is_unknown(&self) -> bool {
        self.requests == 0
    }

    /// Explains the threshold for `budget`.
    pub fn reason(&self, budget: &Budget) -> String {
        format!(
            "expected errors of the last {} requests stay within {:.2} % of requests and {:.1} % of hits, multiplied \
             by {:.2} and {:.2} after audits",
            self.requests,
            100.0 * self.margin * budget.max_error_rate,
            100.0 * MARGIN_HITS * budget.max_wrong_hits,
            self.surplus.of_requests,
            self.surplus.of_hits,
        )
    }

    /// Lowest probability that may be served; above 1 if nothing may.
    pub fn at(&self, budget: &Budget) -> f32 {
        let per_request =
            self.margin * budget.max_error_rate * self.requests as f32 / self.surplus.of_requests;
        let per_hit = MARGIN_HITS * budget.max_wrong_hits / self.surplus.of_hits;
        let fits = |step: &&Step| step.wrong <= per_request && step.wrong <= per_hit * step.hits;
        self.steps.iter().find(fits).filter(|step| step.hits > 0.0).map_or(2.0, |step| step.threshold)
    }
}
/// Share of the budget of requests that expected errors may use with a verifier of these error rates.
fn margin(errors: &SourceErrors) -> f32 {
    let (good, useless) = GOOD_VERIFIER;
    let trust = ((useless - errors.false_same.high) / (useless - good)).clamp(0.0, 1.0);
    MARGIN_REQUESTS + trust * (MARGIN_VERIFIED - MARGIN_REQUESTS)
}

//! The threshold: the lowest probability that may be served within two error budgets.

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

/// Recent probabilities, which give the threshold for any budget.
#[derive(Clone, Debug, Default)]
pub struct Threshold {
    /// Probabilities of the best candidates of recent requests, in descending order.
    sorted: Vec<f32>,
    /// Expected errors when the candidates up to this index are served.
    expected: Vec<f32>,
    /// Number of recent requests, including those without a candidate.
    requests: usize,
    pub surplus: Surplus,
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
    pub fn new(mut probabilities: Vec<f32>, requests: usize, surplus: Surplus) -> Self {
        probabilities.sort_by(|a, b| b.total_cmp(a));
        let mut sum = 0.0;
        let expected = probabilities
            .iter()
            .map(|p| {
                sum += 1.0 - p;
                sum
            })
            .collect();
        Self { sorted: probabilities, expected, requests, surplus }
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
            100.0 * MARGIN_REQUESTS * budget.max_error_rate,
            100.0 * MARGIN_HITS * budget.max_wrong_hits,
            self.surplus.of_requests,
            self.surplus.of_hits,
        )
    }

    /// Lowest probability that may be served; above 1 if nothing may.
    pub fn at(&self, budget: &Budget) -> f32 {
        let per_request =
            MARGIN_REQUESTS * budget.max_error_rate * self.requests as f32 / self.surplus.of_requests;
        let per_hit = MARGIN_HITS * budget.max_wrong_hits / self.surplus.of_hits;
        let fits =
            |i: &usize| self.expected[*i] <= per_request && self.expected[*i] <= per_hit * (*i + 1) as f32;
        (0..self.sorted.len()).rev().find(fits).map_or(2.0, |i| self.sorted[i])
    }
}

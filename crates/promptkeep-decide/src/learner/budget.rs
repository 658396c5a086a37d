//! From probabilities to a threshold that keeps two budgets.

/// Shares of wrong answers that are allowed. Both hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Of all requests.
    pub max_error_rate: f32,
    /// Of the semantic hits.
    pub max_wrong_hits: f32,
}

/// Parts of the budgets that expected errors may use: the rest is for what the model does not know.
const MARGIN_REQUESTS: f32 = 0.8;
const MARGIN_HITS: f32 = 0.9;

/// By how much expected errors are multiplied: what checks observed over what they were expected to. Fewer errors
/// than expected count for the budget of hits only, where each check is one of them; that of requests was exceeded
/// on some kinds of traffic when they counted there too.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Surplus {
    pub of_requests: f32,
    pub of_hits: f32,
}

/// Least that expected errors of hits are multiplied by, however few were observed.
const SURPLUS_MIN: f32 = 0.8;

/// Recent probabilities, from which the threshold for any budget is read.
#[derive(Clone, Debug, Default)]
pub struct Threshold {
    /// Probability of the best candidates of recent requests, the surest first.
    sorted: Vec<f32>,
    /// Expected errors when everything up to here is served.
    expected: Vec<f32>,
    /// Number of recent requests, those without a candidate included.
    requests: usize,
    pub surplus: Surplus,
}

// === impl Surplus ===

impl Surplus {
    /// Of the errors `observed` as a multiple of those expected; `young` multiplies both, while there are few
    /// labels.
    pub fn new(observed: f32, young: f32) -> Self {
        Self { of_requests: young * observed.max(1.0), of_hits: young * observed.max(SURPLUS_MIN) }
    }
}

impl Default for Surplus {
    fn default() -> Self {
        Self::new(1.0, 1.0)
    }
}

// === impl Threshold ===

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

    /// Why the threshold for `budget` is where it is, for `Explain`.
    pub fn reason(&self, budget: &Budget) -> String {
        format!(
            "expected errors of the last {} requests within {:.2} % of requests and {:.1} % of hits, counted {:.2} \
             and {:.2} times after checks",
            self.requests,
            100.0 * MARGIN_REQUESTS * budget.max_error_rate,
            100.0 * MARGIN_HITS * budget.max_wrong_hits,
            self.surplus.of_requests,
            self.surplus.of_hits,
        )
    }

    /// Lowest probability that may be served; above 1 when nothing may.
    pub fn at(&self, budget: &Budget) -> f32 {
        let per_request =
            MARGIN_REQUESTS * budget.max_error_rate * self.requests as f32 / self.surplus.of_requests;
        let per_hit = MARGIN_HITS * budget.max_wrong_hits / self.surplus.of_hits;
        let fits =
            |i: &usize| self.expected[*i] <= per_request && self.expected[*i] <= per_hit * (*i + 1) as f32;
        (0..self.sorted.len()).rev().find(fits).map_or(2.0, |i| self.sorted[i])
    }
}

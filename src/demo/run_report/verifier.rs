//! The report's part on the simulated verifier: its calls, errors and cost, and the hits that it approved.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    config::VerifyConfig,
    demo::{
        exchange::{Exchange, Run},
        grading::Case,
        simulated_upstream::{self, VERIFIER_ERRORS},
        traffic::Traffic,
    },
    model::Tier,
    offline::{
        StatedErrors,
        report::{count, share},
        simulated_verifier::VerdictCounts,
    },
    outcome::Outcome,
};

/// See the [module](self).
#[derive(Clone, Debug, Serialize)]
pub struct VerifierReport {
    /// Id of the simulated model.
    pub model: String,
    /// Rates at which it is made to err.
    pub stated_errors: StatedErrors,
    /// What it said of each pair, held against the ground truth.
    pub pairs: VerdictCounts,
    /// Calls by verdict, counted by the server.
    pub verdicts: BTreeMap<String, usize>,
    pub cost_usd: f64,
    /// `cost_usd` as a share of what the requests would have cost without a cache, 0 to 1.
    pub share_of_spend: f64,
    /// Limit of `share_of_spend`, beyond a small sum to start with.
    pub max_share_of_spend: f64,
    /// Semantic hits by what approved them: `surface`, `learned` or `verified`.
    pub hits: BTreeMap<String, usize>,
    /// Hits that it approved with the answer to another question.
    pub wrong_hits: usize,
    /// Price of the calls that its hits avoided.
    pub saved_usd: f64,
}

impl VerifierReport {
    pub(super) fn new(traffic: &Traffic, run: &Run) -> Self {
        let exchanges = &run.exchanges;
        let mut models = simulated_upstream::models().into_iter();
        let model =
            models.find(|model| model.tier == Tier::Economy).expect("the catalog has an economy tier");
        let cost_usd = run.verifications.cost_usd;
        let without_cache: f64 = exchanges.iter().map(without_cache).sum();
        let semantic = exchanges.iter().filter(|exchange| exchange.outcome == Outcome::Semantic);
        let approvals = semantic.filter_map(|exchange| exchange.matched.as_ref());
        let cases = Case::all(traffic, exchanges);
        Self {
            model: model.id,
            stated_errors: VERIFIER_ERRORS,
            pairs: run.verdicts,
            verdicts: run.verifications.verdicts.clone(),
            cost_usd,
            share_of_spend: if without_cache > 0.0 { cost_usd / without_cache } else { 0.0 },
            max_share_of_spend: VerifyConfig::default().max_share_of_spend,
            hits: count(approvals.map(|matched| matched.approved_by.clone())),
            wrong_hits: cases.iter().filter(|case| case.exchange.is_verified() && !case.is_right()).count(),
            saved_usd: exchanges.iter().filter(|e| e.is_verified()).map(|e| e.saved_usd).sum(),
        }
    }

    /// Semantic hits that the verifier approved.
    pub fn verified_hits(&self) -> usize {
        self.hits.get("verified").copied().unwrap_or_default()
    }

    /// Semantic hits of all kinds.
    pub fn semantic_hits(&self) -> usize {
        self.hits.values().sum()
    }

    /// False yes and false no: the stated rate, the wrong verdicts, and all verdicts on such pairs.
    pub(super) fn errors(&self) -> [(&'static str, f64, usize, usize); 2] {
        let VerdictCounts { different, false_yes, same, false_no } = self.pairs;
        [
            ("false yes", self.stated_errors.false_yes, false_yes, different),
            ("false no", self.stated_errors.false_no, false_no, same),
        ]
    }

    /// Share of the semantic hits that it approved.
    pub fn verified_share(&self) -> f64 {
        share(self.verified_hits(), self.semantic_hits())
    }
}

/// Price of a request without a cache: of its model call, or of the one that the hit avoided.
fn without_cache(exchange: &Exchange) -> f64 {
    exchange.saved_usd + if exchange.called_model() { exchange.usage.cost_usd } else { 0.0 }
}

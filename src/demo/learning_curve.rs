//! The learning curve of the concierge's namespace: for each block of its requests, what was served, how much of it
//! was wrong by the ground truth, and how much the cache itself measured to be wrong.

use serde::Serialize;

use crate::{
    config::CacheConfig,
    decide::learner::WrongHits,
    demo::{
        exchange::Run,
        grading::Case,
        traffic::{Traffic, concierge},
    },
    offline::report::share,
    outcome::Outcome,
};

/// Requests of one block.
const BLOCK: usize = 100;

/// See the [module](self).
#[derive(Clone, Debug, Serialize)]
pub struct LearningCurve {
    pub namespace: &'static str,
    pub blocks: Vec<Block>,
    /// The blocks together, with the last estimate.
    #[serde(skip)]
    pub all: Block,
    /// Wrong hits of every kind, as a share of the requests, 0 to 1.
    pub error_rate: f64,
    /// Budget for `error_rate`.
    pub max_error_rate: f64,
    /// Wrong ones as a share of the semantic hits, 0 to 1.
    pub wrong_hits: f64,
    /// Budget for `wrong_hits`.
    pub max_wrong_hits: f64,
}

/// Successive requests of the concierge.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Block {
    pub requests: usize,
    /// Requests with an equivalent, finished request before them.
    pub possible: usize,
    pub exact: usize,
    pub coalesced: usize,
    pub semantic: usize,
    /// Semantic hits that the verifier approved.
    pub verified: usize,
    /// Semantic hits with the answer to another question.
    pub wrong_semantic: usize,
    /// Hits of every kind with the answer to another question. A wrong alias makes its repeats wrong exact hits.
    pub wrong: usize,
    /// Model calls that audited semantic hits in the background.
    pub checked: u64,
    /// The cache's own estimate at the end of the block.
    pub measured: Option<WrongHits>,
}

/// Returns the positions in the traffic where every block but the first begins.
pub fn block_starts(traffic: &Traffic) -> Vec<usize> {
    let requests = traffic.requests().iter().enumerate();
    let learning = requests.filter(|(_, request)| request.namespace == concierge::NAMESPACE);
    learning.map(|(index, _)| index).skip(BLOCK).step_by(BLOCK).collect()
}

impl LearningCurve {
    /// Returns `None` if the concierge got no requests.
    pub fn new(traffic: &Traffic, run: &Run) -> Option<Self> {
        let mut cases = Case::all(traffic, &run.exchanges);
        cases.retain(|case| case.request.namespace == concierge::NAMESPACE);
        if cases.is_empty() {
            return None;
        }
        let mut blocks: Vec<_> = cases.chunks(BLOCK).map(|block| Block::new(block, &cases)).collect();
        let mut checked = 0;
        for (block, measured) in blocks.iter_mut().zip(&run.wrong_hits) {
            let until = measured.map_or(checked, |measured| measured.checks);
            block.checked = until - checked;
            block.measured = *measured;
            checked = until;
        }
        let measured = blocks.last().and_then(|block| block.measured);
        let all = Block { checked, measured, ..Block::new(&cases, &cases) };
        let budget = CacheConfig::default();
        Some(Self {
            namespace: concierge::NAMESPACE,
            blocks,
            error_rate: share(all.wrong, all.requests),
            max_error_rate: budget.max_error_rate.into(),
            wrong_hits: share(all.wrong_semantic, all.semantic),
            max_wrong_hits: budget.max_wrong_hits.into(),
            all,
        })
    }
}

impl Block {
    fn new(cases: &[Case<'_>], all: &[Case<'_>]) -> Self {
        let mut block = Self { requests: cases.len(), ..Self::default() };
        for case in cases {
            let outcome = case.exchange.outcome;
            let is_wrong = outcome.is_hit() && !case.is_right();
            block.possible += usize::from(case.has_equivalent_before(all));
            block.exact += usize::from(outcome == Outcome::Exact);
            block.coalesced += usize::from(outcome == Outcome::Coalesced);
            block.semantic += usize::from(outcome == Outcome::Semantic);
            block.verified += usize::from(case.exchange.is_verified());
            block.wrong_semantic += usize::from(outcome == Outcome::Semantic && is_wrong);
            block.wrong += usize::from(is_wrong);
        }
        block
    }
}

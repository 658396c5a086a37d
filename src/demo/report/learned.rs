//! How an application's namespace opened as the cache learned it: block by block of its requests, what was
//! served, what of it was wrong by the ground truth, and what the cache itself measured.

use serde::Serialize;

use super::judge::Case;
use crate::{
    config::CacheConfig,
    demo::{
        record::{Measured, Record},
        traffic::{Traffic, concierge},
    },
    outcome::Outcome,
};

/// Requests of one block.
const BLOCK: usize = 100;

/// What the cache made of the traffic that it learns from.
#[derive(Clone, Debug, Serialize)]
pub struct Learned {
    pub namespace: &'static str,
    pub blocks: Vec<Block>,
    /// Wrong hits of all kinds, as a share of the requests, 0 to 1.
    pub error_rate: f64,
    /// The budget for it.
    pub max_error_rate: f64,
    /// Wrong ones as a share of the semantic hits, 0 to 1.
    pub wrong_hits: f64,
    /// The budget for it.
    pub max_wrong_hits: f64,
}

/// Some successive requests of the application.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Block {
    pub requests: usize,
    /// Those with an equivalent, finished request before them.
    pub possible: usize,
    pub exact: usize,
    pub coalesced: usize,
    pub semantic: usize,
    /// Semantic hits with the answer to another question.
    pub wrong_semantic: usize,
    /// All hits with the answer to another question: what was wrongly taken for the same stays so.
    pub wrong: usize,
    /// Calls in the background to check semantic hits.
    pub checked: u64,
    /// The cache's own estimate of wrong semantic hits at the end of the block.
    pub measured: Option<Measured>,
}

/// Where in the traffic blocks begin, the first one excepted.
pub fn block_starts(traffic: &Traffic) -> Vec<usize> {
    let requests = traffic.requests().iter().enumerate();
    let learning = requests.filter(|(_, request)| request.namespace == concierge::NAMESPACE);
    learning.map(|(index, _)| index).skip(BLOCK).step_by(BLOCK).collect()
}

// === impl Learned ===

impl Learned {
    /// `None` where the application asked nothing. `measured` is of the ends of its blocks.
    pub(super) fn of(traffic: &Traffic, records: &[Record], measured: &[Option<Measured>]) -> Option<Self> {
        let case = |record| Case { traffic, record, request: &traffic.requests()[record.index] };
        let cases: Vec<_> =
            records.iter().map(case).filter(|case| case.request.namespace == concierge::NAMESPACE).collect();
        if cases.is_empty() {
            return None;
        }
        let mut blocks: Vec<_> = cases.chunks(BLOCK).map(|block| Block::of(block, &cases)).collect();
        let mut checked = 0;
        for (block, measured) in blocks.iter_mut().zip(measured) {
            let until = measured.map_or(checked, |measured| measured.checked);
            block.checked = until - checked;
            block.measured = *measured;
            checked = until;
        }
        let all = Block::sum(&blocks);
        let budget = CacheConfig::default();
        Some(Self {
            namespace: concierge::NAMESPACE,
            blocks,
            error_rate: super::share(all.wrong, all.requests),
            max_error_rate: budget.max_error_rate.into(),
            wrong_hits: super::share(all.wrong_semantic, all.semantic),
            max_wrong_hits: budget.max_wrong_hits.into(),
        })
    }
}

// === impl Block ===

impl Block {
    fn of(cases: &[Case<'_>], all: &[Case<'_>]) -> Self {
        let count = |which: &dyn Fn(&Case<'_>) -> bool| cases.iter().filter(|case| which(case)).count();
        let of = |outcome| count(&|case| case.record.outcome == outcome);
        let is_wrong = |case: &Case<'_>| case.record.outcome.is_hit() && !case.is_right();
        Self {
            requests: cases.len(),
            possible: count(&|case| case.has_equivalent_before(all)),
            exact: of(Outcome::Exact),
            coalesced: of(Outcome::Coalesced),
            semantic: of(Outcome::Semantic),
            wrong_semantic: count(&|case| case.record.outcome == Outcome::Semantic && is_wrong(case)),
            wrong: count(&is_wrong),
            checked: 0,
            measured: None,
        }
    }

    /// Of all together; the last estimate stands for all.
    pub(super) fn sum(blocks: &[Self]) -> Self {
        let mut sum = Self::default();
        for block in blocks {
            sum.requests += block.requests;
            sum.possible += block.possible;
            sum.exact += block.exact;
            sum.coalesced += block.coalesced;
            sum.semantic += block.semantic;
            sum.wrong_semantic += block.wrong_semantic;
            sum.wrong += block.wrong;
            sum.checked += block.checked;
            sum.measured = block.measured;
        }
        sum
    }
}

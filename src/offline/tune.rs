//! Labelled traffic through an offline pipeline: which hits the cache would serve, and how many of them would be
//! wrong. The cache learns from the answers in the traffic, as it does from upstream calls in production.

mod accuracy_report;
mod labelled;

use std::{collections::HashMap, path::Path};

use indicatif::ProgressIterator as _;

use crate::{
    config::{Config, Mode, RoutingConfig},
    offline::{self, ModelAnswer, OfflineError, OfflinePipeline},
    outcome::Outcome,
    pipeline::Reply,
};

pub use self::{
    accuracy_report::{Report, RowResult},
    labelled::{Row, read},
};

/// How rows are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Rows are requests: a miss is answered by the row's answer, stored and learned from.
    Online,
    /// Every row is a miss and becomes an entry, and nothing is learned. Measures how sure a namespace without
    /// experience would be of each row's best candidate.
    ScoreOnly,
}

/// Why a run stopped.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    #[error(transparent)]
    Offline(#[from] OfflineError),
    #[error("row {id}: {error}")]
    Request { id: String, error: crate::error::Error },
}

/// A run in progress.
struct Run<'a> {
    rows: &'a [Row],
    protocol: Protocol,
    /// First row with each answer.
    row_of_answer: HashMap<String, usize>,
}

/// Runs the rows of a file: online if all of them have answers.
///
/// # Errors
/// As [`read`] and [`run`].
pub async fn run_file(path: &Path, config: Config) -> anyhow::Result<Report> {
    let rows = read(path)?;
    let protocol = if rows.iter().all(Row::has_answer) { Protocol::Online } else { Protocol::ScoreOnly };
    Ok(run(&rows, protocol, config).await?)
}

/// Runs `rows` in their order, with the decision settings of `config`.
///
/// # Errors
/// [`TuneError`], naming the row.
pub async fn run(rows: &[Row], protocol: Protocol, config: Config) -> Result<Report, TuneError> {
    let pipeline = OfflinePipeline::start(configure(config, protocol)).await?;
    let mut run = Run { rows, protocol, row_of_answer: HashMap::new() };
    let mut results = Vec::with_capacity(rows.len());
    for (index, row) in rows.iter().enumerate().progress() {
        let answer = ModelAnswer { text: row.answer(), usage: None };
        let reply = pipeline.complete(row.prompt(), answer).await;
        let reply = reply.map_err(|error| TuneError::Request { id: row.id.clone(), error })?;
        results.push(run.result(index, &reply));
    }
    let misses = results.iter().filter(|result| result.is_miss).count();
    let extra_calls = pipeline.calls().saturating_sub(misses);
    let measured = pipeline.pipeline().statistics.wrong_hits(None);
    pipeline.stop().await.map_err(OfflineError::from)?;
    Ok(Report::new(rows, results, protocol, extra_calls, measured))
}

fn configure(mut config: Config, protocol: Protocol) -> Config {
    config.routing = RoutingConfig::default();
    offline::use_free_models(&mut config, []);
    if protocol == Protocol::ScoreOnly {
        config.cache.mode = Mode::Shadow;
        config.cache.learning.max_comparisons = 0;
    }
    config
}

impl Run<'_> {
    fn result(&mut self, index: usize, reply: &Reply) -> RowResult {
        let (row, matched) = (&self.rows[index], reply.matched.as_ref());
        let of = matched.and_then(|matched| self.row_of_answer.get(&matched.entry.completion.content));
        let of = of.map(|of| &self.rows[*of]);
        let is_hit = matches!(reply.outcome, Outcome::Exact | Outcome::Semantic);
        self.row_of_answer.entry(row.answer()).or_insert(index);
        RowResult {
            id: row.id.clone(),
            // A score-only run treats an exact repeat as one more entry.
            hit: is_hit && self.protocol == Protocol::Online,
            matched: of.map(|of| of.id.clone()),
            score: matched.map_or(0.0, |matched| matched.confidence),
            similarity: matched.map_or(0.0, |matched| matched.similarity),
            is_miss: !is_hit,
            is_right: of.is_some_and(|of| of.class == row.class),
        }
    }
}

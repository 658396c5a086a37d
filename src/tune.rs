//! Labelled traffic through the real pipeline, in process and from nothing: what the cache would have served,
//! and how often wrongly. Where the traffic brings the answers that were bought for it, the cache learns from
//! them on the way, as it does in production.

mod answers;
mod labelled;
mod report;

use std::{collections::HashMap, io, path::Path, sync::Arc};

use indicatif::ProgressBar;

use crate::{
    config::{Config, HedgeAfter, Mode, StoreKind},
    metrics::Rpc,
    outcome::Outcome,
    pipeline::{Pipeline, Reply, Request},
    prompt::CacheControl,
    server::{Server, StartError},
    tenant::Tenant,
    trace::Trace,
};

pub use self::{
    labelled::{LabelError, Row, read},
    report::{Judged, Report},
};
use answers::Answers;

/// How the rows are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Each row is asked; on a miss its answer is bought, kept and learned from.
    Online,
    /// Each row is a miss and becomes an entry, and nothing is learned: what was the best candidate, and how
    /// sure would a namespace without experience be of it?
    ScoreOnly,
}

/// Why a run stopped.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the answering server failed: {0}")]
    Answers(#[from] io::Error),
    #[error("row {id}: {error}")]
    Request { id: String, error: crate::error::Error },
}

/// One run over labelled rows.
struct Run<'a> {
    rows: &'a [Row],
    protocol: Protocol,
    pipeline: Arc<Pipeline>,
    tenant: Arc<Tenant>,
    answers: &'a Answers,
    /// By the answer that was bought: the row that it was bought for.
    bought_for: HashMap<String, usize>,
}

/// Runs `rows` in their order. `config` says how to decide; store, models and tenants are the run's own.
///
/// # Errors
/// [`TuneError`], naming the row.
pub async fn run(rows: &[Row], protocol: Protocol, config: Config) -> Result<Report, TuneError> {
    let answers = Answers::start().await?;
    let server = Server::new(configure(config, protocol, &answers)).await?;
    let pipeline = Arc::clone(server.pipeline());
    // A server without tenants takes everybody.
    let tenant = pipeline.settings().tenants.authenticate(None);
    let tenant = tenant.map_err(|error| TuneError::Request { id: String::new(), error })?;
    let mut run = Run { rows, protocol, pipeline, tenant, answers: &answers, bought_for: HashMap::new() };
    let progress = ProgressBar::new(rows.len() as u64);
    let mut judged = Vec::with_capacity(rows.len());
    for index in 0..rows.len() {
        judged.push(run.ask(index).await?);
        progress.inc(1);
    }
    progress.finish_and_clear();
    let bought = judged.iter().filter(|row: &&Judged| row.bought).count() as u64;
    let extra_calls = answers.calls().saturating_sub(bought);
    let wrong_hits = run.pipeline.wrong_hits(None);
    drop(run);
    answers.stop().await?;
    Ok(Report::new(rows, judged, protocol, extra_calls, wrong_hits))
}

/// Nothing of a run outlives it, and a request makes one call.
fn configure(mut config: Config, protocol: Protocol, answers: &Answers) -> Config {
    config.store.kind = StoreKind::Memory;
    config.tenants.clear();
    config.routing = crate::config::RoutingConfig::default();
    config.upstream.hedge_after = HedgeAfter::Never;
    config.upstream.retries = 0;
    config.upstream.health_interval = std::time::Duration::ZERO;
    config.providers = vec![answers.provider()];
    config.models = vec![answers::model()];
    if protocol == Protocol::ScoreOnly {
        config.cache.mode = Mode::Shadow;
        config.cache.learning.max_comparisons = 0;
    }
    config
}

// === impl Run ===

impl Run<'_> {
    async fn ask(&mut self, index: usize) -> Result<Judged, TuneError> {
        let row = &self.rows[index];
        self.answers.answer_with(row.answer());
        let request = Request {
            tenant: Arc::clone(&self.tenant),
            prompt: row.prompt(),
            cache: CacheControl::default(),
            deadline: None,
            trace: Trace::default(),
        };
        let reply = match self.pipeline.complete(Rpc::Complete, request).await {
            Ok(answering) => answering.whole().await,
            Err(error) => Err(error),
        };
        let reply = reply.map_err(|error| TuneError::Request { id: row.id.clone(), error })?;
        // The next row finds everything learned and kept.
        self.pipeline.settled().await;
        Ok(self.judge(index, &reply))
    }

    fn judge(&mut self, index: usize, reply: &Reply) -> Judged {
        let matched = reply.matched.as_ref();
        let of = matched.and_then(|matched| self.bought_for.get(&matched.entry.completion.content).copied());
        let hit = matches!(reply.outcome, Outcome::Exact | Outcome::Semantic);
        self.bought_for.entry(self.rows[index].answer()).or_insert(index);
        Judged {
            // In score-only an exact repeat is an entry like any other.
            hit: hit && self.protocol == Protocol::Online,
            bought: !hit,
            of,
            score: matched.map_or(0.0, |matched| matched.confidence),
            similarity: matched.map_or(0.0, |matched| matched.similarity),
        }
    }
}

/// Reads the rows of a file and runs them: online when they bring answers.
///
/// # Errors
/// As [`read`] and [`run`].
pub async fn run_file(path: &Path, config: Config) -> anyhow::Result<Report> {
    let rows = read(path)?;
    let protocol = if rows.iter().all(Row::brings_answer) { Protocol::Online } else { Protocol::ScoreOnly };
    Ok(run(&rows, protocol, config).await?)
}

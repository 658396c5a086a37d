//! Labelled traffic through the real pipeline, in process and from nothing: what the cache would have served,
//! and how often wrongly. Where the traffic brings the answers that were bought for it, the cache learns from
//! them on the way, as it does in production.

mod labelled;
mod report;

use std::{collections::HashMap, path::Path};

use indicatif::ProgressBar;

use crate::{
    config::{Config, Mode, ModelConfig, ProviderConfig, RoutingConfig},
    model::Tier,
    offline::{Offline, OfflineError, Said},
    outcome::Outcome,
    pipeline::Reply,
};

pub use self::{
    labelled::{Row, read},
    report::{Judged, Report},
};

/// The one model of a run, and its provider.
const MODEL: &str = "labelled";

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
    Offline(#[from] OfflineError),
    #[error("row {id}: {error}")]
    Request { id: String, error: crate::error::Error },
}

/// One run over labelled rows.
struct Run<'a> {
    rows: &'a [Row],
    protocol: Protocol,
    offline: &'a Offline,
    /// By the answer that was bought: the row that it was bought for.
    bought_for: HashMap<String, usize>,
}

/// Runs `rows` in their order. `config` says how to decide; store, models and tenants are the run's own.
///
/// # Errors
/// [`TuneError`], naming the row.
pub async fn run(rows: &[Row], protocol: Protocol, config: Config) -> Result<Report, TuneError> {
    let offline = Offline::start(configure(config, protocol)).await?;
    let mut run = Run { rows, protocol, offline: &offline, bought_for: HashMap::new() };
    let progress = ProgressBar::new(rows.len() as u64);
    let mut judged = Vec::with_capacity(rows.len());
    for index in 0..rows.len() {
        judged.push(run.ask(index).await?);
        progress.inc(1);
    }
    progress.finish_and_clear();
    let bought = judged.iter().filter(|row: &&Judged| row.bought).count() as u64;
    let extra_calls = offline.calls().saturating_sub(bought);
    let wrong_hits = offline.pipeline().statistics.wrong_hits(None);
    offline.stop().await.map_err(OfflineError::from)?;
    Ok(Report::new(rows, judged, protocol, extra_calls, wrong_hits))
}

fn configure(mut config: Config, protocol: Protocol) -> Config {
    config.routing = RoutingConfig::default();
    config.providers = vec![ProviderConfig {
        name: MODEL.to_owned(),
        base_url: String::new(),
        api_key_env: String::new(),
        region: "local".to_owned(),
    }];
    config.models = vec![ModelConfig {
        id: MODEL.to_owned(),
        provider: MODEL.to_owned(),
        served_as: None,
        tier: Tier::Cold,
        input_usd_per_mtok: 0.27,
        output_usd_per_mtok: 1.10,
        context_window: 1_000_000,
    }];
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
        let said = Said { text: row.answer(), usage: None };
        let reply = self.offline.ask(row.prompt(), said).await;
        let reply = reply.map_err(|error| TuneError::Request { id: row.id.clone(), error })?;
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

//! Labelled traffic through an offline pipeline: which hits the cache would serve, and how many of them would be
//! wrong. The cache learns from the answers in the traffic, as it does from upstream calls in production, and from a
//! simulated verifier if it is given one.

mod accuracy_report;
mod labelled;

use std::{collections::HashMap, path::Path};

use indicatif::ProgressIterator as _;

use crate::{
    config::{Config, Mode, ModelConfig, RoutingConfig},
    model::{LOCAL, Tier},
    offline::{
        self, ModelAnswer, OfflineError, OfflinePipeline, SimulatedVerifier, StatedErrors,
        simulated_verifier::KnownQuestion,
    },
    outcome::{Approval, Outcome},
    pipeline::Reply,
};

pub use self::{
    accuracy_report::{Calls, Report, RowResult},
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
    #[error("--verifier: every row needs an answer, because what is served is measured")]
    NoAnswers,
    #[error("--verifier: cache.verify.model: the catalog has no `{0}`")]
    NoVerifier(String),
}

/// Prices without a catalog, in US dollars per million tokens of input and of output: those of the example catalog's
/// GPT-4o and GLM-4 Plus.
const ANSWERS: (Tier, f64, f64) = (Tier::Hot, 2.50, 10.00);
const VERIFIES: (Tier, f64, f64) = (Tier::Economy, 0.20, 0.80);

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
pub async fn run_file(path: &Path, config: Config, verifier: Option<StatedErrors>) -> anyhow::Result<Report> {
    let rows = read(path)?;
    let protocol = if rows.iter().all(Row::has_answer) { Protocol::Online } else { Protocol::ScoreOnly };
    // Boxed because a configuration is large, and so are the futures that hold one.
    Ok(Box::pin(run(&rows, protocol, config, verifier)).await?)
}

/// Runs `rows` in their order, with the decision settings of `config`. If the errors of a `verifier` are stated, one is
/// simulated by the labels and asked as a server would ask it.
///
/// # Errors
/// [`TuneError`], naming the row.
pub async fn run(
    rows: &[Row],
    protocol: Protocol,
    config: Config,
    verifier: Option<StatedErrors>,
) -> Result<Report, TuneError> {
    if verifier.is_some() && protocol == Protocol::ScoreOnly {
        return Err(TuneError::NoAnswers);
    }
    let config = configure(config, protocol, verifier.is_some())?;
    let simulated = verifier.map(|errors| SimulatedVerifier::new(errors, rows.iter().map(known_question)));
    let pipeline = OfflinePipeline::start(config, simulated).await?;
    let mut run = Run { rows, protocol, row_of_answer: HashMap::new() };
    let mut results = Vec::with_capacity(rows.len());
    for (index, row) in rows.iter().enumerate().progress() {
        let answer = ModelAnswer { text: row.answer(), usage: None };
        let reply = pipeline.complete(row.prompt(), answer).await;
        let reply = reply.map_err(|error| TuneError::Request { id: row.id.clone(), error })?;
        results.push(run.result(index, &reply));
    }
    let calls = Calls { models: pipeline.calls(), verifications: pipeline.verifications(), verifier };
    let measured = pipeline.pipeline().statistics.wrong_hits(None);
    pipeline.stop().await.map_err(OfflineError::from)?;
    Ok(Report::new(rows, results, protocol, calls, measured))
}

fn configure(mut config: Config, protocol: Protocol, verifies: bool) -> Result<Config, TuneError> {
    if verifies {
        use_priced_models(&mut config)?;
    } else {
        config.routing = RoutingConfig::default();
        offline::use_free_models(&mut config, []);
    }
    if protocol == Protocol::ScoreOnly {
        config.cache.mode = Mode::Shadow;
        config.cache.learning.max_comparisons = 0;
    }
    Ok(config)
}

/// Keeps the catalog, whose prices tell whether asking pays. Without one there are two models at [`ANSWERS`] and
/// [`VERIFIES`].
fn use_priced_models(config: &mut Config) -> Result<(), TuneError> {
    LOCAL.clone_into(&mut config.routing.classifier);
    if config.models.is_empty() {
        const VERIFIER: &str = "verifier";
        config.routing = RoutingConfig::default();
        offline::use_free_models(config, [VERIFIER]);
        VERIFIER.clone_into(&mut config.cache.verify.model);
        for (model, (tier, input, output)) in config.models.iter_mut().zip([ANSWERS, VERIFIES]) {
            *model =
                ModelConfig { tier, input_usd_per_mtok: input, output_usd_per_mtok: output, ..model.clone() };
        }
    }
    let name = &config.cache.verify.model;
    let is_verifier = |model: &ModelConfig| model.id == *name || model.tier.as_str() == name;
    if config.models.iter().any(is_verifier) { Ok(()) } else { Err(TuneError::NoVerifier(name.clone())) }
}

fn known_question(row: &Row) -> KnownQuestion {
    let earlier = row.system.iter().chain(&row.turns).cloned().collect();
    KnownQuestion { earlier, text: row.text.clone(), class: row.class.clone() }
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
            is_verified: matched.is_some_and(|matched| matched.approval == Some(Approval::Verified)),
        }
    }
}

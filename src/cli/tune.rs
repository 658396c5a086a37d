//! `promptkeep tune`: what the cache would do with labelled traffic.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Args;

use crate::{
    config::{Config, LogFormat, process_env},
    tune,
};

/// `promptkeep tune`
#[derive(Debug, Args)]
pub struct Tune {
    /// Labelled traffic, a JSON object a line: id, text, class, and optionally turns, system, answer
    #[arg(required_unless_present = "eval")]
    labelled: Option<PathBuf>,
    /// The same, for scripts that name it
    #[arg(long, value_name = "FILE", conflicts_with = "labelled")]
    eval: Option<PathBuf>,
    /// Where to write what became of each row, a JSON object a line
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Configuration file, for its sections `cache` and `embedding`. No model is called, but with
    /// `embedding.kind = "openai"` the embeddings API is, and wants its key
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Largest share of wrong answers among requests, instead of the configured one
    #[arg(long, value_name = "SHARE")]
    max_error_rate: Option<f32>,
    /// Largest share of wrong answers among semantic hits, instead of the configured one
    #[arg(long, value_name = "SHARE")]
    max_wrong_hits: Option<f32>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(tune: Tune) -> anyhow::Result<ExitCode> {
    super::start_logging("error", LogFormat::Text);
    let Tune { labelled, eval, out, config, max_error_rate, max_wrong_hits, json } = tune;
    let file = labelled.or(eval).context("a file of labelled traffic is needed")?;
    let mut config = Config::load_offline(config.as_deref(), process_env())?;
    config.cache.max_error_rate = max_error_rate.unwrap_or(config.cache.max_error_rate);
    config.cache.max_wrong_hits = max_wrong_hits.unwrap_or(config.cache.max_wrong_hits);
    let report = tune::run_file(&file, config).await?;
    super::hand_out(&report, json, out.as_deref(), |to| report.write_rows(to))?;
    Ok(ExitCode::SUCCESS)
}

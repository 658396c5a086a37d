//! `promptkeep tune`

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::ReportArgs;
use crate::{
    config::{Config, LogFormat, process_env},
    offline::tune,
};

#[derive(Debug, Args)]
pub(super) struct Tune {
    /// Labelled traffic, one JSON object per line: id, text, class, and optionally turns, system, answer
    #[arg(required_unless_present = "eval")]
    labelled: Option<PathBuf>,
    /// Labelled traffic, for scripts that name their arguments
    #[arg(long, value_name = "FILE", conflicts_with = "labelled")]
    eval: Option<PathBuf>,
    /// Configuration file, for its sections `cache` and `embedding`. No model is called, but `embedding.kind =
    /// "openai"` calls the embeddings API and needs its key
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Largest share of wrong answers among requests, instead of the configured one
    #[arg(long, value_name = "SHARE")]
    max_error_rate: Option<f32>,
    /// Largest share of wrong answers among semantic hits, instead of the configured one
    #[arg(long, value_name = "SHARE")]
    max_wrong_hits: Option<f32>,
    #[command(flatten)]
    report: ReportArgs,
}

impl Tune {
    pub async fn run(self) -> anyhow::Result<()> {
        super::start_logging("error", LogFormat::Text);
        let file = self.labelled.or(self.eval).context("a file of labelled traffic is needed")?;
        let mut config = Config::load_offline(self.config.as_deref(), process_env())?;
        config.cache.max_error_rate = self.max_error_rate.unwrap_or(config.cache.max_error_rate);
        config.cache.max_wrong_hits = self.max_wrong_hits.unwrap_or(config.cache.max_wrong_hits);
        let report = tune::run_file(&file, config).await?;
        self.report.print(&report, |to| report.write_rows(to))
    }
}

//! `promptkeep tune`

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::ReportArgs;
use crate::{
    config::{Config, LogFormat, process_env},
    offline::{
        StatedErrors, tune,
        verifier_errors::{self, Options},
    },
};

#[derive(Debug, Args)]
pub(super) struct Tune {
    /// Labelled traffic, one JSON object per line: id, text, class, and optionally turns, system, answer. With --verify,
    /// labelled pairs: question, answer, new_question, same (true or false), and optionally context
    #[arg(required_unless_present = "eval")]
    labelled: Option<PathBuf>,
    /// Labelled traffic, for scripts that name their arguments
    #[arg(long, value_name = "FILE", conflicts_with = "labelled")]
    eval: Option<PathBuf>,
    /// Configuration file, for its sections `cache` and `embedding`, and for the verifier. Without --verify no model is
    /// called, but `embedding.kind = "openai"` calls the embeddings API and needs its key
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Largest share of wrong answers among requests, instead of the configured one
    #[arg(long, value_name = "SHARE")]
    max_error_rate: Option<f32>,
    /// Largest share of wrong answers among semantic hits, instead of the configured one
    #[arg(long, value_name = "SHARE")]
    max_wrong_hits: Option<f32>,
    /// Simulate a verifier that errs at these rates, such as 0.02,0.05, by the labels. It is asked where the prices of the
    /// configured catalog say that asking pays; without a catalog, GLM-4 Plus's price stands beside GPT-4o's
    #[arg(long, value_name = "FALSE_YES,FALSE_NO")]
    verifier: Option<StatedErrors>,
    /// Ask the configured verifier (`cache.verify`) about labelled pairs and report how often it errs. The calls cost money
    #[arg(long, conflicts_with = "verifier")]
    verify: bool,
    /// Maximum number of kept answers in one call, where pairs share a new question
    #[arg(long, value_name = "N", requires = "verify", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=4))]
    batch: u8,
    /// Maximum number of calls to the verifier at once
    #[arg(long, value_name = "N", requires = "verify", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..))]
    concurrency: u8,
    #[command(flatten)]
    report: ReportArgs,
}

impl Tune {
    /// Returns `false` if the verifier was asked and gave no verdict at all.
    pub async fn run(self) -> anyhow::Result<bool> {
        super::start_logging("error", LogFormat::Text);
        let file = self.labelled.as_ref().or(self.eval.as_ref());
        let file = file.context("a file of labelled traffic is needed")?;
        let mut config = Config::load_offline(self.config.as_deref(), process_env())?;
        config.cache.max_error_rate = self.max_error_rate.unwrap_or(config.cache.max_error_rate);
        config.cache.max_wrong_hits = self.max_wrong_hits.unwrap_or(config.cache.max_wrong_hits);
        if self.verify {
            return Box::pin(self.measure_verifier(file, config)).await;
        }
        let report = Box::pin(tune::run_file(file, config, self.verifier)).await?;
        self.report.print(&report, |to| report.write_rows(to))?;
        Ok(true)
    }

    async fn measure_verifier(&self, file: &Path, config: Config) -> anyhow::Result<bool> {
        let options = Options { batch: self.batch.into(), concurrency: self.concurrency.into() };
        let report = verifier_errors::run_file(file, &config, options).await?;
        self.report.print(&report, |to| report.write_rows(to))?;
        Ok(report.verdicts > 0)
    }
}

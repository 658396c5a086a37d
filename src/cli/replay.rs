//! `promptkeep replay`: what the cache would have done with recorded traffic.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use crate::{
    config::{Config, LogFormat, process_env},
    replay,
};

/// `promptkeep replay`
#[derive(Debug, Args)]
pub struct Replay {
    /// Recorded traffic, a JSON object a line: `prompt` (a text) or `messages`, and optionally `namespace`, `answer`
    /// and `usage`; `id`, `at`, `time` and `timestamp` are passed over. Every other field is one of the chat
    /// completion, and keeps prompts apart as it does over HTTP
    traffic: PathBuf,
    /// Where to write what became of each line, a JSON object a line
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Configuration file, for its models and prices, routing, `cache` and `embedding`. No model is called, but with
    /// `embedding.kind = "openai"` the embeddings API is, and wants its key
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(replay: Replay) -> anyhow::Result<ExitCode> {
    super::start_logging("error", LogFormat::Text);
    let Replay { traffic, out, config, json } = replay;
    let config = Config::load_offline(config.as_deref(), process_env())?;
    let report = replay::run_file(&traffic, config).await?;
    super::hand_out(&report, json, out.as_deref(), |to| report.write_rows(to))?;
    Ok(ExitCode::SUCCESS)
}

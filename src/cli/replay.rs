//! `promptkeep replay`

use std::path::PathBuf;

use clap::Args;

use super::ReportArgs;
use crate::{
    config::{Config, LogFormat, process_env},
    offline::replay,
};

#[derive(Debug, Args)]
pub(super) struct Replay {
    /// Recorded traffic, one JSON object per line: `prompt` (a text) or `messages`, and optionally `namespace`,
    /// `answer` and `usage`. `id`, `at`, `time` and `timestamp` are ignored. Any other field is a field of the chat
    /// completion, and distinguishes prompts as it does over HTTP
    traffic: PathBuf,
    /// Configuration file, for its models and prices, routing, `cache` and `embedding`. No model is called, but
    /// `embedding.kind = "openai"` calls the embeddings API and needs its key
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    report: ReportArgs,
}

impl Replay {
    pub async fn run(self) -> anyhow::Result<()> {
        super::start_logging("error", LogFormat::Text);
        let config = Config::load_offline(self.config.as_deref(), process_env())?;
        let report = replay::run_file(&self.traffic, config).await?;
        self.report.print(&report, |to| report.write_rows(to))
    }
}

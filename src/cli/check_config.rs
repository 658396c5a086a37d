//! `promptkeep check-config`

use std::path::PathBuf;

use clap::Args;

use crate::config::{check_file, process_env};

#[derive(Debug, Args)]
pub(super) struct CheckConfig {
    /// Configuration file (TOML)
    file: PathBuf,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

impl CheckConfig {
    /// Returns whether the file has no problems.
    pub fn run(self) -> bool {
        let report = check_file(&self.file, process_env());
        if self.json {
            println!("{}", serde_json::json!(report));
        } else {
            println!("{report}");
        }
        report.ok
    }
}

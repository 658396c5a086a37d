//! The binary: parses the arguments, runs the command, and is the only place that chooses an exit code.

use std::process::ExitCode;

use clap::Parser as _;
use promptkeep::cli::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().run().await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("promptkeep: {error:#}");
            ExitCode::FAILURE
        }
    }
}

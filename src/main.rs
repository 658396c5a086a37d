//! The binary: parses the arguments, runs the command, and chooses the exit code. No other file does.

use std::process::ExitCode;

use clap::Parser as _;
use promptkeep::cli::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("promptkeep: {error:#}");
            ExitCode::FAILURE
        }
    }
}

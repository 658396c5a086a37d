//! The command line. Each command has its own file; this one parses, dispatches and has the pieces that commands
//! share.

mod check_config;
mod demo;
mod health;
mod model;
mod replay;
mod serve;
mod stats;
mod tune;

use std::{
    fmt::Display,
    fs::File,
    io::{self, BufWriter, IsTerminal as _},
    path::PathBuf,
};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use tonic::Code;
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// A semantic prompt-cache server in front of LLM inference.
#[derive(Debug, Parser)]
#[command(name = "promptkeep", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server, with the built-in defaults if no file is given
    Serve(serve::Serve),
    /// Run the server with simulated models and send traffic to it
    Demo(demo::Demo),
    /// Run only the demo's simulated models, for trying out a configuration
    SimulateModels(demo::SimulateModels),
    /// Report every problem of a configuration file
    CheckConfig(check_config::CheckConfig),
    /// Manage the embedding model on this machine
    #[command(subcommand)]
    Model(model::Model),
    /// Check whether a server is serving; the exit code is 0 if it is
    Health(health::Health),
    /// Report what the cache would have done with recorded traffic and what it would have saved, without model calls
    Replay(replay::Replay),
    /// Report what the cache would do with labelled traffic: hits, wrong answers, and its own estimate of them. With
    /// --verify, how often a real verifier errs
    Tune(tune::Tune),
    /// Print the statistics of a running server
    Stats(stats::PrintStats),
}

// Options of the commands that end with a report on traffic. No doc comment, which clap would print as help.
#[derive(Debug, Args)]
struct ReportArgs {
    /// File for the result of each line of the traffic, one JSON object per line
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

impl Cli {
    /// Runs the command. Returns `false` if the command worked but its answer is no: the server is not serving, the
    /// configuration has problems, or the verifier gave no verdict.
    ///
    /// # Errors
    /// The reason of a failure, ready to be printed.
    pub async fn run(self) -> anyhow::Result<bool> {
        match self.command {
            Command::CheckConfig(command) => return Ok(command.run()),
            Command::Health(command) => return command.run().await,
            Command::Tune(command) => return command.run().await,
            Command::Serve(command) => command.run().await?,
            Command::Demo(command) => command.run().await?,
            Command::SimulateModels(command) => command.run().await?,
            Command::Model(command) => command.run().await?,
            Command::Replay(command) => command.run().await?,
            Command::Stats(command) => command.run().await?,
        }
        Ok(true)
    }
}

impl ReportArgs {
    /// Prints the report, and writes its rows to the `--out` file if there is one.
    fn print(
        &self,
        report: &(impl Serialize + Display),
        write_rows: impl FnOnce(BufWriter<File>) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        if let Some(out) = &self.out {
            let file = File::create(out).with_context(|| format!("cannot write {}", out.display()))?;
            write_rows(BufWriter::new(file))?;
        }
        print_report(report, self.json)
    }
}

fn print_report(report: &(impl Serialize + Display), as_json: bool) -> anyhow::Result<()> {
    if as_json {
        println!("{}", serde_json::to_string_pretty(report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}

/// Adds the scheme to an address that lacks one.
fn url(server: &str) -> String {
    if server.contains("://") { server.to_owned() } else { format!("http://{server}") }
}

/// Explains the error status of a call to `server`.
fn refusal(server: &str, code: Code, message: &str) -> anyhow::Error {
    match code {
        // Replies of other kinds of servers, and of promptkeep's HTTP port, to a gRPC call. A connection that they close cancels
        // the call.
        Code::Internal | Code::Unknown | Code::Unimplemented | Code::Cancelled => {
            anyhow::anyhow!("{server} does not speak promptkeep's gRPC API; is it the HTTP port? ({message})")
        }
        _ => anyhow::anyhow!("{server} refuses: {message}"),
    }
}

/// Starts logging to standard error, filtered by `RUST_LOG` or else by `default`.
fn start_logging(default: &str, format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let colours = io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // Fails if a test has already started logging, which serves as well.
    let _ = match format {
        LogFormat::Text => log.with_ansi(colours).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
}

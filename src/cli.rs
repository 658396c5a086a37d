//! The commands. Each is its own file; this one parses and dispatches.

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
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use serde::Serialize;
use tonic::Code;

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
    /// Run the server. Without a file: the embedded defaults
    Serve {
        /// Configuration file (TOML); PROMPTKEEP_SECTION__KEY variables override it
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Run the server with simulated models and replay traffic against it
    Demo {
        /// Requests to replay; all of the traffic when not given
        #[arg(long, value_name = "N")]
        requests: Option<usize>,
        /// End after the report instead of serving on
        #[arg(long)]
        exit: bool,
        /// Print the report as JSON
        #[arg(long)]
        json: bool,
    },
    /// Run the demo's simulated models alone, for trying a configuration out
    SimulateModels {
        /// Address to listen on
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9000")]
        listen: SocketAddr,
    },
    /// Report every problem of a configuration file
    CheckConfig {
        /// Configuration file (TOML)
        file: PathBuf,
        /// Print the report as JSON
        #[arg(long)]
        json: bool,
    },
    /// The embedding model on this machine
    Model {
        #[command(subcommand)]
        command: ModelCommand,
    },
    /// Whether a server serves, as the exit code says
    Health {
        /// gRPC address of the server
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:50051")]
        server: String,
    },
    /// What the cache would have done with recorded traffic, and saved: no model is called
    Replay(replay::Replay),
    /// What the cache would do with labelled traffic: hits, wrong answers, and how many of them it expects
    Tune(tune::Tune),
    /// The numbers of a running server
    Stats {
        /// gRPC address of the server
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:50051")]
        server: String,
        /// API key of a tenant, if the server has tenants
        #[arg(long, value_name = "KEY", env = "PROMPTKEEP_API_KEY", hide_env_values = true)]
        api_key: Option<String>,
        /// Print again every two seconds
        #[arg(long)]
        watch: bool,
        /// Print as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum ModelCommand {
    /// Get the model, verified by checksum; does nothing when it is there
    Pull,
    /// Print the folder of the model
    Path,
}

// === impl Cli ===

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// Whatever made it fail, ready to be printed.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Serve { config } => serve::run(config).await,
            Command::Demo { requests, exit, json } => {
                demo::run(crate::demo::Options { requests, exit, json }).await
            }
            Command::SimulateModels { listen } => demo::simulate_models(listen).await,
            Command::Replay(replay) => replay::run(replay).await,
            Command::Tune(tune) => tune::run(tune).await,
            Command::CheckConfig { file, json } => Ok(check_config::run(&file, json)),
            Command::Model { command: ModelCommand::Pull } => model::pull().await,
            Command::Model { command: ModelCommand::Path } => model::path(),
            Command::Health { server } => health::run(&server).await,
            Command::Stats { server, api_key, watch, json } => {
                stats::run(&server, api_key, watch, json).await
            }
        }
    }
}

/// The address of a server, which may lack its scheme.
fn url(server: &str) -> String {
    if server.contains("://") { server.to_owned() } else { format!("http://{server}") }
}

/// What a server answered instead of what was asked.
fn refusal(server: &str, code: Code, message: &str) -> anyhow::Error {
    match code {
        // What other servers, and this one's HTTP port, say to gRPC.
        Code::Internal | Code::Unknown | Code::Unimplemented => {
            anyhow::anyhow!(
                "{server} does not speak gRPC as promptkeep does; is it the HTTP port? ({message})"
            )
        }
        _ => anyhow::anyhow!("{server} refuses: {message}"),
    }
}

/// Prints a report, as text or as JSON, and writes its rows to `out` where they are wanted.
fn hand_out(
    report: &(impl Serialize + Display),
    as_json: bool,
    out: Option<&Path>,
    write_rows: impl FnOnce(BufWriter<File>) -> io::Result<()>,
) -> anyhow::Result<()> {
    if let Some(out) = out {
        let file = File::create(out).with_context(|| format!("cannot write {}", out.display()))?;
        write_rows(BufWriter::new(file))?;
    }
    if as_json {
        println!("{}", serde_json::to_string_pretty(report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}

/// Logs to standard error; `RUST_LOG` chooses what, `default` when it is not set.
fn start_logging(default: &str, format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    let colours = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Fails when a test has set one up, which is as good.
    let _ = match format {
        LogFormat::Text => log.with_ansi(colours).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
}

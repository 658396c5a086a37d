//! `promptkeep serve`

use std::path::{Path, PathBuf};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    config::{Config, process_env},
    server::{Server, transport},
};

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Configuration file (TOML); PROMPTKEEP_SECTION__KEY variables override it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Serve {
    pub async fn run(self) -> anyhow::Result<()> {
        let file = self.config.as_deref();
        let config = Config::load(file, process_env())?;
        super::start_logging("info", config.telemetry.log_format);
        // Bound before the model is downloaded, because a port in use is the most frequent mistake.
        let grpc = transport::bind(config.server.grpc_listen).await?;
        let http = transport::bind(config.server.http_listen).await?;
        warn_if_open(&config);
        tracing::info!(grpc = %grpc.local_addr()?, http = %http.local_addr()?, "starting");
        // Installed before the slow start: a hangup without a handler would end the process.
        let mut hangup = signal(SignalKind::hangup())?;
        let server = Server::new(config).await?;
        let mut listening = Box::pin(server.listen(grpc, http));
        let mut stop = std::pin::pin!(stop_signal());
        loop {
            tokio::select! {
                ended = &mut listening => {
                    // Queued writes must become durable even if listening failed.
                    return Ok(server.shutdown(std::future::ready(ended)).await?);
                }
                () = &mut stop => break,
                _ = hangup.recv() => reload(&server, file),
            }
        }
        tracing::info!("stopping");
        Ok(server.shutdown(listening).await?)
    }
}

/// Returns at the first SIGINT or SIGTERM.
pub(super) async fn stop_signal() {
    let interrupted = tokio::signal::ctrl_c();
    match signal(SignalKind::terminate()) {
        Ok(mut terminated) => tokio::select! {
            _ = interrupted => {}
            _ = terminated.recv() => {}
        },
        Err(_) => drop(interrupted.await),
    }
}

/// Reloads the configuration, or keeps the old one if the file has problems.
fn reload(server: &Server, file: Option<&Path>) {
    let config = match Config::load(file, process_env()) {
        Ok(config) => config,
        Err(problems) => return tracing::error!(%problems, "configuration not reloaded"),
    };
    match server.reload(config) {
        Ok(restart) if restart.is_empty() => tracing::info!("configuration reloaded"),
        Ok(restart) => tracing::warn!(?restart, "configuration reloaded, but these sections need a restart"),
        Err(error) => tracing::error!(%error, "configuration not reloaded"),
    }
}

fn warn_if_open(config: &Config) {
    let open = [config.server.grpc_listen, config.server.http_listen].iter().any(|a| !a.ip().is_loopback());
    if open && config.tenants.is_empty() {
        tracing::warn!(
            "listening beyond this machine without tenants: anyone who reaches the port may use it"
        );
    }
}

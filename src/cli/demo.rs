//! `promptkeep demo`: server, simulated models and traffic in one process. `promptkeep simulate-models`: only the
//! models.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use clap::Args;

use crate::{
    config::LogFormat,
    demo::{self, Addresses, simulated_upstream::SimulatedUpstream, traffic::Traffic},
    offline::model_server::LOOPBACK,
    server::{Server, transport},
};

#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Number of requests to send, from the start of the traffic; all of it by default
    #[arg(long, value_name = "N")]
    requests: Option<usize>,
    /// Exit after the report instead of serving on
    #[arg(long)]
    exit: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct SimulateModels {
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
}

/// A new folder among the system's temporary ones, removed on drop.
struct TemporaryFolder(PathBuf);

impl Demo {
    pub async fn run(self) -> anyhow::Result<()> {
        super::start_logging("error", LogFormat::Text);
        let traffic = Traffic::embedded().first(self.requests.unwrap_or(usize::MAX));
        let upstream = SimulatedUpstream::start(&traffic, LOOPBACK).await?;
        let data = TemporaryFolder::create()?;
        let config = demo::config(&upstream, data.0.clone());
        let grpc = transport::bind(config.server.grpc_listen).await?;
        let http = transport::bind(config.server.http_listen).await?;
        let addresses = Addresses { grpc: grpc.local_addr()?, http: http.local_addr()? };
        let server = Arc::new(Server::new(config).await?);
        let mut listening = tokio::spawn({
            let server = Arc::clone(&server);
            async move { server.listen(grpc, http).await }
        });
        let report = demo::run(addresses, &traffic, &upstream).await?;
        super::print_report(&report, self.json)?;
        if !self.exit {
            println!("\n{}", demo::invitation(addresses));
            super::serve::stop_signal().await;
        }
        server.shutdown(async { (&mut listening).await.unwrap_or_else(|panic| Err(panic.into())) }).await?;
        upstream.shutdown().await?;
        Ok(())
    }
}

impl SimulateModels {
    pub async fn run(self) -> anyhow::Result<()> {
        let upstream = SimulatedUpstream::start(&Traffic::embedded(), self.listen).await?;
        println!("simulated models at {}", upstream.base_url());
        super::serve::stop_signal().await;
        Ok(upstream.shutdown().await?)
    }
}

impl TemporaryFolder {
    fn create() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("promptkeep-demo-{:016x}", fastrand::u64(..)));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // On failure a small temporary folder remains, which does no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

//! `promptkeep demo`: server, simulated models and traffic in one process; `promptkeep simulate-models`: the models
//! alone.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc};

use crate::{
    config::LogFormat,
    demo::{self, Options, simulated_upstream::SimulatedUpstream, traffic::Traffic},
    server::Server,
    transport,
};

/// A folder of the system's temporary ones, removed when it is dropped.
struct TemporaryFolder(PathBuf);

pub(super) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    super::start_logging("error", LogFormat::Text);
    let all = Traffic::embedded();
    let traffic = match options.requests {
        Some(count) => all.first(count),
        None => all,
    };
    let upstream = SimulatedUpstream::start(&traffic).await?;
    let data = TemporaryFolder::create()?;
    let config = demo::config(&upstream, data.0.clone());
    let grpc = transport::bind(config.server.grpc_listen).await?;
    let http = transport::bind(config.server.http_listen).await?;
    let (grpc_address, http_address) = (grpc.local_addr()?, http.local_addr()?);
    let server = Arc::new(Server::new(config).await?);
    let mut listening = tokio::spawn({
        let server = Arc::clone(&server);
        async move { server.listen(grpc, http).await }
    });
    let report = demo::replay(format!("http://{grpc_address}"), &traffic).await?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    if !options.exit {
        println!("{}", demo::invitation(grpc_address, http_address));
        super::serve::stop_signal().await;
    }
    server.shutdown(async { (&mut listening).await.unwrap_or_else(|panic| Err(panic.into())) }).await?;
    upstream.shutdown().await?;
    Ok(ExitCode::SUCCESS)
}

/// The simulated models alone.
pub(super) async fn simulate_models(listen: SocketAddr) -> anyhow::Result<ExitCode> {
    let upstream = SimulatedUpstream::listen(&Traffic::embedded(), listen).await?;
    println!("simulated models at {}", upstream.base_url());
    super::serve::stop_signal().await;
    upstream.shutdown().await?;
    Ok(ExitCode::SUCCESS)
}

// === impl TemporaryFolder ===

impl TemporaryFolder {
    fn create() -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(format!("promptkeep-demo-{:016x}", fastrand::u64(..)));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // Left behind, it is a small folder among the temporary ones.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

//! The demo: a replay of traffic against a running server whose models are simulated, and a
//! report that holds every answer against the traffic's own ground truth. Talks to the server as any
//! client does, over gRPC, and knows nothing of its inside.

mod drive;
mod progress;
pub mod record;
pub mod report;
pub mod simulated_upstream;
pub mod traffic;

use std::{net::SocketAddr, path::PathBuf, time::Instant};

use crate::config::{Config, StoreConfig};

use self::{progress::Progress, report::Report, simulated_upstream::SimulatedUpstream, traffic::Traffic};

/// What the command line can choose.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Requests to replay, from the beginning of the traffic; `None`, or more than there are: all.
    pub requests: Option<usize>,
    /// End after the report instead of serving on.
    pub exit: bool,
    /// Print the report as JSON.
    pub json: bool,
}

/// The demo's server: free loopback ports, an embedded store in the folder `data`, the simulated models,
/// and otherwise the shipped defaults.
pub fn config(upstream: &SimulatedUpstream, data: PathBuf) -> Config {
    let mut config = Config {
        store: StoreConfig { path: data, ..StoreConfig::default() },
        providers: vec![upstream.provider()],
        models: simulated_upstream::models(),
        ..Config::default()
    };
    // The traffic is in the repository for everyone to read.
    config.dashboard.show_prompts = true;
    config.server.grpc_listen.set_port(0);
    config.server.http_listen.set_port(0);
    config
}

/// Replays `traffic` against the server at `endpoint`, such as `http://127.0.0.1:50051`, and judges what
/// it answered. Shows its progress on standard error.
///
/// # Errors
/// When the server cannot be reached at all. Requests that fail are part of the report.
pub async fn replay(endpoint: String, traffic: &Traffic) -> Result<Report, tonic::transport::Error> {
    let mut progress = Progress::new(traffic.requests().len());
    let begin = Instant::now();
    let replayed = drive::replay(endpoint, traffic, &mut progress).await?;
    progress.finish();
    Ok(Report::new(traffic, &replayed, begin.elapsed()))
}

/// What to print when the server goes on serving after the report.
pub fn invitation(grpc: SocketAddr, http: SocketAddr) -> String {
    let prompt = r#"{"prompt":{"namespace":"try-it","messages":[{"role":"user","content":"Hello?"}]}}"#;
    format!(
        "Still serving, with the simulated models (Ctrl-C ends it):\n  \
           dashboard   http://{http}/\n  \
           metrics     http://{http}/metrics\n  \
           gRPC        grpcurl -plaintext -d '{prompt}' {grpc} promptkeep.v1.PromptCache/Complete\n"
    )
}

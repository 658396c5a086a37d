//! The demo: sends traffic with known answers to a running server whose models are simulated, and reports how the
//! cache did. Its client talks gRPC like any other and does not use the server's internals.

mod client;
mod exchange;
mod grading;
mod learning_curve;
mod progress;
mod run_report;
pub mod simulated_upstream;
pub mod traffic;
mod verifications;

use std::{net::SocketAddr, path::PathBuf, time::Instant};

use crate::config::{Config, StoreConfig};

pub use self::run_report::Report;
use self::{progress::Progress, simulated_upstream::SimulatedUpstream, traffic::Traffic};

/// Configuration of the demo's server: the shipped defaults with free loopback ports, an embedded store in the folder
/// `data`, and the simulated models.
pub fn config(upstream: &SimulatedUpstream, data: PathBuf) -> Config {
    let mut config = Config {
        store: StoreConfig { path: data, ..StoreConfig::default() },
        providers: vec![upstream.provider()],
        models: simulated_upstream::models(),
        ..Config::default()
    };
    // The traffic is public: it is in the repository.
    config.dashboard.show_prompts = true;
    config.server.grpc_listen.set_port(0);
    config.server.http_listen.set_port(0);
    config
}

/// Why a run could not be made or reported.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("cannot reach the demo's server: {0}")]
    Grpc(#[from] tonic::transport::Error),
    #[error("cannot read the metrics of the demo's server: {0}")]
    Metrics(#[from] reqwest::Error),
}

/// Addresses of the demo's server.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub grpc: SocketAddr,
    pub http: SocketAddr,
}

/// Sends `traffic` to the server, and grades its answers and the verdicts of `upstream`. Shows progress on standard error.
///
/// # Errors
/// When the server cannot be reached at all. Requests that fail are part of the report.
pub async fn run(
    server: Addresses,
    traffic: &Traffic,
    upstream: &SimulatedUpstream,
) -> Result<Report, RunError> {
    let mut progress = Progress::new(traffic.requests().len());
    let begin = Instant::now();
    let mut run = client::run(format!("http://{}", server.grpc), traffic, &mut progress).await?;
    progress.finish();
    let elapsed = begin.elapsed();
    run.verifications = verifications::read(server.http).await?;
    run.verdicts = upstream.verdicts();
    Ok(Report::new(traffic, &run, elapsed))
}

/// Text for the time after the report, when the server goes on serving.
pub fn invitation(Addresses { grpc, http }: Addresses) -> String {
    let prompt = r#"{"prompt":{"namespace":"try-it","messages":[{"role":"user","content":"Hello?"}]}}"#;
    format!(
        "Still serving, with the simulated models (Ctrl-C ends it):\n  \
           dashboard   http://{http}/\n  \
           metrics     http://{http}/metrics\n  \
           gRPC        grpcurl -plaintext -d '{prompt}' {grpc} promptkeep.v1.PromptCache/Complete\n"
    )
}

/// A random generator that yields the same numbers in every run.
fn seeded_random(seed: &str) -> fastrand::Rng {
    let hash = blake3::hash(seed.as_bytes());
    fastrand::Rng::with_seed(u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes")))
}

//! `promptkeep health`: whether a server serves, by its exit code. For containers, whose images have no other
//! client.

use std::process::ExitCode;

use anyhow::Context as _;
use tonic::transport::Endpoint;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

pub(super) async fn run(server: &str) -> anyhow::Result<ExitCode> {
    let channel = Endpoint::from_shared(super::url(server))?.connect().await;
    let channel = channel.with_context(|| format!("no server answers at {server}"))?;
    let mut client = HealthClient::new(channel);
    // The empty name is the server as a whole.
    let reply = client.check(HealthCheckRequest { service: String::new() }).await;
    let status = reply.map_err(|s| super::refusal(server, s.code(), s.message()))?.into_inner().status();
    println!("{}", status.as_str_name());
    Ok(if status == ServingStatus::Serving { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

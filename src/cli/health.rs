//! `promptkeep health`: the health check of containers, whose images have no other gRPC client.

use anyhow::Context as _;
use clap::Args;
use tonic::transport::Endpoint;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

#[derive(Debug, Args)]
pub(super) struct Health {
    /// gRPC address of the server
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:50051")]
    server: String,
}

impl Health {
    /// Prints the status and returns whether the server is serving.
    pub async fn run(self) -> anyhow::Result<bool> {
        let server = &self.server;
        let channel = Endpoint::from_shared(super::url(server))?.connect().await;
        let channel = channel.with_context(|| format!("no server answers at {server}"))?;
        // The empty name stands for the whole server.
        let request = HealthCheckRequest { service: String::new() };
        let reply = HealthClient::new(channel).check(request).await;
        let reply = reply.map_err(|s| super::refusal(server, s.code(), s.message()))?;
        let status = reply.into_inner().status();
        println!("{}", status.as_str_name());
        Ok(status == ServingStatus::Serving)
    }
}

//! `[server.limits]`: what connections, requests and replies may take.

use std::time::Duration;

/// `[server.limits]`. The limits of connections hold on each port.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitsConfig {
    /// Maximum number of open connections.
    pub connections: usize,
    /// Maximum number of open connections of one address; of one /64 network with IPv6.
    pub connections_per_peer: usize,
    /// gRPC: maximum number of streams, which are requests in flight, of one connection.
    pub streams: u32,
    /// Age at which a connection takes no further request. It is cut off at twice that age.
    pub connection_age: Duration,
    /// Maximum time from a connection's opening, or from the first byte of a request, to the end of its headers.
    pub header_timeout: Duration,
    /// Maximum time from the end of a request's headers to the end of its body.
    pub body_timeout: Duration,
    /// HTTP: maximum time between two requests of a connection. gRPC: time without a frame after which the peer must
    /// answer a ping within `header_timeout`.
    pub idle_timeout: Duration,
    /// Maximum time in which the peer reads nothing of a reply.
    pub write_timeout: Duration,
    /// Maximum number of bytes of all requests in flight; further ones are shed.
    pub request_memory: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_peer: 1024,
            streams: 256,
            connection_age: Duration::from_secs(60 * 60),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(20),
            request_memory: 256 * 1024 * 1024,
        }
    }
}

//! Servers, clients and proxies that tests of several topics share.

pub mod events;
pub mod fake_upstream;
pub mod log;
pub mod metrics;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod redis_cluster;
pub mod redis_server;
pub mod test_server;

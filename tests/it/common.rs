//! What several topics share: the servers that tests talk to.

pub mod events;
pub mod fake_upstream;
pub mod log;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod redis_cluster;
pub mod redis_server;
pub mod test_server;

//! What several topics share: the servers that tests talk to.

pub mod events;
pub mod fake_upstream;
pub mod log;
pub mod process;
pub mod raw;
pub mod test_server;

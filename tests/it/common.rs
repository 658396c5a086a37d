//! What several topics share: the servers that tests talk to.

pub mod fake_upstream;
pub mod test_server;

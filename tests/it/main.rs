//! Every integration test, in one binary: real sockets, real files.
#![allow(clippy::unwrap_used, reason = "what cannot go on in a test should fail it")]

mod common;
mod complete;
mod fault_store;
mod http;
mod store;
mod upstream;

//! All integration tests in one binary. They use real sockets, files and processes.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod bad_input;
mod cli;
mod coalesce;
mod common;
mod complete;
mod connections;
mod fault_store;
mod faults;
mod freshness;
mod http;
mod index;
mod invalidate;
mod isolation;
mod learn;
mod money;
mod replay;
mod replicas;
mod rpcs;
mod stale;
mod store;
mod store_rpc;
mod teaching;
mod trace;
mod upstream;
mod verification;

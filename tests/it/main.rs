//! Every integration test, in one binary: real sockets, real files.
#![allow(clippy::unwrap_used, reason = "what cannot go on in a test should fail it")]

mod bad_input;
mod cli;
mod coalesce;
mod common;
mod complete;
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
mod second_opinion;
mod stale;
mod store;
mod store_rpc;
mod trace;
mod upstream;

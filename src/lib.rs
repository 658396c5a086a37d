//! promptkeep: a semantic prompt-cache server in front of LLM inference.
//!
//! The modules stand from the ground up, each above those it uses; [`pipeline`] is the path of a request. See
//! `ARCHITECTURE.md` for the map and the invariants.

#![deny(clippy::print_stdout, clippy::print_stderr)]

// The words and the pure parts, each a crate of its own.
pub use promptkeep_core::{entry, error, key, model, outcome, prompt};
pub use promptkeep_decide as decide;
pub use promptkeep_embed as embed;
pub use promptkeep_index as index;

pub mod config;

pub mod telemetry;

pub mod store;
pub mod tenant;
pub mod upstream;

pub mod cache;
pub mod learn;

pub mod pipeline;

pub mod grpc;
pub mod http;

pub mod server;

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "commands report on the terminal")]
pub mod cli;
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "commands report on the terminal")]
pub mod demo;
pub mod offline;

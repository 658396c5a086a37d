//! promptkeep: a semantic prompt-cache server in front of LLM inference.
//!
//! A request is a prompt. An exact repeat is answered by its key, a near-duplicate by the nearest entry of the same
//! scope if the namespace's learner is sure enough of it, and everything else by a model. [`server::Server`] puts the
//! parts together and listens; [`pipeline`] is the path of a request and the place to begin reading.
//!
//! The modules stand from the ground up, and a module uses only those before it:
//!
//! | module | what it is |
//! |---|---|
//! | [`prompt`], [`key`], [`entry`], [`model`], [`outcome`], [`error`] | the words that everything speaks, of the crate promptkeep-core |
//! | [`decide`] | whether a near entry may be served: guards, features, and the learner with its error budgets |
//! | [`embed`] | texts to vectors: all-MiniLM-L6-v2 in process, or an OpenAI-compatible endpoint |
//! | [`index`] | the nearest vectors of a scope |
//! | [`config`] | the settings of every part, read from TOML and the environment |
//! | [`telemetry`] | metrics, statistics, traces and the request log |
//! | [`tenant`] | API keys, owners, rate limits and budgets |
//! | [`body`] | bodies of requests and replies, limited in time and memory |
//! | [`store`] | where entries outlive the process: one file, Redis, or memory |
//! | [`upstream`] | the models: routing, fallback, hedging, breakers, the OpenAI dialect |
//! | [`cache`] | memory tier, index and store kept consistent |
//! | [`learn`] | a learner for each namespace, and what replicas tell each other of it |
//! | [`pipeline`] | the path of a request |
//! | [`grpc`], [`http`] | the two servers: decode, call the pipeline, encode |
//! | [`server`] | start, listen, reload, drain |
//! | [`offline`] | recorded and labelled traffic through the same pipeline: `replay` and `tune` |
//! | [`demo`], [`cli`] | the demo and the commands of the binary |
//!
//! `ARCHITECTURE.md` has the glossary, the invariants and the map of the files; `tests/architecture.rs` holds the
//! layers.

#![deny(clippy::print_stdout, clippy::print_stderr)]

// The words and the pure parts, each a crate of its own.
pub use promptkeep_core::{entry, error, key, model, outcome, prompt};
pub use promptkeep_decide as decide;
pub use promptkeep_embed as embed;
pub use promptkeep_index as index;

pub mod config;

pub mod telemetry;

pub mod body;
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

//! Prometheus metrics: one value, passed in. Labels come from enums and the configuration, never from a caller's
//! text, and those of the hot path are resolved once.

mod calls;
mod labels;
mod quality;
mod register;
mod requests;
mod storage;

use std::{collections::HashSet, fmt::Write as _};

use prometheus_client::{encoding::text, registry::Registry};

use self::{calls::Calls, quality::Quality, requests::Requests, storage::Storage};
pub use self::{
    calls::TenantBudget,
    labels::{LabelLoss, LabelOrigin, LabelWay, Rpc, Shed, StoreOp},
};
use crate::telemetry::stats::Stats;

/// Every metric of the server.
pub struct Metrics {
    registry: Registry,
    requests: Requests,
    calls: Calls,
    storage: Storage,
    quality: Quality,
}

impl Metrics {
    /// Registers every metric.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("promptkeep");
        Self {
            requests: Requests::register(&mut registry),
            calls: Calls::register(&mut registry),
            storage: Storage::register(&mut registry),
            quality: Quality::register(&mut registry),
            registry,
        }
    }

    /// Sets the gauges of the server's own numbers; called before each scrape.
    pub fn stats(&self, stats: &Stats, max_wrong_hits: f32) {
        self.requests.set_objective(stats.objective);
        self.storage.set_sizes(stats.sizes);
        self.quality.set_wrong_hits(stats.wrong_hits, max_wrong_hits);
        self.quality.set_verifier_errors(stats.verifier_errors);
    }

    /// Encodes every metric in Prometheus' own text format, in which a counter's name always ends in `_total`.
    pub fn encode_plain(&self) -> String {
        let mut out = String::new();
        let mut counters = HashSet::new();
        let encoded = self.encode();
        for line in encoded.lines() {
            if let Some(name) = line.strip_prefix("# TYPE ").and_then(|rest| rest.strip_suffix(" counter")) {
                counters.insert(name);
            }
        }
        for line in encoded.lines().filter(|line| *line != "# EOF") {
            let mut words = line.splitn(4, ' ');
            match (words.next(), words.next(), words.next(), words.next()) {
                (Some("#"), Some(keyword), Some(name), Some(rest)) if counters.contains(name) => {
                    // Writing to a string cannot fail.
                    let _ = writeln!(out, "# {keyword} {name}_total {rest}");
                }
                _ => {
                    let _ = writeln!(out, "{line}");
                }
            }
        }
        out
    }

    /// Encodes every metric in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail, and our labels encode.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

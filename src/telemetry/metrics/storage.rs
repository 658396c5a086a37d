//! Metrics of what the cache holds: store, index, memory, replication.

use std::time::{Duration, Instant};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::{
    Metrics, StoreOp,
    register::{FloatGauge, Seconds, family, seconds, seconds_by, single},
};
use crate::telemetry::stats::Sizes;

pub(super) struct Storage {
    store_errors: Family<OpLabel, Counter>,
    store_seconds: Seconds<OpLabel>,
    embed_seconds: Histogram,
    search_seconds: Histogram,
    entries: Gauge,
    index_vectors: Gauge,
    index_loaded: FloatGauge,
    memory_bytes: Family<PartLabel, Gauge>,
    replication_lag_seconds: Family<PeerLabel, FloatGauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OpLabel {
    op: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartLabel {
    part: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PeerLabel {
    peer: String,
}

impl Storage {
    pub fn register(to: &mut Registry) -> Self {
        let store_errors: Family<OpLabel, Counter> =
            family(to, "store_errors", "Failed store operations, by operation");
        // A counter that appears with its first event hides that event from every rate.
        for op in StoreOp::ALL {
            drop(store_errors.get_or_create(&OpLabel { op: op.as_str() }));
        }
        Self {
            store_errors,
            store_seconds: seconds_by(to, "store_seconds", "Time of a store operation"),
            embed_seconds: seconds(to, "embed_seconds", "Time to embed one text, with queueing"),
            search_seconds: seconds(to, "search_seconds", "Time to find the nearest entries"),
            entries: single(to, "entries", "Entries in the store"),
            index_vectors: single(to, "index_vectors", "Vectors in the index"),
            index_loaded: single(to, "index_loaded", "Fraction of the store's entries loaded into the index"),
            memory_bytes: family(to, "memory_bytes", "Memory held, by part"),
            replication_lag_seconds: family(
                to,
                "replication_lag_seconds",
                "Time since this replica was in step with a region's events; 0 while it is",
            ),
        }
    }

    pub fn set_sizes(&self, sizes: Sizes) {
        self.entries.set(sizes.entries.cast_signed());
        self.index_vectors.set(sizes.index_vectors.cast_signed());
    }
}

impl Metrics {
    /// Counts a store operation.
    pub fn store(&self, op: StoreOp, started: Instant, failed: bool) {
        let label = OpLabel { op: op.as_str() };
        self.storage.store_seconds.get_or_create(&label).observe(started.elapsed().as_secs_f64());
        if failed {
            self.storage.store_errors.get_or_create(&label).inc();
        }
    }

    /// Counts one embedding.
    pub fn embed(&self, started: Instant) {
        self.storage.embed_seconds.observe(started.elapsed().as_secs_f64());
    }

    /// Counts one search.
    pub fn search(&self, started: Instant) {
        self.storage.search_seconds.observe(started.elapsed().as_secs_f64());
    }

    /// Sets the bytes held by the memory tier and by the index; called before each scrape.
    pub fn memory(&self, memory_tier: u64, index: usize) {
        for (part, bytes) in [("memory_tier", memory_tier.cast_signed()), ("index", index as i64)] {
            self.storage.memory_bytes.get_or_create(&PartLabel { part }).set(bytes);
        }
    }

    /// Sets the loaded fraction of the index and this replica's lag behind each region; called before each scrape.
    /// Regions that another replica reads now disappear.
    pub fn replication(&self, loaded: f64, lags: &[(String, Duration)]) {
        self.storage.index_loaded.set(loaded);
        self.storage.replication_lag_seconds.clear();
        for (peer, lag) in lags {
            let label = PeerLabel { peer: peer.clone() };
            self.storage.replication_lag_seconds.get_or_create(&label).set(lag.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_read_by_another_replica_has_no_lag_here() {
        let metrics = Metrics::new();
        let us = r#"promptkeep_replication_lag_seconds{peer="us"}"#;
        metrics.replication(1.0, &[("us".to_owned(), Duration::from_secs(3))]);
        assert!(metrics.encode().contains(us));
        metrics.replication(1.0, &[]);
        assert!(!metrics.encode().contains(us));
    }
}

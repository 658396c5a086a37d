//! Creates metrics and registers them.

use std::{fmt::Debug, hash::Hash, sync::atomic::AtomicU64};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeMetric},
    metrics::{TypedMetric, counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Metric, Registry},
};

/// Upper bounds in seconds, about three a decade: from 10 µs, which a hit in memory takes, to 60 s.
const SECONDS: [f64; 21] = [
    1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
    10.0, 30.0, 60.0,
];

/// Histograms of times, by label.
pub type Seconds<L> = Family<L, Histogram, fn() -> Histogram>;
pub type Dollars = Counter<f64, AtomicU64>;
pub type FloatGauge = Gauge<f64, AtomicU64>;

pub fn family<L, M>(to: &mut Registry, name: &str, help: &str) -> Family<L, M>
where
    L: EncodeLabelSet + Clone + Hash + Eq + Debug + Send + Sync + 'static,
    M: EncodeMetric + TypedMetric + Default + Debug + Send + Sync + 'static,
{
    let family = Family::default();
    to.register(name, help, family.clone());
    family
}

pub fn seconds_by<L>(to: &mut Registry, name: &str, help: &str) -> Seconds<L>
where
    L: EncodeLabelSet + Clone + Hash + Eq + Debug + Send + Sync + 'static,
{
    let family: Seconds<L> = Family::new_with_constructor(|| Histogram::new(SECONDS));
    to.register(name, help, family.clone());
    family
}

pub fn seconds(to: &mut Registry, name: &str, help: &str) -> Histogram {
    let histogram = Histogram::new(SECONDS);
    to.register(name, help, histogram.clone());
    histogram
}

/// A single gauge or counter.
pub fn single<M: Metric + Clone + Default>(to: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    to.register(name, help, metric.clone());
    metric
}

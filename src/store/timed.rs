//! A store whose calls are timed, counted and, for requests, bounded by `store.timeout`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Op, Store, StoreError};
use crate::telemetry::{metrics::Metrics, stats::Ledger};

/// A [`Store`] with a timeout, metrics and warnings for its calls.
#[derive(Clone)]
pub struct TimedStore {
    inner: Arc<dyn Store>,
    timeout: Duration,
    metrics: Arc<Metrics>,
    ledger: Arc<Ledger>,
}

impl TimedStore {
    /// `timeout`: how long a request waits for the store before it continues without.
    pub fn new(inner: Arc<dyn Store>, timeout: Duration, metrics: Arc<Metrics>, ledger: Arc<Ledger>) -> Self {
        Self { inner, timeout, metrics, ledger }
    }

    /// The store itself, for calls that are not a request's: they are neither timed nor counted.
    pub fn inner(&self) -> &dyn Store {
        &*self.inner
    }

    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Deadline of the store calls of a request that begins now.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Runs a call for as long as it takes.
    pub async fn call<'s, T, F>(
        &'s self,
        op: Op,
        call: impl FnOnce(&'s dyn Store) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let started = Instant::now();
        self.record(op, started, call(self.inner()).await)
    }

    /// Runs a call that fails at `deadline`.
    pub async fn call_until<'s, T, F>(
        &'s self,
        op: Op,
        deadline: Instant,
        call: impl FnOnce(&'s dyn Store) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let started = Instant::now();
        let result = tokio::time::timeout_at(deadline.into(), call(self.inner())).await;
        let late = |_| Err(StoreError { op, cause: "no reply within store.timeout".to_owned() });
        self.record(op, started, result.unwrap_or_else(late))
    }

    fn record<T>(&self, op: Op, started: Instant, result: Result<T, StoreError>) -> Result<T, StoreError> {
        self.metrics.store(op, started, result.is_err());
        result.inspect_err(|error| {
            self.ledger.store_error();
            tracing::warn!(op = op.as_str(), %error, "store failed");
        })
    }
}

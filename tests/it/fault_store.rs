//! Store wrapper whose calls fail, hang or slow down as a test plans: no IO without a way to fail it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use promptkeep::{
    entry::{Entry, Selector},
    key::CacheKey,
    store::{Change, Claim, Durability, LearnerEvent, Op, Snapshot, SnapshotVersion, Store, StoreError},
};
use tokio::sync::Semaphore;

/// Fault of a store call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Fails and changes nothing.
    Fail,
    /// Succeeds but reports a failure, as if the reply was lost.
    FailAfter,
    /// Runs after this delay on tokio's clock.
    Delay(Duration),
    /// Waits until [`FaultStore::release`].
    Hang,
}

/// Calls of an operation that a fault affects; the first is number 1.
#[derive(Clone, Copy, Debug)]
pub enum Calls {
    Nth(u64),
    From(u64),
}

/// Forwards every call to another store, except for planned faults.
pub struct FaultStore {
    inner: Arc<dyn Store>,
    state: Mutex<State>,
    /// Permits for hanging calls.
    gate: Semaphore,
}

#[derive(Default)]
struct State {
    calls: HashMap<Op, u64>,
    plan: Vec<(Op, Calls, Fault)>,
}

impl FaultStore {
    /// Wraps a store, at first without faults.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, state: Mutex::default(), gate: Semaphore::new(0) }
    }

    /// Plans a fault. If several affect a call, the last one planned wins.
    pub fn plan(&self, op: Op, calls: Calls, fault: Fault) {
        self.state.lock().unwrap().plan.push((op, calls, fault));
    }

    /// Drops all plans; calls that already hang keep hanging.
    pub fn heal(&self) {
        self.state.lock().unwrap().plan.clear();
    }

    /// Lets `calls` hanging calls continue.
    pub fn release(&self, calls: usize) {
        self.gate.add_permits(calls);
    }

    /// Number of calls of `op` so far.
    pub fn calls(&self, op: Op) -> u64 {
        self.state.lock().unwrap().calls.get(&op).copied().unwrap_or_default()
    }

    fn next_fault(&self, op: Op) -> Option<Fault> {
        let mut state = self.state.lock().unwrap();
        let calls = state.calls.entry(op).or_default();
        *calls += 1;
        let number = *calls;
        let is_affected = |calls: &Calls| match calls {
            Calls::Nth(n) => *n == number,
            Calls::From(n) => *n <= number,
        };
        let planned =
            state.plan.iter().rev().find(|(fault_op, calls, _)| *fault_op == op && is_affected(calls));
        planned.map(|(_, _, fault)| fault.clone())
    }

    /// Runs `call`, with the fault that is planned for it.
    async fn meet<T>(
        &self,
        op: Op,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let injected = || StoreError { op, cause: "injected".to_owned() };
        match self.next_fault(op) {
            None => {}
            Some(Fault::Fail) => return Err(injected()),
            Some(Fault::FailAfter) => return call.await.and(Err(injected())),
            Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
            Some(Fault::Hang) => self.gate.acquire().await.unwrap().forget(),
        }
        call.await
    }
}

#[async_trait]
impl Store for FaultStore {
    async fn get(&self, key: CacheKey) -> Result<Option<Arc<Entry>>, StoreError> {
        self.meet(Op::Get, self.inner.get(key)).await
    }

    async fn put(&self, entry: Arc<Entry>, durability: Durability) -> Result<(), StoreError> {
        self.meet(Op::Put, self.inner.put(entry, durability)).await
    }

    async fn snapshot(&self, name: &str) -> Result<Option<Snapshot>, StoreError> {
        self.meet(Op::Get, self.inner.snapshot(name)).await
    }

    async fn put_snapshot(
        &self,
        name: &str,
        snapshot: Snapshot,
        replaces: Option<SnapshotVersion>,
    ) -> Result<bool, StoreError> {
        self.meet(Op::Put, self.inner.put_snapshot(name, snapshot, replaces)).await
    }

    async fn remove(&self, selector: &Selector, dry_run: bool) -> Result<Vec<CacheKey>, StoreError> {
        self.meet(Op::Remove, self.inner.remove(selector, dry_run)).await
    }

    async fn scan(&self, after: Option<CacheKey>, limit: usize) -> Result<Vec<Arc<Entry>>, StoreError> {
        self.meet(Op::Scan, self.inner.scan(after, limit)).await
    }

    async fn expire(&self, max_entries: u64, limit: usize) -> Result<Vec<CacheKey>, StoreError> {
        self.meet(Op::Expire, self.inner.expire(max_entries, limit)).await
    }

    async fn claim(&self, key: CacheKey) -> Result<Claim, StoreError> {
        self.meet(Op::Claim, self.inner.claim(key)).await
    }

    async fn changed(&self) -> Vec<Change> {
        self.inner.changed().await
    }

    async fn publish(&self, message: Vec<u8>) -> Result<bool, StoreError> {
        self.meet(Op::Publish, self.inner.publish(message)).await
    }

    async fn learner_event(&self) -> LearnerEvent {
        self.inner.learner_event().await
    }

    fn lags(&self) -> Vec<(String, Duration)> {
        self.inner.lags()
    }

    fn entries(&self) -> u64 {
        self.inner.entries()
    }

    fn unreadable(&self) -> u64 {
        self.inner.unreadable()
    }

    async fn flush(&self) -> Result<(), StoreError> {
        self.meet(Op::Flush, self.inner.flush()).await
    }
}

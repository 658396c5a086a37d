//! The background thread that rebuilds scopes and grows their graphs, so that callers do not wait for it.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use super::{
    block::Shape,
    cell::{Cell, Upkeep},
};
use crate::IndexConfig;

/// Handle of the background thread and its queue. Dropping it stops the thread, even while it builds a graph.
pub struct UpkeepThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    shape: Shape,
    config: IndexConfig,
    /// Locked briefly only.
    queue: Mutex<Queue>,
    /// Signals that the queue changed or the thread became idle.
    changed: Condvar,
    /// Set when the thread must end.
    stop: AtomicBool,
}

/// Scopes that wait for upkeep, each at most once.
#[derive(Default)]
struct Queue {
    cells: VecDeque<Arc<Cell>>,
    is_busy: bool,
}

impl UpkeepThread {
    /// Starts the thread.
    ///
    /// # Panics
    /// When the system cannot start a thread.
    pub fn start(shape: Shape, config: IndexConfig) -> Self {
        let shared = Arc::new(Shared {
            shape,
            config,
            queue: Mutex::default(),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let own = shared.clone();
        let thread = thread::Builder::new().name("index-upkeep".to_owned()).spawn(move || own.run());
        let thread = thread.unwrap_or_else(|cause| panic!("cannot start the index's thread: {cause}"));
        Self { shared, thread: Some(thread) }
    }

    /// Queues `cell` if upkeep is due.
    pub fn queue_if_due(&self, cell: &Arc<Cell>) {
        if cell.queue(&self.shared.config) {
            self.push(cell.clone());
        }
    }

    /// Queues `cell` unconditionally. The thread frees it if it holds the last reference.
    pub fn push(&self, cell: Arc<Cell>) {
        self.shared.queue().cells.push_back(cell);
        self.shared.changed.notify_all();
    }

    /// Waits until the queue is empty and the thread is idle.
    pub fn wait(&self) {
        let mut queue = self.shared.queue();
        while queue.is_busy || !queue.cells.is_empty() {
            queue = self.shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for UpkeepThread {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Under the lock, so the thread cannot miss the signal between its check of the flag and its wait.
        let queue = self.shared.queue();
        self.shared.changed.notify_all();
        drop(queue);
        // A panic of the thread was reported when it happened.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

impl Shared {
    fn run(&self) {
        while let Some(cell) = self.next() {
            cell.unqueue();
            while let Some(upkeep) = cell.due(&self.config)
                && self.perform(&cell, upkeep).is_some()
            {}
        }
    }

    /// Waits for the next cell. `None` when stopped.
    fn next(&self) -> Option<Arc<Cell>> {
        let mut queue = self.queue();
        queue.is_busy = false;
        self.changed.notify_all();
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(cell) = queue.cells.pop_front() {
                queue.is_busy = true;
                return Some(cell);
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Does one piece of upkeep. `None` when stopped.
    fn perform(&self, cell: &Cell, upkeep: Upkeep) -> Option<()> {
        let old = cell.sealed()?;
        match upkeep {
            Upkeep::Extend => cell.install_graph(&old.extend(self.shape, &self.stop)?),
            Upkeep::Rebuild { with_graph } => {
                cell.install_rebuilt(old.clone().rebuild(self.shape, with_graph, &self.stop)?);
                old.free();
            }
        }
        Some(())
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

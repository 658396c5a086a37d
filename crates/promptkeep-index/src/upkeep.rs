//! The thread that rebuilds scopes and grows their graphs, so that nobody waits for it.

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

/// The thread and its queue. Dropping it ends the thread, in the middle of a graph if need be.
pub struct Keeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    shape: Shape,
    config: IndexConfig,
    /// Held for moments only.
    queue: Mutex<Queue>,
    /// The queue changed, or the thread became idle.
    changed: Condvar,
    stop: AtomicBool,
}

/// Bounded by the number of scopes: each is in it once.
#[derive(Default)]
struct Queue {
    cells: VecDeque<Arc<Cell>>,
    is_busy: bool,
}

// === impl Keeper ===

impl Keeper {
    /// # Panics
    /// When the system has no thread to give.
    pub fn start(shape: Shape, config: IndexConfig) -> Self {
        let shared = Arc::new(Shared {
            shape,
            config,
            queue: Mutex::default(),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let kept = shared.clone();
        let thread = thread::Builder::new().name("index-upkeep".to_owned()).spawn(move || kept.run());
        let thread = thread.unwrap_or_else(|cause| panic!("cannot start the index's thread: {cause}"));
        Self { shared, thread: Some(thread) }
    }

    /// Queues `cell` if something is to be done about it.
    pub fn look_at(&self, cell: &Arc<Cell>) {
        if cell.queue(&self.shared.config) {
            self.push(cell.clone());
        }
    }

    /// Queues `cell` in any case; the last to hold it has to free it.
    pub fn push(&self, cell: Arc<Cell>) {
        self.shared.queue().cells.push_back(cell);
        self.shared.changed.notify_all();
    }

    /// Waits until nothing is to be done.
    pub fn wait(&self) {
        let mut queue = self.shared.queue();
        while queue.is_busy || !queue.cells.is_empty() {
            queue = self.shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Under the lock, or the thread could miss it between looking at the flag and waiting.
        let queue = self.shared.queue();
        self.shared.changed.notify_all();
        drop(queue);
        // A panic there was reported when it happened.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

// === impl Shared ===

impl Shared {
    fn run(&self) {
        while let Some(cell) = self.next() {
            cell.unqueue();
            while let Some(upkeep) = cell.due(&self.config)
                && self.keep(&cell, upkeep).is_some()
            {}
        }
    }

    /// The next cell, once there is one; `None` at the end.
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

    /// `None` when stopped.
    fn keep(&self, cell: &Cell, upkeep: Upkeep) -> Option<()> {
        let old = cell.sealed()?;
        match upkeep {
            Upkeep::Extend => cell.put_graph(&old.extend(self.shape, &self.stop)?),
            Upkeep::Rebuild { with_graph } => {
                cell.put_rebuilt(old.clone().rebuild(self.shape, with_graph, &self.stop)?);
                old.free();
            }
        }
        Some(())
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

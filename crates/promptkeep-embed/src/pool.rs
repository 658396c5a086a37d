//! The threads that run the in-process model: a bounded queue before them, one text per thread at a time
//! (embedding several texts together was measured to be slower than one after the other).

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
};

use async_trait::async_trait;
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
use tokio::sync::oneshot;

use super::{
    EmbedError, Embedded, Embedder,
    minilm::{HIDDEN, MiniLm, Session},
};

/// An [`Embedder`] over threads of its own. They end when it is dropped.
pub struct Pool {
    name: &'static str,
    queue: SyncSender<Job>,
    /// Each of one thread. The matrix products split themselves over the rayon pool they run in: in a
    /// pool of one, each stays on its thread.
    _threads: Vec<ThreadPool>,
}

struct Job {
    text: Box<str>,
    /// Closed when the caller has gone.
    reply: oneshot::Sender<Result<Embedded, EmbedError>>,
}

// === impl Pool ===

impl Pool {
    /// Starts `threads` threads behind a queue of `queue` texts.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn start(model: &Arc<MiniLm>, threads: usize, queue: usize) -> Result<Self, ThreadPoolBuildError> {
        let (sender, receiver) = sync_channel(queue);
        let receiver = Arc::new(Mutex::new(receiver));
        let mut pools = Vec::with_capacity(threads);
        for i in 0..threads.max(1) {
            let pool =
                ThreadPoolBuilder::new().num_threads(1).thread_name(move |_| format!("embed-{i}")).build()?;
            let (model, jobs) = (Arc::clone(model), Arc::clone(&receiver));
            pool.spawn(move || work(&model, &jobs));
            pools.push(pool);
        }
        Ok(Self { name: model.name(), queue: sender, _threads: pools })
    }
}

#[async_trait]
impl Embedder for Pool {
    async fn embed(&self, text: &str) -> Result<Embedded, EmbedError> {
        let (reply, answer) = oneshot::channel();
        match self.queue.try_send(Job { text: text.into(), reply }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(EmbedError::Overloaded),
            Err(TrySendError::Disconnected(_)) => {
                return Err(EmbedError::Failed("worker threads have ended".to_owned()));
            }
        }
        answer.await.unwrap_or_else(|_| Err(EmbedError::Failed("worker thread panicked".to_owned())))
    }

    fn dimensions(&self) -> usize {
        HIDDEN
    }

    fn name(&self) -> &str {
        self.name
    }
}

/// Takes jobs until the queue is closed. A panic costs its own job only.
fn work(model: &Arc<MiniLm>, jobs: &Mutex<Receiver<Job>>) {
    let mut session = Session::new(Arc::clone(model));
    while let Some(job) = next(jobs) {
        if job.reply.is_closed() {
            continue;
        }
        match catch_unwind(AssertUnwindSafe(|| session.embed(&job.text))) {
            // Fails when the caller left in the meantime, which is its right.
            Ok(result) => drop(job.reply.send(result)),
            Err(_) => session = Session::new(Arc::clone(model)),
        }
    }
}

/// The lock is held while waiting: whoever holds it is the next to work. Nothing can panic under it.
fn next(jobs: &Mutex<Receiver<Job>>) -> Option<Job> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

#[cfg(test)]
mod tests;

//! Worker threads of the in-process model behind a bounded queue. Each thread embeds one text at a time: batches were
//! measured to be slower.

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

/// An [`Embedder`] with worker threads of its own. They end when it is dropped.
pub struct Pool {
    name: &'static str,
    queue: SyncSender<Job>,
    /// One pool of one thread per worker. Matrix products split themselves over the rayon pool in which they run, so
    /// in a pool of one they stay on the worker's thread.
    _threads: Vec<ThreadPool>,
}

struct Job {
    text: Box<str>,
    /// Closed when the caller has left.
    reply: oneshot::Sender<Result<Embedded, EmbedError>>,
}

impl Pool {
    /// Starts `threads` worker threads, at least one, behind a queue of `queue` texts.
    ///
    /// # Errors
    /// When the system cannot start a thread.
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

/// Embeds texts until the queue is closed. A panic fails only its own job.
fn work(model: &Arc<MiniLm>, jobs: &Mutex<Receiver<Job>>) {
    let mut session = Session::new(Arc::clone(model));
    while let Some(job) = next(jobs) {
        if job.reply.is_closed() {
            continue;
        }
        match catch_unwind(AssertUnwindSafe(|| session.embed(&job.text))) {
            // Fails when the caller has left meanwhile.
            Ok(result) => drop(job.reply.send(result)),
            Err(_) => session = Session::new(Arc::clone(model)),
        }
    }
}

/// Waits for the next job. Holds the lock while it waits, so one worker waits for a job and the others for the lock.
/// Nothing panics under the lock.
fn next(jobs: &Mutex<Receiver<Job>>) -> Option<Job> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

#[cfg(test)]
mod tests;

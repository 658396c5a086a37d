//! Learner events: messages that replicas publish on a stream, and those of other replicas that wait to be received.
//! Does not know their content.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Mutex, mpsc};

use super::{
    core::Core,
    event::{Event, Origin},
    link::Fault,
};
use crate::store::LearnerEvent;

/// Maximum messages that wait to be received. Beyond it they are dropped and reported as missed.
const WAITING_MAX: usize = 256;

/// Received messages of other replicas.
pub struct LearnerEvents {
    sender: mpsc::Sender<LearnerEvent>,
    receiver: Mutex<mpsc::Receiver<LearnerEvent>>,
    missed: AtomicBool,
}

impl LearnerEvents {
    pub fn new() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        Self { sender, receiver: receiver.into(), missed: AtomicBool::new(false) }
    }

    pub fn push(&self, event: LearnerEvent) {
        if self.sender.try_send(event).is_err() {
            self.missed.store(true, Ordering::Relaxed);
        }
    }

    pub async fn next(&self) -> LearnerEvent {
        if self.missed.swap(false, Ordering::Relaxed) {
            return LearnerEvent::Missed;
        }
        match self.receiver.lock().await.recv().await {
            Some(event) => event,
            // The sender lives as long as this.
            None => std::future::pending().await,
        }
    }
}

/// Publishes a message, which `origin` marks if it comes from another region.
pub async fn publish(core: &Core, origin: Option<Origin>, message: Vec<u8>) -> Result<(), Fault> {
    core.append(&core.keys.learner_events(), origin, Event::Learned { message }).await.map(drop)
}

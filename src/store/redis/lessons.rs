//! What replicas learned of namespaces: notes that only take the place of the version that their writer knew, and
//! lessons, which they tell each other through a stream. Knows nothing of what is in them.

use std::sync::atomic::{AtomicBool, Ordering};

use redis::cmd;
use tokio::sync::{Mutex, mpsc};

use super::{
    core::{BACKGROUND_PATIENCE, Core},
    event::{Event, Origin},
    link::{Fault, Script},
};
use crate::store::{Heard, Note, NoteVersion};

/// Lessons that wait to be learned; more are missed, and the notes tell.
const WAITING_MAX: usize = 256;

/// Puts a note in the place of the version that its writer knew.
const REPLACE: &str = include_str!("note.lua");

/// Notes and lessons of one replica.
pub struct Lessons {
    replace: Script,
    /// Of other replicas.
    sender: mpsc::Sender<Heard>,
    receiver: Mutex<mpsc::Receiver<Heard>>,
    missed: AtomicBool,
}

// === impl Lessons ===

impl Lessons {
    pub fn new() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        Self {
            replace: Script::new(REPLACE),
            sender,
            receiver: receiver.into(),
            missed: AtomicBool::new(false),
        }
    }

    /// See [`Store::put_note`](crate::store::Store::put_note). The version lies before the note.
    pub async fn put_note(
        &self,
        core: &Core,
        name: &str,
        note: &Note,
        over: Option<NoteVersion>,
    ) -> Result<bool, Fault> {
        let value = [note.version.as_slice(), &note.bytes].concat();
        let over = over.as_ref().map_or(&[] as &[u8], |version| version.as_slice());
        let keys = [core.keys.note(name)];
        let put: u64 =
            core.link.run(BACKGROUND_PATIENCE, &self.replace, &keys, &[value.as_slice(), over]).await?;
        Ok(put > 0)
    }

    pub async fn note(&self, core: &Core, name: &str) -> Result<Option<Note>, Fault> {
        let command = cmd("GET").arg(core.keys.note(name)).clone();
        let value: Option<Vec<u8>> = core.link.call_within(core.link.patience, &command).await?;
        let note = |value: &[u8]| {
            let (version, bytes) = value.split_first_chunk()?;
            Some(Note { version: *version, bytes: bytes.to_vec() })
        };
        Ok(value.as_deref().and_then(note))
    }

    /// Tells the other replicas.
    pub async fn tell(&self, core: &Core, origin: Option<Origin>, lesson: Vec<u8>) -> Result<(), Fault> {
        core.append(&core.keys.lessons(), origin, Event::Learned { lesson }).await.map(drop)
    }

    /// Hands on what another replica told.
    pub fn hear(&self, heard: Heard) {
        if self.sender.try_send(heard).is_err() {
            self.missed.store(true, Ordering::Relaxed);
        }
    }

    pub async fn heard(&self) -> Heard {
        if self.missed.swap(false, Ordering::Relaxed) {
            return Heard::Missed;
        }
        match self.receiver.lock().await.recv().await {
            Some(heard) => heard,
            // The sender lives as long as this.
            None => std::future::pending().await,
        }
    }
}

//! How what one process learns reaches the others that share its store: as lessons, told about once a second,
//! that each takes into its own state; and as notes, which are read, joined and replaced when another process has
//! written one since. Lessons may be lost, the next note has what was in them. They carry numbers, hashes and
//! names of namespaces, never a text.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{task::spawn_blocking, time::sleep};

use super::{Learning, Namespace, NamespaceId, namespace::lock};
use crate::{
    decide::{
        learner::Lesson,
        table::{Reader, Table},
    },
    key::{CacheKey, Owner},
    metrics::LabelWay,
    store::{Heard, Note, NoteVersion, StoreError},
};

/// Pause between two lessons; one that parts a pair does not wait for it.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Least pause between two fits to what others saw, all namespaces one after another.
const CATCH_UP_EVERY: Duration = Duration::from_secs(2);

/// Longest that something learned goes without a note, in a namespace where little happens.
const SAVE_LATEST: Duration = Duration::from_secs(60);

/// Bytes of one message, about. What is more goes into another.
const MESSAGE_BYTES: usize = 128 * 1024;

/// Attempts to put a note in the place of one that another process has just written.
const REPLACE_TRIES: usize = 8;

/// Pairs that wait until their namespaces can be read; the oldest go.
const UNREAD_MAX: usize = 1024;

const MAGIC: &[u8; 8] = b"pkheard\x01";

/// Longest name of a tenant or namespace that is read.
const NAME_MAX: usize = 64 * 1024;

/// A prompt and an entry that do not belong together.
pub type Apart = (CacheKey, CacheKey);

/// What a namespace has to tell.
pub struct News {
    pub apart: Vec<Apart>,
    pub lesson: Option<Lesson>,
}

/// What another process told of a namespace.
#[derive(Debug, PartialEq)]
struct Told<'a> {
    id: NamespaceId,
    apart: Vec<Apart>,
    /// A [`Lesson`] by the same table; empty: none.
    lesson: &'a [u8],
}

// === impl Learning ===

impl Learning {
    /// Tells, hears and keeps, for ever.
    pub async fn share(&self) {
        tokio::join!(self.tell(), self.follow(), self.catch_up());
    }

    async fn tell(&self) {
        loop {
            tokio::select! {
                () = sleep(TELL_EVERY) => {}
                () = self.urgent.notified() => {}
            }
            self.tell_once().await;
            self.save_due(SAVE_LATEST).await;
        }
    }

    /// Tells what was learned since the last time; what does not arrive is told again with the next.
    pub(super) async fn tell_once(&self) {
        let mut message = Message::new(&self.table);
        let mut told = Vec::new();
        for (id, namespace) in self.namespaces.iter() {
            let (news, dropped) = namespace.news();
            self.metrics.labels_shared(LabelWay::Untold, dropped);
            let Some(news) = news else { continue };
            message.add(&id, &news);
            told.push((namespace, news));
            if message.bytes.len() >= MESSAGE_BYTES {
                let full = std::mem::replace(&mut message, Message::new(&self.table));
                self.send(full, std::mem::take(&mut told)).await;
            }
        }
        self.send(message, told).await;
    }

    async fn send(&self, message: Message, told: Vec<(Arc<Namespace>, News)>) {
        if told.is_empty() {
            return;
        }
        let labels = told.iter().filter_map(|(_, news)| news.lesson.as_ref()).map(Lesson::labels).sum();
        match self.store.tell(message.bytes).await {
            Ok(true) => self.metrics.labels_shared(LabelWay::Told, labels),
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(%error, "what was learned is told later");
                told.into_iter().for_each(|(namespace, news)| namespace.take_back(news));
            }
        }
    }

    async fn follow(&self) {
        loop {
            match self.store.heard().await {
                Heard::Lesson { message, is_far } => self.hear_message(&message, is_far).await,
                Heard::Missed => self.read_again().await,
            }
        }
    }

    pub(super) async fn hear_message(&self, message: &[u8], is_far: bool) {
        let Some(all) = read(message, &self.table) else {
            return tracing::debug!("what another process learned is of another version");
        };
        for told in all {
            // Its note has the labels, once it is asked in. A pair from another region stands in no note here.
            if told.apart.is_empty() && self.namespaces.get(&told.id).is_none() {
                continue;
            }
            let Some(known) = self.open(&told.id).await else {
                self.keep_unread(&told);
                continue;
            };
            let lesson = Lesson::decode(told.lesson, &self.table);
            let news = known.take_in(&told.apart, lesson.as_ref(), is_far);
            if is_far && !told.apart.is_empty() {
                self.urgent.notify_one();
            }
            self.metrics.labels_shared(LabelWay::Heard, news);
        }
    }

    fn keep_unread(&self, told: &Told<'_>) {
        let mut unread = lock(&self.unread);
        unread.extend(told.apart.iter().map(|pair| (told.id.clone(), *pair)));
        let surplus = unread.len().saturating_sub(UNREAD_MAX);
        unread.drain(..surplus);
    }

    /// Learns the pairs that waited, as far as the store answers. They may be from another region, so they are
    /// written down here.
    pub(super) async fn take_in_unread(&self) {
        loop {
            let Some((id, pair)) = lock(&self.unread).pop_front() else { return };
            let Some(known) = self.open(&id).await else {
                return lock(&self.unread).push_front((id, pair));
            };
            known.take_in(&[pair], None, true);
            self.urgent.notify_one();
        }
    }

    /// Fits what others saw, which takes tens of milliseconds for each namespace.
    async fn catch_up(&self) {
        loop {
            sleep(CATCH_UP_EVERY).await;
            self.take_in_unread().await;
            for (_, namespace) in self.namespaces.iter() {
                if let Some(snapshot) = namespace.snapshot_when_behind() {
                    namespace.install(spawn_blocking(move || snapshot.fit()).await.ok());
                }
            }
        }
    }

    /// Takes over what the notes have that was not heard, however long the store takes to tell.
    async fn read_again(&self) {
        for (_, namespace) in self.namespaces.iter() {
            while let Err(error) = self.read_note(&namespace).await {
                tracing::warn!(%error, "what was learned cannot be read");
                sleep(TELL_EVERY).await;
            }
        }
    }

    async fn read_note(&self, namespace: &Arc<Namespace>) -> Result<(), StoreError> {
        let mut version = namespace.version.lock().await;
        *version = self.take_over(namespace).await?;
        Ok(())
    }

    /// Learns what the kept note has, and tells which version that is.
    async fn take_over(&self, namespace: &Arc<Namespace>) -> Result<Option<NoteVersion>, StoreError> {
        let Some(Note { version, bytes }) = self.store.note(&namespace.id().note()).await? else {
            return Ok(None);
        };
        let namespace = Arc::clone(namespace);
        // A panic leaves it as it was.
        let _ = spawn_blocking(move || namespace.join(&bytes)).await;
        Ok(Some(version))
    }

    /// Writes the notes of namespaces that learned something `every` ago, or parted a pair, as long as the store
    /// answers.
    pub(super) async fn save_due(&self, every: Duration) {
        for (_, namespace) in self.namespaces.iter() {
            if namespace.claim_save(Instant::now(), every) && !self.save(&namespace).await {
                return;
            }
        }
    }

    /// Writes the note. Whether the store answered.
    pub(super) async fn save(&self, namespace: &Arc<Namespace>) -> bool {
        let mut unsaved = Unsaved { namespace, is_saved: false };
        match self.replace_note(namespace).await {
            Ok(is_saved) => {
                unsaved.is_saved = is_saved;
                if !is_saved {
                    let namespace = namespace.id().name.as_str();
                    tracing::warn!(namespace, "what was learned is not kept yet: others always wrote before");
                }
                true
            }
            Err(error) => {
                tracing::warn!(%error, "what was learned cannot be kept");
                false
            }
        }
    }

    /// Where another process has written a note since the last one known here, what it has is taken over first.
    /// Whether the note was written.
    async fn replace_note(&self, namespace: &Arc<Namespace>) -> Result<bool, StoreError> {
        let name = namespace.id().note();
        // Held to the end: of two notes of this process the later one lasts.
        let mut version = namespace.version.lock().await;
        for _ in 0..REPLACE_TRIES {
            let writer = Arc::clone(namespace);
            // About a megabyte is encoded and hashed.
            let write = spawn_blocking(move || Note::of(writer.write()));
            let Ok(note) = write.await else { return Ok(false) };
            let written = note.version;
            if self.store.put_note(&name, note, *version).await? {
                *version = Some(written);
                return Ok(true);
            }
            *version = self.take_over(namespace).await?;
        }
        Ok(false)
    }
}

/// A namespace whose note is being written: where that fails, or is not waited for, it is to be written still.
struct Unsaved<'a> {
    namespace: &'a Namespace,
    is_saved: bool,
}

impl Drop for Unsaved<'_> {
    fn drop(&mut self) {
        if !self.is_saved {
            self.namespace.set_dirty();
        }
    }
}

/// What is told at once.
struct Message {
    bytes: Vec<u8>,
}

// === impl Message ===

impl Message {
    fn new(table: &Table) -> Self {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(table.fingerprint().to_le_bytes());
        Self { bytes }
    }

    fn add(&mut self, id: &NamespaceId, news: &News) {
        let to = &mut self.bytes;
        match &id.owner {
            Owner::Tenant(tenant) => {
                to.push(1);
                put(to, tenant.as_bytes());
            }
            Owner::Shared => to.push(0),
        }
        put(to, id.name.as_bytes());
        to.extend((news.apart.len() as u32).to_le_bytes());
        for (prompt, entry) in &news.apart {
            to.extend(prompt.as_bytes());
            to.extend(entry.as_bytes());
        }
        let mut lesson = Vec::new();
        if let Some(news) = &news.lesson {
            news.encode(&mut lesson);
        }
        put(to, &lesson);
    }
}

fn put(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend((bytes.len() as u32).to_le_bytes());
    to.extend(bytes);
}

/// What a message tells; of one by another table only the pairs. `None` for what is none, or of another version.
fn read<'a>(message: &'a [u8], table: &Table) -> Option<Vec<Told<'a>>> {
    let mut from = Reader::new(message);
    if from.take(MAGIC.len())? != MAGIC {
        return None;
    }
    let is_same = from.u64()? == table.fingerprint();
    let mut all = Vec::new();
    while !from.is_empty() {
        let owner = match from.take(1)? {
            [0] => Owner::Shared,
            [1] => Owner::Tenant(name(&mut from)?),
            _ => return None,
        };
        let name = name(&mut from)?;
        let pairs = Some(from.u32()? as usize).filter(|pairs| *pairs <= super::namespace::APART_MAX)?;
        let apart = (0..pairs).map(|_| Some((key(&mut from)?, key(&mut from)?))).collect::<Option<_>>()?;
        let length = from.u32()? as usize;
        let lesson = from.take(length)?;
        let lesson = if is_same { lesson } else { &[] };
        all.push(Told { id: NamespaceId { owner, name }, apart, lesson });
    }
    Some(all)
}

fn name(from: &mut Reader<'_>) -> Option<String> {
    let length = Some(from.u32()? as usize).filter(|length| *length <= NAME_MAX)?;
    String::from_utf8(from.take(length)?.to_vec()).ok()
}

fn key(from: &mut Reader<'_>) -> Option<CacheKey> {
    from.take(32).and_then(|bytes| Some(CacheKey::from_bytes(bytes.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_way() {
        let table = Table::embedded().unwrap();
        let key = |n| CacheKey::from_bytes([n; 32]);
        let ids = [Owner::Shared, Owner::Tenant("acme".to_owned())]
            .map(|owner| NamespaceId { owner, name: "docs".to_owned() });
        let mut message = Message::new(&table);
        message.add(&ids[0], &News { apart: vec![(key(1), key(2)), (key(3), key(4))], lesson: None });
        message.add(&ids[1], &News { apart: Vec::new(), lesson: None });
        let told = read(&message.bytes, &table).unwrap();
        let apart = vec![(key(1), key(2)), (key(3), key(4))];
        assert_eq!(told[0], Told { id: ids[0].clone(), apart, lesson: &[] });
        assert_eq!(told[1], Told { id: ids[1].clone(), apart: Vec::new(), lesson: &[] });
        for length in 0..message.bytes.len() {
            let cut = read(&message.bytes[..length], &table);
            assert!(cut.is_none_or(|told| told.len() < 2), "{length}");
        }
        assert_eq!(read(b"something else", &table), None);
    }
}

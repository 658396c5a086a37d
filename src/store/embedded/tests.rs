//! The disk store on a simulated disk that fails or loses power.

use std::sync::{Mutex, MutexGuard};

use redb::StorageBackend;

use super::*;
use crate::{
    key::{Owner, Scope},
    model::Usage,
    prompt::{Completion, FinishReason},
};

/// A disk in memory that may lose unsynced changes.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<DiskState>>);

#[derive(Debug, Default)]
struct DiskState {
    /// The content that reads see.
    content: Vec<u8>,
    /// The content at the last sync.
    synced: Vec<u8>,
    /// Every change since the last sync.
    pending: Vec<Pending>,
    /// Changes and syncs so far.
    operations: u64,
    /// First operation that fails; all later ones fail too.
    fails_from: Option<u64>,
}

/// A new length, or data at an offset.
#[derive(Clone, Debug)]
enum Pending {
    Length(usize),
    Data(usize, Vec<u8>),
}

impl Disk {
    fn state(&self) -> MutexGuard<'_, DiskState> {
        self.0.lock().unwrap()
    }

    fn fail_from(&self, operation: u64) {
        self.state().fails_from = Some(operation);
    }

    /// The disk after a power cut: the synced content and a random part of the unsynced changes.
    fn after_power_cut(&self, random: &mut fastrand::Rng) -> Self {
        let state = self.state();
        let mut content = state.synced.clone();
        for pending in state.pending.iter().filter(|_| random.bool()) {
            pending.apply(&mut content);
        }
        Self(Arc::new(Mutex::new(DiskState { synced: content.clone(), content, ..DiskState::default() })))
    }
}

impl DiskState {
    fn operate(&mut self) -> io::Result<()> {
        self.operations += 1;
        let fails = self.fails_from.is_some_and(|from| self.operations >= from);
        if fails { Err(io::Error::other("injected")) } else { Ok(()) }
    }

    fn change(&mut self, pending: Pending) -> io::Result<()> {
        self.operate()?;
        pending.apply(&mut self.content);
        self.pending.push(pending);
        Ok(())
    }
}

impl Pending {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Length(length) => content.resize(*length, 0),
            Self::Data(offset, data) => {
                content.resize(content.len().max(offset + data.len()), 0);
                content[*offset..][..data.len()].copy_from_slice(data);
            }
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().content.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let part = state.content.get(offset as usize..).and_then(|rest| rest.get(..out.len()));
        out.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.state().change(Pending::Length(len as usize))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        state.synced = state.content.clone();
        state.pending.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.state().change(Pending::Data(offset as usize, data.to_vec()))
    }
}

fn open(disk: &Disk, write_queue: usize) -> Result<EmbeddedStore, OpenError> {
    let path = Path::new("disk");
    let database = Database::builder().create_with_backend(disk.clone()).map_err(|e| open_error(path, e))?;
    EmbeddedStore::with_database(database, path, write_queue)
}

fn key(n: u64) -> CacheKey {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    CacheKey::from_bytes(bytes)
}

fn entry(n: u64) -> Arc<Entry> {
    Arc::new(Entry {
        key: key(n),
        scope: Scope::from_bytes([1; 32]),
        owner: Owner::Shared,
        namespace: String::new(),
        requested_model: "auto".to_owned(),
        text: None,
        embedding: None,
        embedder: String::new(),
        completion: Completion {
            content: "answer ".repeat(500 + n as usize),
            tool_calls: None,
            finish_reason: FinishReason::Stop,
            model: "m".to_owned(),
            tier: String::new(),
            usage: Usage::default(),
            ..Completion::default()
        },
        tags: Vec::new(),
        created: std::time::UNIX_EPOCH,
        expires: std::time::SystemTime::now() + std::time::Duration::from_secs(3600),
        stale_for: std::time::Duration::ZERO,
        difficulty: None,
    })
}

#[tokio::test]
async fn a_failed_write_prevents_further_writes_but_not_reads() {
    let disk = Disk::default();
    let store = open(&disk, 10).unwrap();
    store.put(entry(1), Durability::Durable).await.unwrap();
    disk.fail_from(0);
    store.put(entry(2), Durability::Durable).await.unwrap_err();
    disk.state().fails_from = None;
    let refused = store.put(entry(3), Durability::Durable).await.unwrap_err();
    assert!(refused.to_string().contains("nothing more is written"), "{refused}");
    store.put(entry(3), Durability::Queued).await.unwrap_err();
    store.remove(&Selector::default(), false).await.unwrap_err();
    store.expire(0, 10).await.unwrap_err();
    store.flush().await.unwrap_err();
    assert_eq!(store.entries(), 1);
    // redb may refuse reads too after an IO error, but it must not report the entry as absent.
    let read = store.get(key(1)).await;
    assert!(!matches!(read, Ok(None)));
    drop(store);
    let store = open(&disk, 10).unwrap();
    assert!(store.get(key(1)).await.unwrap().is_some());
    store.put(entry(3), Durability::Durable).await.unwrap();
}

/// Cuts the power at each disk operation in turn.
#[tokio::test]
async fn acknowledged_entries_survive_a_power_cut_at_any_operation() {
    let mut random = fastrand::Rng::with_seed(1);
    for operation in 1.. {
        let disk = Disk::default();
        // Creation of the file is not tested here: it happens under another name.
        drop(open(&disk, 10).unwrap());
        let last = disk.state().operations + operation;
        disk.fail_from(last);
        let acknowledged = put_until_failure(&disk).await;
        let is_over = disk.state().operations < last;
        for _ in 0..3 {
            assert_holds(&disk.after_power_cut(&mut random), &acknowledged).await;
        }
        if is_over {
            assert_eq!(acknowledged.len(), 6);
            break;
        }
    }
}

/// Stores entries, one and several at a time, until the disk fails; returns the acknowledged ones.
async fn put_until_failure(disk: &Disk) -> Vec<u64> {
    let Ok(store) = open(disk, 10) else { return Vec::new() };
    let mut acknowledged = Vec::new();
    for n in [0, 3] {
        if store.put(entry(n), Durability::Durable).await.is_ok() {
            acknowledged.push(n);
        }
        let _ = store.put(entry(100 + n), Durability::Queued).await;
        let both = tokio::join!(
            store.put(entry(n + 1), Durability::Durable),
            store.put(entry(n + 2), Durability::Durable),
        );
        acknowledged.extend(both.0.is_ok().then_some(n + 1));
        acknowledged.extend(both.1.is_ok().then_some(n + 2));
    }
    acknowledged
}

async fn assert_holds(disk: &Disk, acknowledged: &[u64]) {
    let store = open(disk, 10).unwrap();
    for n in acknowledged {
        let found = store.get(key(*n)).await.unwrap().expect("it was acknowledged");
        assert_eq!(found.completion, entry(*n).completion);
    }
    assert_eq!(store.unreadable(), 0);
}

/// A disk that does not answer blocks the writer, so the queue fills.
#[tokio::test]
#[expect(clippy::await_holding_lock, reason = "it is the disk's lock, and must block the writer's thread")]
async fn a_full_queue_refuses_queued_writes() {
    let disk = Disk::default();
    let store = open(&disk, 2).unwrap();
    let held = disk.0.clone();
    let state = held.lock().unwrap();
    let mut results = Vec::new();
    // The writer holds one batch, and two changes wait.
    for n in 0..writer::BATCH_MAX as u64 + 10 {
        results.push(store.put(entry(n % 3), Durability::Queued).await);
    }
    drop(state);
    let refused = results.into_iter().find_map(Result::err).expect("the queue is bounded");
    assert!(refused.to_string().contains("the write queue is full"), "{refused}");
    store.flush().await.unwrap();
    store.put(entry(9), Durability::Queued).await.unwrap();
}

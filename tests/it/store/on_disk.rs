//! Folders and files that the disk store must refuse by name, and damage that it must survive.

use std::fs;

use promptkeep::store::OpenError;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use tempfile::TempDir;

use super::*;

const ENTRIES: TableDefinition<&[u8; 32], (u64, &[u8])> = TableDefinition::new("entries");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// A folder whose store has ten entries.
async fn filled() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let store = open_disk(folder.path());
    for n in 0..10 {
        put(&*store, entry(n)).await;
    }
    folder
}

fn refusal(path: &Path) -> OpenError {
    let Err(error) = store::open("local", &disk_config(path)) else { panic!("opened") };
    let named = error.to_string();
    assert!(named.contains("store.path") && named.contains(path.to_str().unwrap()), "{named}");
    error
}

/// Changes the database file without the store.
fn tamper(folder: &TempDir, change: impl FnOnce(&redb::WriteTransaction)) {
    let database = Database::open(folder.path().join("promptkeep.redb")).unwrap();
    let write = database.begin_write().unwrap();
    change(&write);
    write.commit().unwrap();
}

#[tokio::test]
async fn keeps_entries_across_a_restart() {
    let folder = filled().await;
    let store = open_disk(folder.path());
    assert_eq!(store.entries(), 10);
    let found = store.get(entry(3).key).await.unwrap().unwrap();
    assert_eq!(found.completion, entry(3).completion);
    assert_eq!(found.embedding, entry(3).embedding);
}

/// The first versions wrote no snapshots.
#[tokio::test]
async fn reads_a_file_without_a_snapshot_table() {
    let folder = filled().await;
    tamper(&folder, |transaction| {
        transaction.delete_table(TableDefinition::<&str, &[u8]>::new("notes")).unwrap();
    });
    let store = open_disk(folder.path());
    assert_eq!(store.snapshot("learned").await.unwrap(), None);
    assert!(store.put_snapshot("learned", Snapshot::of(vec![1]), None).await.unwrap());
    store.flush().await.unwrap();
    assert_eq!(store.snapshot("learned").await.unwrap(), Some(Snapshot::of(vec![1])));
}

#[test]
fn creates_missing_folders() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a").join("b");
    open_disk(&path);
    assert!(path.join("promptkeep.redb").is_file());
}

/// A power cut during the first start leaves a file that is not a database yet.
#[test]
fn starts_again_after_an_interrupted_first_start() {
    for left in [Vec::new(), vec![0; 100_000]] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("promptkeep.redb.new"), left).unwrap();
        open_disk(folder.path());
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
        assert_eq!(names, ["promptkeep.redb"]);
    }
}

#[test]
fn refuses_a_folder_it_cannot_write() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("occupied");
    fs::write(&file, "not a folder").unwrap();
    assert!(matches!(refusal(&file), OpenError::Unwritable { .. }));
    assert!(matches!(refusal(&file.join("below")), OpenError::Unwritable { .. }));
    fs::create_dir_all(folder.path().join("data").join("promptkeep.redb")).unwrap();
    assert!(matches!(refusal(&folder.path().join("data")), OpenError::Unwritable { .. }));
}

/// Root may write despite the permissions, so the test checks first.
#[cfg(unix)]
#[test]
fn refuses_a_read_only_folder() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(folder.path().join("probe"), "").is_err() {
        assert!(matches!(refusal(folder.path()), OpenError::Unwritable { .. }));
    }
}

#[test]
fn refuses_a_folder_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let _first = open_disk(folder.path());
    assert!(matches!(refusal(folder.path()), OpenError::InUse { .. }));
}

#[tokio::test]
async fn refuses_a_newer_layout_and_leaves_the_file_unchanged() {
    let folder = filled().await;
    tamper(&folder, |write| {
        write.open_table(META).unwrap().insert("layout", 2).unwrap();
    });
    let error = refusal(folder.path());
    assert!(matches!(error, OpenError::Newer { found: 2, known: 1, .. }), "{error}");
    tamper(&folder, |write| {
        write.open_table(META).unwrap().insert("layout", 1).unwrap();
    });
    assert_eq!(open_disk(folder.path()).entries(), 10);
}

#[test]
fn refuses_a_database_of_another_program() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::create(folder.path().join("promptkeep.redb")).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(TableDefinition::<u64, u64>::new("theirs")).unwrap().insert(1, 1).unwrap();
    write.commit().unwrap();
    drop(database);
    assert!(matches!(refusal(folder.path()), OpenError::Corrupt { .. }));
}

#[tokio::test]
async fn refuses_a_file_that_is_no_database() {
    for junk in [b"junk".to_vec(), vec![0; 100_000], b"redb".repeat(5000)] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("promptkeep.redb"), junk).unwrap();
        assert!(matches!(refusal(folder.path()), OpenError::Corrupt { .. }));
    }
}

/// A truncated file is refused, or every entry it returns is right.
#[tokio::test]
async fn survives_truncation_at_any_point() {
    let folder = filled().await;
    let file = folder.path().join("promptkeep.redb");
    let whole = fs::read(&file).unwrap();
    for part in 1..16 {
        fs::write(&file, &whole[..whole.len() * part / 16]).unwrap();
        assert_refused_or_right(folder.path()).await;
    }
}

/// A file with an overwritten page is refused, or the entries on that page are skipped.
#[tokio::test]
async fn survives_any_damaged_page() {
    const PAGE: usize = 4096;
    let folder = filled().await;
    let file = folder.path().join("promptkeep.redb");
    let whole = fs::read(&file).unwrap();
    let used = (0..whole.len() / PAGE).filter(|page| whole[page * PAGE..][..PAGE].iter().any(|b| *b != 0));
    for page in used {
        let mut damaged = whole.clone();
        damaged[page * PAGE..][..PAGE].iter_mut().step_by(7).for_each(|byte| *byte ^= 0x55);
        fs::write(&file, damaged).unwrap();
        assert_refused_or_right(folder.path()).await;
    }
}

/// Checks that a damaged file is refused by name or returns only entries that were stored.
async fn assert_refused_or_right(path: &Path) {
    let store = match store::open("local", &disk_config(path)) {
        Ok(store) => store,
        Err(error) => return assert!(error.to_string().contains(path.to_str().unwrap()), "{error}"),
    };
    for n in 0..10 {
        if let Ok(Some(found)) = store.get(entry(n).key).await {
            assert_eq!(found.completion, entry(n).completion);
        }
    }
    let _ = store.scan(None, 100).await;
    let _ = store.put(Arc::new(entry(11)), Durability::Durable).await;
}

#[tokio::test]
async fn skips_and_counts_entries_it_cannot_read() {
    let folder = filled().await;
    tamper(&folder, |write| {
        let mut entries = write.open_table(ENTRIES).unwrap();
        for (n, change) in [(2, 0), (3, 500), (9, 40)] {
            let key = entry(n).key;
            let (expires, mut bytes) = {
                let value = entries.get(key.as_bytes()).unwrap().unwrap();
                (value.value().0, value.value().1.to_vec())
            };
            bytes[change] = bytes[change].wrapping_add(1);
            entries.insert(key.as_bytes(), (expires, bytes.as_slice())).unwrap();
        }
    });
    let store = open_disk(folder.path());
    assert_eq!(store.get(entry(2).key).await.unwrap(), None, "a newer codec");
    assert_eq!(store.get(entry(3).key).await.unwrap(), None, "a changed byte");
    assert_eq!(store.unreadable(), 2);
    let page = store.scan(Some(entry(1).key), 1).await.unwrap();
    assert_eq!(page[0].key, entry(4).key, "the page has readable entries only");
    assert!(store.scan(Some(entry(8).key), 1).await.unwrap().is_empty());
    put(&*store, entry(2)).await;
    assert!(store.get(entry(2).key).await.unwrap().is_some(), "replaced");
    assert_eq!(store.entries(), 10);
    assert_eq!(store.expire(0, 100).await.unwrap().len(), 10, "unreadable entries expire too");
}

#[tokio::test]
async fn the_file_holds_a_layout_number() {
    let folder = filled().await;
    let database = Database::open(folder.path().join("promptkeep.redb")).unwrap();
    let layout = database.begin_read().unwrap().open_table(META).unwrap().get("layout").unwrap();
    assert_eq!(layout.map(|layout| layout.value()), Some(1));
}

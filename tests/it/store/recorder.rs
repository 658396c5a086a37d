//! Random operations and restarts of the disk store, compared with a map.

use std::collections::BTreeMap;

use promptkeep::entry::Selector;

use super::*;

const OPERATIONS: usize = 500;
/// Few enough keys that operations often hit an existing one.
const KEYS: u64 = 60;

struct Run {
    random: fastrand::Rng,
    folder: tempfile::TempDir,
    store: Arc<dyn Store>,
    expected_entries: BTreeMap<CacheKey, Arc<Entry>>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = open_disk(folder.path());
        Self { random: fastrand::Rng::with_seed(seed), folder, store, expected_entries: BTreeMap::new() }
    }

    async fn step(mut self) -> Self {
        match self.random.u8(..100) {
            0..60 => self.put().await,
            60..75 => self.remove().await,
            75..85 => self.expire().await,
            85..98 => self.compare().await,
            _ => return self.reopen().await,
        }
        self
    }

    async fn put(&mut self) {
        let n = self.random.u64(..KEYS);
        let tags = vec![format!("tag-{}", self.random.u8(..5))];
        // Expiry times are hours away, so the pace of the test does not decide what has expired.
        let hours = self.random.u32(1..6);
        let now = SystemTime::now();
        let expires = if self.random.bool() { now + hours * HOUR } else { now - hours * HOUR };
        let entry = Arc::new(Entry { tags, expires, ..entry(n) });
        let durability = if self.random.bool() { Durability::Durable } else { Durability::Queued };
        self.store.put(entry.clone(), durability).await.unwrap();
        self.expected_entries.insert(entry.key, entry);
    }

    async fn remove(&mut self) {
        let selector = match self.random.u8(..3) {
            0 => Selector { tags: vec![format!("tag-{}", self.random.u8(..5))], ..Selector::default() },
            1 => Selector { key: Some(entry(self.random.u64(..KEYS)).key), ..Selector::default() },
            _ => Selector { id: Some(entry(self.random.u64(..KEYS)).id()), ..Selector::default() },
        };
        let dry_run = self.random.bool();
        let matching = self.expected_entries.values().filter(|entry| selector.matches(entry));
        let expected: Vec<_> = matching.map(|entry| entry.key).collect();
        assert_eq!(self.store.remove(&selector, dry_run).await.unwrap(), expected);
        if !dry_run {
            self.expected_entries.retain(|key, _| !expected.contains(key));
        }
    }

    async fn expire(&mut self) {
        let (most, limit) = (self.random.u64(..KEYS), self.random.usize(1..10));
        let mut oldest: Vec<_> =
            self.expected_entries.values().map(|entry| (entry.expires, entry.key)).collect();
        oldest.sort();
        let surplus = oldest.len().saturating_sub(most as usize);
        let past = oldest.iter().filter(|(expires, _)| *expires <= SystemTime::now()).count();
        oldest.truncate(surplus.max(past).min(limit));
        let expected: Vec<_> = oldest.into_iter().map(|(_, key)| key).collect();
        assert_eq!(self.store.expire(most, limit).await.unwrap(), expected);
        self.expected_entries.retain(|key, _| !expected.contains(key));
    }

    async fn compare(&mut self) {
        self.store.flush().await.unwrap();
        assert_eq!(self.store.entries(), self.expected_entries.len() as u64);
        let stored = self.store.scan(None, usize::MAX).await.unwrap();
        assert_eq!(stored, self.expected_entries.values().cloned().collect::<Vec<_>>());
        let key = entry(self.random.u64(..KEYS)).key;
        assert_eq!(
            get(&*self.store, key).await,
            self.expected_entries.get(&key).map(|stored| without_vector(stored))
        );
    }

    /// Dropping the store writes the queued entries, even without a flush.
    async fn reopen(self) -> Self {
        let Self { random, folder, store, expected_entries } = self;
        drop(store);
        let store = open_disk(folder.path());
        let mut run = Self { random, folder, store, expected_entries };
        run.compare().await;
        run
    }
}

#[tokio::test]
async fn the_disk_store_agrees_with_a_map_across_restarts() {
    for seed in 1..4 {
        let mut run = Run::new(seed);
        for _ in 0..OPERATIONS {
            run = run.step().await;
        }
        run.reopen().await;
    }
}

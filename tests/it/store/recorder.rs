//! Random operations and restarts, compared with a map.

use std::collections::BTreeMap;

use promptkeep::entry::Selector;

use super::*;

const OPERATIONS: usize = 500;
/// Few enough that operations meet the same keys.
const KEYS: u64 = 60;

struct Run {
    random: fastrand::Rng,
    folder: tempfile::TempDir,
    store: Arc<dyn Store>,
    recorder: BTreeMap<CacheKey, Arc<Entry>>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        Self { random: fastrand::Rng::with_seed(seed), folder, store, recorder: BTreeMap::new() }
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
        // Whole hours apart, so that what has expired does not depend on the pace of the test.
        let hours = self.random.u32(1..6);
        let now = SystemTime::now();
        let expires = if self.random.bool() { now + hours * HOUR } else { now - hours * HOUR };
        let entry = Arc::new(Entry { tags, expires, ..entry(n) });
        let durability = if self.random.bool() { Durability::Durable } else { Durability::Queued };
        self.store.put(entry.clone(), durability).await.unwrap();
        self.recorder.insert(entry.key, entry);
    }

    async fn remove(&mut self) {
        let selector = match self.random.u8(..3) {
            0 => Selector { tags: vec![format!("tag-{}", self.random.u8(..5))], ..Selector::default() },
            1 => Selector { key: Some(entry(self.random.u64(..KEYS)).key), ..Selector::default() },
            _ => Selector { id: Some(entry(self.random.u64(..KEYS)).id()), ..Selector::default() },
        };
        let dry_run = self.random.bool();
        let matching = self.recorder.values().filter(|entry| selector.matches(entry));
        let expected: Vec<_> = matching.map(|entry| entry.key).collect();
        assert_eq!(self.store.remove(&selector, dry_run).await.unwrap(), expected);
        if !dry_run {
            self.recorder.retain(|key, _| !expected.contains(key));
        }
    }

    async fn expire(&mut self) {
        let (most, limit) = (self.random.u64(..KEYS), self.random.usize(1..10));
        let mut oldest: Vec<_> = self.recorder.values().map(|entry| (entry.expires, entry.key)).collect();
        oldest.sort();
        let surplus = oldest.len().saturating_sub(most as usize);
        let past = oldest.iter().filter(|(expires, _)| *expires <= SystemTime::now()).count();
        oldest.truncate(surplus.max(past).min(limit));
        let expected: Vec<_> = oldest.into_iter().map(|(_, key)| key).collect();
        assert_eq!(self.store.expire(most, limit).await.unwrap(), expected);
        self.recorder.retain(|key, _| !expected.contains(key));
    }

    async fn compare(&mut self) {
        self.store.flush().await.unwrap();
        assert_eq!(self.store.entries(), self.recorder.len() as u64);
        let kept = self.store.scan(None, usize::MAX).await.unwrap();
        assert_eq!(kept, self.recorder.values().cloned().collect::<Vec<_>>());
        let key = entry(self.random.u64(..KEYS)).key;
        assert_eq!(got(&*self.store, key).await, self.recorder.get(&key).map(|kept| answer(kept)));
    }

    /// Also without a flush, dropping the store writes what is queued.
    async fn reopen(self) -> Self {
        let Self { random, folder, store, recorder } = self;
        drop(store);
        let store = open(folder.path());
        let mut run = Self { random, folder, store, recorder };
        run.compare().await;
        run
    }
}

#[tokio::test]
async fn agrees_with_a_map_over_restarts() {
    for seed in 1..4 {
        let mut run = Run::new(seed);
        for _ in 0..OPERATIONS {
            run = run.step().await;
        }
        run.reopen().await;
    }
}

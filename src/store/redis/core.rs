//! Operations on the Redis of one region, each one round trip or a few. Does not know the queue.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::{
    StreamExt as _,
    future::{join_all, try_join_all},
    stream,
};
use redis::{Cmd, FromRedisValue, cmd};
use tokio::sync::watch;

use super::{
    event::{Event, Key, Message, Origin},
    keys::{Facet, Keys, Partition, STREAMS},
    lag::Lag,
    link::{Fault, Link, Script},
    log::{Log, Position, RECORDS_MAX, Source},
    unreachable::Unreachable,
    value,
};
use crate::{
    entry::{Entry, EntryId, Selector},
    key::CacheKey,
    store::codec::CodecError,
};

/// Entries read at once for a selector.
pub const PAGE: usize = 256;

/// Commands in flight for one operation.
const IN_FLIGHT: usize = 256;

/// Approximate length of a stream of changes: minutes of them in a busy fleet.
const CHANGES_MAX: usize = 10_000;

/// Approximate length of the stream of learner events. A replica publishes one per second at most, usually of a few
/// kilobytes and never of much more than a hundred. A replica that missed some reads the snapshots.
const LEARNER_EVENTS_MAX: usize = 200;

/// Timeout of a command that no request waits for.
pub const BACKGROUND_TIMEOUT: Duration = Duration::from_secs(5);

/// Timeout of a command on a cluster that delays commands for other partitions, which may answer.
pub const CLUSTER_TIMEOUT: Duration = Duration::from_secs(1);

/// The operations on one Redis.
pub struct Core {
    pub link: Arc<Link>,
    pub keys: Keys,
    pub log: Arc<Log>,
    /// Counted at every sweep and adjusted by this replica's writes in between.
    pub entries: AtomicU64,
    pub unreadable: AtomicU64,
    put: Script,
    remove: Script,
    pub put_snapshot: Script,
    /// The partition that a scan has reached, with its sorted keys: a page is a small part of them.
    listed: Mutex<Option<(Partition, Vec<CacheKey>)>>,
    /// Identifies this process to the others.
    pub replica: String,
    /// The region of this Redis.
    pub region: String,
    pub lag: Lag,
    /// Streams of changes, by number, whose part of a cluster does not answer.
    unreachable_streams: Unreachable,
    pub readiness: watch::Sender<Readiness>,
}

/// Which streams are open. Before all are, an entry may be invalid or change unnoticed, so none is read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Readiness {
    pub log: bool,
    pub changes: bool,
    /// An attempt failed, so reads should not wait.
    pub failed: bool,
}

/// An entry as it is stored.
pub struct Found {
    pub entry: Arc<Entry>,
    /// The last invalidation that its writer had applied.
    pub seen: Position,
    /// Prefix of the value, which distinguishes this write from others.
    fingerprint: [u8; value::FINGERPRINT],
}

impl Core {
    pub fn new(link: Arc<Link>, keys: Keys, region: &str) -> Self {
        Self {
            link,
            keys,
            log: Arc::default(),
            entries: AtomicU64::new(0),
            unreadable: AtomicU64::new(0),
            put: Script::new(include_str!("put.lua")),
            remove: Script::new(include_str!("remove.lua")),
            put_snapshot: Script::new(include_str!("snapshot.lua")),
            listed: Mutex::default(),
            replica: format!("{:016x}", fastrand::u64(..)),
            region: region.to_owned(),
            lag: Lag::default(),
            unreachable_streams: Unreachable::new(),
            readiness: watch::Sender::default(),
        }
    }

    /// Reads an entry without its vector. `None` if it was invalidated.
    pub async fn get(&self, id: EntryId) -> Result<Option<Found>, Fault> {
        let mut command = cmd("GET");
        command.arg(self.keys.entry(id));
        let value: Option<Vec<u8>> = self.link.call(id.into(), &command).await?;
        let Some(value) = value else { return Ok(None) };
        self.ready().await?;
        let found = self.found(&value, value::decode_answer(&value));
        Ok(found.filter(|found| self.is_valid(found)))
    }

    /// Reads the entries of `ids` that exist and are valid, in order.
    pub async fn get_all(&self, ids: &[EntryId]) -> Result<Vec<Found>, Fault> {
        let values = self.values(ids).await?;
        self.ready().await?;
        Ok(values.iter().filter_map(|value| self.read(value)).filter(|found| self.is_valid(found)).collect())
    }

    async fn values(&self, ids: &[EntryId]) -> Result<Vec<Vec<u8>>, Fault> {
        let get = |id: &EntryId| cmd("GET").arg(self.keys.entry(*id)).clone();
        let values: Vec<Option<Vec<u8>>> = self.all(ids.iter().map(get).collect()).await?;
        Ok(values.into_iter().flatten().collect())
    }

    /// Waits until the streams are open, which is soon after the first connection.
    async fn ready(&self) -> Result<(), Fault> {
        let mut readiness = *self.readiness.borrow();
        if !readiness.is_settled() {
            // The sender lives as long as the core.
            let settled = self.readiness.subscribe().wait_for(Readiness::is_settled).await.map(|now| *now);
            readiness = settled.unwrap_or(readiness);
        }
        if readiness.is_ready() {
            Ok(())
        } else {
            Err(Fault::Refused("the streams cannot be read".to_owned()))
        }
    }

    /// Appends to a stream.
    pub async fn append(
        &self,
        stream: &str,
        origin: Option<Origin>,
        event: Event,
    ) -> Result<Position, Fault> {
        self.append_within(BACKGROUND_TIMEOUT, stream, origin, event).await
    }

    async fn append_within(
        &self,
        wait: Duration,
        stream: &str,
        origin: Option<Origin>,
        event: Event,
    ) -> Result<Position, Fault> {
        let length = match event {
            Event::Invalidated { .. } => RECORDS_MAX,
            Event::Learned { .. } => LEARNER_EVENTS_MAX,
            Event::Stored { .. } | Event::Removed { .. } | Event::Opened => CHANGES_MAX,
        };
        let append = Message { replica: self.replica.clone(), origin, event }.append(stream, length);
        let id: String = self.link.call_within(wait, &append).await?;
        id.parse().map_err(|()| Fault::Rejected("unexpected reply".to_owned()))
    }

    /// Appends an invalidation to the log. It takes effect on every replica that reads it; the caller removes matching
    /// entries from Redis.
    pub async fn invalidate(&self, selector: &Selector, origin: Option<Origin>) -> Result<Position, Fault> {
        let event = Event::Invalidated { matching: selector.into() };
        let is_own = origin.is_none();
        let position = self.append(&self.keys.invalidations(), origin, event).await?;
        // The cache of this replica has not applied the invalidation of another region.
        if is_own {
            self.log.add(position, selector.clone(), Source::Own(Instant::now()));
        }
        Ok(position)
    }

    /// Announces changes to other replicas. A lost announcement costs them a hit or a search for a removed entry.
    pub async fn announce(
        self: &Arc<Self>,
        keys: impl Iterator<Item = CacheKey>,
        origin: Option<&Origin>,
        event: fn(Vec<Key>) -> Event,
    ) {
        let mut by_stream: [Vec<Key>; STREAMS as usize] = Default::default();
        for key in keys {
            by_stream[usize::from(Partition::from(key).stream())].push(Key(key));
        }
        let streams = (0..STREAMS).zip(&by_stream);
        let pages = streams.flat_map(|(stream, keys)| keys.chunks(PAGE).map(move |page| (stream, page)));
        join_all(pages.map(|(stream, page)| self.announce_on(stream, origin.cloned(), event(page.to_vec()))))
            .await;
    }

    /// Appends to a stream of changes. An unreachable part of a cluster must delay neither the other streams nor the
    /// writes that follow.
    async fn announce_on(self: &Arc<Self>, stream: u8, origin: Option<Origin>, event: Event) {
        let partition = Partition(stream);
        if !self.link.is_cluster() || !self.unreachable_streams.has(partition) {
            return self.append_change(stream, origin, event).await;
        }
        if self.unreachable_streams.may_try(partition) {
            let core = self.clone();
            tokio::spawn(async move { core.append_change(stream, origin, event).await });
        }
    }

    async fn append_change(&self, stream: u8, origin: Option<Origin>, event: Event) {
        let is_cluster = self.link.is_cluster();
        let partition = Partition(stream);
        let wait = if is_cluster { CLUSTER_TIMEOUT } else { BACKGROUND_TIMEOUT };
        let appended = self.append_within(wait, &self.keys.changes(stream), origin, event).await;
        let failed = is_cluster && matches!(appended, Err(Fault::Unreachable(_)));
        self.unreachable_streams.record(partition, failed);
        if let Err(fault) = appended {
            tracing::warn!(%fault, "a change was not announced to other replicas");
        }
    }

    /// Stores an entry, whose writer had applied the invalidations up to `seen`.
    pub async fn put(&self, entry: &Entry, seen: Position, wait: Duration) -> Result<(), Fault> {
        let id = entry.id();
        let keys = self.keys_of(id, &Facet::of(entry));
        let (value, expiry, now) =
            (value::encode(entry, seen), millis(entry.removed_at()), millis(SystemTime::now()));
        let (expiry, now) = (expiry.max(1).to_string(), now.to_string());
        let arguments = [&value, expiry.as_bytes(), entry.key.as_bytes(), id.as_bytes(), now.as_bytes()];
        let added: u64 = self.link.run(wait, &self.put, &keys, &arguments).await?;
        self.entries.fetch_add(added, Ordering::Relaxed);
        Ok(())
    }

    /// Removes an entry unless it was replaced. Returns whether it did.
    pub async fn remove(&self, found: &Found) -> Result<bool, Fault> {
        self.remove_as(found.entry.key, &Facet::of(&found.entry), &found.fingerprint).await
    }

    /// Removes any entry under `key`. Its facets contain its id until it expires.
    pub async fn remove_key(&self, key: CacheKey) -> Result<bool, Fault> {
        self.remove_as(key, &[], &[]).await
    }

    async fn remove_as(&self, key: CacheKey, facets: &[Facet], fingerprint: &[u8]) -> Result<bool, Fault> {
        let id = EntryId::from(key);
        let keys = self.keys_of(id, facets);
        let arguments = [key.as_bytes().as_slice(), id.as_bytes(), fingerprint];
        let removed: u64 = self.link.run(BACKGROUND_TIMEOUT, &self.remove, &keys, &arguments).await?;
        let less = |entries: u64| Some(entries.saturating_sub(removed));
        let _ = self.entries.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        Ok(removed > 0)
    }

    /// Removes entries that were not replaced.
    pub async fn remove_all(&self, found: &[Found]) -> Result<(), Fault> {
        let removals: Vec<_> = found.iter().map(|found| self.remove(found)).collect();
        try_join_all(removals).await.map(drop)
    }

    /// Reads the entries of `ids` that `selector` matches. With `valid` it skips those that were invalidated but not yet
    /// removed.
    pub async fn matching(
        &self,
        selector: &Selector,
        ids: &[EntryId],
        valid: bool,
    ) -> Result<Vec<Found>, Fault> {
        let values = self.values(ids).await?;
        let found = values.iter().filter_map(|value| self.read(value));
        let is_match = |found: &Found| selector.matches(&found.entry) && (!valid || self.is_valid(found));
        Ok(found.filter(is_match).collect())
    }

    /// Returns ids that include every entry that `selector` matches: one id, or the facets of a namespace or tag, or else
    /// all directories, which list keys without entries. Never scans the keyspace, which other applications may share.
    pub async fn candidates(&self, selector: &Selector) -> Result<Vec<EntryId>, Fault> {
        if let Some(id) = selector.key.map(EntryId::from).or(selector.id) {
            return Ok(vec![id]);
        }
        let Some(facets) = Facet::narrowing(selector) else {
            let directories = Partition::all().map(|p| self.range(&self.keys.directory(p))).collect();
            let directories: Vec<Vec<Vec<u8>>> = self.all(directories).await?;
            let keys = directories.into_iter().flatten().filter_map(|key| cache_key(&key));
            return Ok(in_order(keys.map(EntryId::from)));
        };
        let mut sets = Vec::with_capacity(facets.len() * 256);
        for facet in &facets {
            sets.extend(Partition::all().map(|p| self.range(&self.keys.facet(p, facet))));
        }
        let sets: Vec<Vec<Vec<u8>>> = self.all(sets).await?;
        let ids = sets.into_iter().flatten().filter_map(|id| id.try_into().ok());
        Ok(in_order(ids.map(EntryId::from_bytes)))
    }

    /// Reads up to `limit` entries with keys above `after`, in key order. Returns none only at the end.
    pub async fn scan(&self, after: Option<CacheKey>, limit: usize) -> Result<Vec<Found>, Fault> {
        let mut from = after.map_or(0, |key| Partition::from(key).0);
        let mut after = after;
        loop {
            let keys = match self.keys_above(Partition(from), after, limit).await {
                Err(Fault::Rejected(cause)) => {
                    tracing::warn!(cause, partition = from, "a directory cannot be read");
                    Vec::new()
                }
                keys => keys?,
            };
            after = keys.last().copied().or(after);
            let found = self.get_all(&keys.iter().map(|key| EntryId::from(*key)).collect::<Vec<_>>()).await?;
            if !found.is_empty() {
                return Ok(found);
            }
            if keys.is_empty() {
                let Some(next) = from.checked_add(1) else { return Ok(Vec::new()) };
                from = next;
            }
        }
    }

    /// Up to `limit` keys of a partition above `after`, in order.
    async fn keys_above(
        &self,
        partition: Partition,
        after: Option<CacheKey>,
        limit: usize,
    ) -> Result<Vec<CacheKey>, Fault> {
        let above = |keys: &[CacheKey]| {
            let first = after.map_or(0, |after| keys.partition_point(|key| *key <= after));
            keys[first..].iter().take(limit).copied().collect::<Vec<_>>()
        };
        // Only the first page of a scan reads the directory again.
        if after.is_some_and(|after| Partition::from(after) == partition)
            && let Some((listed, keys)) = &*self.listed.lock().unwrap_or_else(PoisonError::into_inner)
            && *listed == partition
        {
            return Ok(above(keys));
        }
        let command = self.range(&self.keys.directory(partition));
        let keys: Vec<Vec<u8>> = self.link.call_within(BACKGROUND_TIMEOUT, &command).await?;
        let mut keys: Vec<_> = keys.iter().filter_map(|key| cache_key(key)).collect();
        keys.sort_unstable();
        let page = above(&keys);
        *self.listed.lock().unwrap_or_else(PoisonError::into_inner) = Some((partition, keys));
        Ok(page)
    }

    /// Counts the entries.
    pub async fn count(&self) -> Result<u64, Fault> {
        let counting = Partition::all().map(|p| cmd("ZCARD").arg(self.keys.directory(p)).clone()).collect();
        let entries = self.all::<u64>(counting).await?.into_iter().sum();
        self.entries.store(entries, Ordering::Relaxed);
        Ok(entries)
    }

    /// Up to `limit` keys in order of expiry: those that have expired, and at least `surplus`.
    pub async fn oldest(&self, surplus: u64, limit: usize) -> Result<Vec<CacheKey>, Fault> {
        let now = millis(SystemTime::now());
        let range = |partition| {
            let mut range = cmd("ZRANGEBYSCORE");
            range.arg(self.keys.directory(partition)).arg("-inf");
            if surplus > 0 {
                range.arg("+inf")
            } else {
                range.arg(now)
            };
            range.arg("WITHSCORES").arg("LIMIT").arg(0).arg(limit).clone()
        };
        let oldest: Vec<Vec<(Vec<u8>, f64)>> = self.all(Partition::all().map(range).collect()).await?;
        let keys = oldest.into_iter().flatten();
        let mut oldest: Vec<_> =
            keys.filter_map(|(key, expiry)| Some((expiry as u64, cache_key(&key)?))).collect();
        oldest.sort_unstable();
        let past = oldest.partition_point(|(expiry, _)| *expiry <= now);
        let surplus = usize::try_from(surplus).unwrap_or(usize::MAX);
        oldest.truncate(past.max(surplus).min(limit));
        Ok(oldest.into_iter().map(|(_, key)| key).collect())
    }

    /// Sends many commands and returns their replies in order, or the first fault.
    async fn all<T: FromRedisValue>(&self, commands: Vec<Cmd>) -> Result<Vec<T>, Fault> {
        let call = |command: Cmd| async move { self.link.call_within(BACKGROUND_TIMEOUT, &command).await };
        let mut replies = stream::iter(commands).map(call).buffered(IN_FLIGHT);
        let mut all = Vec::new();
        while let Some(reply) = replies.next().await {
            all.push(reply?);
        }
        Ok(all)
    }

    fn range(&self, set: &str) -> Cmd {
        cmd("ZRANGE").arg(set).arg(0).arg(-1).clone()
    }

    /// Directory, entry and facets, in the order that the scripts expect.
    fn keys_of(&self, id: EntryId, facets: &[Facet]) -> Vec<String> {
        let partition = Partition::from(id);
        let facets = facets.iter().map(|facet| self.keys.facet(partition, facet));
        [self.keys.directory(partition), self.keys.entry(id)].into_iter().chain(facets).collect()
    }

    fn is_valid(&self, found: &Found) -> bool {
        !self.log.invalidates(&found.entry, found.seen)
    }

    fn read(&self, value: &[u8]) -> Option<Found> {
        self.found(value, value::decode(value))
    }

    fn found(&self, value: &[u8], read: Result<(Entry, Position), CodecError>) -> Option<Found> {
        match read {
            Ok((entry, seen)) => {
                let fingerprint = *value.first_chunk()?;
                Some(Found { entry: Arc::new(entry), seen, fingerprint })
            }
            Err(error) => {
                tracing::warn!(%error, "entry skipped");
                self.unreadable.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}

impl Readiness {
    fn is_ready(&self) -> bool {
        self.log && self.changes
    }

    fn is_settled(&self) -> bool {
        self.is_ready() || self.failed
    }
}

/// Sorts and removes duplicates.
fn in_order(ids: impl Iterator<Item = EntryId>) -> Vec<EntryId> {
    ids.collect::<BTreeSet<_>>().into_iter().collect()
}

fn cache_key(bytes: &[u8]) -> Option<CacheKey> {
    bytes.try_into().ok().map(CacheKey::from_bytes)
}

/// Milliseconds since 1970, rounded up so that Redis does not expire an entry early.
fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}

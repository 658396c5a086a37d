//! Publishing to and receiving from the other processes that share the store. Deltas are published about once a second
//! and merged into the receiver's learners. Snapshots are read, merged and replaced when another process has written
//! one since. A delta may be lost, because the next snapshot has its labels.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{task::spawn_blocking, time::sleep};

use super::{
    Learning, Namespace,
    message::{self, Message, Received, Unpublished},
    namespace::lock,
};
use crate::{
    decide::learner::{Delta, Learner},
    store::{LearnerEvent, Snapshot, SnapshotVersion, StoreError},
    telemetry::metrics::LabelWay,
};

/// Pause between two publications. A rejected pair is published at once.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);

/// Minimum pause between two rounds of fits to what other replicas learned.
const CATCH_UP_EVERY: Duration = Duration::from_secs(2);

/// Maximum age of unsaved labels in a namespace with little traffic.
const SAVE_LATEST: Duration = Duration::from_secs(60);

/// Approximate length of a message. Longer ones are split between namespaces.
const MESSAGE_BYTES: usize = 128 * 1024;

/// Attempts to replace a snapshot that another process has just written.
const REPLACE_TRIES: usize = 8;

/// Maximum rejected pairs that wait until their namespaces can be loaded. The oldest are dropped.
const WAITING_MAX: usize = 1024;

impl Learning {
    /// Publishes, receives and saves for ever.
    pub async fn share(&self) {
        tokio::join!(self.publish_all(), self.receive_all(), self.catch_up());
    }

    async fn publish_all(&self) {
        loop {
            tokio::select! {
                () = sleep(PUBLISH_EVERY) => {}
                () = self.publish_now.notified() => {}
            }
            self.publish().await;
            self.save_due(SAVE_LATEST).await;
        }
    }

    /// Publishes what was learned since the last time. What fails is published the next time.
    pub(super) async fn publish(&self) {
        let mut message = Message::new(&self.table);
        let mut parts = Vec::new();
        for (id, namespace) in self.namespaces.iter() {
            let (unpublished, dropped) = namespace.take_unpublished();
            self.metrics.labels_shared(LabelWay::Dropped, dropped);
            let Some(unpublished) = unpublished else { continue };
            message.add(&id, &unpublished);
            parts.push((namespace, unpublished));
            if message.bytes.len() >= MESSAGE_BYTES {
                let full = std::mem::replace(&mut message, Message::new(&self.table));
                self.send(full, std::mem::take(&mut parts)).await;
            }
        }
        self.send(message, parts).await;
    }

    async fn send(&self, message: Message, parts: Vec<(Arc<Namespace>, Unpublished)>) {
        if parts.is_empty() {
            return;
        }
        let labels = parts.iter().filter_map(|(_, part)| part.delta.as_ref()).map(Delta::labels).sum();
        match self.store.inner().publish(message.bytes).await {
            Ok(true) => self.metrics.labels_shared(LabelWay::Published, labels),
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(%error, "deltas are published later");
                parts.into_iter().for_each(|(namespace, part)| namespace.restore_unpublished(part));
            }
        }
    }

    async fn receive_all(&self) {
        loop {
            match self.store.inner().learner_event().await {
                LearnerEvent::Published { message, from_other_region } => {
                    self.receive(&message, from_other_region).await;
                }
                LearnerEvent::Missed => self.merge_snapshots().await,
            }
        }
    }

    pub(super) async fn receive(&self, message: &[u8], from_other_region: bool) {
        let Ok(all) = message::read(message, &self.table) else {
            return tracing::debug!("a message of another version was ignored");
        };
        for received in all {
            // The snapshot has the labels once the namespace is loaded, but not a rejected pair of another region.
            if received.rejected.is_empty() && self.namespaces.get(&received.id).is_none() {
                continue;
            }
            let Some(namespace) = self.load(&received.id).await else {
                self.keep_waiting(&received);
                continue;
            };
            let delta = Delta::decode(received.delta, &self.table).ok();
            let new = namespace.merge(&received.rejected, delta.as_ref(), from_other_region);
            if from_other_region && !received.rejected.is_empty() {
                self.publish_now.notify_one();
            }
            self.metrics.labels_shared(LabelWay::Received, new);
        }
    }

    fn keep_waiting(&self, received: &Received<'_>) {
        let mut waiting = lock(&self.waiting);
        waiting.extend(received.rejected.iter().map(|pair| (received.id.clone(), *pair)));
        let surplus = waiting.len().saturating_sub(WAITING_MAX);
        waiting.drain(..surplus);
    }

    /// Merges the waiting pairs, as long as the store answers. They may come from another region, so they are saved here.
    pub(super) async fn merge_waiting(&self) {
        loop {
            let Some((id, pair)) = lock(&self.waiting).pop_front() else { return };
            let Some(namespace) = self.load(&id).await else {
                return lock(&self.waiting).push_front((id, pair));
            };
            namespace.merge(&[pair], None, true);
            self.publish_now.notify_one();
        }
    }

    /// Fits namespaces to what other replicas learned.
    async fn catch_up(&self) {
        loop {
            sleep(CATCH_UP_EVERY).await;
            self.merge_waiting().await;
            for (_, namespace) in self.namespaces.iter() {
                self.fit_if(&namespace, Learner::is_behind).await;
            }
        }
    }

    /// Merges the snapshots of all loaded namespaces, again until the store answers.
    async fn merge_snapshots(&self) {
        for (_, namespace) in self.namespaces.iter() {
            loop {
                let mut version = namespace.version.lock().await;
                match self.merge_snapshot(&namespace).await {
                    Ok(merged) => {
                        *version = merged;
                        break;
                    }
                    Err(error) => tracing::warn!(%error, "a snapshot cannot be read"),
                }
                drop(version);
                sleep(PUBLISH_EVERY).await;
            }
        }
    }

    /// Merges the stored snapshot and returns its version.
    async fn merge_snapshot(
        &self,
        namespace: &Arc<Namespace>,
    ) -> Result<Option<SnapshotVersion>, StoreError> {
        let name = namespace.id().snapshot_name();
        let snapshot = self.store.inner().snapshot(&name).await?;
        let Some(Snapshot { version, bytes }) = snapshot else { return Ok(None) };
        let namespace = Arc::clone(namespace);
        // A panic leaves the namespace as it was.
        let _ = spawn_blocking(move || namespace.merge_snapshot(&bytes)).await;
        Ok(Some(version))
    }

    /// Saves namespaces whose last snapshot is `every` old or lacks a rejected pair, as long as the store answers.
    pub(super) async fn save_due(&self, every: Duration) {
        for (_, namespace) in self.namespaces.iter() {
            if namespace.saving.claim(Instant::now(), every) && !self.save(&namespace).await {
                return;
            }
        }
    }

    /// Writes a snapshot. Returns whether the store answered.
    pub(super) async fn save(&self, namespace: &Arc<Namespace>) -> bool {
        let mut unsaved = Unsaved { namespace, is_saved: false };
        let is_saved = match self.replace_snapshot(namespace).await {
            Ok(is_saved) => is_saved,
            Err(error) => {
                tracing::warn!(%error, "a snapshot cannot be saved");
                return false;
            }
        };
        unsaved.is_saved = is_saved;
        if !is_saved {
            let namespace = namespace.id().name.as_str();
            tracing::warn!(namespace, "a snapshot was not saved yet: others always wrote first");
        }
        true
    }

    /// Replaces the snapshot, after merging the stored one if another process has written it. Returns whether the
    /// snapshot was written.
    async fn replace_snapshot(&self, namespace: &Arc<Namespace>) -> Result<bool, StoreError> {
        let name = &namespace.id().snapshot_name();
        // Held to the end, so that the later of two snapshots of this process lasts.
        let mut version = namespace.version.lock().await;
        for _ in 0..REPLACE_TRIES {
            let writer = Arc::clone(namespace);
            // Encodes and hashes about a megabyte.
            let encoded = spawn_blocking(move || Snapshot::of(writer.encode()));
            let Ok(snapshot) = encoded.await else { return Ok(false) };
            let (written, replaces) = (snapshot.version, *version);
            if self.store.inner().put_snapshot(name, snapshot, replaces).await? {
                *version = Some(written);
                return Ok(true);
            }
            *version = self.merge_snapshot(namespace).await?;
        }
        Ok(false)
    }
}

/// Marks a namespace as unsaved again when writing its snapshot fails or is cancelled.
struct Unsaved<'a> {
    namespace: &'a Namespace,
    is_saved: bool,
}

impl Drop for Unsaved<'_> {
    fn drop(&mut self) {
        if !self.is_saved {
            self.namespace.saving.set_unsaved();
        }
    }
}

//! Learning. Answers of models are compared with those of the nearest entries, off the request path, and teach the learner
//! of their namespace. Learners are saved as snapshots in the store, which are loaded when a namespace gets its first
//! request, and replicas publish what they learn to each other.

mod candidates;
mod comparison;
mod feedback_quota;
mod message;
mod namespace;
mod rejected_pairs;
mod replication;
mod snapshot_timer;

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use quick_cache::sync::Cache;
use tokio::{
    sync::{Notify, Semaphore},
    task::spawn_blocking,
    time::timeout,
};

pub use self::{
    candidates::{Audit, Compared, Pair, ScoredCandidates},
    namespace::{Assessment, CandidateAssessment, Namespace, NamespaceId},
};
use self::{comparison::Comparer, feedback_quota::FeedbackQuota, rejected_pairs::RejectedPair};
use crate::{
    config::LearningConfig,
    decide::{
        learner::{Audits, LabelErrors, Learner, MeasuredErrors, WrongHits},
        table::{Table, TableError},
    },
    embed::Embedder,
    key::{CacheKey, Owner},
    prompt::Completion,
    store::{Snapshot, TimedStore},
    telemetry::metrics::{LabelLoss, LabelOrigin, Metrics},
};

/// Minimum time between two snapshots of a namespace.
const SAVE_EVERY: Duration = Duration::from_secs(10);

/// Maximum time to decode a snapshot, besides the time to get it.
const DECODE_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum audits of lookups whose answers may still come.
const AUDITS_MAX: usize = 10_000;

/// The learners of all namespaces.
pub struct Learning {
    table: Arc<Table>,
    /// The least recently used are evicted; their snapshots stay.
    namespaces: Cache<NamespaceId, Arc<Namespace>>,
    store: TimedStore,
    comparer: Comparer,
    /// Permits for comparisons. Comparisons without one are dropped.
    comparing: Semaphore,
    feedback_quota: FeedbackQuota,
    /// Audits of lookups that were answered as misses, by prompt.
    audits: Cache<CacheKey, Audit>,
    /// Rejected pairs that wait until their namespaces can be loaded.
    waiting: Mutex<VecDeque<(NamespaceId, RejectedPair)>>,
    /// Signals that other processes must learn of something at once.
    publish_now: Notify,
    metrics: Arc<Metrics>,
}

impl Learning {
    /// Learning without any namespace loaded.
    ///
    /// # Errors
    /// [`TableError`] if this build embeds a table of another version.
    pub fn new(
        config: &LearningConfig,
        embedder: Option<Arc<dyn Embedder>>,
        store: TimedStore,
        metrics: Arc<Metrics>,
    ) -> Result<Self, TableError> {
        Ok(Self {
            table: Table::embedded()?,
            namespaces: Cache::new(config.max_namespaces),
            store,
            comparer: Comparer::new(embedder),
            comparing: Semaphore::new(config.max_comparisons),
            feedback_quota: FeedbackQuota::new(config.feedback_per_hour),
            audits: Cache::new(AUDITS_MAX),
            waiting: Mutex::default(),
            publish_now: Notify::new(),
            metrics,
        })
    }

    /// Returns the namespace `name` of `owner`. While the store fails it is an empty one that is not remembered.
    pub async fn namespace(&self, owner: &Owner, name: &str) -> Arc<Namespace> {
        let id = NamespaceId { owner: owner.clone(), name: name.to_owned() };
        let loaded = self.load(&id).await;
        loaded.unwrap_or_else(|| Arc::new(Namespace::new(id.clone(), self.new_learner(&id))))
    }

    /// Returns the namespace if it is loaded.
    pub fn known(&self, owner: &Owner, name: &str) -> Option<Arc<Namespace>> {
        self.namespaces.get(&NamespaceId { owner: owner.clone(), name: name.to_owned() })
    }

    /// Loads a namespace unless it is loaded; `None` if the store fails.
    async fn load(&self, id: &NamespaceId) -> Option<Arc<Namespace>> {
        if let Some(known) = self.namespaces.get(id) {
            return Some(known);
        }
        let read = self.namespaces.get_or_insert_async(id, async { self.read(id).await.ok_or(()) });
        // When one caller fails the next one tries, so they share one timeout.
        timeout(self.store.timeout() + DECODE_TIMEOUT, read).await.ok()?.ok()
    }

    /// Reads the snapshot of a namespace; `None` if the store fails.
    async fn read(&self, id: &NamespaceId) -> Option<Arc<Namespace>> {
        let name = id.snapshot_name();
        let snapshot = match timeout(self.store.timeout(), self.store.inner().snapshot(&name)).await {
            Ok(Ok(snapshot)) => snapshot,
            Ok(Err(error)) => {
                tracing::warn!(%error, "a snapshot cannot be read");
                return None;
            }
            Err(_) => return None,
        };
        let (id, learner) = (id.clone(), self.new_learner(id));
        let Some(Snapshot { version, bytes }) = snapshot else {
            return Some(Arc::new(Namespace::new(id, learner)));
        };
        // Decoding fits the model, which takes tens of milliseconds.
        let decoded = spawn_blocking(move || Namespace::decode(id, &bytes, learner)).await;
        let mut namespace = decoded.ok()?;
        namespace.learner().set_id(new_learner_id());
        *namespace.version.get_mut() = Some(version);
        Some(Arc::new(namespace))
    }

    fn new_learner(&self, id: &NamespaceId) -> Learner {
        let mut learner = Learner::new(Arc::clone(&self.table), id.seed());
        learner.set_id(new_learner_id());
        learner
    }

    /// Compares the answer to `prompt` with those of the candidates. The caller should have the answer by then. `None` if
    /// too many comparisons are running.
    pub async fn compare(
        &self,
        near: ScoredCandidates,
        prompt: &str,
        answer: &Completion,
    ) -> Option<Compared> {
        let Ok(_permit) = self.comparing.try_acquire() else {
            self.metrics.labels_dropped(LabelLoss::Overload, near.candidates.len());
            return None;
        };
        self.comparer.compare(near, prompt, answer).await
    }

    /// Learns what a verifier said of candidates, by index. [`Self::fit_if_due`] is for later.
    pub fn learn_verdicts(&self, near: &ScoredCandidates, verdicts: &[(usize, bool)]) {
        near.namespace().observe_verdicts(near, verdicts);
        for (_, fits) in verdicts {
            self.metrics.label(LabelOrigin::Verification, if *fits { 1.0 } else { -1.0 });
        }
    }

    /// Learns from a comparison.
    pub async fn learn(&self, compared: Compared) {
        compared.observe(|origin, same| self.metrics.label(origin, same));
        self.fit_if_due(compared.namespace()).await;
    }

    /// Learns from a tenant's feedback: the answer fits the prompt, or not. Feedback above the tenant's quota in the
    /// namespace is counted and teaches nothing.
    pub async fn learn_from_feedback(&self, tenant: &str, pair: &Pair, same: bool) {
        if !self.feedback_quota.admit(tenant, pair.namespace().id(), Instant::now()) {
            self.metrics.labels_dropped(LabelLoss::FeedbackQuota, 1);
            return;
        }
        self.metrics.label(LabelOrigin::Feedback, if same { 1.0 } else { -1.0 });
        pair.observe(same);
        self.fit_if_due(pair.namespace()).await;
    }

    /// Never serves the answer of `entry` to `prompt` again.
    pub fn reject(&self, namespace: &Namespace, prompt: CacheKey, entry: CacheKey) {
        if namespace.reject(prompt, entry) {
            self.publish_now.notify_one();
        }
    }

    /// Remembers that the lookup of `prompt` was answered as a miss for an audit; its caller gets an answer elsewhere
    /// and stores it.
    pub fn expect_audit(&self, prompt: CacheKey, audit: Audit) {
        self.audits.insert(prompt, audit);
    }

    /// Takes the audit that waits for an answer to `prompt`.
    pub fn take_audit(&self, prompt: CacheKey) -> Option<Audit> {
        self.audits.remove(&prompt).map(|(_, audit)| audit)
    }

    /// Fits the namespace if that is due, and then saves its snapshot if that is.
    pub async fn fit_if_due(&self, namespace: &Arc<Namespace>) {
        let fitted = self.fit_if(namespace, Learner::is_due).await;
        if fitted && namespace.saving.claim(Instant::now(), SAVE_EVERY) {
            self.save(namespace).await;
        }
    }

    /// Fits the namespace if it `is_due`; returns whether it was.
    async fn fit_if(&self, namespace: &Namespace, is_due: fn(&Learner) -> bool) -> bool {
        let Some(fit) = namespace.start_fit(is_due) else { return false };
        // A panic leaves the model as it was.
        namespace.end_fit(spawn_blocking(move || fit.run()).await.ok());
        true
    }

    /// Publishes and saves everything that is not published and saved yet. Called at shutdown.
    pub async fn save_all(&self) {
        self.publish().await;
        self.save_due(Duration::ZERO).await;
    }

    /// Current estimate of the share of wrong answers among semantic hits, over the namespaces that `counts` selects.
    pub fn wrong_hits(&self, counts: impl Fn(&NamespaceId) -> bool) -> WrongHits {
        let mut sum = Audits::new(0);
        for (_, namespace) in self.namespaces.iter().filter(|(id, _)| counts(id)) {
            sum.add(&namespace.audits());
        }
        sum.estimate(&LabelErrors::ASSUMED)
    }

    /// Error rates of the verifier, pooled over the loaded namespaces that `counts` selects.
    pub fn verifier_errors(&self, counts: impl Fn(&NamespaceId) -> bool) -> MeasuredErrors {
        let selected = self.namespaces.iter().filter(|(id, _)| counts(id));
        MeasuredErrors::pool(selected.map(|(_, namespace)| namespace.measured_errors()))
    }
}

/// A new id for each loaded namespace: it numbers its labels anew, so it must not be taken for the same learner.
fn new_learner_id() -> u32 {
    fastrand::u32(1..u32::MAX)
}

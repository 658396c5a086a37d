//! What the learned decision knows, namespace by namespace, and how it comes to know more: each answer that
//! is bought is compared with those of the near entries, off the request path. What was learned is kept as
//! notes of the store, and read when a namespace is first asked in.

mod namespace;
mod near;
mod share;

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use quick_cache::sync::Cache;
use serde_json::Value;
use tokio::{
    sync::{Notify, Semaphore, SemaphorePermit},
    task::spawn_blocking,
};

use self::share::Apart;
pub use self::{
    namespace::{Namespace, NamespaceId, Outlook, View},
    near::{Check, Compared, Near, Pair},
};
use crate::{
    config::LearningConfig,
    decide::{
        answer::Answer,
        learner::{Audits, Label, Learner, WrongHits},
        table::{Table, TableError},
    },
    entry::Candidate,
    key::{CacheKey, Owner},
    metrics::{LabelOrigin, Metrics},
    model::VerifierReply,
    prompt::{Completion, prefix},
    store::{Note, Store},
};

/// Least time between two notes of one namespace.
const SAVE_EVERY: Duration = Duration::from_secs(10);

/// Bytes of an answer that are compared. Two answers that agree so far agree.
const COMPARED_BYTES_MAX: usize = 16 * 1024;

/// Probability at which an answer counts as the same without a doubt.
const CERTAINLY_SAME: f32 = 0.95;

/// Longest that making sense of a note may take, beside getting it.
const READING: Duration = Duration::from_secs(1);

/// Checked lookups whose answers may still come.
const CHECKS_MAX: usize = 10_000;

/// Everything learned.
pub struct Learning {
    table: Arc<Table>,
    /// The least recently asked go first; their notes stay.
    namespaces: Cache<NamespaceId, Arc<Namespace>>,
    store: Arc<dyn Store>,
    store_timeout: Duration,
    /// Comparisons at once; more are dropped.
    comparing: Semaphore,
    /// Share of the comparisons in which a model is asked too, and how many at once.
    judge_rate: f32,
    judging: Semaphore,
    /// Lookups that were answered as misses to be checked, by the prompt.
    checks: Cache<CacheKey, Check>,
    /// Pairs that were told of namespaces whose notes could not be read at that moment.
    unread: Mutex<VecDeque<(NamespaceId, Apart)>>,
    /// Told when others must know at once.
    urgent: Notify,
    metrics: Arc<Metrics>,
}

// === impl Learning ===

impl Learning {
    /// Knows nothing yet; reads the notes in `store` as namespaces are asked in.
    ///
    /// # Errors
    /// [`TableError`] when this build embedded a table of another version.
    pub fn new(
        config: &LearningConfig,
        (store, store_timeout): (Arc<dyn Store>, Duration),
        metrics: Arc<Metrics>,
    ) -> Result<Self, TableError> {
        Ok(Self {
            table: Table::embedded()?,
            namespaces: Cache::new(config.max_namespaces),
            store,
            store_timeout,
            comparing: Semaphore::new(config.max_comparisons),
            judge_rate: config.judge_rate,
            judging: Semaphore::new(config.max_judgements),
            checks: Cache::new(CHECKS_MAX),
            unread: Mutex::default(),
            urgent: Notify::new(),
            metrics,
        })
    }

    /// The namespace `name` of `owner`. A store that fails makes it one that knows nothing, until it answers.
    pub async fn namespace(&self, owner: &Owner, name: &str) -> Arc<Namespace> {
        let id = NamespaceId { owner: owner.clone(), name: name.to_owned() };
        let known = self.open(&id).await;
        known.unwrap_or_else(|| Arc::new(Namespace::new(id.clone(), self.fresh(&id))))
    }

    /// The same; `None` where the store fails.
    async fn open(&self, id: &NamespaceId) -> Option<Arc<Namespace>> {
        if let Some(known) = self.namespaces.get(id) {
            return Some(known);
        }
        let read = self.namespaces.get_or_insert_async(id, async { self.read(id).await.ok_or(()) });
        // When one fails the next who waits tries, so all of them have one time together.
        let read = tokio::time::timeout(self.store_timeout + READING, read).await;
        read.ok().and_then(Result::ok)
    }

    /// The same, when it has been asked in before.
    pub fn known(&self, owner: &Owner, name: &str) -> Option<Arc<Namespace>> {
        self.namespaces.get(&NamespaceId { owner: owner.clone(), name: name.to_owned() })
    }

    /// From its note; `None` when the store cannot tell whether there is one.
    async fn read(&self, id: &NamespaceId) -> Option<Arc<Namespace>> {
        let name = id.note();
        let note = tokio::time::timeout(self.store_timeout, self.store.note(&name)).await;
        let note = match note {
            Ok(Ok(note)) => note,
            Ok(Err(error)) => {
                tracing::warn!(%error, "what was learned cannot be read");
                return None;
            }
            Err(_) => return None,
        };
        let (id, fresh) = (id.clone(), self.fresh(id));
        let Some(Note { version, bytes }) = note else { return Some(Arc::new(Namespace::new(id, fresh))) };
        let table = Arc::clone(&self.table);
        // Reading fits the model, which takes tens of milliseconds.
        let read = spawn_blocking(move || Namespace::read(id, &bytes, table, fresh)).await;
        let mut namespace = read.ok()?;
        namespace.learner().set_origin(new_origin());
        *namespace.version.get_mut() = Some(version);
        Some(Arc::new(namespace))
    }

    fn fresh(&self, id: &NamespaceId) -> Learner {
        let mut learner = Learner::new(Arc::clone(&self.table), id.seed());
        learner.set_origin(new_origin());
        learner
    }

    /// Compares an answer with those of the near entries. Whoever bought it should have it before this is
    /// called. `None` when too many comparisons are under way.
    pub async fn compare(&self, near: Near, answer: &Completion) -> Option<Compared> {
        let Ok(permit) = self.comparing.try_acquire() else {
            self.metrics.labels_dropped(near.candidates.len());
            return None;
        };
        let answer = answer.clone();
        let compared = spawn_blocking(move || compare(near, &answer)).await.ok();
        drop(permit);
        compared
    }

    /// A place to ask a model about the answer to `prompt`, if it is among the share of which one is asked.
    /// Which are is drawn by the prompt, so that a replay repeats itself.
    pub fn place_to_judge(&self, prompt: CacheKey) -> Option<SemaphorePermit<'_>> {
        let [.., a, b] = *prompt.as_bytes();
        if f32::from(u16::from_le_bytes([a, b])) >= self.judge_rate * (f32::from(u16::MAX) + 1.0) {
            return None;
        }
        let place = self.judging.try_acquire().ok();
        if place.is_none() {
            self.metrics.judgement(VerifierReply::LeftOut);
        }
        place
    }

    /// Learns from a comparison. Returns the entry whose answer says the same, as far as anybody can tell.
    pub async fn learn(&self, compared: Compared) -> Option<CacheKey> {
        compared.observe(|origin, same| self.metrics.label(origin, same));
        let same_as = compared.same_as(CERTAINLY_SAME);
        self.fit_when_due(compared.namespace()).await;
        same_as
    }

    /// Learns what a caller says of an answer that it was served: it belongs to its question, or not.
    pub async fn hear(&self, pair: &Pair, same: bool) {
        self.metrics.label(LabelOrigin::Feedback, f32::from(u8::from(same)));
        pair.teach(same);
        self.fit_when_due(pair.namespace()).await;
    }

    /// The answer of `entry` is not served to `prompt` again.
    pub fn part(&self, namespace: &Namespace, prompt: CacheKey, entry: CacheKey) {
        if namespace.part(prompt, entry) {
            self.urgent.notify_one();
        }
    }

    /// The lookup of `prompt` was answered as a miss, so that its caller buys the answer and brings it.
    pub fn expect_check(&self, prompt: CacheKey, check: Check) {
        self.checks.insert(prompt, check);
    }

    /// Whether the answer to `prompt` is waited for to check a hit.
    pub fn take_check(&self, prompt: CacheKey) -> Option<Check> {
        self.checks.remove(&prompt).map(|(_, check)| check)
    }

    async fn fit_when_due(&self, namespace: &Arc<Namespace>) {
        let Some(snapshot) = namespace.snapshot_when_due() else { return };
        // A panic leaves the model as it was.
        namespace.install(spawn_blocking(move || snapshot.fit()).await.ok());
        if namespace.claim_save(Instant::now(), SAVE_EVERY) {
            self.save(namespace).await;
        }
    }

    /// Tells and keeps what is not yet told and kept. Called at shutdown.
    pub async fn save_all(&self) {
        self.tell_once().await;
        self.save_due(Duration::ZERO).await;
    }

    /// The live estimate of the share of wrong answers among semantic hits, of the namespaces that `counts`
    /// chooses together.
    pub fn wrong_hits(&self, counts: impl Fn(&NamespaceId) -> bool) -> WrongHits {
        let mut sum = Audits::new(0);
        let (mut missed, mut of) = (0.0, 0.0);
        for (_, namespace) in self.namespaces.iter().filter(|(id, _)| counts(id)) {
            let (audits, share) = namespace.audits();
            let weight = audits.checks() as f32;
            missed += share * weight;
            of += weight;
            sum.add(&audits);
        }
        sum.estimate(if of > 0.0 { missed / of } else { 0.0 })
    }
}

/// Marks what is learned from one opening of a namespace to its end. Another opening counts its labels anew, so
/// it must not be taken for the same, though the process is.
fn new_origin() -> u32 {
    fastrand::u32(1..u32::MAX)
}

/// How probable it is that each near entry's answer says the same.
fn compare(near: Near, answer: &Completion) -> Compared {
    let words = |answer: &Completion| Answer::of(prefix(&answer.content, COMPARED_BYTES_MAX));
    let (said, called) = (words(answer), calls(answer));
    let same = |entry: &Completion| {
        if called != calls(entry) {
            return 0.0;
        }
        let silent = answer.content.is_empty() && entry.content.is_empty();
        if silent { 1.0 } else { said.same(&words(entry)) }
    };
    let label = |candidate: &Candidate| Label::compared(same(&candidate.entry.completion));
    let labels = near.candidates.iter().map(label).collect();
    Compared { near, labels }
}

/// The functions that an answer calls, in order, with their arguments, whatever ids the calls have. Two calls
/// share most of their words and do different things, so they are the same or not.
fn calls(answer: &Completion) -> Vec<(Value, Value)> {
    let calls = answer.tool_calls.as_ref().and_then(Value::as_array);
    let call = |call: &Value| {
        let function = &call["function"];
        let arguments = function["arguments"].as_str().and_then(|text| serde_json::from_str(text).ok());
        (function["name"].clone(), arguments.unwrap_or_else(|| function["arguments"].clone()))
    };
    calls.into_iter().flatten().map(call).collect()
}

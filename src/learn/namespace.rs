//! One namespace: its learner, and the pairs that were found not to belong together.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    Near,
    share::{Apart, News},
};
use crate::{
    decide::{
        Check,
        features::{self, Features, Neighbourhood},
        learner::{Audits, Budget, Fitted, Learner, Lesson, Snapshot, Standing, Verdict, WrongHits},
        table::{Reader, Table},
        text::Analysis,
    },
    entry::Candidate,
    key::{CacheKey, Owner, Scope},
    outcome::MissReason,
    store::NoteVersion,
};

/// Pairs remembered; the oldest go. By then their prompts have long been answered by themselves.
pub(super) const APART_MAX: usize = 256;

/// First bytes of a note.
const MAGIC: &[u8; 8] = b"pknote\0\x02";

/// Whose traffic: each learns for itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamespaceId {
    pub owner: Owner,
    pub name: String,
}

/// See the module.
pub struct Namespace {
    id: NamespaceId,
    table: Arc<Table>,
    /// Std mutexes: held for a few computations, never across an await.
    learner: Mutex<Learner>,
    apart: Mutex<VecDeque<Apart>>,
    /// Those of them that other processes were not told of.
    untold: Mutex<VecDeque<Apart>>,
    /// When the last note was written; begins when there is none.
    saved: Mutex<Option<Instant>>,
    /// Of the last note that was read or written. Locked while one is written, see [`Learning::save`](super::Learning).
    pub(super) version: tokio::sync::Mutex<Option<NoteVersion>>,
    /// The last decision was that too many hits had been wrong.
    is_blown: AtomicBool,
    is_fitting: AtomicBool,
    is_dirty: AtomicBool,
}

/// What a namespace thinks of the candidates of a prompt, for `Explain`.
#[derive(Clone, Debug)]
pub struct Outlook {
    /// In their order.
    pub candidates: Vec<View>,
    /// The probability that one must reach; above 1 when none will do.
    pub threshold: f32,
    /// Why the threshold is where it is.
    pub threshold_reason: String,
    /// Why a candidate that is not accepted is not.
    pub refusal: MissReason,
}

/// What it thinks of one candidate.
#[derive(Clone, Debug)]
pub struct View {
    /// That the answer is right.
    pub probability: f32,
    /// Standard deviation of the probability's logit.
    pub deviation: f32,
    /// Whether it would be served.
    pub accepted: bool,
}

// === impl View ===

impl View {
    /// The verdict and what it is made of, as `Explain` lists them: the probability first, then every feature
    /// that is not zero.
    pub fn checks(&self, features: &Features) -> Vec<Check> {
        let detail = format!("{:.3}, logit ± {:.2}", self.probability, self.deviation);
        let verdict = Check { name: "probability", passed: self.accepted, detail };
        let named = features::NAMES.iter().zip(features).filter(|(_, value)| **value != 0.0);
        let feature = |(name, value): (&&'static str, &f32)| Check {
            name,
            passed: true,
            detail: format!("{value:.3}"),
        };
        std::iter::once(verdict).chain(named.map(feature)).collect()
    }
}

// === impl NamespaceId ===

impl NamespaceId {
    /// Name of its note. No two namespaces share one.
    pub fn note(&self) -> String {
        let name = &self.name;
        match &self.owner {
            Owner::Tenant(tenant) => format!("learned/tenant/{}:{tenant}/{name}", tenant.len()),
            Owner::Shared => format!("learned/shared/{name}"),
        }
    }

    /// Of what is drawn by chance: it differs between namespaces, and repeats itself in a replay.
    pub fn seed(&self) -> u64 {
        let hash = blake3::hash(self.note().as_bytes());
        hash.as_bytes()[..8].iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte))
    }
}

// === impl Namespace ===

impl Namespace {
    pub(super) fn new(id: NamespaceId, learner: Learner) -> Self {
        Self {
            id,
            table: Arc::clone(learner.table()),
            learner: learner.into(),
            apart: Mutex::default(),
            untold: Mutex::default(),
            saved: Mutex::default(),
            version: tokio::sync::Mutex::default(),
            is_blown: AtomicBool::new(false),
            is_fitting: AtomicBool::new(false),
            is_dirty: AtomicBool::new(false),
        }
    }

    pub fn id(&self) -> &NamespaceId {
        &self.id
    }

    /// What is known of the candidates of a prompt. Counts nothing.
    pub fn near(
        self: &Arc<Self>,
        (prompt, scope): (CacheKey, Scope),
        text: &str,
        mut candidates: Vec<Candidate>,
    ) -> Near {
        candidates.retain(|candidate| !self.is_apart(prompt, candidate.entry.key));
        let features = self.features(text, &candidates);
        let scored = {
            let learner = self.learner();
            features.iter().map(|features| learner.score(features, scope.tag())).collect()
        };
        Near { namespace: Arc::clone(self), prompt, candidates, features, scored, check: None }
    }

    fn features(&self, text: &str, candidates: &[Candidate]) -> Vec<Features> {
        if candidates.is_empty() {
            return Vec::new();
        }
        let new = Analysis::of(text);
        let similarities: Vec<_> = candidates.iter().map(|candidate| ((), candidate.similarity)).collect();
        let features = |(index, candidate): (usize, &Candidate)| {
            let entry = Analysis::of(candidate.text());
            let around = Neighbourhood::of(&similarities, index);
            features::of(&new, &entry, candidate.similarity, around, &self.table.rarity)
        };
        candidates.iter().enumerate().map(features).collect()
    }

    /// Counts the request and decides it.
    pub fn decide(&self, near: &Near, budget: &Budget, audit_rate: f32) -> Verdict {
        let verdict = self.learner().decide(&near.scored, budget, audit_rate);
        let is_blown = verdict == Verdict::Blown;
        if !near.scored.is_empty() && self.is_blown.swap(is_blown, Ordering::Relaxed) != is_blown {
            self.tell_blown(is_blown);
        }
        verdict
    }

    fn tell_blown(&self, is_blown: bool) {
        let namespace = self.id.name.as_str();
        if is_blown {
            let WrongHits { rate, low, checks, .. } = self.learner().wrong_hits();
            tracing::error!(
                namespace,
                rate,
                low,
                checks,
                "too many hits were wrong: exact repeats only for now"
            );
        } else {
            tracing::info!(namespace, "semantic hits are tried again");
        }
    }

    /// What `decide` would say, and what it is based on.
    pub fn outlook(&self, near: &Near, budget: &Budget) -> Outlook {
        let learner = self.learner();
        let view = |scored| {
            let (probability, deviation) = learner.estimate(scored);
            View { probability, deviation, accepted: learner.would_serve(scored, budget) }
        };
        let (threshold, threshold_reason, state) = learner.bar(budget);
        let refusal = match state {
            Standing::Blown => MissReason::OverBudget,
            Standing::Young => MissReason::Learning,
            Standing::Trusted => MissReason::BelowThreshold,
        };
        Outlook { candidates: near.scored.iter().map(view).collect(), threshold, threshold_reason, refusal }
    }

    /// Whether the candidate at `index` would be served.
    pub fn would_serve(&self, near: &Near, index: usize, budget: &Budget) -> bool {
        self.learner().would_serve(&near.scored[index], budget)
    }

    pub(super) fn snapshot_when_due(&self) -> Option<Snapshot> {
        let mut learner = self.learner();
        // One fit at a time: under load another snapshot would be due before it is done, and outdate it.
        let due = learner.is_due() && !self.is_fitting.swap(true, Ordering::Relaxed);
        due.then(|| learner.snapshot())
    }

    /// The same counting what other processes saw.
    pub(super) fn snapshot_when_behind(&self) -> Option<Snapshot> {
        let mut learner = self.learner();
        let due = learner.is_behind() && !self.is_fitting.swap(true, Ordering::Relaxed);
        due.then(|| learner.snapshot())
    }

    /// Ends a fit that may have failed.
    pub(super) fn install(&self, fitted: Option<Fitted>) {
        let mut learner = self.learner();
        fitted.into_iter().for_each(|fitted| learner.install(fitted));
        self.is_fitting.store(false, Ordering::Relaxed);
    }

    /// Whether the last decision was that too many hits had been wrong.
    pub fn is_blown(&self) -> bool {
        self.is_blown.load(Ordering::Relaxed)
    }

    /// What checks found, and the share of equal answers that they miss.
    pub(super) fn audits(&self) -> (Audits, f32) {
        let learner = self.learner();
        (learner.audits().clone(), learner.model().noise.missed as f32)
    }

    pub(super) fn learner(&self) -> MutexGuard<'_, Learner> {
        lock(&self.learner)
    }

    /// The pair is not served again; whether that is news.
    pub(super) fn part(&self, prompt: CacheKey, entry: CacheKey) -> bool {
        let is_news = add(&mut lock(&self.apart), (prompt, entry));
        if is_news {
            add(&mut lock(&self.untold), (prompt, entry));
            *lock(&self.saved) = None;
            self.set_dirty();
        }
        is_news
    }

    /// What other processes do not know yet, and the number of labels that they will not be told of.
    pub(super) fn news(&self) -> (Option<News>, usize) {
        let apart: Vec<_> = std::mem::take(&mut *lock(&self.untold)).into();
        let mut learner = self.learner();
        let (lesson, dropped) = (learner.lesson(), learner.take_dropped());
        let is_news = !apart.is_empty() || lesson.is_some();
        (is_news.then_some(News { apart, lesson }), dropped)
    }

    /// They could not be told.
    pub(super) fn take_back(&self, News { apart, lesson }: News) {
        let mut untold = lock(&self.untold);
        let since = std::mem::replace(&mut *untold, apart.into());
        for pair in since {
            add(&mut untold, pair);
        }
        drop(untold);
        if let Some(lesson) = lesson {
            self.learner().take_back(lesson);
        }
    }

    /// Learns what another process did; returns the number of labels. Pairs from far are in no note here; others
    /// are written down by whoever told of them.
    pub(super) fn take_in(&self, apart: &[Apart], lesson: Option<&Lesson>, is_far: bool) -> usize {
        for pair in apart {
            if add(&mut lock(&self.apart), *pair) && is_far {
                *lock(&self.saved) = None;
                self.set_dirty();
            }
        }
        lesson.map_or(0, |lesson| self.learner().hear(lesson))
    }

    /// Takes over what another process wrote of the same namespace. Takes milliseconds.
    pub(super) fn join(&self, note: &[u8]) {
        let read = |learner: &[u8]| Learner::decode_unfitted(learner, Arc::clone(&self.table), 0);
        let Some((apart, learner)) = parse(note, read) else { return };
        for pair in apart {
            add(&mut lock(&self.apart), pair);
        }
        self.learner().join(&learner);
    }

    pub(super) fn is_apart(&self, prompt: CacheKey, entry: CacheKey) -> bool {
        lock(&self.apart).contains(&(prompt, entry))
    }

    /// Something was learned since the last note.
    pub(super) fn set_dirty(&self) {
        self.is_dirty.store(true, Ordering::Relaxed);
    }

    /// Whether a note is to be written: something is new, and the last one is `every` old. Says so once. A
    /// namespace that was only read must not overwrite what another replica learned since.
    pub(super) fn claim_save(&self, now: Instant, every: Duration) -> bool {
        let mut saved = lock(&self.saved);
        let is_time = saved.is_none_or(|saved| now.duration_since(saved) >= every);
        let due = is_time && self.is_dirty.swap(false, Ordering::Relaxed);
        if due {
            *saved = Some(now);
        }
        due
    }

    /// The note that [`Namespace::read`] reads.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut note = MAGIC.to_vec();
        let apart = lock(&self.apart);
        note.extend((apart.len() as u32).to_le_bytes());
        for (prompt, entry) in apart.iter() {
            note.extend(prompt.as_bytes());
            note.extend(entry.as_bytes());
        }
        drop(apart);
        note.extend(self.learner().encode());
        note
    }

    /// From a note, or from `fresh` when the note is of another version: then it learns anew.
    pub(super) fn read(id: NamespaceId, note: &[u8], table: Arc<Table>, fresh: Learner) -> Self {
        let decode = |learner: &[u8]| Learner::decode(learner, table, id.seed());
        let Some((apart, learner)) = parse(note, decode) else {
            tracing::warn!("what was learned of a namespace is of another version; it learns anew");
            return Self::new(id, fresh);
        };
        let namespace = Self::new(id, learner);
        *lock(&namespace.apart) = apart;
        namespace
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Namespace").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Keeps the pair in mind; whether that is news.
fn add(apart: &mut VecDeque<Apart>, pair: Apart) -> bool {
    if apart.contains(&pair) {
        return false;
    }
    if apart.len() == APART_MAX {
        apart.pop_front();
    }
    apart.push_back(pair);
    true
}

fn parse(note: &[u8], decode: impl FnOnce(&[u8]) -> Option<Learner>) -> Option<(VecDeque<Apart>, Learner)> {
    let mut reader = Reader::new(note);
    if reader.take(MAGIC.len())? != MAGIC {
        return None;
    }
    let count = Some(reader.u32()? as usize).filter(|count| *count <= APART_MAX)?;
    let mut key = || reader.take(32).and_then(|bytes| Some(CacheKey::from_bytes(bytes.try_into().ok()?)));
    let apart = (0..count).map(|_| Some((key()?, key()?))).collect::<Option<_>>()?;
    Some((apart, decode(reader.rest())?))
}

/// A panic under the lock leaves sums that are at most one label short.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

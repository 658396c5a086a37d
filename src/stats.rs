//! The ledger behind `GetStats` and the dashboard: counts, money and percentiles since the start, for the
//! last 24 hours by the minute, for the last quarter of an hour in finer steps, and by namespace.

mod history;
mod tally;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use self::history::History;
pub use self::{
    history::Stretch,
    tally::{Latencies, Tally},
};
use crate::{
    decide::learner::WrongHits,
    feedback::Verdict,
    outcome::{MissReason, Outcome},
    prompt::{NAMESPACE_BYTES_MAX, Usage},
    upstream::{Attempt, AttemptResult},
};

/// Minutes remembered, so the longest window.
const MINUTES_MAX: u64 = 24 * 60;

/// Seconds of a fine step: a chart of the last minutes moves while one looks.
const FINE_STEP: u64 = 10;

/// Fine steps remembered: a quarter of an hour.
const FINE_MAX: u64 = 90;

/// Namespaces counted apart; requests of further ones are in the total only.
const NAMESPACES_MAX: usize = 256;

/// One finished request.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    pub namespace: &'a str,
    pub outcome: Outcome,
    pub reason: Option<MissReason>,
    pub elapsed: Duration,
    /// Of a streamed answer.
    pub first_token: Option<Duration>,
    pub saved_usd: f64,
    /// What the answer would have cost, had the hot tier written it.
    pub hot_tier_usd: f64,
}

/// What `GetStats` tells.
#[derive(Clone, Debug)]
pub struct Stats {
    pub uptime: Duration,
    /// The time that `tally` covers.
    pub window: Duration,
    /// How long an answer may take to begin.
    pub objective: Duration,
    pub tally: Tally,
    /// Since the start.
    pub models: BTreeMap<String, ModelTally>,
    /// Since the start, by verdict.
    pub feedback: BTreeMap<&'static str, u64>,
    pub store_errors: u64,
    pub sizes: Sizes,
    /// How often semantic hits were wrong, since ever.
    pub wrong_hits: WrongHits,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sizes {
    pub entries: u64,
    pub index_vectors: u64,
}

/// Counts everything, in memory.
pub struct Ledger {
    started: Instant,
    /// How long an answer may take to begin before it counts as late.
    objective: Duration,
    /// A std mutex: held for a few additions, never across an await.
    books: Mutex<Books>,
}

struct Books {
    total: Tally,
    minutes: History,
    fine: History,
    namespaces: HashMap<String, Tally>,
    models: BTreeMap<String, ModelTally>,
    feedback: BTreeMap<&'static str, u64>,
    store_errors: u64,
}

/// Sums over the calls of one model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelTally {
    pub tier: String,
    pub calls: u64,
    pub errors: u64,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
    pub cost_usd: f64,
}

// === impl Ledger ===

impl Ledger {
    /// Starts counting. Answers that take longer than `objective` to begin are late.
    pub fn new(objective: Duration) -> Self {
        Self { started: Instant::now(), objective, books: Mutex::default() }
    }

    /// Counts a finished request.
    pub fn request(&self, seen: &Observation<'_>) {
        let now = self.seconds();
        self.books().each(now, seen.namespace, |tally| tally.request(seen, self.objective));
    }

    /// Counts what an answer that passed by would have cost at the hot tier.
    pub fn at_hot_tier(&self, namespace: &str, usd: f64) {
        let now = self.seconds();
        self.books().each(now, namespace, |tally| tally.hot_tier_usd += usd);
    }

    /// Counts one call of one model, made for `namespace`.
    pub fn attempt(&self, namespace: &str, attempt: &Attempt) {
        let Usage { prompt_tokens, completion_tokens, cost_usd, .. } = attempt.usage;
        let now = self.seconds();
        let mut books = self.books();
        books.each(now, namespace, |tally| tally.cost_usd += cost_usd);
        let model = books.model(&attempt.model, &attempt.tier);
        model.calls += 1;
        model.errors += u64::from(attempt.result != AttemptResult::Ok);
        model.prompt_tokens += prompt_tokens;
        model.completion_tokens += completion_tokens;
        model.cost_usd += cost_usd;
    }

    /// Counts feedback.
    pub fn feedback(&self, verdict: Verdict) {
        *self.books().feedback.entry(verdict.as_str()).or_default() += 1;
    }

    /// Counts a failed operation of the store.
    pub fn store_error(&self) {
        self.books().store_errors += 1;
    }

    /// The numbers since the start or of the last `window` (to the minute), of one namespace or all. A
    /// namespace is counted since the start only.
    pub fn stats(&self, window: Option<Duration>, namespace: Option<&str>, sizes: Sizes) -> Stats {
        let uptime = self.started.elapsed();
        let covered = window.filter(|_| namespace.is_none());
        let tally = match (namespace, covered) {
            (Some(name), _) => self.books().namespaces.get(name).cloned().unwrap_or_default(),
            (None, Some(window)) => self.window(window),
            (None, None) => self.books().total.clone(),
        };
        let books = self.books();
        Stats {
            uptime,
            objective: self.objective,
            window: covered.map_or(uptime, |window| window.min(uptime)),
            tally,
            models: books.models.clone(),
            feedback: books.feedback.clone(),
            store_errors: books.store_errors,
            sizes,
            wrong_hits: WrongHits::UNKNOWN,
        }
    }

    /// The stretches of time with requests in the last `window`, oldest first: of ten seconds while they
    /// are remembered, which is a quarter of an hour, of a minute for longer windows.
    pub fn stretches(&self, window: Duration) -> Vec<Stretch> {
        let (seconds, now) = (window.as_secs(), self.seconds());
        let books = self.books();
        let history = if seconds <= FINE_STEP * FINE_MAX { &books.fine } else { &books.minutes };
        history.last(seconds, now)
    }

    /// The namespaces with most requests since the start, first the largest.
    pub fn largest_namespaces(&self, max: usize) -> Vec<(String, Tally)> {
        let books = self.books();
        let mut all: Vec<_> = books.namespaces.iter().collect();
        all.sort_by(|(a, x), (b, y)| y.answered().cmp(&x.answered()).then(a.cmp(b)));
        all.into_iter().take(max).map(|(name, tally)| (name.clone(), tally.clone())).collect()
    }

    /// How long the ledger has counted.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// How long an answer may take to begin.
    pub fn objective(&self) -> Duration {
        self.objective
    }

    fn window(&self, window: Duration) -> Tally {
        let recent = self.books().minutes.last(window.as_secs(), self.seconds());
        recent.iter().fold(Tally::default(), |sum, stretch| sum.plus(&stretch.tally))
    }

    fn seconds(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // A panic between two additions leaves sums that are at most one request short.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Observation ===

impl Observation<'_> {
    /// Until the caller had something to read: the first token of a streamed answer, any other as a whole.
    pub fn wait(&self) -> Duration {
        self.first_token.unwrap_or(self.elapsed)
    }
}

// === impl Books ===

impl Books {
    /// Applies `add` to every tally that a request counts in, which ends in second `now`.
    fn each(&mut self, now: u64, namespace: &str, add: impl Fn(&mut Tally)) {
        add(&mut self.total);
        add(self.minutes.at(now));
        add(self.fine.at(now));
        if let Some(tally) = self.namespace(namespace) {
            add(tally);
        }
    }

    fn namespace(&mut self, name: &str) -> Option<&mut Tally> {
        if !self.namespaces.contains_key(name) {
            // A longer one is that of a request that was refused.
            if self.namespaces.len() >= NAMESPACES_MAX || name.len() > NAMESPACE_BYTES_MAX {
                return None;
            }
            self.namespaces.insert(name.to_owned(), Tally::default());
        }
        self.namespaces.get_mut(name)
    }

    /// Model names come from the catalog, so this map is bounded by it.
    fn model(&mut self, model: &str, tier: &str) -> &mut ModelTally {
        self.models
            .entry(model.to_owned())
            .or_insert_with(|| ModelTally { tier: tier.to_owned(), ..ModelTally::default() })
    }
}

impl Default for Books {
    fn default() -> Self {
        Self {
            total: Tally::default(),
            minutes: History::new(60, MINUTES_MAX),
            fine: History::new(FINE_STEP, FINE_MAX),
            namespaces: HashMap::new(),
            models: BTreeMap::new(),
            feedback: BTreeMap::new(),
            store_errors: 0,
        }
    }
}

#[cfg(test)]
mod tests;

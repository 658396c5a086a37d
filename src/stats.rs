//! The ledger behind `GetStats`: counts, money and percentiles since the start, for the last 24 hours by
//! the minute, for the last quarter of an hour in finer steps, by namespace and by tenant.
//!
//! Namespaces are callers' text, so they are counted here, where their number is bounded, and are no label of
//! a metric.

mod books;
mod history;
mod tally;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    decide::learner::WrongHits,
    feedback::Verdict,
    model::Attempt,
    outcome::{MissReason, Outcome},
};

use self::books::{Books, Digits};
pub use self::{
    history::Stretch,
    tally::{Latencies, ModelTally, Tally},
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
    /// Its name.
    pub tenant: &'a str,
    pub namespace: &'a str,
    pub outcome: Outcome,
    pub reason: Option<MissReason>,
    pub elapsed: Duration,
    /// Of a streamed answer.
    pub first_token: Option<Duration>,
    pub saved_usd: f64,
    /// What the answer would have cost, had the hot tier written it.
    pub hot_tier_usd: f64,
    /// The answer was past its TTL.
    pub is_stale: bool,
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
    accounts: Mutex<Accounts>,
}

struct Accounts {
    all: Books,
    /// Their names come from the configuration, so this map is bounded by it.
    tenants: HashMap<String, Books>,
    store_errors: u64,
}

// === impl Ledger ===

impl Ledger {
    /// Starts counting. Answers that take longer than `objective` to begin are late.
    pub fn new(objective: Duration) -> Self {
        let all = Books::new(Digits { namespace: 2, minute: 1 });
        let accounts = Accounts { all, tenants: HashMap::new(), store_errors: 0 };
        Self { started: Instant::now(), objective, accounts: Mutex::new(accounts) }
    }

    /// Counts a finished request.
    pub fn request(&self, seen: &Observation<'_>) {
        let now = self.seconds();
        self.accounts().each(seen.tenant, |books| books.request(now, seen, self.objective));
    }

    /// Counts one call of one model, made for `tenant` in `namespace`.
    pub fn attempt(&self, tenant: &str, namespace: &str, attempt: &Attempt) {
        let now = self.seconds();
        self.accounts().each(tenant, |books| books.attempt(now, namespace, attempt));
    }

    /// Counts what an answer that passed by would have cost at the hot tier.
    pub fn at_hot_tier(&self, tenant: &str, namespace: &str, usd: f64) {
        let now = self.seconds();
        self.accounts().each(tenant, |books| books.at_hot_tier(now, namespace, usd));
    }

    /// Counts what `tenant` says of an answer.
    pub fn feedback(&self, tenant: &str, verdict: Verdict) {
        self.accounts().each(tenant, |books| books.feedback(verdict));
    }

    /// Counts a failed operation of the store.
    pub fn store_error(&self) {
        self.accounts().store_errors += 1;
    }

    /// The numbers since the start or of the last `window` (to the minute), of one namespace or all. A
    /// namespace is counted since the start only.
    pub fn stats(&self, window: Option<Duration>, namespace: Option<&str>, sizes: Sizes) -> Stats {
        let (stats, recent) = {
            let accounts = self.accounts();
            let (stats, recent) = self.told(&accounts.all, window, namespace);
            (Stats { store_errors: accounts.store_errors, sizes, ..stats }, recent)
        };
        stats.of(recent)
    }

    /// The same of one tenant's own requests. Latencies are told since the start only; the store is not its own.
    pub fn stats_of(&self, tenant: &str, window: Option<Duration>, namespace: Option<&str>) -> Stats {
        let (stats, recent) = match self.accounts().tenants.get(tenant) {
            Some(books) => self.told(books, window, namespace),
            None => self.told(&Books::of_tenant(), window, namespace),
        };
        stats.of(recent)
    }

    /// The stretches of time with requests in the last `window`, oldest first: of ten seconds while they
    /// are remembered, which is a quarter of an hour, of a minute for longer windows.
    pub fn stretches(&self, window: Duration) -> Vec<Stretch> {
        self.accounts().all.stretches(window.as_secs(), self.seconds())
    }

    /// The namespaces with most requests since the start, first the largest.
    pub fn largest_namespaces(&self, max: usize) -> Vec<(String, Tally)> {
        let accounts = self.accounts();
        let mut all: Vec<_> = accounts.all.namespaces.iter().collect();
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

    /// The numbers of `books`; those of a window are still to be added up, which nobody should wait for.
    fn told(
        &self,
        books: &Books,
        window: Option<Duration>,
        namespace: Option<&str>,
    ) -> (Stats, Option<Vec<Stretch>>) {
        let uptime = self.started.elapsed();
        let covered = window.filter(|_| namespace.is_none());
        let recent = covered.map(|window| books.minutes(window.as_secs(), self.seconds()));
        let tally = match namespace {
            Some(name) => books.namespaces.get(name).cloned().unwrap_or_default(),
            None if covered.is_some() => Tally::default(),
            None => books.total.clone(),
        };
        let stats = Stats {
            uptime,
            window: covered.map_or(uptime, |window| window.min(uptime)),
            objective: self.objective,
            tally,
            models: books.models.clone(),
            feedback: books.feedback.clone(),
            store_errors: 0,
            sizes: Sizes::default(),
            wrong_hits: WrongHits::UNKNOWN,
        };
        (stats, recent)
    }

    fn seconds(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        // A panic between two additions leaves sums that are at most one request short.
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Stats ===

impl Stats {
    /// With the sums of these stretches of time, if there are any to be added up.
    fn of(self, recent: Option<Vec<Stretch>>) -> Self {
        let Some(recent) = recent else { return self };
        let tally = recent.iter().fold(Tally::default(), |sum, stretch| sum.plus(&stretch.tally));
        Self { tally, ..self }
    }
}

// === impl Observation ===

impl Observation<'_> {
    /// Until the caller had something to read: the first token of a streamed answer, any other as a whole.
    pub fn wait(&self) -> Duration {
        self.first_token.unwrap_or(self.elapsed)
    }
}

// === impl Accounts ===

impl Accounts {
    /// Applies `add` to the books of all and to those of `tenant`.
    fn each(&mut self, tenant: &str, add: impl Fn(&mut Books)) {
        add(&mut self.all);
        if !self.tenants.contains_key(tenant) {
            self.tenants.insert(tenant.to_owned(), Books::of_tenant());
        }
        if let Some(books) = self.tenants.get_mut(tenant) {
            add(books);
        }
    }
}

//! The ledger: counts, money and latencies since the start, by the minute for the last 24 hours, in finer steps for
//! the last quarter of an hour, by namespace and by tenant.
//!
//! Namespaces are callers' text, so they are counted here, where their number is bounded, and label no metric.

mod account;
mod counters;
mod history;
mod report;
mod verifications;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use self::account::{Account, Digits};
pub use self::{
    counters::{Counters, Latencies},
    history::Interval,
    report::{ModelStats, Percentiles, Sizes, Stats, Sums},
    verifications::{Rate, VerificationStats, Verifications, VerifierErrors},
};
use crate::{
    decide::learner::WrongHits,
    model::{Attempt, VerifierReply},
    outcome::{Approval, MissReason, Outcome, Verdict},
};

/// Minutes remembered: the longest window.
const MINUTES_MAX: u64 = 24 * 60;

/// Seconds of a fine step, short enough that a chart of the last minutes visibly moves.
const FINE_STEP: u64 = 10;

/// Fine steps remembered: a quarter of an hour.
const FINE_MAX: u64 = 90;

/// Namespaces with counters of their own; requests of further ones count in the total only.
const NAMESPACES_MAX: usize = 256;

/// One finished request.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// The tenant's name.
    pub tenant: &'a str,
    pub namespace: &'a str,
    pub outcome: Outcome,
    pub reason: Option<MissReason>,
    pub elapsed: Duration,
    /// Set for a streamed answer.
    pub first_token: Option<Duration>,
    /// What the hit saved, less the cost of audits and verifications.
    pub saved_usd: f64,
    /// What the hit saved, before any cost is taken off.
    pub gross_usd: f64,
    /// Why a semantic hit was served.
    pub approval: Option<Approval>,
    /// Cost of the answer at the hot tier's price.
    pub hot_tier_usd: f64,
    /// The answer was past its TTL.
    pub is_stale: bool,
}

/// Counts requests and upstream calls, in memory.
pub struct Ledger {
    started: Instant,
    /// Time after which an answer that has not started counts as late.
    objective: Duration,
    /// A std mutex: held for a few additions or a copy, never across an await.
    accounts: Mutex<Accounts>,
}

struct Accounts {
    all: Account,
    /// By name; the names come from the configuration, which bounds the map.
    tenants: HashMap<String, Account>,
    store_errors: u64,
}

/// What a model call is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallPurpose {
    /// To answer a request. Without a cache there would be such a call too.
    Answer,
    /// To check what the cache serves: only a cache makes audits, verifications, and calls that a verifier's yes cancels.
    Check,
}

/// A copy of one account, made under the lock and added up after it.
struct View {
    uptime: Duration,
    window: Duration,
    counters: Counters,
    /// Added to `counters`.
    intervals: Vec<Interval>,
    models: Vec<ModelStats>,
    feedback: BTreeMap<&'static str, u64>,
}

// === impl Ledger ===

impl Ledger {
    /// Starts counting. Answers that start later than `objective` are late.
    pub fn new(objective: Duration) -> Self {
        let all = Account::new(Digits { namespace: 2, minute: 1 });
        let accounts = Accounts { all, tenants: HashMap::new(), store_errors: 0 };
        Self { started: Instant::now(), objective, accounts: Mutex::new(accounts) }
    }

    /// Counts a finished request.
    pub fn request(&self, seen: &Observation<'_>) {
        let now = self.seconds();
        self.accounts().each(seen.tenant, |account| account.request(now, seen, self.objective));
    }

    /// Counts an upstream call made for `tenant` in `namespace`.
    pub fn attempt(&self, tenant: &str, namespace: &str, attempt: &Attempt, purpose: CallPurpose) {
        let now = self.seconds();
        self.accounts().each(tenant, |account| account.attempt(now, namespace, attempt, purpose));
    }

    /// Adds the cost at the hot tier of an answer that bypassed the cache.
    pub fn at_hot_tier(&self, tenant: &str, namespace: &str, usd: f64) {
        let now = self.seconds();
        self.accounts().each(tenant, |account| account.at_hot_tier(now, namespace, usd));
    }

    /// Counts a verification for a request of `tenant` in `namespace`.
    pub fn verification(&self, tenant: &str, namespace: &str, reply: VerifierReply) {
        let now = self.seconds();
        self.accounts().each(tenant, |account| account.verification(now, namespace, reply));
    }

    /// Counts feedback from `tenant`.
    pub fn feedback(&self, tenant: &str, verdict: Verdict) {
        self.accounts().each(tenant, |account| account.feedback(verdict));
    }

    /// Counts a failed store operation.
    pub fn store_error(&self) {
        self.accounts().store_errors += 1;
    }

    /// The server's numbers, since the start or for the last `window` (to the minute), of one namespace or all. The
    /// window is ignored for a single namespace, which is only counted since the start.
    pub fn stats(&self, window: Option<Duration>, namespace: Option<&str>, sizes: Sizes) -> Stats {
        let (view, store_errors) = {
            let accounts = self.accounts();
            (self.view(&accounts.all, window, namespace), accounts.store_errors)
        };
        Stats { store_errors, sizes, ..self.report(view) }
    }

    /// The numbers of one tenant's own requests. Latencies cover the time since the start, and there are no numbers of
    /// the store.
    pub fn stats_of(&self, tenant: &str, window: Option<Duration>, namespace: Option<&str>) -> Stats {
        let view = match self.accounts().tenants.get(tenant) {
            Some(account) => self.view(account, window, namespace),
            None => self.view(&Account::of_tenant(), window, namespace),
        };
        self.report(view)
    }

    /// The intervals with requests in the last `window`, oldest first: of ten seconds for windows of up to a quarter of
    /// an hour, of a minute for longer ones.
    pub fn intervals(&self, window: Duration) -> Vec<Interval> {
        self.accounts().all.intervals(window.as_secs(), self.seconds())
    }

    /// The namespaces with the most requests since the start, largest first.
    pub fn largest_namespaces(&self, max: usize) -> Vec<(String, Counters)> {
        let accounts = self.accounts();
        let mut all: Vec<_> = accounts.all.namespaces.iter().collect();
        all.sort_by(|(a, x), (b, y)| y.answered().cmp(&x.answered()).then(a.cmp(b)));
        all.into_iter().take(max).map(|(name, counters)| (name.clone(), counters.clone())).collect()
    }

    /// Time since the ledger was created.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Time after which an answer that has not started counts as late.
    pub fn objective(&self) -> Duration {
        self.objective
    }

    /// A copy of `account`. Minutes are only shared here: adding them up takes milliseconds.
    fn view(&self, account: &Account, window: Option<Duration>, namespace: Option<&str>) -> View {
        let uptime = self.uptime();
        let window = window.filter(|_| namespace.is_none());
        let (counters, intervals) = match (namespace, window) {
            (Some(name), _) => (account.namespaces.get(name).cloned().unwrap_or_default(), Vec::new()),
            (None, Some(window)) => (Counters::default(), account.minutes(window.as_secs(), self.seconds())),
            (None, None) => (account.total.clone(), Vec::new()),
        };
        View {
            uptime,
            window: window.map_or(uptime, |window| window.min(uptime)),
            counters,
            intervals,
            models: account.models.values().cloned().collect(),
            feedback: account.feedback.clone(),
        }
    }

    fn report(&self, view: View) -> Stats {
        let View { uptime, window, counters, intervals, models, feedback } = view;
        let counters = intervals.iter().fold(counters, |sum, interval| sum.plus(&interval.counters));
        Stats {
            uptime,
            window,
            objective: self.objective,
            sums: Sums::from(&counters),
            misses_by_reason: owned(counters.misses),
            models,
            feedback: owned(feedback),
            store_errors: 0,
            sizes: Sizes::default(),
            wrong_hits: WrongHits::UNKNOWN,
            verifier_errors: VerifierErrors::unmeasured(),
        }
    }

    fn seconds(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        // A panic between two additions leaves sums that lack at most one request.
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn owned(counts: BTreeMap<&'static str, u64>) -> BTreeMap<String, u64> {
    counts.into_iter().map(|(label, n)| (label.to_owned(), n)).collect()
}

// === impl Observation ===

impl Observation<'_> {
    /// Time until the caller could read something: the first token if the answer was streamed, else the whole answer.
    pub fn wait(&self) -> Duration {
        self.first_token.unwrap_or(self.elapsed)
    }
}

// === impl Accounts ===

impl Accounts {
    /// Applies `add` to the server's account and to that of `tenant`.
    fn each(&mut self, tenant: &str, add: impl Fn(&mut Account)) {
        add(&mut self.all);
        if !self.tenants.contains_key(tenant) {
            self.tenants.insert(tenant.to_owned(), Account::of_tenant());
        }
        if let Some(account) = self.tenants.get_mut(tenant) {
            add(account);
        }
    }
}

//! The ledger behind `GetStats`: counts, money and percentiles since the start, for the last 24 hours by
//! the minute, by namespace and by tenant.
//!
//! Namespaces are callers' text, so they are counted here, where their number is bounded, and are no label of
//! a metric.

mod books;
mod tally;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    decide::learner::WrongHits,
    feedback::Verdict,
    outcome::{MissReason, Outcome},
    upstream::Attempt,
};

use self::books::{Books, Digits};
pub use self::tally::{Latencies, ModelTally, Tally};

/// Minutes remembered, so the longest window.
const MINUTES_MAX: u64 = 24 * 60;

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
    /// The answer was past its TTL.
    pub is_stale: bool,
}

/// What `GetStats` tells.
#[derive(Clone, Debug)]
pub struct Stats {
    pub uptime: Duration,
    /// The time that `tally` covers.
    pub window: Duration,
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
    /// Starts counting.
    pub fn new() -> Self {
        let all = Books::new(Digits { namespace: 2, minute: 1 });
        let accounts = Accounts { all, tenants: HashMap::new(), store_errors: 0 };
        Self { started: Instant::now(), accounts: Mutex::new(accounts) }
    }

    /// Counts a finished request.
    pub fn request(&self, seen: &Observation<'_>) {
        let minute = self.minute();
        self.accounts().each(seen.tenant, |books| books.request(minute, seen));
    }

    /// Counts one call of one model, made for `tenant` in `namespace`.
    pub fn attempt(&self, tenant: &str, namespace: &str, attempt: &Attempt) {
        let minute = self.minute();
        self.accounts().each(tenant, |books| books.attempt(minute, namespace, attempt));
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
        let accounts = self.accounts();
        let store_errors = accounts.store_errors;
        Stats { store_errors, sizes, ..self.told(&accounts.all, window, namespace) }
    }

    /// The same of one tenant's own requests. Latencies are told since the start only; the store is not its own.
    pub fn stats_of(&self, tenant: &str, window: Option<Duration>, namespace: Option<&str>) -> Stats {
        match self.accounts().tenants.get(tenant) {
            Some(books) => self.told(books, window, namespace),
            None => self.told(&Books::of_tenant(), window, namespace),
        }
    }

    fn told(&self, books: &Books, window: Option<Duration>, namespace: Option<&str>) -> Stats {
        let uptime = self.started.elapsed();
        let covered = window.filter(|_| namespace.is_none());
        let tally = match (namespace, covered) {
            (Some(name), _) => books.namespaces.get(name).cloned().unwrap_or_default(),
            (None, Some(window)) => books.since(self.minute().saturating_sub(window.as_secs().div_ceil(60))),
            (None, None) => books.total.clone(),
        };
        Stats {
            uptime,
            window: covered.map_or(uptime, |window| window.min(uptime)),
            tally,
            models: books.models.clone(),
            feedback: books.feedback.clone(),
            store_errors: 0,
            sizes: Sizes::default(),
            wrong_hits: WrongHits::UNKNOWN,
        }
    }

    fn minute(&self) -> u64 {
        self.started.elapsed().as_secs() / 60
    }

    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        // A panic between two additions leaves sums that are at most one request short.
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{prompt::Usage, upstream::AttemptResult};

    fn hit(elapsed_ms: u64) -> Observation<'static> {
        Observation {
            tenant: "acme",
            namespace: "support",
            outcome: Outcome::Exact,
            reason: None,
            elapsed: Duration::from_millis(elapsed_ms),
            first_token: None,
            saved_usd: 0.25,
            is_stale: false,
        }
    }

    #[test]
    fn sums_agree_between_total_window_namespace_and_tenant() {
        let ledger = Ledger::new();
        for ms in 1..=100 {
            ledger.request(&hit(ms));
        }
        let miss = Observation {
            outcome: Outcome::Upstream,
            reason: Some(MissReason::ScopeEmpty),
            saved_usd: 0.0,
            ..hit(7)
        };
        ledger.request(&miss);
        let usage = Usage { prompt_tokens: 10, completion_tokens: 5, cost_usd: 0.5, estimated: false };
        let attempt = Attempt {
            model: "m".to_owned(),
            tier: "hot".to_owned(),
            provider: "p".to_owned(),
            result: AttemptResult::Ok,
            reason: crate::upstream::AttemptReason::Fallback,
            elapsed: Duration::from_secs(1),
            first_token: None,
            usage,
        };
        ledger.attempt("acme", "support", &attempt);
        let minute = Duration::from_secs(60);
        for (window, namespace) in [(None, None), (Some(minute), None), (None, Some("support"))] {
            let all = ledger.stats(window, namespace, Sizes::default());
            let own = ledger.stats_of("acme", window, namespace);
            let none = ledger.stats_of("other", window, namespace);
            assert_eq!((own.models, own.tally.requests), (all.models.clone(), all.tally.requests));
            assert_eq!(own.tally.cost_usd.to_bits(), all.tally.cost_usd.to_bits());
            assert_eq!((none.models.len(), none.tally.requests), (0, Tally::default().requests));
            assert_eq!(all.models["m"].prompt_tokens, 10);
            let tally = all.tally;
            assert_eq!(tally.requests[Outcome::Exact as usize], 100);
            assert_eq!(tally.misses["scope_empty"], 1);
            assert!((tally.hit_ratio() - 100.0 / 101.0).abs() < 1e-9);
            assert!((tally.saved_usd - 25.0).abs() < 1e-9);
            assert!((tally.cost_usd - 0.5).abs() < 1e-9);
            let p50 = tally.latency[Outcome::Exact as usize].quantile_ms(0.5);
            assert!((46.0..=54.0).contains(&p50), "{p50}");
        }
    }

    #[test]
    fn namespaces_beyond_the_bound_count_in_the_total_only() {
        let ledger = Ledger::new();
        for n in 0..NAMESPACES_MAX + 10 {
            let name = n.to_string();
            ledger.request(&Observation { namespace: &name, ..hit(1) });
        }
        let requests = |namespace| {
            ledger.stats(None, namespace, Sizes::default()).tally.requests[Outcome::Exact as usize]
        };
        assert_eq!(requests(None), NAMESPACES_MAX as u64 + 10);
        assert_eq!(requests(Some("1")), 1);
        assert_eq!(requests(Some(&(NAMESPACES_MAX + 5).to_string())), 0);
    }
}

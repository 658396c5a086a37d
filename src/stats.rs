//! The ledger behind `GetStats`: counts, money and percentiles since the start, for the last 24 hours by
//! the minute, and by namespace.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use crate::{
    decide::learner::WrongHits,
    feedback::Verdict,
    outcome::{MissReason, Outcome},
    prompt::{NAMESPACE_BYTES_MAX, Usage},
    upstream::{Attempt, AttemptResult},
};

/// Minutes remembered, so the longest window.
const MINUTES_MAX: u64 = 24 * 60;

/// Namespaces counted apart; requests of further ones are in the total only.
const NAMESPACES_MAX: usize = 256;

/// Longest latency told apart, in microseconds.
const LATENCY_MAX_US: u64 = 600_000_000;

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
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    total: Tally,
    /// Oldest first, by minutes since the start.
    minutes: VecDeque<(u64, Tally)>,
    namespaces: HashMap<String, Tally>,
    models: BTreeMap<String, ModelTally>,
    feedback: BTreeMap<&'static str, u64>,
    store_errors: u64,
}

/// Sums over some requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// By [`Outcome`].
    pub requests: [u64; Outcome::ALL.len()],
    /// By the reason's label.
    pub misses: BTreeMap<&'static str, u64>,
    pub cost_usd: f64,
    pub saved_usd: f64,
    /// Microseconds by [`Outcome`].
    pub latency: [Latencies; Outcome::ALL.len()],
    /// Microseconds by [`Outcome`].
    pub first_token: [Latencies; Outcome::ALL.len()],
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

/// A distribution of latencies; takes memory (1.5 KB a significant digit of 1, 12 KB of 2) with its
/// first value.
#[derive(Clone, Debug)]
pub struct Latencies {
    digits: u8,
    histogram: Option<Box<Histogram<u32>>>,
}

// === impl Ledger ===

impl Ledger {
    /// Starts counting.
    pub fn new() -> Self {
        Self { started: Instant::now(), books: Mutex::default() }
    }

    /// Counts a finished request.
    pub fn request(&self, seen: &Observation<'_>) {
        let minute = self.minute();
        self.books().each(minute, Some(seen.namespace), |tally| tally.request(seen));
    }

    /// Counts one call of one model, made for `namespace`.
    pub fn attempt(&self, namespace: &str, attempt: &Attempt) {
        let Usage { prompt_tokens, completion_tokens, cost_usd, .. } = attempt.usage;
        let minute = self.minute();
        let mut books = self.books();
        books.each(minute, Some(namespace), |tally| tally.cost_usd += cost_usd);
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
            window: covered.map_or(uptime, |window| window.min(uptime)),
            tally,
            models: books.models.clone(),
            feedback: books.feedback.clone(),
            store_errors: books.store_errors,
            sizes,
            wrong_hits: WrongHits::UNKNOWN,
        }
    }

    fn window(&self, window: Duration) -> Tally {
        let first = self.minute().saturating_sub(window.as_secs().div_ceil(60));
        let books = self.books();
        let recent = books.minutes.iter().filter(|(minute, _)| *minute >= first);
        recent.fold(Tally::default(), |sum, (_, tally)| sum.plus(tally))
    }

    fn minute(&self) -> u64 {
        self.started.elapsed().as_secs() / 60
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // A panic between two additions leaves sums that are at most one request short.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Books ===

impl Books {
    /// Applies `add` to every tally that a request of now counts in.
    fn each(&mut self, minute: u64, namespace: Option<&str>, add: impl Fn(&mut Tally)) {
        add(&mut self.total);
        add(self.current_minute(minute));
        if let Some(tally) = namespace.and_then(|name| self.namespace(name)) {
            add(tally);
        }
    }

    fn current_minute(&mut self, minute: u64) -> &mut Tally {
        if self.minutes.back().is_none_or(|(last, _)| *last < minute) {
            self.minutes.push_back((minute, Tally::coarse()));
        }
        while self.minutes.front().is_some_and(|(first, _)| first + MINUTES_MAX < minute) {
            self.minutes.pop_front();
        }
        let newest = self.minutes.len() - 1;
        &mut self.minutes[newest].1
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

// === impl Tally ===

impl Tally {
    /// Share of requests answered without a model call of their own; 0 when there were none.
    pub fn hit_ratio(&self) -> f64 {
        let counted = |wanted: fn(Outcome) -> bool| -> u64 {
            Outcome::ALL.iter().filter(|o| wanted(**o)).map(|o| self.requests[*o as usize]).sum()
        };
        let all = counted(Outcome::counts_for_hit_ratio);
        if all == 0 { 0.0 } else { counted(Outcome::is_hit) as f64 / all as f64 }
    }

    /// One minute's, to one digit: there are [`MINUTES_MAX`] of them.
    fn coarse() -> Self {
        let latencies = || std::array::from_fn(|_| Latencies { digits: 1, histogram: None });
        Self { latency: latencies(), first_token: latencies(), ..Self::default() }
    }

    fn request(&mut self, seen: &Observation<'_>) {
        let outcome = seen.outcome as usize;
        self.requests[outcome] += 1;
        self.saved_usd += seen.saved_usd;
        self.latency[outcome].record(seen.elapsed);
        if let Some(first_token) = seen.first_token {
            self.first_token[outcome].record(first_token);
        }
        if let Some(reason) = seen.reason {
            *self.misses.entry(reason.as_str()).or_default() += 1;
        }
    }

    fn plus(mut self, other: &Self) -> Self {
        for outcome in Outcome::ALL.map(|o| o as usize) {
            self.requests[outcome] += other.requests[outcome];
            self.latency[outcome].add(&other.latency[outcome]);
            self.first_token[outcome].add(&other.first_token[outcome]);
        }
        for (reason, n) in &other.misses {
            *self.misses.entry(reason).or_default() += n;
        }
        self.cost_usd += other.cost_usd;
        self.saved_usd += other.saved_usd;
        self
    }
}

// === impl Latencies ===

impl Latencies {
    fn record(&mut self, elapsed: Duration) {
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(LATENCY_MAX_US);
        self.histogram().saturating_record(micros.clamp(1, LATENCY_MAX_US));
    }

    fn add(&mut self, other: &Self) {
        if let Some(other) = &other.histogram {
            // Equal ranges by construction, so it cannot fail.
            let _ = self.histogram().add(other.as_ref());
        }
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.histogram.as_ref().map_or(0, |histogram| histogram.len())
    }

    /// The `quantile` (0 to 1) in milliseconds; 0 when there is no value.
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        self.histogram.as_ref().map_or(0.0, |histogram| histogram.value_at_quantile(quantile) as f64 / 1000.0)
    }

    fn histogram(&mut self) -> &mut Histogram<u32> {
        let digits = self.digits;
        let empty =
            || Histogram::new_with_bounds(1, LATENCY_MAX_US, digits).expect("the bounds are valid constants");
        self.histogram.get_or_insert_with(|| Box::new(empty()))
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self { digits: 2, histogram: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(elapsed_ms: u64) -> Observation<'static> {
        Observation {
            namespace: "support",
            outcome: Outcome::Exact,
            reason: None,
            elapsed: Duration::from_millis(elapsed_ms),
            first_token: None,
            saved_usd: 0.25,
        }
    }

    #[test]
    fn sums_agree_between_total_window_and_namespace() {
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
        ledger.attempt("support", &attempt);
        let minute = Duration::from_secs(60);
        for (window, namespace) in [(None, None), (Some(minute), None), (None, Some("support"))] {
            let stats = ledger.stats(window, namespace, Sizes::default());
            assert_eq!(stats.models["m"].prompt_tokens, 10);
            let tally = stats.tally;
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

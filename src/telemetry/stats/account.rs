//! The counters of one account: the whole server, or one tenant.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use super::{
    CallPurpose, Counters, FINE_MAX, FINE_STEP, MINUTES_MAX, ModelStats, NAMESPACES_MAX, Observation,
    history::{History, Interval},
};
use crate::{
    model::{Attempt, VerifierReply},
    outcome::Verdict,
    prompt::NAMESPACE_BYTES_MAX,
};

/// Significant digits of latencies. Few, because each account has many namespaces and minutes.
pub(super) struct Digits {
    pub namespace: u8,
    pub minute: u8,
}

pub(super) struct Account {
    digits: Digits,
    pub total: Counters,
    minutes: History,
    /// In finer steps, for charts.
    fine: History,
    pub namespaces: HashMap<String, Counters>,
    /// By the model's id, which comes from the catalog.
    pub models: BTreeMap<String, ModelStats>,
    pub feedback: BTreeMap<&'static str, u64>,
}

impl Account {
    pub fn new(digits: Digits) -> Self {
        Self {
            total: Counters::default(),
            minutes: History::new(60, MINUTES_MAX, digits.minute),
            fine: History::new(FINE_STEP, FINE_MAX, digits.minute),
            digits,
            namespaces: HashMap::new(),
            models: BTreeMap::new(),
            feedback: BTreeMap::new(),
        }
    }

    /// A tenant's account: coarser than the server's, and without latencies by the minute.
    pub fn of_tenant() -> Self {
        Self::new(Digits { namespace: 1, minute: 0 })
    }

    /// Counts a request that ended in second `now` since the start.
    pub fn request(&mut self, now: u64, seen: &Observation<'_>, objective: Duration) {
        self.each(now, seen.namespace, |counters| counters.request(seen, objective));
    }

    pub fn attempt(&mut self, now: u64, namespace: &str, attempt: &Attempt, purpose: CallPurpose) {
        self.each(now, namespace, |counters| counters.attempt(attempt, purpose));
        let Attempt { model, tier, .. } = attempt;
        let new = || ModelStats { model: model.clone(), tier: tier.clone(), ..ModelStats::default() };
        self.models.entry(model.clone()).or_insert_with(new).attempt(attempt);
    }

    pub fn at_hot_tier(&mut self, now: u64, namespace: &str, usd: f64) {
        self.each(now, namespace, |counters| counters.hot_tier_usd += usd);
    }

    pub fn verification(&mut self, now: u64, namespace: &str, reply: VerifierReply) {
        self.each(now, namespace, |counters| counters.verifications.count(reply));
    }

    pub fn feedback(&mut self, verdict: Verdict) {
        *self.feedback.entry(verdict.as_str()).or_default() += 1;
    }

    /// The minutes of the last `seconds` before `now`.
    pub fn minutes(&self, seconds: u64, now: u64) -> Vec<Interval> {
        self.minutes.last(seconds, now)
    }

    /// The last `seconds` before `now`, in the finest steps that reach back so far.
    pub fn intervals(&self, seconds: u64, now: u64) -> Vec<Interval> {
        if seconds <= FINE_STEP * FINE_MAX {
            self.fine.last(seconds, now)
        } else {
            self.minutes(seconds, now)
        }
    }

    /// Applies `add` to all counters of a request that ends in second `now`.
    fn each(&mut self, now: u64, namespace: &str, add: impl Fn(&mut Counters)) {
        add(&mut self.total);
        add(self.minutes.at(now));
        add(self.fine.at(now));
        if let Some(counters) = self.namespace(namespace) {
            add(counters);
        }
    }

    fn namespace(&mut self, name: &str) -> Option<&mut Counters> {
        if !self.namespaces.contains_key(name) {
            // Requests with a longer name are refused, so it would only waste memory.
            if self.namespaces.len() >= NAMESPACES_MAX || name.len() > NAMESPACE_BYTES_MAX {
                return None;
            }
            self.namespaces.insert(name.to_owned(), Counters::with_digits(self.digits.namespace));
        }
        self.namespaces.get_mut(name)
    }
}

//! Everything that is counted of one party: of the whole server, or of one tenant.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use super::{
    FINE_MAX, FINE_STEP, MINUTES_MAX, NAMESPACES_MAX, Observation,
    history::{History, Stretch},
    tally::{ModelTally, Tally},
};
use crate::{feedback::Verdict, model::Attempt, prompt::NAMESPACE_BYTES_MAX};

/// How finely latencies are told apart, in significant digits. There are many namespaces and minutes, and the
/// books of each tenant have them all.
pub(super) struct Digits {
    pub namespace: u8,
    pub minute: u8,
}

/// The books of one party.
pub(super) struct Books {
    digits: Digits,
    pub total: Tally,
    minutes: History,
    /// In finer steps, for charts.
    fine: History,
    pub namespaces: HashMap<String, Tally>,
    pub models: BTreeMap<String, ModelTally>,
    pub feedback: BTreeMap<&'static str, u64>,
}

// === impl Books ===

impl Books {
    pub fn new(digits: Digits) -> Self {
        Self {
            total: Tally::default(),
            minutes: History::new(60, MINUTES_MAX, digits.minute),
            fine: History::new(FINE_STEP, FINE_MAX, digits.minute),
            digits,
            namespaces: HashMap::new(),
            models: BTreeMap::new(),
            feedback: BTreeMap::new(),
        }
    }

    /// A tenant's, beside the server's own: coarse, and without latencies by the minute.
    pub fn of_tenant() -> Self {
        Self::new(Digits { namespace: 1, minute: 0 })
    }

    /// Counts a request that ended in second `now` since the start.
    pub fn request(&mut self, now: u64, seen: &Observation<'_>, objective: Duration) {
        self.each(now, seen.namespace, |tally| tally.request(seen, objective));
    }

    pub fn attempt(&mut self, now: u64, namespace: &str, attempt: &Attempt) {
        self.each(now, namespace, |tally| tally.cost_usd += attempt.usage.cost_usd);
        // Model names come from the catalog, so this map is bounded by it.
        let model = self.models.entry(attempt.model.clone());
        model.or_insert_with(|| ModelTally::of_tier(&attempt.tier)).attempt(attempt);
    }

    pub fn at_hot_tier(&mut self, now: u64, namespace: &str, usd: f64) {
        self.each(now, namespace, |tally| tally.hot_tier_usd += usd);
    }

    pub fn feedback(&mut self, verdict: Verdict) {
        *self.feedback.entry(verdict.as_str()).or_default() += 1;
    }

    /// The minutes of the last `seconds` before `now`.
    pub fn minutes(&self, seconds: u64, now: u64) -> Vec<Stretch> {
        self.minutes.last(seconds, now)
    }

    /// The same in the finest steps that are remembered for so long.
    pub fn stretches(&self, seconds: u64, now: u64) -> Vec<Stretch> {
        if seconds <= FINE_STEP * FINE_MAX {
            self.fine.last(seconds, now)
        } else {
            self.minutes(seconds, now)
        }
    }

    /// Applies `add` to every tally that a request counts in which ends in second `now`.
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
            self.namespaces.insert(name.to_owned(), Tally::with_digits(self.digits.namespace));
        }
        self.namespaces.get_mut(name)
    }
}

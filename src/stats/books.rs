//! Everything that is counted of one party: of the whole server, or of one tenant.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::{
    MINUTES_MAX, NAMESPACES_MAX, Observation,
    tally::{ModelTally, Tally},
};
use crate::{feedback::Verdict, prompt::NAMESPACE_BYTES_MAX, upstream::Attempt};

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
    /// Oldest first, by minutes since the start.
    minutes: VecDeque<(u64, Tally)>,
    pub namespaces: HashMap<String, Tally>,
    pub models: BTreeMap<String, ModelTally>,
    pub feedback: BTreeMap<&'static str, u64>,
}

// === impl Books ===

impl Books {
    pub fn new(digits: Digits) -> Self {
        Self {
            digits,
            total: Tally::default(),
            minutes: VecDeque::new(),
            namespaces: HashMap::new(),
            models: BTreeMap::new(),
            feedback: BTreeMap::new(),
        }
    }

    /// A tenant's, beside the server's own: coarse, and without latencies by the minute.
    pub fn of_tenant() -> Self {
        Self::new(Digits { namespace: 1, minute: 0 })
    }

    pub fn request(&mut self, minute: u64, seen: &Observation<'_>) {
        self.each(minute, seen.namespace, |tally| tally.request(seen));
    }

    pub fn attempt(&mut self, minute: u64, namespace: &str, attempt: &Attempt) {
        self.each(minute, namespace, |tally| tally.cost_usd += attempt.usage.cost_usd);
        // Model names come from the catalog, so this map is bounded by it.
        let model = self.models.entry(attempt.model.clone());
        model.or_insert_with(|| ModelTally::of_tier(&attempt.tier)).attempt(attempt);
    }

    pub fn feedback(&mut self, verdict: Verdict) {
        *self.feedback.entry(verdict.as_str()).or_default() += 1;
    }

    /// The sums of the minutes from `first` on.
    pub fn since(&self, first: u64) -> Tally {
        let recent = self.minutes.iter().filter(|(minute, _)| *minute >= first);
        recent.fold(Tally::default(), |sum, (_, tally)| sum.plus(tally))
    }

    /// Applies `add` to every tally that a request of now counts in.
    fn each(&mut self, minute: u64, namespace: &str, add: impl Fn(&mut Tally)) {
        add(&mut self.total);
        add(self.current_minute(minute));
        if let Some(tally) = self.namespace(namespace) {
            add(tally);
        }
    }

    fn current_minute(&mut self, minute: u64) -> &mut Tally {
        if self.minutes.back().is_none_or(|(last, _)| *last < minute) {
            self.minutes.push_back((minute, Tally::with_digits(self.digits.minute)));
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
            self.namespaces.insert(name.to_owned(), Tally::with_digits(self.digits.namespace));
        }
        self.namespaces.get_mut(name)
    }
}

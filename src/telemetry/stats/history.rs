//! Counters by the time at which requests ended, for windows and charts: bounded, oldest first.

use std::{collections::VecDeque, sync::Arc};

use super::Counters;

/// The newest `max` intervals of `step` seconds. Intervals without a request take no memory.
#[derive(Debug)]
pub(super) struct History {
    /// Seconds of one interval.
    step: u64,
    max: u64,
    /// Significant digits of latencies.
    digits: u8,
    /// By the interval's number since the start. Shared with readers, which add them up without the ledger's lock.
    intervals: VecDeque<(u64, Arc<Counters>)>,
}

/// The requests of one interval.
#[derive(Clone, Debug)]
pub struct Interval {
    /// Seconds from the start of the ledger to the start of the interval.
    pub since_start: u64,
    pub counters: Arc<Counters>,
}

impl History {
    pub const fn new(step: u64, max: u64, digits: u8) -> Self {
        Self { step, max, digits, intervals: VecDeque::new() }
    }

    /// The counters of the interval that holds second `now` since the start.
    pub fn at(&mut self, now: u64) -> &mut Counters {
        let number = now / self.step;
        if self.intervals.back().is_none_or(|(last, _)| *last < number) {
            self.intervals.push_back((number, Arc::new(Counters::with_digits(self.digits))));
        }
        while self.intervals.front().is_some_and(|(first, _)| first + self.max < number) {
            self.intervals.pop_front();
        }
        let newest = self.intervals.len() - 1;
        Arc::make_mut(&mut self.intervals[newest].1)
    }

    /// The intervals that overlap the last `seconds` before `now`.
    pub fn last(&self, seconds: u64, now: u64) -> Vec<Interval> {
        let first = (now / self.step).saturating_sub(seconds.div_ceil(self.step));
        let recent = self.intervals.iter().filter(|(number, _)| *number >= first);
        recent
            .map(|(number, counters)| Interval {
                since_start: number * self.step,
                counters: Arc::clone(counters),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_intervals_are_kept_and_empty_ones_take_no_memory() {
        let mut history = History::new(10, 3, 1);
        for second in [0, 9, 10, 45, 46] {
            history.at(second).late += 1;
        }
        let starts = |seconds| -> Vec<(u64, u64)> {
            let last = history.last(seconds, 46);
            last.iter().map(|interval| (interval.since_start, interval.counters.late)).collect()
        };
        assert_eq!(starts(60), [(10, 1), (40, 2)], "the first interval is too old");
        assert_eq!(starts(5), [(40, 2)]);
    }
}

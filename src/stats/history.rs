//! Tallies by the time at which their requests ended, for windows and charts: bounded, oldest first.

use std::{collections::VecDeque, sync::Arc};

use super::Tally;

/// Equal stretches of time, of which the newest `max` are remembered. Stretches without a request take no
/// place.
#[derive(Debug)]
pub(super) struct History {
    /// Seconds of one stretch.
    step: u64,
    max: u64,
    /// Significant digits of latencies.
    digits: u8,
    /// By their number since the start. Shared with readers, so that these add them up without holding up
    /// those who count.
    tallies: VecDeque<(u64, Arc<Tally>)>,
}

/// One stretch of time.
#[derive(Clone, Debug)]
pub struct Stretch {
    /// Seconds from the start of the ledger to its beginning.
    pub since_start: u64,
    pub tally: Arc<Tally>,
}

// === impl History ===

impl History {
    pub const fn new(step: u64, max: u64, digits: u8) -> Self {
        Self { step, max, digits, tallies: VecDeque::new() }
    }

    /// The tally of the stretch that holds second `now` since the start.
    pub fn at(&mut self, now: u64) -> &mut Tally {
        let number = now / self.step;
        if self.tallies.back().is_none_or(|(last, _)| *last < number) {
            self.tallies.push_back((number, Arc::new(Tally::with_digits(self.digits))));
        }
        while self.tallies.front().is_some_and(|(first, _)| first + self.max < number) {
            self.tallies.pop_front();
        }
        let newest = self.tallies.len() - 1;
        Arc::make_mut(&mut self.tallies[newest].1)
    }

    /// The stretches that reach into the last `seconds` before `now`.
    pub fn last(&self, seconds: u64, now: u64) -> Vec<Stretch> {
        let first = (now / self.step).saturating_sub(seconds.div_ceil(self.step));
        let recent = self.tallies.iter().filter(|(number, _)| *number >= first);
        recent
            .map(|(number, tally)| Stretch { since_start: number * self.step, tally: Arc::clone(tally) })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_stretches_are_kept_and_empty_ones_take_no_place() {
        let mut history = History::new(10, 3, 1);
        for second in [0, 9, 10, 45, 46] {
            history.at(second).late += 1;
        }
        let starts = |seconds| -> Vec<(u64, u64)> {
            let last = history.last(seconds, 46);
            last.iter().map(|stretch| (stretch.since_start, stretch.tally.late)).collect()
        };
        assert_eq!(starts(60), [(10, 1), (40, 2)], "the first stretch is too old");
        assert_eq!(starts(5), [(40, 2)]);
    }
}

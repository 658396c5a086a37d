//! The ledger's history as columns of equal steps, for the dashboard's charts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::{
    outcome::Outcome,
    telemetry::stats::{Counters, Interval, Ledger},
};

/// How far back the charts reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Range {
    #[serde(rename = "15m")]
    Quarter,
    #[serde(rename = "1h")]
    Hour,
    #[serde(rename = "24h")]
    Day,
}

/// Columns with one value per step. Steps without a request have no ratio and no latency.
#[derive(Debug, Default, Serialize)]
pub(super) struct Chart {
    step_seconds: u64,
    /// Start of each step, in seconds since 1970.
    at: Vec<f64>,
    /// Requests per second.
    exact: Vec<f64>,
    semantic: Vec<f64>,
    coalesced: Vec<f64>,
    /// Answered by a model: outcomes `upstream` and `bypass`.
    model: Vec<f64>,
    error: Vec<f64>,
    hit_ratio: Vec<Option<f64>>,
    /// US dollars per hour.
    cost_usd: Vec<f64>,
    saved_usd: Vec<f64>,
    hot_tier_usd: Vec<f64>,
    /// Milliseconds until an answer started.
    wait_p50_ms: Vec<Option<f64>>,
    wait_p99_ms: Vec<Option<f64>>,
}

impl Range {
    const fn seconds(self) -> u64 {
        match self {
            Self::Quarter => 15 * 60,
            Self::Hour => 60 * 60,
            Self::Day => 24 * 60 * 60,
        }
    }

    /// Seconds of one step, so that a chart has 90, 60 or 144 points.
    const fn step(self) -> u64 {
        match self {
            Self::Quarter => 10,
            Self::Hour => 60,
            Self::Day => 600,
        }
    }
}

impl Chart {
    pub fn of(ledger: &Ledger, range: Range) -> Self {
        let intervals = ledger.intervals(Duration::from_secs(range.seconds()));
        Self::draw(&intervals, range, ledger.uptime(), SystemTime::now())
    }

    /// Draws `intervals`. `now` is `uptime` after the start of the ledger.
    fn draw(intervals: &[Interval], range: Range, uptime: Duration, now: SystemTime) -> Self {
        let step = range.step();
        let started = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() - uptime.as_secs_f64();
        let last = uptime.as_secs() / step;
        let first = last.saturating_sub(range.seconds() / step - 1);
        let mut chart = Self { step_seconds: step, ..Self::default() };
        let mut rest = intervals.iter().filter(|interval| interval.since_start >= first * step).peekable();
        for number in first..=last {
            let mut sum = Counters::default();
            while let Some(interval) = rest.next_if(|interval| interval.since_start < (number + 1) * step) {
                sum = sum.plus(&interval.counters);
            }
            // The last step is not complete. While it is very short its rates say nothing.
            let covered = (uptime.as_secs_f64() - (number * step) as f64).min(step as f64);
            if covered > step as f64 * 0.3 || number == 0 {
                chart.push(started + (number * step) as f64, &sum, covered.max(1.0));
            }
        }
        chart
    }

    fn push(&mut self, at: f64, sum: &Counters, seconds: f64) {
        let per_second = |outcomes: &[Outcome]| {
            outcomes.iter().map(|o| sum.requests[*o as usize]).sum::<u64>() as f64 / seconds
        };
        let per_hour = |usd: f64| usd / seconds * 3600.0;
        let is_any = sum.answered() > 0;
        let wait = sum.wait.percentiles();
        self.at.push(at);
        self.exact.push(per_second(&[Outcome::Exact]));
        self.semantic.push(per_second(&[Outcome::Semantic]));
        self.coalesced.push(per_second(&[Outcome::Coalesced]));
        self.model.push(per_second(&[Outcome::Upstream, Outcome::Bypass]));
        self.error.push(per_second(&[Outcome::Error]));
        self.hit_ratio.push(is_any.then(|| sum.hit_ratio()));
        self.cost_usd.push(per_hour(sum.cost_usd));
        self.saved_usd.push(per_hour(sum.saved_usd));
        self.hot_tier_usd.push(per_hour(sum.hot_tier_usd));
        self.wait_p50_ms.push(is_any.then_some(wait.p50_ms));
        self.wait_p99_ms.push(is_any.then_some(wait.p99_ms));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn steps_are_equal_and_the_incomplete_one_counts_for_its_elapsed_time() {
        let mut counters = Counters { cost_usd: 0.5, ..Counters::default() };
        counters.requests[Outcome::Exact as usize] = 30;
        let counters = Arc::new(counters);
        let interval = |since_start| Interval { since_start, counters: Arc::clone(&counters) };
        let (uptime, now) = (Duration::from_secs(35), UNIX_EPOCH + Duration::from_secs(1035));
        let chart = Chart::draw(&[interval(0), interval(30)], Range::Quarter, uptime, now);
        assert_eq!(chart.at, [1000.0, 1010.0, 1020.0, 1030.0]);
        assert_eq!(chart.exact, [3.0, 0.0, 0.0, 6.0]);
        assert_eq!(chart.cost_usd, [180.0, 0.0, 0.0, 360.0]);
        assert_eq!(chart.hit_ratio, [Some(1.0), None, None, Some(1.0)]);
        let just_started = Chart::draw(&[], Range::Quarter, Duration::from_secs(22), now);
        assert_eq!(just_started.at.len(), 2);
        let intervals = [interval(0), interval(60), interval(660)];
        let day = Chart::draw(&intervals, Range::Day, Duration::from_secs(1200), now);
        assert_eq!(day.exact, [0.1, 0.05]);
    }
}

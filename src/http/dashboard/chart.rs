//! The ledger's history as columns of equal steps, ready to be drawn.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::{
    outcome::Outcome,
    stats::{Ledger, Stretch, Tally},
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

/// One value a step in each column. Steps without a request have no ratio and no time.
#[derive(Debug, Default, Serialize)]
pub(super) struct Chart {
    step_seconds: u64,
    /// Beginning of each step, in seconds since 1970.
    at: Vec<f64>,
    /// Requests per second.
    exact: Vec<f64>,
    semantic: Vec<f64>,
    coalesced: Vec<f64>,
    /// By a model: outcomes `upstream` and `bypass`.
    model: Vec<f64>,
    error: Vec<f64>,
    hit_ratio: Vec<Option<f64>>,
    /// US dollars per hour.
    cost_usd: Vec<f64>,
    saved_usd: Vec<f64>,
    hot_tier_usd: Vec<f64>,
    /// Milliseconds until an answer began.
    wait_p50_ms: Vec<Option<f64>>,
    wait_p99_ms: Vec<Option<f64>>,
}

// === impl Range ===

impl Range {
    const fn seconds(self) -> u64 {
        match self {
            Self::Quarter => 15 * 60,
            Self::Hour => 60 * 60,
            Self::Day => 24 * 60 * 60,
        }
    }

    /// Of one point: 90, 60 and 144 of them are about what a chart can show.
    const fn step(self) -> u64 {
        match self {
            Self::Quarter => 10,
            Self::Hour => 60,
            Self::Day => 600,
        }
    }
}

// === impl Chart ===

impl Chart {
    pub fn of(ledger: &Ledger, range: Range) -> Self {
        let stretches = ledger.stretches(Duration::from_secs(range.seconds()));
        Self::draw(&stretches, range, ledger.uptime(), SystemTime::now())
    }

    /// `stretches` end at `uptime` after the start of the ledger, which is `now`.
    fn draw(stretches: &[Stretch], range: Range, uptime: Duration, now: SystemTime) -> Self {
        let step = range.step();
        let started = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() - uptime.as_secs_f64();
        let last = uptime.as_secs() / step;
        let first = last.saturating_sub(range.seconds() / step - 1);
        let mut chart = Self { step_seconds: step, ..Self::default() };
        let mut rest = stretches.iter().filter(|stretch| stretch.since_start >= first * step).peekable();
        for number in first..=last {
            let mut tally = Tally::default();
            while let Some(stretch) = rest.next_if(|stretch| stretch.since_start < (number + 1) * step) {
                tally = tally.plus(&stretch.tally);
            }
            // The step under way is shorter, and tells nothing when it has just begun.
            let covered = (uptime.as_secs_f64() - (number * step) as f64).min(step as f64);
            if covered > step as f64 * 0.3 || number == 0 {
                chart.push(started + (number * step) as f64, &tally, covered.max(1.0));
            }
        }
        chart
    }

    fn push(&mut self, at: f64, tally: &Tally, seconds: f64) {
        let per_second = |outcomes: &[Outcome]| {
            outcomes.iter().map(|o| tally.requests[*o as usize]).sum::<u64>() as f64 / seconds
        };
        let per_hour = |usd: f64| usd / seconds * 3600.0;
        let is_any = tally.answered() > 0;
        self.at.push(at);
        self.exact.push(per_second(&[Outcome::Exact]));
        self.semantic.push(per_second(&[Outcome::Semantic]));
        self.coalesced.push(per_second(&[Outcome::Coalesced]));
        self.model.push(per_second(&[Outcome::Upstream, Outcome::Bypass]));
        self.error.push(per_second(&[Outcome::Error]));
        self.hit_ratio.push(is_any.then(|| tally.hit_ratio()));
        self.cost_usd.push(per_hour(tally.cost_usd));
        self.saved_usd.push(per_hour(tally.saved_usd));
        self.hot_tier_usd.push(per_hour(tally.hot_tier_usd));
        self.wait_p50_ms.push(is_any.then(|| tally.wait.quantile_ms(0.5)));
        self.wait_p99_ms.push(is_any.then(|| tally.wait.quantile_ms(0.99)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn steps_are_even_empty_ones_are_zero_and_the_one_under_way_counts_for_its_time() {
        let mut tally = Tally { cost_usd: 0.5, ..Tally::default() };
        tally.requests[Outcome::Exact as usize] = 30;
        let tally = Arc::new(tally);
        let stretch = |since_start| Stretch { since_start, tally: Arc::clone(&tally) };
        let (uptime, now) = (Duration::from_secs(35), UNIX_EPOCH + Duration::from_secs(1035));
        let chart = Chart::draw(&[stretch(0), stretch(30)], Range::Quarter, uptime, now);
        assert_eq!(chart.at, [1000.0, 1010.0, 1020.0, 1030.0]);
        assert_eq!(chart.exact, [3.0, 0.0, 0.0, 6.0]);
        assert_eq!(chart.cost_usd, [180.0, 0.0, 0.0, 360.0]);
        assert_eq!(chart.hit_ratio, [Some(1.0), None, None, Some(1.0)]);
        let just_begun = Chart::draw(&[], Range::Quarter, Duration::from_secs(22), now);
        assert_eq!(just_begun.at.len(), 2);
        let day =
            Chart::draw(&[stretch(0), stretch(60), stretch(660)], Range::Day, Duration::from_secs(1200), now);
        assert_eq!(day.exact, [0.1, 0.05]);
    }
}

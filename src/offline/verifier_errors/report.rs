//! The report of `tune --verify`: the verifier's error rates, time and cost, and what the rates mean for the budgets.

use std::{
    fmt::{self, Display, Formatter},
    io::{self, Write},
    time::Duration,
};

use serde::Serialize;

use super::BadLine;
use crate::{
    config::CacheConfig,
    model::VerifierReply,
    offline::report::{Percent, dollars, share, wilson, write_counts, write_json_lines},
};

/// Bad lines named in the text; `--json` has them all.
const BAD_LINES_SHOWN: usize = 5;

/// What the verifier said of a pair, or why it said nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Says {
    Yes,
    No,
    /// The reply was neither `0` nor a list of numbers.
    Nonsense,
    /// The call failed.
    Unavailable,
    /// There was no reply in four times `cache.verify.timeout`.
    Timeout,
    /// The question is longer than the model's context window.
    OverWindow,
    /// A question is longer than `cache.verify.max_question_bytes`.
    TooLong,
}

/// Result of one pair; a line of the `--out` file.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PairResult {
    pub line: usize,
    pub same: bool,
    pub says: Says,
    /// Time of the call; `None` if there was none.
    pub milliseconds: Option<u128>,
}

/// What a run measured.
pub(super) struct Measured<'a> {
    pub model: &'a str,
    pub provider: &'a str,
    /// In the order of the lines.
    pub rows: Vec<PairResult>,
    pub bad_lines: Vec<BadLine>,
    /// Of each call.
    pub times: Vec<Duration>,
    /// Cost of all calls in US dollars.
    pub usd: f64,
    pub cache: &'a CacheConfig,
}

/// How often a verifier errs on labelled pairs, what it costs, and what that means for the error budgets.
#[derive(Debug, Serialize)]
pub struct Report {
    pub model: String,
    pub provider: String,
    pub pairs: usize,
    pub bad_lines: Vec<BadLine>,
    pub calls: usize,
    /// Pairs with a verdict.
    pub verdicts: usize,
    /// Wrong "fits" among the pairs that differ.
    pub false_yes: ErrorRate,
    /// Wrong "does not fit" among the pairs that ask the same.
    pub false_no: ErrorRate,
    /// Pairs without a verdict, by the reason.
    pub nonsense: usize,
    pub unavailable: usize,
    pub timeout: usize,
    pub not_asked: usize,
    /// Calls that took longer than `cache.verify.timeout`, with or without a verdict.
    pub late: usize,
    pub timeout_ms: f64,
    /// `None` without a call.
    pub mean_ms: Option<f64>,
    pub p95_ms: Option<f64>,
    pub cost_usd: f64,
    pub usd_per_call: f64,
    pub budgets: Budgets,
    #[serde(skip)]
    rows: Vec<PairResult>,
}

/// A rate with its 95 % interval (Wilson's).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ErrorRate {
    pub wrong: usize,
    pub of: usize,
    pub rate: f64,
    pub low: f64,
    pub high: f64,
}

/// What the error rates mean for the budgets.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Budgets {
    pub max_error_rate: f64,
    pub max_wrong_hits: f64,
    /// Learned probability from which a hit may be served without asking, each hit by itself within `max_wrong_hits`.
    pub probability_unverified: f64,
    /// Learned probability from which a yes is enough, by the measured rates.
    pub probability_with_yes: f64,
    /// By the worse ends of their intervals.
    pub probability_with_yes_cautious: f64,
    /// Share of the requests that may be asked about an answer that does not fit, before the expected wrong answers reach
    /// `max_error_rate`; by the worse end of the interval.
    pub askable_different: f64,
}

impl Says {
    /// What a reply says of its pair number `nth`.
    pub(super) fn of(reply: VerifierReply, nth: usize) -> Self {
        match reply {
            VerifierReply::Fits(fitting) if fitting.contains(nth) => Self::Yes,
            VerifierReply::Fits(_) => Self::No,
            VerifierReply::Nonsense => Self::Nonsense,
            VerifierReply::Unavailable => Self::Unavailable,
            VerifierReply::TimedOut => Self::Timeout,
            VerifierReply::Skipped => Self::OverWindow,
        }
    }
}

impl Report {
    pub(super) fn new(measured: Measured<'_>) -> Self {
        let Measured { model, provider, rows, bad_lines, mut times, usd, cache } = measured;
        times.sort_unstable();
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let limit = cache.verify.timeout;
        let count = |says: &[Says]| rows.iter().filter(|row| says.contains(&row.says)).count();
        let false_yes = ErrorRate::of(&rows, false);
        let false_no = ErrorRate::of(&rows, true);
        Self {
            model: model.to_owned(),
            provider: provider.to_owned(),
            pairs: rows.len(),
            bad_lines,
            calls: times.len(),
            verdicts: count(&[Says::Yes, Says::No]),
            nonsense: count(&[Says::Nonsense]),
            unavailable: count(&[Says::Unavailable]),
            timeout: count(&[Says::Timeout]),
            not_asked: count(&[Says::OverWindow, Says::TooLong]),
            late: times.iter().filter(|time| **time > limit).count(),
            timeout_ms: millis(limit),
            mean_ms: (!times.is_empty()).then(|| millis(times.iter().sum::<Duration>()) / times.len() as f64),
            p95_ms: times.get((times.len() * 95).div_ceil(100).saturating_sub(1)).copied().map(millis),
            cost_usd: usd,
            usd_per_call: usd / times.len().max(1) as f64,
            budgets: Budgets::of(cache, &false_yes, &false_no),
            false_yes,
            false_no,
            rows,
        }
    }

    /// Writes one JSON object per pair: `line`, `same`, `says`, `milliseconds`.
    ///
    /// # Errors
    /// When `to` cannot be written.
    pub fn write_rows(&self, to: impl Write) -> io::Result<()> {
        write_json_lines(to, &self.rows)
    }
}

impl ErrorRate {
    /// Of the verdicts on pairs with this label.
    fn of(rows: &[PairResult], same: bool) -> Self {
        let (right, false_verdict) = if same { (Says::Yes, Says::No) } else { (Says::No, Says::Yes) };
        let count = |says| rows.iter().filter(|row| row.same == same && row.says == says).count();
        let wrong = count(false_verdict);
        let of = wrong + count(right);
        let (low, high) = wilson(wrong, of);
        Self { wrong, of, rate: share(wrong, of), low, high }
    }
}

impl Budgets {
    fn of(cache: &CacheConfig, false_yes: &ErrorRate, false_no: &ErrorRate) -> Self {
        let (max_error_rate, max_wrong_hits) = (cache.max_error_rate.into(), f64::from(cache.max_wrong_hits));
        let threshold = 1.0 - max_wrong_hits;
        Self {
            max_error_rate,
            max_wrong_hits,
            probability_unverified: threshold,
            probability_with_yes: enough(threshold, false_yes.rate, false_no.rate),
            probability_with_yes_cautious: enough(threshold, false_yes.high, false_no.high),
            askable_different: (max_error_rate / false_yes.high).min(1.0),
        }
    }
}

/// The probability that a yes raises to `threshold`. A yes multiplies the odds by `(1 - false_no) / false_yes`; it is
/// never taken to lower them.
fn enough(threshold: f64, false_yes: f64, false_no: f64) -> f64 {
    let odds = threshold / (1.0 - threshold).max(f64::EPSILON);
    let before = odds * (false_yes / (1.0 - false_no).max(f64::EPSILON)).min(1.0);
    before / (1.0 + before)
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { model, provider, pairs, calls, verdicts, .. } = self;
        writeln!(f, "{model} at {provider}: {verdicts} verdicts on {pairs} pairs, in {calls} calls")?;
        self.write_bad_lines(f)?;
        for (what, rate, of) in [
            ("false yes", &self.false_yes, "pairs that differ"),
            ("false no", &self.false_no, "pairs that ask the same"),
        ] {
            writeln!(f, "  {what:<10} {rate}, {} of {} {of}", rate.wrong, rate.of)?;
        }
        let Self { nonsense, unavailable, timeout, not_asked, .. } = *self;
        let without = [
            ("nonsense", nonsense),
            ("unavailable", unavailable),
            ("timeout", timeout),
            ("too long to ask", not_asked),
        ];
        write_counts(f, "without a verdict", without.into_iter().filter(|(_, count)| *count > 0))?;
        if let (Some(mean), Some(p95)) = (self.mean_ms, self.p95_ms) {
            let Self { late, timeout_ms, .. } = self;
            writeln!(
                f,
                "  time       mean {mean:.0} ms, p95 {p95:.0} ms; {late} calls later than cache.verify.timeout \
                 ({timeout_ms:.0} ms)"
            )?;
        }
        let (all, each) = (dollars(self.cost_usd), self.usd_per_call);
        writeln!(f, "  cost       {all}, ${each:.6} a call")?;
        if *verdicts == 0 { Ok(()) } else { self.budgets.fmt(f) }
    }
}

impl Report {
    fn write_bad_lines(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let bad = &self.bad_lines;
        if bad.is_empty() {
            return Ok(());
        }
        writeln!(f, "  {} bad lines were skipped:", bad.len())?;
        for line in bad.iter().take(BAD_LINES_SHOWN) {
            writeln!(f, "    {line}")?;
        }
        let rest: Vec<_> = bad.iter().skip(BAD_LINES_SHOWN).map(|bad| bad.line.to_string()).collect();
        if rest.is_empty() { Ok(()) } else { writeln!(f, "    and lines {}", rest.join(", ")) }
    }
}

impl Display for ErrorRate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { rate, low, high, .. } = self;
        write!(f, "{} ({:.1} to {:.1})", Percent(*rate), 100.0 * low, 100.0 * high)
    }
}

impl Display for Budgets {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            max_error_rate,
            max_wrong_hits,
            probability_unverified,
            probability_with_yes,
            probability_with_yes_cautious,
            askable_different,
        } = *self;
        writeln!(f, "\nWhat this means for the budgets")?;
        writeln!(
            f,
            "  max_wrong_hits {}: a yes is enough from a learned probability of {}, or of {}",
            Percent(max_wrong_hits),
            Percent(probability_with_yes_cautious),
            Percent(probability_with_yes)
        )?;
        writeln!(
            f,
            "    at the measured rates; without a yes it takes {} (for each hit by itself)",
            Percent(probability_unverified)
        )?;
        writeln!(
            f,
            "  max_error_rate {}: at most {} of the requests may be asked about an answer that",
            Percent(max_error_rate),
            Percent(askable_different)
        )?;
        writeln!(
            f,
            "    does not fit\n  The first figure of each takes the worse ends of the intervals, as a server does. \
             It learns the\n  rates of its own verifier, and derives its threshold from its recent requests."
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_yes_is_enough_where_the_odds_reach_the_threshold() {
        // Odds of 19 after a yes that multiplies them by 47.5.
        assert!((enough(0.95, 0.02, 0.05) - 0.4 / 1.4).abs() < 1e-9);
        assert!((enough(0.95, 0.5, 0.5) - 0.95).abs() < 1e-9, "a coin says nothing");
        assert!((enough(0.95, 0.9, 0.5) - 0.95).abs() < 1e-9, "a yes never lowers the odds");
        assert_eq!(enough(0.95, 0.0, 0.1), 0.0);
    }
}

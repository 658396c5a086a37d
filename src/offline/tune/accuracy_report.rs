//! The report of `tune`: how many hits were right and how many wrong, and one line per row.

use std::{
    collections::HashSet,
    fmt,
    io::{self, Write},
};

use serde::Serialize;

use super::{Protocol, Row};
use crate::{
    decide::learner::WrongHits,
    offline::{
        StatedErrors,
        report::{Percent, interval, share, write_json_lines},
    },
};

/// Allowed shares of wrong answers among requests, for each of which the report shows how much could be served.
const ERROR_RATES: [f64; 4] = [0.005, 0.01, 0.02, 0.05];

/// Result of one row; a line of the `--out` file.
#[derive(Clone, Debug, Serialize)]
pub struct RowResult {
    pub id: String,
    pub hit: bool,
    /// Id of the row whose answer was served, or was the best candidate.
    #[serde(rename = "match")]
    pub matched: Option<String>,
    /// Probability that the matched answer is right.
    pub score: f32,
    /// Cosine similarity of the two texts.
    pub similarity: f32,
    /// The caller's answer came from a model.
    #[serde(skip)]
    pub is_miss: bool,
    /// The matched row has the class of this one.
    #[serde(skip)]
    pub is_right: bool,
    /// It was served because the verifier said that it fits.
    #[serde(skip)]
    pub is_verified: bool,
}

/// Calls of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calls {
    /// Of models that answer or audit.
    pub models: usize,
    pub verifications: usize,
    /// Stated errors of the verifier, if there is one.
    pub verifier: Option<StatedErrors>,
}

/// Hits of consecutive requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Hits {
    pub requests: usize,
    pub correct: usize,
    pub wrong: usize,
}

/// How many of the hits on labelled traffic were right.
#[derive(Debug, Serialize)]
pub struct Report {
    pub requests: usize,
    /// Requests with an earlier request of their class.
    pub possible: usize,
    pub correct: usize,
    pub wrong: usize,
    /// Model calls beyond one for each miss.
    pub extra_calls: usize,
    /// Model calls for each request, without verifications.
    pub calls_per_request: f64,
    /// The last fifth of the requests, after most of the learning.
    pub last_fifth: Hits,
    /// `None` without a verifier.
    pub verifier: Option<Verified>,
    /// The cache's own estimate of the share of wrong hits, and its interval.
    pub measured_wrong_hits: f32,
    pub measured_low: f32,
    pub measured_high: f32,
    /// Best fixed thresholds, known only afterwards; only of a score-only run.
    pub hindsight: Vec<Point>,
    #[serde(skip)]
    rows: Vec<RowResult>,
}

/// What the simulated verifier did.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Verified {
    pub stated: StatedErrors,
    pub verifications: usize,
    /// Hits that it approved.
    pub correct: usize,
    pub wrong: usize,
}

/// A fixed threshold and what it would have served.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    /// Allowed wrong answers per request.
    pub max_error_rate: f64,
    /// Lowest score that is served.
    pub threshold: f32,
    pub correct: usize,
    pub wrong: usize,
}

impl Report {
    pub(super) fn new(
        rows: &[Row],
        results: Vec<RowResult>,
        protocol: Protocol,
        calls: Calls,
        measured: WrongHits,
    ) -> Self {
        let mut seen = HashSet::new();
        let Hits { requests, correct, wrong } = Hits::of(&results);
        let misses = results.iter().filter(|result| result.is_miss).count();
        let by_verifier = Hits::of(results.iter().filter(|result| result.is_verified));
        let verified = |stated| Verified {
            stated,
            verifications: calls.verifications,
            correct: by_verifier.correct,
            wrong: by_verifier.wrong,
        };
        Self {
            requests,
            possible: rows.iter().filter(|row| !seen.insert(&row.class)).count(),
            correct,
            wrong,
            extra_calls: calls.models.saturating_sub(misses),
            calls_per_request: share(calls.models, requests),
            last_fifth: Hits::of(&results[requests - requests / 5..]),
            verifier: calls.verifier.map(verified),
            measured_wrong_hits: measured.rate,
            measured_low: measured.low,
            measured_high: measured.high,
            hindsight: if protocol == Protocol::ScoreOnly { hindsight(&results) } else { Vec::new() },
            rows: results,
        }
    }

    /// Writes one JSON object per row: `id`, `hit`, `match`, `score`, `similarity`.
    ///
    /// # Errors
    /// When `to` cannot be written.
    pub fn write_rows(&self, to: impl Write) -> io::Result<()> {
        write_json_lines(to, &self.rows)
    }

    fn write_last_fifth(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hits { requests, correct, wrong } = self.last_fifth;
        let [correct_share, wrong_share] = [correct, wrong].map(|count| Percent(share(count, requests)));
        let of_hits = Percent(share(wrong, correct + wrong));
        writeln!(f, "last fifth     {correct_share:8.2} correct, {wrong_share:.2} wrong, {of_hits} of hits")
    }

    fn write_verifier(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Verified { stated, verifications, correct, wrong }) = self.verifier else { return Ok(()) };
        let StatedErrors { false_yes, false_no } = stated;
        writeln!(
            f,
            "verifier       {:8.3} calls per request; it approved {} correct and {wrong} wrong hits",
            share(verifications, self.requests),
            correct
        )?;
        let (false_yes, false_no) = (Percent(false_yes), Percent(false_no));
        writeln!(f, "               simulated by the labels, false yes {false_yes}, false no {false_no}")
    }

    fn of_requests(&self, count: usize) -> Percent {
        Percent(share(count, self.requests))
    }
}

impl Hits {
    fn of<'a>(results: impl IntoIterator<Item = &'a RowResult>) -> Self {
        let mut all = Self::default();
        for result in results {
            all.requests += 1;
            all.correct += usize::from(result.hit && result.is_right);
            all.wrong += usize::from(result.hit && !result.is_right);
        }
        all
    }
}

/// Finds, for each allowed error rate, the threshold with the most correct answers.
fn hindsight(results: &[RowResult]) -> Vec<Point> {
    let mut scored: Vec<_> = results.iter().filter(|result| result.matched.is_some()).collect();
    scored.sort_by(|a, b| b.score.total_cmp(&a.score));
    let point = |max_error_rate| Point { max_error_rate, threshold: 2.0, correct: 0, wrong: 0 };
    let mut points = ERROR_RATES.map(point);
    let (mut correct, mut wrong) = (0, 0);
    // Equal scores are served together.
    for served in scored.chunk_by(|a, b| a.score == b.score) {
        let right = served.iter().filter(|result| result.is_right).count();
        correct += right;
        wrong += served.len() - right;
        for point in &mut points {
            if wrong as f64 <= point.max_error_rate * results.len() as f64 && correct > point.correct {
                *point = Point { threshold: served[0].score, correct, wrong, ..*point };
            }
        }
    }
    points.to_vec()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, possible, correct, wrong, extra_calls, .. } = *self;
        let all = |count| self.of_requests(count);
        writeln!(f, "{requests} requests, {possible} ({}) with an earlier equal", all(possible))?;
        if !self.hindsight.is_empty() {
            writeln!(f, "without experience; the most a fixed threshold would have served, in hindsight:")?;
            for Point { max_error_rate, threshold, correct, wrong } in &self.hindsight {
                let (rate, right, wrong) = (Percent(*max_error_rate), all(*correct), all(*wrong));
                writeln!(
                    f,
                    "  at {rate} wrong: {right:7.2} correct, {wrong:.2} wrong, threshold {threshold:.3}"
                )?;
            }
            return Ok(());
        }
        let of_hits = Percent(share(wrong, correct + wrong));
        writeln!(f, "correct hits   {:8.2} of requests", all(correct))?;
        writeln!(f, "wrong answers  {:8.2} of requests, {of_hits} of hits", all(wrong))?;
        writeln!(f, "extra calls    {:8.2} of requests", all(extra_calls))?;
        writeln!(f, "model calls    {:8.3} per request", self.calls_per_request)?;
        self.write_last_fifth(f)?;
        self.write_verifier(f)?;
        let (rate, low, high) = (self.measured_wrong_hits, self.measured_low, self.measured_high);
        let measured = interval(&WrongHits { rate, low, high, ..WrongHits::UNKNOWN });
        writeln!(f, "the cache's own estimate of wrong hits: {measured}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(score: f32, is_right: bool) -> RowResult {
        let matched = Some("1".to_owned());
        RowResult {
            id: "2".to_owned(),
            hit: false,
            matched,
            score,
            similarity: 0.9,
            is_miss: true,
            is_right,
            is_verified: false,
        }
    }

    #[test]
    fn hindsight_never_splits_rows_of_equal_score() {
        let mut results = vec![result(0.9, true); 30];
        results.extend([result(0.5, true), result(0.5, false)]);
        let found: Vec<_> = hindsight(&results).iter().map(|p| (p.threshold, p.correct, p.wrong)).collect();
        assert_eq!(found, [(0.9, 30, 0), (0.9, 30, 0), (0.9, 30, 0), (0.5, 31, 1)]);
    }
}

//! What a run found, in figures and as one line a row.

use std::{
    collections::HashSet,
    fmt,
    io::{self, Write},
};

use serde::Serialize;
use serde_json::json;

use super::{Protocol, Row};
use crate::decide::learner::WrongHits;

/// Shares of wrong answers among requests for which the report tells how much could be served.
const ERROR_RATES: [f64; 4] = [0.005, 0.01, 0.02, 0.05];

/// What became of one row.
#[derive(Clone, Copy, Debug)]
pub struct Judged {
    pub hit: bool,
    /// A model was asked before the caller had its answer.
    pub bought: bool,
    /// Index of the row whose answer was served, or came nearest.
    pub of: Option<usize>,
    /// Probability that it is right.
    pub score: f32,
    /// Cosine similarity of the texts.
    pub similarity: f32,
}

/// See the module.
#[derive(Debug, Serialize)]
pub struct Report {
    pub requests: usize,
    /// Requests of which an earlier one has the class.
    pub possible: usize,
    pub correct: usize,
    pub wrong: usize,
    /// Model calls beyond one for each miss.
    pub extra_calls: u64,
    /// What the cache itself reports of its wrong hits.
    pub measured_wrong_hits: f32,
    pub measured_low: f32,
    pub measured_high: f32,
    /// Of a score-only run: the most that a fixed threshold would have served, in hindsight.
    pub hindsight: Vec<Point>,
    #[serde(skip)]
    rows: Vec<(String, Judged, Option<String>)>,
}

/// A fixed threshold and what it would have served.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    /// Wrong answers per request that are allowed.
    pub max_error_rate: f64,
    /// Lowest score served.
    pub threshold: f32,
    pub correct: usize,
    pub wrong: usize,
}

// === impl Report ===

impl Report {
    pub(super) fn new(
        rows: &[Row],
        judged: Vec<Judged>,
        protocol: Protocol,
        extra_calls: u64,
        measured: WrongHits,
    ) -> Self {
        let mut seen = HashSet::new();
        let possible = rows.iter().filter(|row| !seen.insert(row.class.as_str())).count();
        let is_right = |(index, judged): (usize, &Judged)| {
            judged.of.is_some_and(|of| rows[of].class == rows[index].class)
        };
        let hits = || judged.iter().enumerate().filter(|(_, judged)| judged.hit);
        let correct = hits().filter(|hit| is_right(*hit)).count();
        let hindsight = if protocol == Protocol::ScoreOnly {
            let scored: Vec<_> = judged.iter().enumerate().filter(|(_, j)| j.of.is_some()).collect();
            let scored = scored.into_iter().map(|pair| (pair.1.score, is_right(pair))).collect();
            curve(scored, rows.len())
        } else {
            Vec::new()
        };
        let wrong = hits().count() - correct;
        let match_of = |judged: &Judged| judged.of.map(|of| rows[of].id.clone());
        Self {
            requests: rows.len(),
            possible,
            correct,
            wrong,
            extra_calls,
            measured_wrong_hits: measured.rate,
            measured_low: measured.low,
            measured_high: measured.high,
            hindsight,
            rows: rows.iter().zip(judged).map(|(row, j)| (row.id.clone(), j, match_of(&j))).collect(),
        }
    }

    /// One JSON object a row: `id`, `hit`, `match`, `score`.
    ///
    /// # Errors
    /// When `to` cannot be written.
    pub fn write_rows(&self, mut to: impl Write) -> io::Result<()> {
        for (id, judged, of) in &self.rows {
            let Judged { hit, score, similarity, .. } = judged;
            writeln!(
                to,
                "{}",
                json!({"id": id, "hit": hit, "match": of, "score": score, "similarity": similarity})
            )?;
        }
        to.flush()
    }

    fn share(&self, count: usize) -> f64 {
        100.0 * count as f64 / self.requests.max(1) as f64
    }
}

/// For each allowed error rate the lowest threshold that keeps it, over rows of score and truth.
fn curve(mut scored: Vec<(f32, bool)>, requests: usize) -> Vec<Point> {
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut points: Vec<Point> = ERROR_RATES
        .map(|max_error_rate| Point { max_error_rate, threshold: 2.0, correct: 0, wrong: 0 })
        .to_vec();
    let (mut correct, mut wrong) = (0, 0);
    for (i, (threshold, right)) in scored.iter().enumerate() {
        *if *right { &mut correct } else { &mut wrong } += 1;
        // Equal scores are served together.
        if scored.get(i + 1).is_some_and(|next| next.0 == *threshold) {
            continue;
        }
        for point in &mut points {
            if wrong as f64 <= point.max_error_rate * requests as f64 && correct > point.correct {
                *point = Point { threshold: *threshold, correct, wrong, ..*point };
            }
        }
    }
    points
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, possible, correct, wrong, extra_calls, .. } = self;
        writeln!(
            f,
            "{requests} requests, {possible} ({:.1} %) with an earlier equal",
            self.share(*possible)
        )?;
        if !self.hindsight.is_empty() {
            writeln!(f, "without experience; the most a fixed threshold would have served, in hindsight:")?;
            for Point { max_error_rate, threshold, correct, wrong } in &self.hindsight {
                let (rate, right, of) = (100.0 * max_error_rate, self.share(*correct), self.share(*wrong));
                writeln!(
                    f,
                    "  at {rate:.1} % wrong: {right:5.2} % correct, {of:.2} % wrong, threshold {threshold:.3}"
                )?;
            }
            return Ok(());
        }
        let hits = correct + wrong;
        let per_hit = 100.0 * *wrong as f64 / hits.max(1) as f64;
        writeln!(f, "correct hits   {:6.2} % of requests", self.share(*correct))?;
        writeln!(f, "wrong answers  {:6.2} % of requests, {per_hit:.1} % of hits", self.share(*wrong))?;
        writeln!(
            f,
            "extra calls    {:6.2} % of requests",
            100.0 * *extra_calls as f64 / (*requests).max(1) as f64
        )?;
        let [rate, low, high] =
            [self.measured_wrong_hits, self.measured_low, self.measured_high].map(|share| 100.0 * share);
        writeln!(f, "the cache's own estimate of wrong hits: {rate:.1} % ({low:.1} to {high:.1})")
    }
}

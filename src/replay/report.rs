//! What a replay found, in figures and as one line a request.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    fmt,
    io::{self, Write},
};

use serde::Serialize;
use serde_json::json;

use super::{ANSWER_TOKENS, Line, Replayed};
use crate::{decide::learner::WrongHits, outcome::Outcome, stats::Stats};

/// Failed requests that a report tells of one by one.
const FAILURES_SHOWN: usize = 5;

/// Namespaces that the text tells of, the largest.
const NAMESPACES_SHOWN: usize = 10;

/// See the module.
#[derive(Debug, Serialize)]
pub struct Report {
    pub requests: usize,
    /// By the outcome's label.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Share of the answered requests that needed no model call of their own.
    pub hit_ratio: f64,
    /// By the reason's label: why a request was no semantic hit.
    pub misses_by_reason: BTreeMap<&'static str, u64>,
    /// By name.
    pub namespaces: BTreeMap<String, Counts>,
    /// `None` without a catalog of prices.
    pub money: Option<Money>,
    /// Model calls to check hits, beyond those that answered.
    pub checks: u64,
    /// What the cache itself measured of its semantic hits; `None` when the answers are stand-ins.
    pub wrong_hits: Option<Measured>,
    /// Lines without an answer.
    pub without_answer: usize,
    /// Lines without answer and usage, whose answers are taken to have [`ANSWER_TOKENS`].
    pub without_tokens: usize,
    pub failures: Vec<Failure>,
    #[serde(skip)]
    rows: Vec<Replayed>,
}

/// Requests of one namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Counts {
    pub requests: u64,
    pub exact: u64,
    pub semantic: u64,
}

/// US dollars, by the catalog's prices.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Money {
    pub without_cache_usd: f64,
    /// Calls to check hits included.
    pub with_cache_usd: f64,
    pub saved_usd: f64,
    /// Had the hot tier's first model written every answer.
    pub hot_tier_usd: f64,
}

/// Share of wrong answers among semantic hits.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Measured {
    pub rate: f32,
    /// Ends of its 95 % interval.
    pub low: f32,
    pub high: f32,
    pub checked: u64,
}

/// A request that was not answered.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    pub line: usize,
    pub error: String,
}

// === impl Report ===

impl Report {
    pub(super) fn new(
        lines: &[Line],
        rows: Vec<Replayed>,
        calls: u64,
        stats: &Stats,
        has_prices: bool,
    ) -> Self {
        let Stats { sums, wrong_hits: WrongHits { rate, low, high, checks }, .. } = stats;
        let bought = rows.iter().filter(|row| row.outcome == Outcome::Upstream).count() as u64;
        let failure = |row: &Replayed| row.error.clone().map(|error| Failure { line: row.line, error });
        let without_answer = lines.iter().filter(|line| line.lacks_answer()).count();
        let without_cache_usd = rows.iter().map(|row| row.usd).sum();
        let money = Money {
            without_cache_usd,
            with_cache_usd: sums.cost_usd,
            saved_usd: without_cache_usd - sums.cost_usd,
            hot_tier_usd: sums.hot_tier_usd,
        };
        Self {
            requests: rows.len(),
            outcomes: count(rows.iter().map(|row| row.outcome.as_str())),
            hit_ratio: hit_ratio(&rows),
            misses_by_reason: count(rows.iter().filter_map(|row| row.reason.map(|r| r.as_str()))),
            namespaces: by_namespace(&rows),
            money: has_prices.then_some(money),
            checks: calls.saturating_sub(bought),
            wrong_hits: (without_answer == 0).then_some(Measured {
                rate: *rate,
                low: *low,
                high: *high,
                checked: *checks,
            }),
            without_answer,
            without_tokens: lines.iter().filter(|line| line.lacks_answer() && line.usage.is_none()).count(),
            failures: rows.iter().filter_map(failure).collect(),
            rows,
        }
    }

    /// One JSON object a line of the traffic: what became of it, and of which line it was served the answer.
    ///
    /// # Errors
    /// When `to` cannot be written.
    pub fn write_rows(&self, mut to: impl Write) -> io::Result<()> {
        for Replayed { line, outcome, reason, of, similarity, error, .. } in &self.rows {
            let row = json!({
                "line": line,
                "outcome": outcome.as_str(),
                "reason": reason.map(|reason| reason.as_str()),
                "match": of,
                "similarity": similarity,
                "error": error,
            });
            writeln!(to, "{row}")?;
        }
        to.flush()
    }

    fn share(&self, count: u64) -> f64 {
        100.0 * count as f64 / self.requests.max(1) as f64
    }

    fn fmt_outcomes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:14}{:>10}{:>9}", "", "requests", "share")?;
        for outcome in Outcome::ALL.map(Outcome::as_str) {
            let Some(count) = self.outcomes.get(outcome) else { continue };
            writeln!(f, "  {outcome:<12}{count:>10}{:>7.1} %", self.share(*count))?;
        }
        writeln!(f, "\n  {:.1} % would have needed no model call of their own", 100.0 * self.hit_ratio)?;
        if !self.misses_by_reason.is_empty() {
            let mut reasons: Vec<_> = self.misses_by_reason.iter().collect();
            reasons.sort_by_key(|(_, count)| Reverse(**count));
            let reasons: Vec<_> = reasons.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
            writeln!(f, "  no semantic hit because: {}", reasons.join(", "))?;
        }
        Ok(())
    }

    fn fmt_namespaces(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespaces.len() < 2 {
            return Ok(());
        }
        writeln!(f, "\n{:<32}{:>10}{:>10}{:>10}", "Namespaces", "requests", "exact", "semantic")?;
        let mut all: Vec<_> = self.namespaces.iter().collect();
        all.sort_by_key(|(_, counts)| Reverse(counts.requests));
        for (name, Counts { requests, exact, semantic }) in all.into_iter().take(NAMESPACES_SHOWN) {
            writeln!(f, "  {name:<30}{requests:>10}{exact:>10}{semantic:>10}")?;
        }
        Ok(())
    }

    fn fmt_money(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Money { without_cache_usd, with_cache_usd, saved_usd, hot_tier_usd }) = self.money else {
            return writeln!(f, "\nNo prices: name a configuration with models (--config) to see money.");
        };
        let share = if without_cache_usd > 0.0 { 100.0 * saved_usd / without_cache_usd } else { 0.0 };
        writeln!(f, "\nMoney, by the catalog's prices")?;
        writeln!(f, "  {:<44}{:>12}", "without the cache", dollars(without_cache_usd))?;
        let checks = format!("with it ({} calls to check hits included)", self.checks);
        writeln!(f, "  {checks:<44}{:>12}", dollars(with_cache_usd))?;
        writeln!(f, "  {:<44}{:>12}", format!("saved, {share:.1} % of the bill"), dollars(saved_usd))?;
        writeln!(f, "  {:<44}{:>12}", "hot tier for everything, no cache", dollars(hot_tier_usd))
    }

    fn fmt_notes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { without_answer, without_tokens, wrong_hits, failures, .. } = self;
        if let Some(Measured { rate, low, high, checked }) = wrong_hits.filter(|of| of.checked > 0) {
            let [rate, low, high] = [rate, low, high].map(|share| 100.0 * share);
            writeln!(
                f,
                "\nWrong among the semantic hits, measured on {checked}: {rate:.1} % ({low:.1} to {high:.1})"
            )?;
        }
        if *without_answer > 0 {
            writeln!(
                f,
                "\nLines without an answer: {without_answer}. Because of them nothing was learned: with answers everywhere \
                 more becomes a semantic hit."
            )?;
        }
        if *without_tokens > 0 && self.money.is_some() {
            writeln!(
                f,
                "Lines without usage either: {without_tokens}, taken as {ANSWER_TOKENS} tokens of answer each."
            )?;
        }
        for Failure { line, error } in failures.iter().take(FAILURES_SHOWN) {
            writeln!(f, "line {line} failed: {error}")?;
        }
        if failures.len() > FAILURES_SHOWN {
            writeln!(f, "and {} more failed", failures.len() - FAILURES_SHOWN)?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} requests, one after the other, from an empty cache; nothing expires\n",
            self.requests
        )?;
        self.fmt_outcomes(f)?;
        self.fmt_namespaces(f)?;
        self.fmt_money(f)?;
        self.fmt_notes(f)
    }
}

fn count(labels: impl Iterator<Item = &'static str>) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for label in labels {
        *counts.entry(label).or_default() += 1;
    }
    counts
}

fn hit_ratio(rows: &[Replayed]) -> f64 {
    let answered = rows.iter().filter(|row| row.outcome.counts_for_hit_ratio()).count();
    let hits = rows.iter().filter(|row| row.outcome.is_hit()).count();
    hits as f64 / answered.max(1) as f64
}

fn by_namespace(rows: &[Replayed]) -> BTreeMap<String, Counts> {
    let mut all: BTreeMap<String, Counts> = BTreeMap::new();
    for row in rows {
        let counts = all.entry(row.namespace.clone()).or_default();
        counts.requests += 1;
        counts.exact += u64::from(row.outcome == Outcome::Exact);
        counts.semantic += u64::from(row.outcome == Outcome::Semantic);
    }
    all
}

/// Cents matter in small files, whole dollars in large ones.
fn dollars(usd: f64) -> String {
    if usd.abs() < 100.0 { format!("${usd:.4}") } else { format!("${usd:.2}") }
}

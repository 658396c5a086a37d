//! The report of `replay`: outcomes, reasons of misses, money, and one line per request.

use std::{
    collections::BTreeMap,
    fmt::{self, Formatter},
    io::{self, Write},
};

use serde::Serialize;
use serde_json::json;

use super::{ANSWER_TOKENS, LineResult, RecordedRequest};
use crate::{
    decide::learner::WrongHits,
    offline::report::{
        Percent, Table, by_frequency, count, dollars, interval, share, write_counts, write_json_lines,
    },
    outcome::Outcome,
    telemetry::stats::Stats,
};

/// Failed requests that the text lists.
const FAILURES_SHOWN: usize = 5;

/// Namespaces that the text lists, those with most requests first.
const NAMESPACES_SHOWN: usize = 10;

const OUTCOMES: Table = Table { label: 14, cells: &[10, 9] };
const NAMESPACES: Table = Table { label: 32, cells: &[10, 10, 10] };
const MONEY: Table = Table { label: 46, cells: &[12] };

/// What the cache would have served and saved of the recorded traffic.
#[derive(Debug, Serialize)]
pub struct Report {
    pub requests: usize,
    /// Requests by outcome.
    pub outcomes: BTreeMap<&'static str, usize>,
    /// Share of the answered requests that needed no model call of their own.
    pub hit_ratio: f64,
    /// Requests by the reason why they were no semantic hit.
    pub misses_by_reason: BTreeMap<&'static str, usize>,
    pub namespaces: BTreeMap<String, NamespaceCounts>,
    /// `None` without a catalog of prices.
    pub money: Option<Money>,
    /// Model calls that audited hits.
    pub checks: usize,
    /// `None` when the answers are stand-ins.
    pub wrong_hits: Option<WrongHits>,
    /// Lines without an answer.
    pub without_answer: usize,
    /// Lines without answer and usage, whose answers count [`ANSWER_TOKENS`].
    pub without_tokens: usize,
    pub failures: Vec<Failure>,
    #[serde(skip)]
    lines: Vec<LineResult>,
}

/// Requests of one namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct NamespaceCounts {
    pub requests: usize,
    pub exact: usize,
    pub semantic: usize,
}

/// US dollars, by the catalog's prices.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Money {
    pub without_cache_usd: f64,
    /// Calls that audit hits included.
    pub with_cache_usd: f64,
    pub saved_usd: f64,
    /// Price of every answer at the first model of the hot tier.
    pub hot_tier_usd: f64,
}

/// A failed request.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    pub line: usize,
    pub error: String,
}

impl Report {
    pub(super) fn new(
        requests: &[RecordedRequest],
        lines: Vec<LineResult>,
        calls: usize,
        stats: &Stats,
        has_prices: bool,
    ) -> Self {
        let of = |wanted: fn(Outcome) -> bool| lines.iter().filter(|line| wanted(line.outcome)).count();
        let failure = |line: &LineResult| Some(Failure { line: line.line, error: line.error.clone()? });
        let without_answer: Vec<_> = requests.iter().filter(|request| request.lacks_answer()).collect();
        let without_cache_usd = lines.iter().map(|line| line.usd).sum();
        let money = Money {
            without_cache_usd,
            with_cache_usd: stats.sums.cost_usd,
            saved_usd: without_cache_usd - stats.sums.cost_usd,
            hot_tier_usd: stats.sums.hot_tier_usd,
        };
        Self {
            requests: lines.len(),
            outcomes: count(lines.iter().map(|line| line.outcome.as_str())),
            hit_ratio: share(of(Outcome::is_hit), of(Outcome::counts_for_hit_ratio)),
            misses_by_reason: count(lines.iter().filter_map(|line| Some(line.reason?.as_str()))),
            namespaces: by_namespace(&lines),
            money: has_prices.then_some(money),
            checks: calls.saturating_sub(of(|outcome| outcome == Outcome::Upstream)),
            wrong_hits: without_answer.is_empty().then_some(stats.wrong_hits),
            without_tokens: without_answer.iter().filter(|request| request.usage.is_none()).count(),
            without_answer: without_answer.len(),
            failures: lines.iter().filter_map(failure).collect(),
            lines,
        }
    }

    /// Writes one JSON object per line of the traffic: its outcome, and the line whose answer it was served.
    ///
    /// # Errors
    /// When `to` cannot be written.
    pub fn write_rows(&self, to: impl Write) -> io::Result<()> {
        let row = |result: &LineResult| {
            json!({
                "line": result.line,
                "outcome": result.outcome.as_str(),
                "reason": result.reason.map(|reason| reason.as_str()),
                "match": result.matched,
                "similarity": result.similarity,
                "error": result.error,
            })
        };
        write_json_lines(to, self.lines.iter().map(row))
    }

    fn write_outcomes(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", OUTCOMES.line("", &[&"requests", &"share"]))?;
        for outcome in Outcome::ALL.map(Outcome::as_str) {
            let Some(&count) = self.outcomes.get(outcome) else { continue };
            let percent = Percent(share(count, self.requests));
            writeln!(f, "{}", OUTCOMES.line(format_args!("  {outcome}"), &[&count, &percent]))?;
        }
        writeln!(f, "\n  {} would have needed no model call of their own", Percent(self.hit_ratio))?;
        let reasons = self.misses_by_reason.iter().map(|(reason, count)| (reason, *count));
        write_counts(f, "no semantic hit because", reasons)
    }

    fn write_namespaces(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.namespaces.len() < 2 {
            return Ok(());
        }
        writeln!(f, "\n{}", NAMESPACES.line("Namespaces", &[&"requests", &"exact", &"semantic"]))?;
        let largest = by_frequency(self.namespaces.iter().map(|(name, counts)| (name, counts.requests)));
        for (name, requests) in largest.into_iter().take(NAMESPACES_SHOWN) {
            let NamespaceCounts { exact, semantic, .. } = self.namespaces[name];
            let line = NAMESPACES.line(format_args!("  {name}"), &[&requests, &exact, &semantic]);
            writeln!(f, "{line}")?;
        }
        Ok(())
    }

    fn write_money(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some(Money { without_cache_usd, with_cache_usd, saved_usd, hot_tier_usd }) = self.money else {
            return writeln!(f, "\nNo prices: name a configuration with models (--config) to see money.");
        };
        let saved = if without_cache_usd > 0.0 { saved_usd / without_cache_usd } else { 0.0 };
        writeln!(f, "\nMoney, by the catalog's prices")?;
        for (what, usd) in [
            ("without the cache", without_cache_usd),
            (&format!("with it ({} calls to check hits included)", self.checks), with_cache_usd),
            (&format!("saved, {} of the bill", Percent(saved)), saved_usd),
            ("hot tier for everything, no cache", hot_tier_usd),
        ] {
            writeln!(f, "{}", MONEY.line(format_args!("  {what}"), &[&dollars(usd)]))?;
        }
        Ok(())
    }

    fn write_caveats(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { without_answer, without_tokens, wrong_hits, failures, .. } = self;
        if let Some(measured) = wrong_hits.filter(|measured| measured.checks > 0) {
            let (checked, measured) = (measured.checks, interval(&measured));
            writeln!(f, "\nWrong among the semantic hits, measured on {checked}: {measured}")?;
        }
        if *without_answer > 0 {
            writeln!(
                f,
                "\nLines without an answer: {without_answer}. Because of them the cache learned nothing: with an answer on \
                 every line there would be more semantic hits."
            )?;
        }
        if *without_tokens > 0 && self.money.is_some() {
            writeln!(
                f,
                "Lines without usage either: {without_tokens}, counted as {ANSWER_TOKENS} answer tokens each."
            )?;
        }
        for Failure { line, error } in failures.iter().take(FAILURES_SHOWN) {
            writeln!(f, "line {line} failed: {error}")?;
        }
        match failures.len().saturating_sub(FAILURES_SHOWN) {
            0 => Ok(()),
            more => writeln!(f, "and {more} more failed"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let requests = self.requests;
        writeln!(f, "{requests} requests, one after the other, from an empty cache; nothing expires\n")?;
        self.write_outcomes(f)?;
        self.write_namespaces(f)?;
        self.write_money(f)?;
        self.write_caveats(f)
    }
}

fn by_namespace(lines: &[LineResult]) -> BTreeMap<String, NamespaceCounts> {
    let mut all: BTreeMap<String, NamespaceCounts> = BTreeMap::new();
    for line in lines {
        let counts = all.entry(line.namespace.clone()).or_default();
        counts.requests += 1;
        counts.exact += usize::from(line.outcome == Outcome::Exact);
        counts.semantic += usize::from(line.outcome == Outcome::Semantic);
    }
    all
}

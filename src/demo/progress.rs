//! How the replay shows that it lives: a bar on a terminal, now and then a line elsewhere. Both go to
//! standard error, so that the report on standard output stays clean.

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    demo::{record::Record, traffic::Traffic},
    outcome::Outcome,
};

/// Without a terminal, a line after so many requests: a handful of lines in all.
const LINE_EVERY: u64 = 60;

/// Characters of a prompt shown beside the bar.
const EXCERPT: usize = 66;

/// Two lines, at most 100 columns wide.
const TEMPLATE: &str = "{bar:20.cyan/dim} {pos:>3}/{len}  {prefix}\n{msg:.dim}";

/// Counts so far.
pub struct Progress {
    bar: ProgressBar,
    tally: Tally,
}

#[derive(Default)]
struct Tally {
    exact: u32,
    semantic: u32,
    coalesced: u32,
    model: u32,
    failed: u32,
    spent_usd: f64,
    saved_usd: f64,
}

// === impl Progress ===

impl Progress {
    /// For `length` requests.
    pub fn new(length: usize) -> Self {
        let bar = ProgressBar::new(length as u64);
        let style = ProgressStyle::with_template(TEMPLATE).expect("the template is a constant");
        bar.set_style(style.progress_chars("━╸─"));
        Self { bar, tally: Tally::default() }
    }

    /// One more request has been answered.
    pub fn record(&mut self, traffic: &Traffic, record: &Record) {
        self.tally.add(record);
        self.bar.inc(1);
        if !self.bar.is_hidden() {
            self.bar.set_prefix(self.tally.to_string());
            if let Some(line) = remarkable(traffic, record) {
                self.bar.set_message(line);
            }
        } else if self.bar.position().is_multiple_of(LINE_EVERY) {
            eprintln!("{}/{}  {}", self.bar.position(), self.bar.length().unwrap_or(0), self.tally);
        }
    }

    /// Clears the bar.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}

/// What is worth a glance: a paraphrase that hit, a near miss that did not.
fn remarkable(traffic: &Traffic, record: &Record) -> Option<String> {
    let similarity = record.matched.as_ref()?.similarity;
    let what = match record.outcome {
        Outcome::Semantic => "semantic hit",
        Outcome::Upstream if record.reason.starts_with("guard_") => record.reason.as_str(),
        _ => return None,
    };
    let text = &traffic.requests()[record.index].text;
    let excerpt: String = text.lines().next().unwrap_or_default().chars().take(EXCERPT).collect();
    Some(format!("{what} {similarity:.2}  {excerpt}"))
}

// === impl Tally ===

impl Tally {
    fn add(&mut self, record: &Record) {
        match record.outcome {
            Outcome::Exact => self.exact += 1,
            Outcome::Semantic => self.semantic += 1,
            Outcome::Coalesced => self.coalesced += 1,
            Outcome::Upstream | Outcome::Bypass | Outcome::Miss => self.model += 1,
            Outcome::Stored | Outcome::Error => self.failed += 1,
        }
        if record.is_miss() {
            self.spent_usd += record.usage.cost_usd;
        }
        self.saved_usd += record.saved_usd;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { exact, semantic, coalesced, model, failed, spent_usd, saved_usd } = self;
        let joined = if *coalesced > 0 { format!(" {coalesced} joined") } else { String::new() };
        write!(f, "{exact} exact {semantic} semantic{joined} {model} model")?;
        if *failed > 0 {
            write!(f, " {failed} failed")?;
        }
        write!(f, "  ${spent_usd:.4} spent ${saved_usd:.4} saved")
    }
}

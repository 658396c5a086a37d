//! Progress of a demo run, on standard error: a bar on a terminal, a line now and then elsewhere. Standard output is
//! left to the report.

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    demo::{exchange::Exchange, traffic::Traffic},
    outcome::Outcome,
};

/// Requests between two lines where there is no terminal.
const LINE_EVERY: u64 = 60;

/// Characters of a prompt shown below the bar.
const EXCERPT: usize = 66;

/// Two lines, at most 100 columns wide.
const TEMPLATE: &str = "{bar:20.cyan/dim} {pos:>3}/{len}  {prefix}\n{msg:.dim}";

pub struct Progress {
    bar: ProgressBar,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    exact: u32,
    semantic: u32,
    coalesced: u32,
    model: u32,
    failed: u32,
    spent_usd: f64,
    saved_usd: f64,
}

impl Progress {
    /// Starts with none of `length` requests done.
    pub fn new(length: usize) -> Self {
        let bar = ProgressBar::new(length as u64);
        let style = ProgressStyle::with_template(TEMPLATE).expect("the template is a constant");
        bar.set_style(style.progress_chars("━╸─"));
        Self { bar, counts: Counts::default() }
    }

    /// Counts a finished exchange.
    pub fn add(&mut self, traffic: &Traffic, exchange: &Exchange) {
        self.counts.add(exchange);
        self.bar.inc(1);
        if !self.bar.is_hidden() {
            self.bar.set_prefix(self.counts.to_string());
            if let Some(line) = highlight(traffic, exchange) {
                self.bar.set_message(line);
            }
        } else if self.bar.position().is_multiple_of(LINE_EVERY) {
            eprintln!("{}/{}  {}", self.bar.position(), self.bar.length().unwrap_or(0), self.counts);
        }
    }

    /// Clears the bar.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}

/// Describes a semantic hit, or a near miss that a guard refused.
fn highlight(traffic: &Traffic, exchange: &Exchange) -> Option<String> {
    let similarity = exchange.matched.as_ref()?.similarity;
    let what = match exchange.outcome {
        Outcome::Semantic if exchange.is_verified() => "verified hit",
        Outcome::Semantic => "semantic hit",
        Outcome::Upstream if exchange.reason.starts_with("guard_") => exchange.reason.as_str(),
        _ => return None,
    };
    let text = &traffic.requests()[exchange.index].text;
    let excerpt: String = text.lines().next().unwrap_or_default().chars().take(EXCERPT).collect();
    Some(format!("{what} {similarity:.2}  {excerpt}"))
}

impl Counts {
    fn add(&mut self, exchange: &Exchange) {
        match exchange.outcome {
            Outcome::Exact => self.exact += 1,
            Outcome::Semantic => self.semantic += 1,
            Outcome::Coalesced => self.coalesced += 1,
            Outcome::Upstream | Outcome::Bypass | Outcome::Miss => self.model += 1,
            Outcome::Stored | Outcome::Error => self.failed += 1,
        }
        if exchange.called_model() {
            self.spent_usd += exchange.usage.cost_usd;
        }
        self.saved_usd += exchange.saved_usd;
    }
}

impl std::fmt::Display for Counts {
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

//! Building blocks of reports on traffic: percentages, money, tables, counted labels, and rows as JSON lines. Knows
//! nothing of what is reported.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
    io::{self, Write},
};

use serde::Serialize;
use serde_json::json;

use crate::decide::learner::WrongHits;

/// Widest line of counted labels.
const COLUMNS_MAX: usize = 98;

/// A share from 0 to 1, printed as a percentage with one decimal place or the format's precision.
#[derive(Clone, Copy, Debug)]
pub struct Percent(pub f64);

/// Layout of a table: a left-aligned label, then right-aligned cells.
pub struct Table {
    /// Width of the label, its indentation included.
    pub label: usize,
    pub cells: &'static [usize],
}

/// Returns `part` as a share of `whole`, or 0 of nothing.
pub fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Returns Wilson's 95 % interval of the rate of `part` in `whole`; of nothing, 0 to 1.
pub fn wilson(part: usize, whole: usize) -> (f64, f64) {
    // Standard deviations to either side.
    const Z: f64 = 1.96;
    if whole == 0 {
        return (0.0, 1.0);
    }
    let (n, rate) = (whole as f64, share(part, whole));
    let centre = rate + Z * Z / (2.0 * n);
    let half = Z * (rate * (1.0 - rate) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    (((centre - half) / scale).max(0.0), ((centre + half) / scale).min(1.0))
}

/// Formats US dollars: small sums need more than cents.
pub fn dollars(usd: f64) -> String {
    if usd.abs() < 100.0 { format!("${usd:.4}") } else { format!("${usd:.2}") }
}

/// Formats the cache's own estimate of its wrong hits and its 95 % interval, such as `5.0 % (1.0 to 20.0)`.
pub fn interval(WrongHits { rate, low, high, .. }: &WrongHits) -> String {
    format!("{} ({:.1} to {:.1})", Percent((*rate).into()), 100.0 * low, 100.0 * high)
}

/// Counts equal labels.
pub fn count<K: Ord>(labels: impl IntoIterator<Item = K>) -> BTreeMap<K, usize> {
    let mut counts = BTreeMap::new();
    for label in labels {
        *counts.entry(label).or_default() += 1;
    }
    counts
}

/// Sorts counted labels, most frequent first.
pub fn by_frequency<K>(counts: impl IntoIterator<Item = (K, usize)>) -> Vec<(K, usize)> {
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| Reverse(*count));
    counts
}

/// Writes `  title: label 3, label 2`, most frequent first and broken into lines of bounded width. Writes nothing
/// without counts.
pub fn write_counts<K: Display>(
    f: &mut Formatter<'_>,
    title: &str,
    counts: impl IntoIterator<Item = (K, usize)>,
) -> fmt::Result {
    let mut line = format!("  {title}: ");
    let mut separator = "";
    for (label, count) in by_frequency(counts) {
        let item = format!("{label} {count}");
        if !separator.is_empty() && line.len() + separator.len() + item.len() > COLUMNS_MAX {
            writeln!(f, "{line},")?;
            (line, separator) = ("    ".to_owned(), "");
        }
        line.extend([separator, &item]);
        separator = ", ";
    }
    if separator.is_empty() { Ok(()) } else { writeln!(f, "{line}") }
}

/// Writes one JSON object per row.
///
/// # Errors
/// When `to` cannot be written.
pub fn write_json_lines(mut to: impl Write, rows: impl IntoIterator<Item: Serialize>) -> io::Result<()> {
    for row in rows {
        writeln!(to, "{}", json!(row))?;
    }
    to.flush()
}

impl Display for Percent {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (width, precision) = (f.width().unwrap_or(0), f.precision().unwrap_or(1));
        let text = format!("{:.precision$} %", 100.0 * self.0);
        write!(f, "{text:>width$}")
    }
}

impl Table {
    /// Formats one line without trailing white space.
    pub fn line(&self, label: impl Display, cells: &[&dyn Display]) -> String {
        let mut line = format!("{:<width$}", label.to_string(), width = self.label);
        for (cell, width) in cells.iter().zip(self.cells) {
            line.push_str(&format!("{:>width$}", cell.to_string()));
        }
        line.truncate(line.trim_end().len());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counts(usize);

    impl Display for Counts {
        fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
            write_counts(f, "why", (0..self.0).map(|n| (format!("reason_{n}"), n)))
        }
    }

    #[test]
    fn intervals_are_wilsons() {
        let close = |(low, high): (f64, f64), expected: (f64, f64)| {
            assert!((low - expected.0).abs() < 5e-4 && (high - expected.1).abs() < 5e-4, "{low} {high}");
        };
        close(wilson(0, 10), (0.0, 0.2775));
        close(wilson(5, 100), (0.0215, 0.1118));
        close(wilson(10, 10), (0.7225, 1.0));
        close(wilson(0, 0), (0.0, 1.0));
    }

    #[test]
    fn long_lists_of_counts_break_into_lines() {
        assert_eq!(Counts(0).to_string(), "");
        assert_eq!(Counts(2).to_string(), "  why: reason_1 1, reason_0 0\n");
        let text = Counts(20).to_string();
        assert!(text.lines().count() > 1 && text.lines().all(|line| line.len() <= 100), "{text}");
        assert_eq!(text.matches(',').count(), 19, "{text}");
    }

    #[test]
    fn cells_are_aligned_and_empty_ones_leave_no_trailing_space() {
        const TABLE: Table = Table { label: 6, cells: &[4, 9] };
        assert_eq!(TABLE.line("  a", &[&12, &Percent(0.5)]), "  a     12   50.0 %");
        assert_eq!(TABLE.line("  a", &[&12, &""]), "  a     12");
        assert_eq!(format!("{:9.2}", Percent(0.123_456)), "  12.35 %");
    }
}

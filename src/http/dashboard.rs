//! The page at `/`: the numbers of `GetStats` since the start, for a look in passing. It has no script and
//! loads itself again every five seconds; history is Prometheus' business.

use std::fmt::Write as _;

use axum::{extract::State, response::Html};

use super::Door;
use crate::{
    outcome::Outcome,
    stats::{Stats, Tally},
};

/// Up to where the numbers begin.
const HEAD: &str = include_str!("dashboard.html");

pub(super) async fn page(State(door): State<Door>) -> Html<String> {
    Html(render(&door.pipeline.stats(None, None)))
}

fn render(stats: &Stats) -> String {
    let mut page = HEAD.to_owned();
    page.push_str(&figures(stats));
    page.push_str(&outcomes(&stats.tally));
    let misses = stats.tally.misses.iter().map(|(reason, n)| [(*reason).to_owned(), n.to_string()]);
    page.push_str(&table("Not a semantic hit because of", ["reason", "requests"], misses));
    page.push_str(&models(stats));
    page
}

fn figures(stats: &Stats) -> String {
    let Stats { uptime, tally, sizes, store_errors, .. } = stats;
    let figures = [
        ("hit ratio", format!("{:.1} %", tally.hit_ratio() * 100.0)),
        ("requests", tally.requests.iter().sum::<u64>().to_string()),
        ("spent on models", format!("${:.4}", tally.cost_usd)),
        ("saved", format!("${:.4}", tally.saved_usd)),
        ("entries", sizes.entries.to_string()),
        ("vectors", sizes.index_vectors.to_string()),
        ("store errors", store_errors.to_string()),
        ("up", format!("{} s", uptime.as_secs())),
    ];
    let items = figures.map(|(name, value)| format!("<div><dt>{name}</dt><dd>{value}</dd></div>"));
    format!("<dl>{}</dl>", items.concat())
}

fn outcomes(tally: &Tally) -> String {
    let seen = Outcome::ALL.into_iter().filter(|outcome| tally.requests[*outcome as usize] > 0);
    let rows = seen.map(|outcome| {
        let latency = &tally.latency[outcome as usize];
        let at = |quantile| format!("{:.2}", latency.quantile_ms(quantile));
        let requests = tally.requests[outcome as usize].to_string();
        [outcome.as_str().to_owned(), requests, at(0.5), at(0.99), at(0.999)]
    });
    table("How requests were answered", ["outcome", "requests", "p50 ms", "p99 ms", "p99.9 ms"], rows)
}

fn models(stats: &Stats) -> String {
    let rows = stats.models.iter().map(|(name, model)| {
        let tokens = format!("{} + {}", model.prompt_tokens, model.completion_tokens);
        let cost = format!("{:.4}", model.cost_usd);
        [escape(name), escape(&model.tier), model.calls.to_string(), model.errors.to_string(), tokens, cost]
    });
    table("Models", ["model", "tier", "calls", "errors", "tokens in + out", "US dollars"], rows)
}

fn table<const N: usize>(title: &str, head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut body = String::new();
    for row in rows {
        // Writing to a string cannot fail.
        let _ = write!(body, "<tr>{}</tr>", row.map(|cell| format!("<td>{cell}</td>")).concat());
    }
    if body.is_empty() {
        return format!("<h2>{title}</h2><p>None yet.</p>");
    }
    let head = head.map(|cell| format!("<th>{cell}</th>")).concat();
    format!("<h2>{title}</h2><div class=wide><table><tr>{head}</tr>{body}</table></div>")
}

/// Names of the catalog may be anything.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::stats::{Ledger, ModelTally, Observation, Sizes};

    #[test]
    fn it_shows_the_numbers_and_no_markup_of_names() {
        let ledger = Ledger::new();
        ledger.request(&Observation {
            tenant: "default",
            namespace: "a",
            outcome: Outcome::Exact,
            reason: None,
            elapsed: Duration::from_millis(1),
            first_token: None,
            saved_usd: 0.25,
            is_stale: false,
        });
        let mut stats = ledger.stats(None, None, Sizes::default());
        assert!(render(&stats).contains("None yet."), "no model was called");
        stats.models.insert("<b>".to_owned(), ModelTally::default());
        let page = render(&stats);
        for expected in ["100.0 %", "$0.2500", "<td>exact</td><td>1</td>", "&lt;b&gt;"] {
            assert!(page.contains(expected), "{expected} is not in {page}");
        }
        assert!(!page.contains("<b>"));
    }
}

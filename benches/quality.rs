//! Hits and wrong hits of the learned decision and of two other policies, on labelled traffic. Every policy gets equal
//! requests, order and embeddings, and learns only from comparing answers; classes only grade the result.
//!
//! `cargo bench --bench quality -- FILE.jsonl…` reads rows of `id`, `text`, `class`, `answer`, as `promptkeep tune`
//! does. Without files it uses the demo's generated traffic.

mod quality {
    pub mod cosine;
    pub mod stream;
    pub mod vcache;
}

use std::{env, fmt::Display, path::PathBuf};

use promptkeep::{
    config::Config,
    demo::traffic::{Request, Traffic, concierge},
    embed::{self, Embedder},
    offline::{
        report::Table,
        tune::{self, Protocol, Row},
    },
};
use quality::{cosine, stream::Stream, vcache};
use serde_json::json;

/// Lengths of the generated traffic: the demo's, and a longer one.
const GENERATED: [usize; 2] = [concierge::REQUESTS, 5000];

/// Largest share of wrong answers among requests for the fixed threshold. Equals the learned decision's default budget.
const MAX_ERROR_RATE: f64 = 0.01;

/// Error bounds of the vCache policy.
const DELTAS: [f64; 2] = [0.01, 0.02];

const TABLE: Table = Table { label: 44, cells: &[10, 10, 14, 14] };

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Result of one policy on a stream, in requests; the mean if it ran more than once.
#[derive(Clone, Copy, Debug, Default)]
struct Served {
    correct: f64,
    wrong: f64,
    /// Model calls beyond one for each miss.
    extra_calls: f64,
}

fn main() -> Result<()> {
    // Cargo adds its own flag `--bench`.
    let files: Vec<PathBuf> =
        env::args().skip(1).filter(|a| !a.starts_with("--")).map(PathBuf::from).collect();
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let embedder = embed::start(&Config::default().embedding).await?;
        for file in &files {
            compare(&file.display().to_string(), &tune::read(file)?, embedder.as_ref()).await?;
        }
        for count in GENERATED.into_iter().filter(|_| files.is_empty()) {
            compare("the demo's concierge", &generated(count)?, embedder.as_ref()).await?;
        }
        Ok(())
    })
}

/// Generates rows whose answers have the wording of successive calls.
fn generated(count: usize) -> Result<Vec<Row>> {
    let traffic = Traffic::generated(count);
    let row = |(call, request): (usize, &Request)| {
        let answers = traffic.answers(request);
        let answer = &answers[call % answers.len()];
        json!({"id": call.to_string(), "text": request.text, "class": request.class, "answer": answer})
    };
    let rows = traffic.requests().iter().enumerate().map(row);
    Ok(rows.map(serde_json::from_value).collect::<std::result::Result<_, _>>()?)
}

/// Prints one table.
async fn compare(name: &str, rows: &[Row], embedder: &dyn Embedder) -> Result<()> {
    let stream = Stream::new(rows, embedder).await?;
    let possible = 100.0 * stream.possible() as f64 / rows.len() as f64;
    println!("\n{name}: {} requests, {possible:.1} % with an earlier equal", rows.len());
    let columns: [&dyn Display; 4] = [&"correct", &"wrong", &"wrong of hits", &"extra calls"];
    println!("{}", TABLE.line("% of requests", &columns));
    let line = |policy: &str, served: Served| println!("{}", served.line(policy, rows.len()));
    line("promptkeep, default budgets", learned(rows, None).await?);
    line("promptkeep, max_wrong_hits = 1", learned(rows, Some(1.0)).await?);
    let (threshold, served) = cosine::best(&stream, MAX_ERROR_RATE);
    line(&format!("cosine {threshold:.3}, the best in hindsight"), served);
    for delta in DELTAS {
        line(&format!("vCache, δ = {:.0} %", 100.0 * delta), vcache::run(&stream, delta));
    }
    Ok(())
}

async fn learned(rows: &[Row], max_wrong_hits: Option<f32>) -> Result<Served> {
    let mut config = Config::default();
    config.cache.max_wrong_hits = max_wrong_hits.unwrap_or(config.cache.max_wrong_hits);
    let report = tune::run(rows, Protocol::Online, config, None).await?;
    Ok(Served {
        correct: report.correct as f64,
        wrong: report.wrong as f64,
        extra_calls: report.extra_calls as f64,
    })
}

impl Served {
    fn count(&mut self, is_right: bool) {
        *if is_right { &mut self.correct } else { &mut self.wrong } += 1.0;
    }

    /// Formats one line of the table, in percent.
    fn line(&self, policy: &str, requests: usize) -> String {
        let Self { correct, wrong, extra_calls } = self;
        let percent = |count: &f64| format!("{:.2}", 100.0 * count / requests as f64);
        let of_hits = format!("{:.1}", 100.0 * wrong / (correct + wrong).max(1.0));
        TABLE.line(policy, &[&percent(correct), &percent(wrong), &of_hits, &percent(extra_calls)])
    }
}

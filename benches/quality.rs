//! What is served, and how much of it is wrong: the learned decision beside two others, on labelled traffic.
//! Every arm gets the same requests in the same order, the same embeddings, and as labels nothing but the
//! comparison of the answers that it bought; classes are for the judge alone.
//!
//! `cargo bench --bench quality -- FILE.jsonl…` for rows of `id`, `text`, `class`, `answer` (as `promptkeep tune`
//! reads them); without files, on the demo's generated traffic.

mod quality {
    pub mod cosine;
    pub mod stream;
    pub mod vcache;
}

use std::{env, fmt, path::PathBuf};

use promptkeep::{
    config::Config,
    demo::traffic::{Traffic, concierge},
    embed::{self, Embedder},
    tune::{self, Protocol, Row},
};
use quality::{cosine, stream::Stream, vcache};
use serde_json::json;

/// Requests of the generated traffic: the demo's, and a longer stream of the same kind.
const GENERATED: [usize; 2] = [concierge::REQUESTS, 5000];

/// Share of wrong answers among requests that the hindsight of the fixed threshold keeps to, and that is the
/// default budget of the learned decision.
const MAX_ERROR_RATE: f64 = 0.01;

/// Error bounds of the vCache arm.
const DELTAS: [f64; 2] = [0.01, 0.02];

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What one arm did with a stream, counted in requests; means where an arm was run more than once.
#[derive(Clone, Copy, Debug, Default)]
struct Served {
    correct: f64,
    wrong: f64,
    /// Model calls beyond one for each miss.
    extra_calls: f64,
}

fn main() -> Result<()> {
    // Cargo adds a flag of its own.
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

/// Every row brings the answer of the call that it would be.
fn generated(count: usize) -> Result<Vec<Row>> {
    let traffic = Traffic::generated(count);
    let row = |(call, request): (usize, &promptkeep::demo::traffic::Request)| {
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
    println!(
        "{:<44}{:>10}{:>10}{:>14}{:>14}",
        "% of requests", "correct", "wrong", "wrong of hits", "extra calls"
    );
    let line = |arm: &str, served: Served| println!("{arm:<44}{}", Columns(served, rows.len()));
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
    let report = tune::run(rows, Protocol::Online, config).await?;
    Ok(Served {
        correct: report.correct as f64,
        wrong: report.wrong as f64,
        extra_calls: report.extra_calls as f64,
    })
}

// === impl Served ===

impl Served {
    fn count(&mut self, is_right: bool) {
        *if is_right { &mut self.correct } else { &mut self.wrong } += 1.0;
    }
}

/// The figures of one line, of so many requests.
struct Columns(Served, usize);

impl fmt::Display for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Served { correct, wrong, extra_calls }, requests) = self;
        let percent = |count: &f64| 100.0 * count / *requests as f64;
        let of_hits = 100.0 * wrong / (correct + wrong).max(1.0);
        write!(
            f,
            "{:>10.2}{:>10.2}{of_hits:>14.1}{:>14.2}",
            percent(correct),
            percent(wrong),
            percent(extra_calls)
        )
    }
}

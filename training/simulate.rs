//! Simulates the learned decision on labelled streams, each from nothing, and prints averages over a few seeds.
//!
//! `cargo run --release --example simulate -- EVAL_DIR EMBEDDINGS_DIR TABLE:STREAM...`

use std::{error::Error, fs, path::PathBuf, sync::Arc};

use promptkeep::decide::{
    learner::Budget,
    simulate::{Stream, Tally, run},
    table::Table,
};

/// Number of runs. One run says little: audits are drawn at random, and they decide which labels follow.
const SEEDS: u64 = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [eval, embeddings, runs @ ..] = args.as_slice() else {
        return Err("usage: simulate EVAL_DIR EMBEDDINGS_DIR TABLE:STREAM...".into());
    };
    let (eval, embeddings) = (PathBuf::from(eval), PathBuf::from(embeddings));
    println!("% of requests, average of {SEEDS} seeds: correct / wrong (wrong in % of hits) extra calls;");
    println!("wrong with the worst seed; in square brackets the second half");
    for each in runs {
        let (table, name) = each.split_once(':').ok_or("want TABLE:STREAM")?;
        let table = Arc::new(Table::decode(&fs::read(table)?)?);
        let stream = Stream::load(&eval, &embeddings, name)?;
        for (what, max_wrong_hits) in [("both", 0.05), ("per request", 1.0)] {
            let budget = Budget { max_error_rate: 0.01, max_wrong_hits };
            let tallies: Vec<Tally> = (1..=SEEDS).map(|seed| run(&stream, &table, &budget, seed).0).collect();
            let share = |count: fn(&Tally) -> u32| {
                let requests: u32 = tallies.iter().map(|tally| tally.requests).sum();
                100.0 * f64::from(tallies.iter().map(count).sum::<u32>()) / f64::from(requests)
            };
            let (correct, wrong) = (share(|t| t.correct), share(|t| t.wrong));
            let most = tallies.iter().map(|t| f64::from(t.wrong) / f64::from(t.requests)).fold(0.0, f64::max);
            println!(
                "{name:11} {what:11} {correct:5.2} / {wrong:4.2} ({:4.1}) {:4.2}; {:4.2} [{:5.2} / {:4.2}]",
                100.0 * wrong / (correct + wrong).max(f64::MIN_POSITIVE),
                share(|t| t.audits),
                100.0 * most,
                2.0 * share(|t| t.late_correct),
                2.0 * share(|t| t.late_wrong),
            );
        }
    }
    Ok(())
}

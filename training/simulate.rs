//! Prints what the learned decision does on labelled streams, each from nothing.
//!
//! `cargo run --release --example simulate -- EVAL_DIR EMBEDDINGS_DIR TABLE:STREAM...`

use std::{error::Error, fs, path::PathBuf, sync::Arc};

use promptkeep::decide::{
    learner::Budget,
    simulate::{Stream, run},
    table::Table,
};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [eval, embeddings, runs @ ..] = args.as_slice() else {
        return Err("usage: simulate EVAL_DIR EMBEDDINGS_DIR TABLE:STREAM...".into());
    };
    let (eval, embeddings) = (PathBuf::from(eval), PathBuf::from(embeddings));
    println!("correct / wrong (wrong per hit) audits, % of requests; in brackets the second half");
    for each in runs {
        let (table, name) = each.split_once(':').ok_or("want TABLE:STREAM")?;
        let table = Arc::new(Table::decode(&fs::read(table)?)?);
        let stream = Stream::load(&eval, &embeddings, name)?;
        for (what, max_wrong_hits) in [("both", 0.05), ("per request", 1.0)] {
            let started = std::time::Instant::now();
            let (tally, learner) = run(&stream, &table, &Budget { max_error_rate: 0.01, max_wrong_hits }, 1);
            let share = |n: u32| 100.0 * f64::from(n) / f64::from(tally.requests);
            println!(
                "{name:11} {what:11} {:5.2} / {:4.2} ({:4.1}) {:4.2} [{:5.2} / {:4.2}] noise {:.3} cal {:.2} {:.2} surplus {:.2} est {:.3} {:.1} s",
                share(tally.correct),
                share(tally.wrong),
                100.0 * f64::from(tally.wrong) / f64::from((tally.correct + tally.wrong).max(1)),
                share(tally.audits),
                2.0 * share(tally.late_correct),
                2.0 * share(tally.late_wrong),
                learner.model().noise.missed,
                learner.model().calibration.0,
                learner.model().calibration.1,
                learner.threshold().surplus.of_hits,
                learner.wrong_hits().rate,
                started.elapsed().as_secs_f64(),
            );
        }
    }
    Ok(())
}

//! Simulates the learned decision on labelled streams, each from nothing, and prints averages over a few seeds.
//!
//! `cargo run --release -p promptkeep-training --bin simulate -- EVAL_DIR WORK_DIR TABLE:STREAM[:SOURCE,...]...`
//!
//! With sources, only the rows of these are requests. With the environment variable `VERIFY`, a verifier labels every
//! candidate: 2 % of its yes and 5 % of its no are wrong.

use std::{fs, path::PathBuf, sync::Arc};

use promptkeep_decide::{
    learner::{Budget, Label, Learner, Origin, Scored, Verdict},
    surface::difference,
    table::Table,
};

use promptkeep_training::stream::{Result, Source, Stream};

/// Number of runs. One run says little: audits are drawn at random, and they decide which labels follow.
const SEEDS: u64 = 3;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [eval, work, runs @ ..] = args.as_slice() else {
        return Err("usage: simulate EVAL_DIR WORK_DIR TABLE:STREAM[:SOURCE,...]...".into());
    };
    let source = Source::new(&PathBuf::from(eval), &PathBuf::from(work))?;
    println!("% of requests, average of {SEEDS} seeds: correct / wrong (wrong in % of hits) extra calls;");
    println!("wrong with the worst seed; in square brackets the second half");
    for each in runs {
        let (table, name) = each.split_once(':').ok_or("want TABLE:STREAM")?;
        let (name, sources) = name.split_once(':').unwrap_or((name, ""));
        let table = Arc::new(Table::decode(&fs::read(table)?)?);
        let stream = source.stream(name)?;
        let rows: Vec<usize> = (0..stream.len())
            .filter(|i| sources.is_empty() || sources.split(',').any(|source| source == stream.sources[*i]))
            .collect();
        for (what, max_wrong_hits) in [("both", 0.05), ("per request", 1.0)] {
            let budget = Budget { max_error_rate: 0.01, max_wrong_hits };
            let tallies: Vec<Tally> =
                (1..=SEEDS).map(|seed| run(&stream, &rows, &table, &budget, seed)).collect();
            let share = |count: fn(&Tally) -> u32| {
                let requests: u32 = tallies.iter().map(|tally| tally.requests).sum();
                100.0 * f64::from(tallies.iter().map(count).sum::<u32>()) / f64::from(requests)
            };
            let (correct, wrong) = (share(|t| t.correct), share(|t| t.wrong));
            let most = tallies.iter().map(|t| f64::from(t.wrong) / f64::from(t.requests)).fold(0.0, f64::max);
            println!(
                "{name:11} {sources:20} {what:11} {correct:5.2} / {wrong:4.2} ({:4.1}) {:4.2}; {:4.2} [{:5.2} / {:4.2}]",
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

/// Candidates that are scored and labelled per request.
const CANDIDATES: usize = 4;
/// Smallest share of semantic hits that is audited.
const AUDIT_RATE: f32 = 0.02;
/// Similarity below which an entry is not a candidate.
const SIMILARITY_MIN: f32 = 0.6;

/// Counts of one run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub requests: u32,
    pub correct: u32,
    pub wrong: u32,
    pub audits: u32,
    /// Correct hits in the second half of the stream.
    pub late_correct: u32,
    /// Wrong hits in the second half of the stream.
    pub late_wrong: u32,
}

/// Runs the online protocol: learns from the answers to misses and to audited hits.
fn run(stream: &Stream, rows: &[usize], table: &Arc<Table>, budget: &Budget, seed: u64) -> Tally {
    let mut learner = Learner::new(Arc::clone(table), seed);
    let mut cached = vec![false; stream.len()];
    let mut tally = Tally { requests: rows.len() as u32, ..Tally::default() };
    for (request, i) in rows.iter().copied().enumerate() {
        let nearest = stream.nearest(i, CANDIDATES, |j| cached[j]);
        let candidates: Vec<_> = nearest.into_iter().filter(|n| n.1 >= SIMILARITY_MIN).collect();
        let scored: Vec<Scored> = (0..candidates.len())
            .map(|k| {
                let difference = difference(&stream.texts[i], &stream.texts[candidates[k].0], &table.rarity);
                learner.score(&stream.features(i, &candidates, k, table), difference, 0)
            })
            .collect();
        let verdict = learner.decide(&scored, budget, AUDIT_RATE);
        let label = |k: usize| {
            let (j, similarity) = candidates[k];
            let label = Label::compared(table.evidence(&stream.answer_features(i, j, similarity)));
            if std::env::var("VERIFY").is_ok() {
                let mut random = fastrand::Rng::with_seed((i * 100_003 + j) as u64);
                let same = stream.same(i, j);
                let wrong = random.f32() < if same { 0.05 } else { 0.02 };
                return label.verified(same != wrong);
            }
            label
        };
        if let Verdict::Serve { candidate, audit, .. } = verdict {
            let right = stream.same(i, candidates[candidate].0);
            tally.count(right, request * 2 >= rows.len());
            if let Some(propensity) = audit {
                tally.audits += 1;
                for (k, s) in scored.iter().enumerate() {
                    let origin = if k == candidate {
                        Origin::Audit { propensity, verified: 0.0 }
                    } else {
                        Origin::Miss { best: false }
                    };
                    learner.observe(s, label(k), origin);
                }
            }
        } else {
            cached[i] = true;
            let best = Scored::best(&scored);
            for (k, s) in scored.iter().enumerate() {
                learner.observe(s, label(k), Origin::Miss { best: Some(k) == best });
            }
        }
        if learner.is_due() {
            let fitted = learner.start_fit().run();
            learner.install(fitted);
        }
    }
    tally
}

impl Tally {
    fn count(&mut self, right: bool, late: bool) {
        let late = u32::from(late);
        if right {
            self.correct += 1;
            self.late_correct += late;
        } else {
            self.wrong += 1;
            self.late_wrong += late;
        }
    }
}

//! Simulates the learned decision on labelled streams, each from nothing, and prints averages over a few seeds.
//!
//! `cargo run --release -p promptkeep-training --bin simulate -- EVAL_DIR WORK_DIR TABLE:STREAM[:SOURCE,...]...`
//!
//! With sources, only the rows of these are requests. With the environment variable `VERIFY`, a verifier labels every
//! candidate of a miss. With `ASK`, a price as a share of what a hit saves, it is asked before serving. `ERRORS` are its
//! rates of false yes and false no, `0.02,0.05` if unset. With `REVIEW` a better model, which errs at these rates, reviews
//! the audited hits that the verifier approved.

use std::{fs, path::PathBuf, sync::Arc};

use promptkeep_decide::{
    learner::{Budget, Label, Learner, Origin, Price, Scored, Verdict},
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
    println!(
        "% of requests, average of {SEEDS} seeds: correct / wrong (wrong in % of hits) audits, verifications,"
    );
    println!("verifications in the last fifth;");
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
                "{name:11} {sources:20} {what:11} {correct:5.2} / {wrong:4.2} ({:4.1}) {:4.2} {:4.1} {:4.1}; {:4.2} [{:5.2} / {:4.2}]",
                100.0 * wrong / (correct + wrong).max(f64::MIN_POSITIVE),
                share(|t| t.audits),
                share(|t| t.asked),
                5.0 * share(|t| t.asked_last),
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
/// The same of those that a verifier approved.
const VERIFIED_AUDIT_RATE: f32 = 0.05;
/// Similarity below which an entry is not a candidate.
const SIMILARITY_MIN: f32 = 0.6;

/// Counts of one run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub requests: u32,
    pub correct: u32,
    pub wrong: u32,
    pub audits: u32,
    /// Calls of the verifier.
    pub asked: u32,
    /// Calls of the verifier in the last fifth of the stream.
    pub asked_last: u32,
    /// Correct hits in the second half of the stream.
    pub late_correct: u32,
    /// Wrong hits in the second half of the stream.
    pub late_wrong: u32,
}

/// A verifier that errs at random, always in the same way on one pair.
struct Verifier {
    false_yes: f32,
    false_no: f32,
    /// Price of a call as a share of what a hit saves; `None` if it is never asked before serving.
    price: Option<Price>,
    /// It labels every candidate of a miss.
    labels: bool,
    share: f32,
    /// Rates of false yes and false no of a better model.
    review: Option<(f32, f32)>,
}

impl Verifier {
    fn of_environment() -> Self {
        let number = |text: &str| text.trim().parse::<f32>().ok();
        let pair = |name: &str| {
            let text = std::env::var(name).ok()?;
            let (a, b) = text.split_once(',')?;
            Some((number(a)?, number(b)?))
        };
        let (false_yes, false_no) = pair("ERRORS").unwrap_or((0.02, 0.05));
        let price = pair("ASK").map(|(call, further)| Price { call, further });
        let share = std::env::var("VERIFY").ok().and_then(|text| number(&text));
        Self {
            false_yes,
            false_no,
            price,
            labels: share.is_some(),
            share: share.unwrap_or(0.0),
            review: pair("REVIEW"),
        }
    }

    fn reviews(&self, stream: &Stream, i: usize, j: usize) -> Option<bool> {
        let (false_yes, false_no) = self.review?;
        let mut random = fastrand::Rng::with_seed((i * 100_019 + j) as u64);
        let same = stream.same(i, j);
        Some(same != (random.f32() < if same { false_no } else { false_yes }))
    }

    fn fits(&self, stream: &Stream, i: usize, j: usize) -> bool {
        let mut random = fastrand::Rng::with_seed((i * 100_003 + j) as u64);
        let same = stream.same(i, j);
        same != (random.f32() < if same { self.false_no } else { self.false_yes })
    }
}

/// Runs the online protocol: learns from the answers to misses and to audited hits.
fn run(stream: &Stream, rows: &[usize], table: &Arc<Table>, budget: &Budget, seed: u64) -> Tally {
    let verifier = Verifier::of_environment();
    let mut learner = Learner::new(Arc::clone(table), seed);
    let mut explore = fastrand::Rng::with_seed(seed);
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
        let best = Scored::best(&scored);
        let mut verdict = learner.decide(&scored, budget, AUDIT_RATE, verifier.price);
        let mut known = vec![false; scored.len()];
        let compared = |k: usize| {
            let (j, similarity) = candidates[k];
            Label::compared(table.evidence(&stream.answer_features(i, j, similarity)))
        };
        let verified = |k: usize| compared(k).verified(verifier.fits(stream, i, candidates[k].0));
        let count_call = |tally: &mut Tally| {
            tally.asked += 1;
            tally.asked_last += u32::from(request * 5 >= rows.len() * 4);
        };
        let mut approved = false;
        if let Verdict::Verify { asked, .. } = &verdict {
            count_call(&mut tally);
            let verdicts: Vec<_> =
                asked.iter().map(|k| (*k, verifier.fits(stream, i, candidates[*k].0))).collect();
            for (k, _) in &verdicts {
                known[*k] = true;
                learner.observe(&scored[*k], verified(*k), Origin::Miss { best: Some(*k) == best });
            }
            verdict = learner.decide_verified(&scored, &verdicts, budget, VERIFIED_AUDIT_RATE);
            approved = true;
        }
        if let Verdict::Serve { candidate, audit, probability } = verdict {
            let right = stream.same(i, candidates[candidate].0);
            tally.count(right, request * 2 >= rows.len());
            if let Some(propensity) = audit {
                tally.audits += 1;
                for (k, s) in scored.iter().enumerate() {
                    let (label, expected) = if approved {
                        match verifier.reviews(stream, i, candidates[k].0) {
                            Some(same) => (compared(k).reviewed(same), 1.0),
                            None => (compared(k), 0.0),
                        }
                    } else if verifier.price.is_some() || verifier.labels {
                        (verified(k), 1.0)
                    } else {
                        (compared(k), 0.0)
                    };
                    if k == candidate {
                        learner.observe(
                            s,
                            label,
                            Origin::Audit { propensity, probability, approved, verified: expected },
                        );
                    } else if !known[k] {
                        learner.observe(s, label, Origin::Miss { best: false });
                    }
                }
            }
        } else {
            cached[i] = true;
            let labelled =
                verifier.labels && !approved && !scored.is_empty() && explore.f32() < verifier.share;
            if labelled {
                count_call(&mut tally);
            }
            for (k, s) in scored.iter().enumerate().filter(|(k, _)| !known[*k]) {
                let label = if labelled { verified(k) } else { compared(k) };
                learner.observe(s, label, Origin::Miss { best: Some(k) == best });
            }
        }
        if learner.is_due() {
            let fitted = learner.start_fit().run();
            learner.install(fitted);
        }
    }
    if std::env::var("SHOW").is_ok() {
        let (found, truth) =
            (learner.wrong_hits(), tally.wrong as f32 / (tally.correct + tally.wrong) as f32);
        println!("{:?}", learner.verifier());
        println!("reported {:.3} ({:.3} to {:.3}), in truth {truth:.3}", found.rate, found.low, found.high);
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

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
    reuse::particulars,
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
const VERIFIED_AUDIT_RATE: f32 = 0.02;
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

/// One run of the online protocol: it learns from the answers to misses and to audited hits.
struct Run<'a> {
    stream: &'a Stream,
    table: &'a Arc<Table>,
    budget: &'a Budget,
    verifier: Verifier,
    learner: Learner,
    explore: fastrand::Rng,
    cached: Vec<bool>,
    /// What ties the answer of each row to a person or moment.
    particulars: Vec<Vec<String>>,
    tally: Tally,
}

/// A request, its candidates with their similarities, and how the learner scores them.
struct Scene {
    row: usize,
    candidates: Vec<(usize, f32)>,
    scored: Vec<Scored>,
    /// Candidates that the verifier was asked about before the request was answered.
    known: Vec<bool>,
}

fn run(stream: &Stream, rows: &[usize], table: &Arc<Table>, budget: &Budget, seed: u64) -> Tally {
    let mut run = Run {
        stream,
        table,
        budget,
        verifier: Verifier::of_environment(),
        learner: Learner::new(Arc::clone(table), seed),
        explore: fastrand::Rng::with_seed(seed),
        cached: vec![false; stream.len()],
        particulars: stream.texts.iter().map(|text| particulars(text)).collect(),
        tally: Tally { requests: rows.len() as u32, ..Tally::default() },
    };
    for (request, row) in rows.iter().copied().enumerate() {
        run.request(row, request as f32 / rows.len() as f32);
    }
    if std::env::var("SHOW").is_ok() {
        run.show();
    }
    run.tally
}

impl Run<'_> {
    /// Answers one request; `progress` is the share of the stream before it.
    fn request(&mut self, row: usize, progress: f32) {
        let mut scene = self.scene(row);
        let mut verdict = self.learner.decide(&scene.scored, self.budget, AUDIT_RATE, self.verifier.price);
        let mut approved = false;
        if let Verdict::Verify { asked, .. } = &verdict {
            self.tally.count_verification(progress);
            let verdicts = self.ask(&mut scene, asked);
            verdict =
                self.learner.decide_verified(&scene.scored, &verdicts, self.budget, VERIFIED_AUDIT_RATE);
            approved = true;
        }
        if let Verdict::Serve { candidate, audit, probability } = verdict {
            self.tally.count(self.stream.same(row, scene.candidates[candidate].0), progress);
            if let Some(propensity) = audit {
                self.tally.audits += 1;
                self.audit(&scene, candidate, approved, |verified| Origin::Audit {
                    propensity,
                    probability,
                    approved,
                    verified,
                });
            }
        } else {
            self.cached[row] = true;
            self.learn_miss(&scene, approved, progress);
        }
        if self.learner.is_due() {
            let fitted = self.learner.start_fit().run();
            self.learner.install(fitted);
        }
    }

    fn scene(&self, row: usize) -> Scene {
        let (stream, table) = (self.stream, self.table);
        let own = &self.particulars[row];
        let fits = |j: usize| self.cached[j] && self.particulars[j] == *own;
        let nearest = stream.nearest(row, CANDIDATES, fits);
        let candidates: Vec<_> = nearest.into_iter().filter(|n| n.1 >= SIMILARITY_MIN).collect();
        let score = |k: usize| {
            let difference = difference(&stream.texts[row], &stream.texts[candidates[k].0], &table.rarity);
            self.learner.score(&stream.features(row, &candidates, k, table), difference, 0)
        };
        let scored: Vec<Scored> = (0..candidates.len()).map(score).collect();
        let known = vec![false; scored.len()];
        Scene { row, candidates, scored, known }
    }

    fn compared(&self, scene: &Scene, k: usize) -> Label {
        let (j, similarity) = scene.candidates[k];
        Label::compared(self.table.evidence(&self.stream.answer_features(scene.row, j, similarity)))
    }

    fn verified(&self, scene: &Scene, k: usize) -> Label {
        self.compared(scene, k).verified(self.verifier.fits(self.stream, scene.row, scene.candidates[k].0))
    }

    /// Asks the verifier and learns what it says.
    fn ask(&mut self, scene: &mut Scene, asked: &[usize]) -> Vec<(usize, bool)> {
        let best = Scored::best(&scene.scored);
        let fits = |k: usize| self.verifier.fits(self.stream, scene.row, scene.candidates[k].0);
        let verdicts: Vec<_> = asked.iter().map(|k| (*k, fits(*k))).collect();
        for k in asked {
            scene.known[*k] = true;
            let label = self.verified(scene, *k);
            self.learner.observe(&scene.scored[*k], label, Origin::Miss { best: Some(*k) == best });
        }
        verdicts
    }

    /// Learns from the answer to a request that was served from the cache. `origin` gets the chance with which a model
    /// was to judge the hit.
    fn audit(&mut self, scene: &Scene, served: usize, approved: bool, origin: impl Fn(f32) -> Origin) {
        let (row, stream) = (scene.row, self.stream);
        let is_verified = self.verifier.price.is_some() || self.verifier.labels;
        for (k, scored) in scene.scored.iter().enumerate() {
            let review = self.verifier.reviews(stream, row, scene.candidates[k].0).filter(|_| approved);
            let (label, verified) = match review {
                Some(same) => (self.compared(scene, k).reviewed(same), 1.0),
                None if is_verified && !approved => (self.verified(scene, k), 1.0),
                None => (self.compared(scene, k), 0.0),
            };
            if k == served {
                self.learner.observe(scored, label, origin(verified));
            } else if !scene.known[k] {
                self.learner.observe(scored, label, Origin::Miss { best: false });
            }
        }
    }

    /// Learns from the answer of the model.
    fn learn_miss(&mut self, scene: &Scene, was_asked: bool, progress: f32) {
        let best = Scored::best(&scene.scored);
        let is_labelled =
            self.verifier.labels && !was_asked && best.is_some() && self.explore.f32() < self.verifier.share;
        if is_labelled {
            self.tally.count_verification(progress);
        }
        for (k, scored) in scene.scored.iter().enumerate().filter(|(k, _)| !scene.known[*k]) {
            let label = if is_labelled { self.verified(scene, k) } else { self.compared(scene, k) };
            self.learner.observe(scored, label, Origin::Miss { best: Some(k) == best });
        }
    }

    /// Prints the rate of wrong hits that the learner reports, and the true one.
    fn show(&self) {
        let (found, Tally { correct, wrong, .. }) = (self.learner.wrong_hits(), self.tally);
        let truth = wrong as f32 / (correct + wrong) as f32;
        println!("{:?}", self.learner.verifier());
        println!("reported {:.3} ({:.3} to {:.3}), in truth {truth:.3}", found.rate, found.low, found.high);
    }
}

impl Tally {
    fn count(&mut self, right: bool, progress: f32) {
        let late = u32::from(progress >= 0.5);
        if right {
            self.correct += 1;
            self.late_correct += late;
        } else {
            self.wrong += 1;
            self.late_wrong += late;
        }
    }

    fn count_verification(&mut self, progress: f32) {
        self.asked += 1;
        self.asked_last += u32::from(progress >= 0.8);
    }
}

//! Runs labelled streams through the learned decision, offline and fast, with embeddings and answers
//! computed beforehand. For training and tuning; the server does not use it.

use std::{collections::HashMap, error::Error, fs, path::Path, sync::Arc};

use super::{
    answer::Answer,
    features::{self, Neighbourhood},
    learner::{Budget, Label, Learner, Origin, Scored, Verdict},
    table::Table,
    text::Analysis,
};

/// Candidates that are scored and labelled per request.
const CANDIDATES: usize = 4;
/// Least share of the hits that is checked.
const AUDIT_RATE: f32 = 0.02;
/// Entries less similar than this are no candidates.
const SIMILARITY_MIN: f32 = 0.6;

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub requests: u32,
    pub correct: u32,
    pub wrong: u32,
    pub audits: u32,
    /// Of the second half of the stream.
    pub late_correct: u32,
    pub late_wrong: u32,
}

/// Runs the online protocol: learns from the answers of misses and of checked hits.
pub fn run(stream: &Stream, table: &Arc<Table>, budget: &Budget, seed: u64) -> (Tally, Learner) {
    let mut learner = Learner::new(Arc::clone(table), seed);
    let mut kept = vec![false; stream.len()];
    let mut tally = Tally { requests: stream.len() as u32, ..Tally::default() };
    for i in 0..stream.len() {
        let near = stream.near(i, CANDIDATES, |j| kept[j]);
        let near: Vec<_> = near.into_iter().filter(|n| n.1 >= SIMILARITY_MIN).collect();
        let scored: Vec<Scored> =
            (0..near.len()).map(|k| learner.score(&stream.features(i, &near, k, table), 0)).collect();
        let verdict = learner.decide(&scored, budget, AUDIT_RATE);
        let label = |k: usize| Label::compared(stream.answers[i].same(&stream.answers[near[k].0]));
        if let Verdict::Serve { candidate, audit, .. } = verdict {
            let right = stream.same(i, near[candidate].0);
            tally.count(right, i * 2 >= stream.len());
            if let Some(propensity) = audit {
                tally.audits += 1;
                for (k, s) in scored.iter().enumerate() {
                    let origin = if k == candidate {
                        Origin::Audit { propensity }
                    } else {
                        Origin::Miss { best: false }
                    };
                    learner.observe(s, label(k), origin);
                }
            }
        } else {
            kept[i] = true;
            let best = Scored::best(&scored);
            for (k, s) in scored.iter().enumerate() {
                learner.observe(s, label(k), Origin::Miss { best: Some(k) == best });
            }
        }
        if learner.is_due() {
            let fitted = learner.snapshot().fit();
            learner.install(fitted);
        }
    }
    (tally, learner)
}

// === impl Tally ===

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

/// Neighbours per request in the precomputed file.
const NEAR: usize = 64;

/// One labelled stream.
pub struct Stream {
    pub texts: Vec<String>,
    pub analyses: Vec<Analysis>,
    pub answers: Vec<Answer>,
    classes: Vec<u32>,
    near: Vec<i32>,
    similarities: Vec<f32>,
}

// === impl Stream ===

impl Stream {
    /// Reads `name.jsonl` of `eval`, and the neighbours and answers of its rows in `cache`.
    ///
    /// # Errors
    /// Files that are missing or not of the expected form.
    pub fn load(eval: &Path, cache: &Path, name: &str) -> Result<Self, Box<dyn Error>> {
        let (mut texts, mut classes, mut ids) = (Vec::new(), Vec::new(), HashMap::new());
        for line in fs::read_to_string(eval.join(format!("{name}.jsonl")))?.lines() {
            let row: serde_json::Value = serde_json::from_str(line)?;
            texts.push(row["text"].as_str().ok_or("row without text")?.to_owned());
            let class = row["class"].as_str().ok_or("row without class")?.to_owned();
            let next = ids.len() as u32;
            classes.push(*ids.entry(class).or_insert(next));
        }
        let answers = fs::read_to_string(cache.join(format!("{name}.ans.jsonl")))?
            .lines()
            .map(|line| Ok(Answer::of(&serde_json::from_str::<String>(line)?)))
            .collect::<Result<Vec<Answer>, serde_json::Error>>()?;
        let near = numbers(&cache.join(format!("{name}.nn.i32")), i32::from_le_bytes)?;
        let similarities = numbers(&cache.join(format!("{name}.nn.f32")), f32::from_le_bytes)?;
        let analyses = texts.iter().map(|text| Analysis::of(text)).collect();
        Ok(Self { texts, analyses, answers, classes, near, similarities })
    }

    pub fn len(&self) -> usize {
        self.texts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Whether two rows have the same answer, by the ground truth.
    pub fn same(&self, i: usize, j: usize) -> bool {
        self.classes[i] == self.classes[j]
    }

    /// The features of the `k`th of row `i`'s neighbours.
    fn features(&self, i: usize, near: &[(usize, f32)], k: usize, table: &Table) -> features::Features {
        let (j, similarity) = near[k];
        let around = Neighbourhood::of(near, k);
        features::of(&self.analyses[i], &self.analyses[j], similarity, around, &table.rarity)
    }

    /// Up to `k` earlier rows that are `kept`, nearest first, with their similarity.
    pub fn near(&self, i: usize, k: usize, kept: impl Fn(usize) -> bool) -> Vec<(usize, f32)> {
        let range = i * NEAR..(i + 1) * NEAR;
        let pairs = self.near[range.clone()].iter().zip(&self.similarities[range]);
        pairs
            .filter(|(j, _)| **j >= 0 && kept(**j as usize))
            .map(|(j, s)| (*j as usize, *s))
            .take(k)
            .collect()
    }
}

// === impl Neighbourhood ===

impl Neighbourhood {
    /// Around the `k`th of `near`.
    pub fn of<T>(near: &[(T, f32)], k: usize) -> Self {
        let others = near.iter().enumerate().filter(|(i, _)| *i != k).map(|(_, n)| n.1);
        let mean = near.iter().map(|n| n.1).sum::<f32>() / near.len().max(1) as f32;
        Self { best_other: others.fold(0.0, f32::max), mean }
    }
}

fn numbers<T>(path: &Path, from: impl Fn([u8; 4]) -> T) -> Result<Vec<T>, Box<dyn Error>> {
    let bytes = fs::read(path)?;
    Ok(bytes.chunks_exact(4).map(|c| from([c[0], c[1], c[2], c[3]])).collect())
}

//! A labelled stream, with the neighbours and answers that `prepare.py` computed.

#![allow(dead_code, reason = "`train` and `simulate` each use a part")]

use std::{collections::HashMap, error::Error, fs, path::Path};

use promptkeep_decide::{
    answer::Answer,
    features::{self, Neighbourhood},
    table::Table,
    text::Analysis,
};

/// Number of neighbours of each request in the file of `prepare.py`.
const NEIGHBOURS: usize = 64;

/// One labelled stream.
pub struct Stream {
    pub texts: Vec<String>,
    pub analyses: Vec<Analysis>,
    pub answers: Vec<Answer>,
    classes: Vec<u32>,
    neighbours: Vec<i32>,
    similarities: Vec<f32>,
}

impl Stream {
    /// Reads `name.jsonl` of `eval`, and the neighbours and answers of its rows in `cache`.
    ///
    /// # Errors
    /// A file is missing or malformed.
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
        let neighbours = numbers(&cache.join(format!("{name}.nn.i32")), i32::from_le_bytes)?;
        let similarities = numbers(&cache.join(format!("{name}.nn.f32")), f32::from_le_bytes)?;
        let analyses = texts.iter().map(|text| Analysis::of(text)).collect();
        Ok(Self { texts, analyses, answers, classes, neighbours, similarities })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether two rows have the same answer, by the ground truth.
    pub fn same(&self, i: usize, j: usize) -> bool {
        self.classes[i] == self.classes[j]
    }

    /// Returns the features of row `i` and its candidate `k`.
    pub fn features(
        &self,
        i: usize,
        candidates: &[(usize, f32)],
        k: usize,
        table: &Table,
    ) -> features::Features {
        let (j, similarity) = candidates[k];
        let around = Neighbourhood::of(candidates, k);
        features::of(&self.analyses[i], &self.analyses[j], similarity, around, &table.rarity)
    }

    /// Returns up to `k` earlier rows for which `filter` holds, most similar first, with their similarities.
    pub fn nearest(&self, i: usize, k: usize, filter: impl Fn(usize) -> bool) -> Vec<(usize, f32)> {
        let range = i * NEIGHBOURS..(i + 1) * NEIGHBOURS;
        let pairs = self.neighbours[range.clone()].iter().zip(&self.similarities[range]);
        pairs
            .filter(|(j, _)| **j >= 0 && filter(**j as usize))
            .map(|(j, s)| (*j as usize, *s))
            .take(k)
            .collect()
    }
}

/// Reads a file of numbers of four bytes each.
fn numbers<T>(path: &Path, from: impl Fn([u8; 4]) -> T) -> Result<Vec<T>, Box<dyn Error>> {
    let bytes = fs::read(path)?;
    Ok(bytes.chunks_exact(4).map(|c| from([c[0], c[1], c[2], c[3]])).collect())
}

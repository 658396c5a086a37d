//! A labelled stream with the embeddings of its prompts and answers, the nearest earlier rows of each row, and its
//! answers prepared for comparison. What takes long to compute is kept in files.

use std::{
    collections::HashMap,
    error::Error,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use promptkeep_core::prompt::prefix;
use promptkeep_decide::{
    answer::{self, Answer, Prompts, Similarity},
    features::{self, Neighbourhood},
    table::Table,
    text::Analysis,
};
use promptkeep_embed::{
    Embedded, Precision,
    minilm::{MiniLm, Session},
    model_files,
};
use serde_json::Value;

pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Number of neighbours kept of each row.
const NEIGHBOURS: usize = 64;
/// Components of a vector.
const DIMENSIONS: usize = 384;
const THREADS: usize = 2;

/// Indices and cosines of the nearest rows.
type Nearest = Vec<(i32, f32)>;

/// Where the labelled traffic is, where intermediate files go, and the encoder.
pub struct Source {
    pub eval: PathBuf,
    pub work: PathBuf,
    model: Arc<MiniLm>,
}

/// One labelled stream.
pub struct Stream {
    pub texts: Vec<String>,
    pub analyses: Vec<Analysis>,
    pub answers: Vec<Answer>,
    /// What each row was collected from.
    pub sources: Vec<String>,
    classes: Vec<u32>,
    neighbours: Vec<i32>,
    similarities: Vec<f32>,
    beginnings: Vec<f32>,
    openings: Vec<f32>,
}

impl Source {
    /// # Errors
    /// The encoder's files are missing or malformed.
    pub fn new(eval: &Path, work: &Path) -> Result<Self> {
        let files = model_files::read(&model_files::folder(None)?)?;
        let model = MiniLm::new(&files.weights, &files.vocabulary, Precision::Int8)?;
        fs::create_dir_all(work)?;
        Ok(Self { eval: eval.to_owned(), work: work.to_owned(), model: Arc::new(model) })
    }

    /// Returns the vectors of `texts`, one after the other; kept in the file `name`. A text without a vector has zeros.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn vectors(&self, name: &str, texts: &[&str]) -> Result<Vec<f32>> {
        let path = self.work.join(name);
        if path.exists() {
            let known = numbers(&path, f32::from_le_bytes)?;
            if known.len() == texts.len() * DIMENSIONS {
                return Ok(known);
            }
        }
        let size = texts.len().div_ceil(THREADS).max(1);
        let parts: Vec<Vec<f32>> = thread::scope(|scope| {
            let embed = |texts| scope.spawn(move || embed_all(&self.model, texts));
            let running: Vec<_> = texts.chunks(size).map(embed).collect();
            running.into_iter().map(|part| part.join().unwrap_or_default()).collect()
        });
        let vectors = parts.concat();
        fs::write(&path, vectors.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())?;
        Ok(vectors)
    }

    /// Reads the stream `name`. Rows without an answer have the made-up one of `name.ans.jsonl` in the working folder.
    ///
    /// # Errors
    /// A file is missing or malformed.
    pub fn stream(&self, name: &str) -> Result<Stream> {
        let rows: Vec<Value> = lines(&self.eval.join(format!("{name}.jsonl")))?;
        let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let texts: Vec<String> = rows.iter().map(|row| text(row, "text")).collect();
        let answers: Vec<String> = if rows.iter().all(|row| row["answer"].is_string()) {
            rows.iter().map(|row| text(row, "answer")).collect()
        } else {
            lines(&self.work.join(format!("{name}.ans.jsonl")))?
        };
        let vectors = self.vectors(&format!("{name}.texts"), &strs(&texts, |text| text))?;
        let scopes: Vec<u32> = ids(rows.iter().map(|row| format!("{}{}", row["system"], row["turns"])));
        let (neighbours, similarities) = self.neighbours(name, &vectors, &scopes)?;
        Ok(Stream {
            analyses: texts.iter().map(|text| Analysis::of(text)).collect(),
            beginnings: self.vectors(&format!("{name}.beginnings"), &strs(&answers, answer::beginning))?,
            openings: self.vectors(&format!("{name}.openings"), &strs(&answers, answer::opening))?,
            answers: answers.iter().map(|answer| Answer::of(answer)).collect(),
            sources: rows.iter().map(|row| text(row, "source")).collect(),
            classes: ids(rows.iter().map(|row| text(row, "class"))),
            texts,
            neighbours,
            similarities,
        })
    }

    /// The nearest earlier rows of each row in its scope; kept in files. Missing ones are -1.
    fn neighbours(&self, name: &str, vectors: &[f32], scopes: &[u32]) -> Result<(Vec<i32>, Vec<f32>)> {
        let (rows, cosines) =
            (self.work.join(format!("{name}.nn.i32")), self.work.join(format!("{name}.nn.f32")));
        if rows.exists() && cosines.exists() {
            let known = numbers(&rows, i32::from_le_bytes)?;
            if known.len() == scopes.len() * NEIGHBOURS {
                return Ok((known, numbers(&cosines, f32::from_le_bytes)?));
            }
        }
        let all: Vec<usize> = (0..scopes.len()).collect();
        // Later rows have more to compare with, so rows are dealt out in turn.
        let parts: Vec<Vec<(usize, Nearest)>> = thread::scope(|scope| {
            let running: Vec<_> = (0..THREADS)
                .map(|t| {
                    let mine = all.iter().skip(t).step_by(THREADS);
                    scope.spawn(move || mine.map(|i| (*i, nearest(*i, vectors, scopes))).collect())
                })
                .collect();
            running.into_iter().map(|part| part.join().unwrap_or_default()).collect()
        });
        let mut found = parts.concat();
        found.sort_by_key(|row| row.0);
        let flat: Vec<(i32, f32)> = found.into_iter().flat_map(|row| row.1).collect();
        let (neighbours, similarities): (Vec<i32>, Vec<f32>) = flat.into_iter().unzip();
        fs::write(rows, neighbours.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())?;
        fs::write(cosines, similarities.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())?;
        Ok((neighbours, similarities))
    }
}

impl Stream {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Whether two rows have the same answer, by the ground truth.
    pub fn same(&self, i: usize, j: usize) -> bool {
        self.classes[i] == self.classes[j]
    }

    /// Features of row `i` and its candidate `k`.
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

    /// Features of the answers of row `i` and an earlier row `j`, whose prompts have this similarity.
    pub fn answer_features(&self, i: usize, j: usize, similarity: f32) -> answer::Features {
        let prompts = Prompts { new: &self.analyses[i], entry: &self.analyses[j], similarity };
        let cosines = Similarity {
            beginning: dot(row(&self.beginnings, i), row(&self.beginnings, j)),
            opening: dot(row(&self.openings, i), row(&self.openings, j)),
        };
        answer::features(&self.answers[i], &self.answers[j], Some(cosines), prompts)
    }

    /// Up to `k` earlier rows for which `filter` holds, most similar first, with their similarities.
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

fn embed_all(model: &Arc<MiniLm>, texts: &[&str]) -> Vec<f32> {
    let mut session = Session::new(Arc::clone(model));
    texts.iter().flat_map(|text| embed(&mut session, text)).collect()
}

/// Vector of the text, or of its first half if it is too long.
fn embed(session: &mut Session, text: &str) -> Vec<f32> {
    match session.embed(text) {
        Ok(Embedded::Vector { embedding, .. }) => embedding.as_slice().to_vec(),
        Ok(Embedded::OverWindow { .. }) => embed(session, prefix(text, text.len() / 2)),
        Err(_) => vec![0.0; DIMENSIONS],
    }
}

fn nearest(i: usize, vectors: &[f32], scopes: &[u32]) -> Nearest {
    let own = row(vectors, i);
    let earlier = (0..i).filter(|j| scopes[*j] == scopes[i]);
    let mut found: Vec<(i32, f32)> = earlier.map(|j| (j as i32, dot(own, row(vectors, j)))).collect();
    let order = |a: &(i32, f32), b: &(i32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if found.len() > NEIGHBOURS {
        found.select_nth_unstable_by(NEIGHBOURS, order);
        found.truncate(NEIGHBOURS);
    }
    found.sort_by(order);
    found.resize(NEIGHBOURS, (-1, 0.0));
    found
}

fn row(vectors: &[f32], i: usize) -> &[f32] {
    &vectors[i * DIMENSIONS..(i + 1) * DIMENSIONS]
}

/// Dot product, in sixteen sums so that the compiler can use vector instructions.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; 16];
    for (x, y) in a.chunks_exact(16).zip(b.chunks_exact(16)) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum += x * y;
        }
    }
    sums.iter().sum()
}

fn strs<'t>(texts: &'t [String], part: impl Fn(&'t str) -> &'t str) -> Vec<&'t str> {
    texts.iter().map(|text| part(text)).collect()
}

/// Numbers equal names from 0.
fn ids(names: impl Iterator<Item = String>) -> Vec<u32> {
    let mut known = HashMap::new();
    names
        .map(|name| {
            let next = known.len() as u32;
            *known.entry(name).or_insert(next)
        })
        .collect()
}

/// Reads a file of JSON lines.
///
/// # Errors
/// The file is missing or a line is malformed.
pub fn lines<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// Reads a file of numbers of four bytes each.
fn numbers<T>(path: &Path, from: impl Fn([u8; 4]) -> T) -> Result<Vec<T>> {
    let bytes = fs::read(path)?;
    Ok(bytes.chunks_exact(4).map(|c| from([c[0], c[1], c[2], c[3]])).collect())
}

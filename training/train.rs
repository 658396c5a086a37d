//! Trains the decision table from labelled streams. Deterministic: equal inputs give equal bytes.
//!
//! `cargo run --release --example train -- EVAL_DIR EMBEDDINGS_DIR OUT_DIR`; see README.md beside this file.

mod stream;

use std::{
    collections::HashMap,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use promptkeep_decide::{
    boost::{self, Forest, Growth, Rows, Target},
    features::{self, Features, Neighbourhood},
    logistic::{Labelled, Noise, Prior, Weights, sigmoid},
    rarity::{DIMENSIONS, Rarity, Vector},
    table::{self, INPUTS, Table},
    text::Analysis,
};

use stream::Stream;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Streams, each with the total weight of its pairs. Intents count little, because prompts of different
/// meaning share an answer there.
const SOURCES: [(&str, f32); 5] = [("qqp", 1.0), ("sql", 1.0), ("syn", 1.0), ("doc", 0.3), ("intent", 0.05)];
/// The first `VALIDATED` sources are also left out, one at a time, to measure the table on kinds of traffic
/// that it has not seen.
const VALIDATED: usize = 3;
/// Maximum number of candidates of a request that become examples.
const CANDIDATES: usize = 4;
/// Similarity below which a pair is never served, and therefore not an example.
const SIMILARITY_MIN: f32 = 0.6;
/// Total weight of the examples in the linear fit. It is less than their number, because pairs of one
/// template are not independent.
const LINEAR_WEIGHT: f32 = 6000.0;
/// Standard deviation of the prior of the pooled weights.
const LINEAR_SPREAD: f32 = 0.5;
const GROWTH: Growth =
    Growth { trees: 150, leaves: 24, rate: 0.08, hessian_min: 2.0, ridge: 4.0, features: 0.6, seed: 1 };

/// A labelled pair.
struct Example {
    source: usize,
    features: Features,
    same: bool,
    weight: f32,
}

fn main() -> Result<()> {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [eval, embeddings, out] = args.as_slice() else {
        return Err("usage: train EVAL_DIR EMBEDDINGS_DIR OUT_DIR".into());
    };
    let rarity = rarity(&eval.join("qqp_train_pairs.jsonl"), vectors(embeddings)?)?;
    let examples = examples(eval, embeddings, &rarity)?;
    println!("{} pairs", examples.len());
    fs::create_dir_all(out)?;
    let all = fit(&examples, &rarity, None);
    let bytes = all.encode();
    println!("all: {} bytes", bytes.len());
    fs::write(out.join("table.bin"), bytes)?;
    for (source, (name, _)) in SOURCES.iter().enumerate().take(VALIDATED) {
        let without = fit(&examples, &rarity, Some(source));
        report(name, source, &examples, &without);
        fs::write(out.join(format!("without_{name}.bin")), without.encode())?;
    }
    Ok(())
}

/// Prints how well `table` ranks and calibrates the pairs of the source that it was trained without.
fn report(name: &str, source: usize, examples: &[Example], table: &Table) {
    let mut rows = Vec::new();
    let (mut expected, mut observed, mut loss) = (0.0, 0.0, 0.0);
    for e in examples.iter().filter(|e| e.source == source) {
        let inputs = table.inputs(&table.bin(&e.features));
        let linear: f64 = inputs.iter().zip(&table.weights).map(|(x, w)| f64::from(x * w)).sum();
        let p = sigmoid(linear);
        loss -= if e.same { p.max(1e-6).ln() } else { (1.0 - p).max(1e-6).ln() };
        if p > 0.9 {
            expected += 1.0 - p;
            observed += f64::from(u8::from(!e.same));
        }
        rows.push((linear as f32, inputs[INPUTS - 1], e.features[0], e.same));
    }
    let n = rows.len() as f64;
    println!(
        "{name:7} {:6} pairs, {:4.1} % same; AUC linear {:.4}, forest {:.4}, similarity {:.4}; loss {:.4}; above 0.9 expected wrong {expected:.0}, observed {observed:.0}",
        rows.len(),
        100.0 * rows.iter().filter(|r| r.3).count() as f64 / n,
        auc(rows.iter().map(|r| (r.0, r.3)).collect()),
        auc(rows.iter().map(|r| (r.1, r.3)).collect()),
        auc(rows.iter().map(|r| (r.2, r.3)).collect()),
        loss / n,
    );
}

/// Returns the area under the ROC curve of scores with their labels.
fn auc(mut rows: Vec<(f32, bool)>) -> f64 {
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut ranks, mut positives) = (0.0, 0.0);
    for (rank, row) in rows.iter().enumerate() {
        if row.1 {
            ranks += rank as f64 + 1.0;
            positives += 1.0;
        }
    }
    (ranks - positives * (positives + 1.0) / 2.0) / (positives * (rows.len() as f64 - positives))
}

/// Estimates from labelled pairs, which are used for nothing else, how common each word is and how often a
/// word that is in only one of two texts changes the answer.
fn rarity(path: &Path, vectors: HashMap<u32, Vector>) -> Result<Rarity> {
    let mut counts: HashMap<u32, f32> = HashMap::new();
    let mut differing: HashMap<u32, (f32, f32)> = HashMap::new();
    let (mut same_total, mut other_total) = (0.0_f32, 0.0_f32);
    for line in fs::read_to_string(path)?.lines() {
        let row: serde_json::Value = serde_json::from_str(line)?;
        let text = |key: &str| Analysis::of(row[key].as_str().unwrap_or_default());
        let (a, b) = (text("a"), text("b"));
        let same = row["same"].as_bool().unwrap_or_else(|| row["same"].as_i64() == Some(1));
        for (x, y) in [(&a, &b), (&b, &a)] {
            for word in &x.words {
                *counts.entry(word.stem as u32).or_default() += 1.0;
                if word.is_content() && y.stems.binary_search(&word.stem).is_err() {
                    let (s, o) = differing.entry(word.stem as u32).or_default();
                    *if same { s } else { o } += 1.0;
                    *if same { &mut same_total } else { &mut other_total } += 1.0;
                }
            }
        }
    }
    let most = counts.values().fold(0.0_f32, |a, b| a.max(*b)).ln();
    let base = other_total / (same_total + other_total);
    let words = counts.into_iter().filter(|(_, n)| *n >= 4.0).map(|(stem, n)| {
        let (same, other) = differing.get(&stem).copied().unwrap_or_default();
        let shrink = 10.0;
        let evidence =
            ((other + shrink * base) / (same + shrink * (1.0 - base))).ln() - (base / (1.0 - base)).ln();
        let rareness = (255.0 * (1.0 - n.ln() / most)).clamp(0.0, 255.0) as u8;
        (stem, (rareness, (16.0 * evidence).clamp(-127.0, 127.0) as i8))
    });
    Ok(Rarity::new(words, vectors))
}

/// Reads the directions of common words that prepare.py computed. The most common form of a stem counts.
fn vectors(embeddings: &Path) -> Result<HashMap<u32, Vector>> {
    let words = fs::read_to_string(embeddings.join("words.txt"))?;
    let numbers = fs::read(embeddings.join("words.f32"))?;
    let mut vectors = HashMap::new();
    for (word, bytes) in words.lines().zip(numbers.chunks_exact(4 * DIMENSIONS)) {
        let mut vector = [0; DIMENSIONS];
        for (x, b) in vector.iter_mut().zip(bytes.chunks_exact(4)) {
            *x = (127.0 * f32::from_le_bytes([b[0], b[1], b[2], b[3]])) as i8;
        }
        let stem = Analysis::of(word).words.first().map_or(0, |w| w.stem);
        vectors.entry(stem as u32).or_insert(vector);
    }
    Ok(vectors)
}

/// Returns the labelled pairs of all sources.
fn examples(eval: &Path, embeddings: &Path, rarity: &Rarity) -> Result<Vec<Example>> {
    let mut examples = Vec::new();
    for (source, (name, share)) in SOURCES.iter().enumerate() {
        let stream = Stream::load(eval, embeddings, &format!("{name}_dev"))?;
        let first = examples.len();
        for i in 0..stream.len() {
            let candidates = stream.nearest(i, CANDIDATES, |_| true);
            for (k, (j, similarity)) in candidates.iter().enumerate() {
                if *similarity < SIMILARITY_MIN {
                    break;
                }
                let around = Neighbourhood::of(&candidates, k);
                let features =
                    features::of(&stream.analyses[i], &stream.analyses[*j], *similarity, around, rarity);
                examples.push(Example { source, features, same: stream.same(i, *j), weight: 1.0 });
            }
        }
        let count = (examples.len() - first) as f32;
        examples[first..].iter_mut().for_each(|e| e.weight = share * 10_000.0 / count);
    }
    Ok(examples)
}

/// Trains a table on all sources, or on all except `without`.
fn fit(examples: &[Example], rarity: &Rarity, without: Option<usize>) -> Table {
    let used: Vec<&Example> = examples.iter().filter(|e| Some(e.source) != without).collect();
    let (mut edges, mut means) = (Vec::new(), Vec::new());
    for f in 0..features::COUNT {
        let values: Vec<(f32, f32)> = used.iter().map(|e| (e.features[f], e.weight)).collect();
        let (e, m) = table::bins_of(&values);
        edges.push(e);
        means.push(m);
    }
    let mut table = Table {
        edges,
        means,
        forest: Forest::default(),
        forest_scale: 1.0,
        weights: vec![0.0; INPUTS],
        rarity: rarity.clone(),
        fingerprint: 0,
    };
    let bins: Vec<u8> = used.iter().flat_map(|e| table.bin(&e.features)).collect();
    let rows = Rows { bins: &bins, width: features::COUNT };
    let targets: Vec<Target> = used
        .iter()
        .map(|e| Target { label: f32::from(u8::from(e.same)), weight: e.weight, logit: 0.0 })
        .collect();
    let unseen = logits_of_unseen_sources(&used, rows, &targets);
    let total: f32 = used.iter().map(|e| e.weight).sum();
    let square: f32 = used.iter().zip(&unseen).map(|(e, z)| e.weight * z * z).sum();
    table.forest_scale = (square / total).sqrt();
    let inputs: Vec<table::Inputs> = (0..used.len())
        .map(|i| {
            let mut inputs = table.inputs(&table.bin(&used[i].features));
            inputs[INPUTS - 1] = unseen[i] / table.forest_scale;
            inputs
        })
        .collect();
    table.forest = boost::fit(rows, &targets, &GROWTH);
    table.weights = linear(&used, &inputs, LINEAR_WEIGHT / total);
    table
}

/// Returns for each example the logit of a forest trained on the other sources. From these the linear weights learn
/// how far to trust the forest on sources that it has not seen.
fn logits_of_unseen_sources(used: &[&Example], rows: Rows<'_>, targets: &[Target]) -> Vec<f32> {
    let growth = Growth { trees: GROWTH.trees / 2, ..GROWTH };
    let mut logits = vec![0.0_f32; used.len()];
    for source in (0..SOURCES.len()).filter(|source| used.iter().any(|e| e.source == *source)) {
        let others: Vec<usize> = (0..used.len()).filter(|i| used[*i].source != source).collect();
        let bins: Vec<u8> = others.iter().flat_map(|i| rows.row(*i).to_vec()).collect();
        let targets: Vec<Target> = others.iter().map(|i| targets[*i]).collect();
        let forest = boost::fit(Rows { bins: &bins, width: features::COUNT }, &targets, &growth);
        for i in (0..used.len()).filter(|i| used[*i].source == source) {
            logits[i] = forest.logit(rows.row(i));
        }
    }
    logits
}

/// Fits the pooled weights. `scale` turns the weights of the examples into those of labels.
fn linear(used: &[&Example], inputs: &[table::Inputs], scale: f32) -> Vec<f32> {
    let labels: Vec<Labelled<'_>> = used
        .iter()
        .zip(inputs)
        .map(|(e, inputs)| Labelled {
            inputs,
            offset: 0.0,
            same: f32::from(u8::from(e.same)),
            weight: e.weight * scale,
        })
        .collect();
    let prior = Prior { mean: &[0.0; INPUTS], precision: &[1.0 / (LINEAR_SPREAD * LINEAR_SPREAD); INPUTS] };
    let none = Noise { missed: 0.0, invented: 0.0 };
    let fitted = Weights::of_prior(&prior).fit(&labels, &prior, &none);
    fitted.mean.iter().map(|m| *m as f32).collect()
}

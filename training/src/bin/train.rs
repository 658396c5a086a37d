//! Trains the decision table from labelled streams. Deterministic: equal inputs give equal bytes.
//!
//! `cargo run --release -p promptkeep-training --bin train -- EVAL_DIR WORK_DIR`; see README.md.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use promptkeep_decide::{
    answer,
    boost::{self, Forest, Growth, Rows, Target},
    features::{self, Features},
    logistic::{Labelled, Prior, Weights, sigmoid},
    rarity::{DIMENSIONS, Rarity, Vector},
    table::{self, INPUTS, Table},
    text::Analysis,
};
use promptkeep_training::{
    measure::{auc, calibration_error, found_at},
    stream::{Result, Source},
};

/// Streams with made-up answers, each with the total weight of its pairs. Intents count little, because prompts of
/// different meaning share an answer there.
const MADE_UP: [(&str, f32); 5] = [("qqp", 1.0), ("sql", 1.0), ("syn", 1.0), ("doc", 0.3), ("intent", 0.05)];
/// Weight of each source of real answers, and those whose licence does not allow to train on them.
const REAL_WEIGHT: f32 = 0.5;
const NOT_LICENSED: [&str; 2] = ["mathcheck", "alpaca_eval"];
/// Sources that are left out together, to measure the table on kinds of traffic that it has not seen.
const LEFT_OUT: [(&str, &[&str]); 6] = [
    ("qqp", &["qqp"]),
    ("sql", &["sql", "spider"]),
    ("syn", &["syn"]),
    ("real1", &["bitext", "evouna_nq", "mathcheck", "xstest"]),
    ("real2", &["sac3_nq", "spider", "alpaca_eval", "sql"]),
    ("real3", &["sac3_prime", "pct", "copilot"]),
];
/// Maximum number of candidates of a request that become examples.
const CANDIDATES: usize = 4;
/// Similarity below which a pair is never served, and therefore not an example.
const SIMILARITY_MIN: f32 = 0.6;
/// Total weight of the examples in the linear fit. It is less than their number, because pairs of one
/// template are not independent.
const LINEAR_WEIGHT: f32 = 6000.0;
/// Standard deviation of the prior of the pooled weights.
const LINEAR_SPREAD: f32 = 0.5;
/// Logit from which the prompts call a pair probable.
const PROBABLE_LOGIT: f64 = 1.5;
/// Evidence of the ground truth, which is right in all but a few of a hundred pairs.
const CERTAIN: f32 = 4.0;
const GROWTH: Growth =
    Growth { trees: 150, leaves: 24, rate: 0.08, hessian_min: 2.0, ridge: 4.0, features: 0.6, seed: 1 };
const EVIDENCE_GROWTH: Growth =
    Growth { trees: 80, leaves: 12, rate: 0.08, hessian_min: 4.0, ridge: 4.0, features: 0.5, seed: 2 };

/// A labelled pair.
struct Example {
    source: String,
    features: Features,
    answers: answer::Features,
    same: bool,
    weight: f32,
    /// The answers are those of a language model.
    real: bool,
}

fn main() -> Result<()> {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [eval, work] = args.as_slice() else {
        return Err("usage: train EVAL_DIR WORK_DIR".into());
    };
    let source = Source::new(eval, work)?;
    let rarity = rarity(&eval.join("qqp_train_pairs.jsonl"), vectors(work)?)?;
    let examples = examples(&source, &rarity)?;
    println!("{} pairs", examples.len());
    let licensed = |e: &&Example| !NOT_LICENSED.contains(&e.source.as_str());
    let all = fit(&examples.iter().filter(licensed).collect::<Vec<_>>(), &rarity);
    let bytes = all.encode();
    println!("all: {} bytes", bytes.len());
    fs::write(work.join("table.bin"), bytes)?;
    let only = std::env::var("ONLY").unwrap_or_default();
    for (name, sources) in LEFT_OUT.iter().filter(|(name, _)| name.contains(&only)) {
        let without = examples
            .iter()
            .filter(licensed)
            .filter(|e| !sources.contains(&e.source.as_str()))
            .collect::<Vec<_>>();
        let table = fit(&without, &rarity);
        for source in *sources {
            report(source, &examples, &table);
        }
        fs::write(work.join(format!("without_{name}.bin")), table.encode())?;
    }
    Ok(())
}

/// Prints how well `table` ranks and calibrates the pairs of a source that it was trained without: by the prompts, and
/// with the answers too.
fn report(name: &str, examples: &[Example], table: &Table) {
    let (mut prompts, mut both, mut answers, mut pairs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut above: [(f64, f64); 2] = Default::default();
    for e in examples.iter().filter(|e| e.source == name) {
        let inputs = table.inputs(&table.bin(&e.features));
        let linear: f64 = inputs.iter().zip(&table.weights).map(|(x, w)| f64::from(x * w)).sum();
        let evidence = table.evidence(&e.answers);
        let logits = [linear, linear + f64::from(evidence)];
        for (logit, (expected, observed)) in logits.iter().zip(&mut above) {
            if sigmoid(*logit) > 0.9 {
                *expected += 1.0 - sigmoid(*logit);
                *observed += f64::from(u8::from(!e.same));
            }
        }
        prompts.push((sigmoid(linear) as f32, e.same));
        both.push((sigmoid(logits[1]) as f32, e.same));
        answers.push((evidence, e.same));
        pairs.push((linear, f64::from(evidence), e.same));
    }
    if prompts.is_empty() {
        return;
    }
    let [(expected, observed), (expected_both, observed_both)] = above;
    println!(
        "{name:11} {:6} pairs, {:4.1} % same; prompts: AUC {:.4}, above .9 expected wrong {expected:.0}, observed \
         {observed:.0}; with answers: AUC {:.4}, found {:.3}, calibration {:.3}, {expected_both:.0} {observed_both:.0}; \
         evidence AUC {:.4}; losses {}",
        prompts.len(),
        100.0 * prompts.iter().filter(|r| r.1).count() as f64 / prompts.len() as f64,
        auc(prompts),
        auc(both.clone()),
        found_at(both.clone(), 0.05),
        calibration_error(both),
        auc(answers),
        losses(&pairs),
    );
    let (false_different, false_same) = label_errors(&pairs);
    println!("{name:11} of probable pairs: false different {false_different}, false same {false_same}");
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
fn examples(source: &Source, rarity: &Rarity) -> Result<Vec<Example>> {
    let mut examples = Vec::new();
    let names = MADE_UP.iter().map(|(name, _)| *name).chain(["real"]);
    let table = Table { rarity: rarity.clone(), ..Table::default() };
    for name in names {
        let stream = source.stream(&format!("{name}_dev"))?;
        for i in 0..stream.len() {
            let candidates = stream.nearest(i, CANDIDATES, |_| true);
            for (k, (j, similarity)) in candidates.iter().enumerate() {
                if *similarity < SIMILARITY_MIN {
                    break;
                }
                let source = if name == "real" { stream.sources[i].clone() } else { name.to_owned() };
                let features = stream.features(i, &candidates, k, &table);
                let answers = stream.answer_features(i, *j, *similarity);
                let (same, real) = (stream.same(i, *j), name == "real");
                examples.push(Example { source, features, answers, same, weight: 1.0, real });
            }
        }
    }
    let mut counts: HashMap<String, f32> = HashMap::new();
    examples.iter().for_each(|e| *counts.entry(e.source.clone()).or_default() += 1.0);
    for e in &mut examples {
        let share = MADE_UP.iter().find(|(name, _)| *name == e.source).map_or(REAL_WEIGHT, |source| source.1);
        e.weight = share * 10_000.0 / counts[&e.source];
        // Few pairs say little about their kind.
        e.weight = e.weight.min(4.0);
    }
    Ok(examples)
}

/// Trains a table.
fn fit(used: &[&Example], rarity: &Rarity) -> Table {
    let mut table = Table { rarity: rarity.clone(), ..Table::default() };
    (table.edges, table.means) = bins(used, features::COUNT, |e, f| e.features[f]);
    (table.answer_edges, _) = bins(used, answer::COUNT, |e, f| e.answers[f]);
    let bins: Vec<u8> = used.iter().flat_map(|e| table.bin(&e.features)).collect();
    let rows = Rows { bins: &bins, width: features::COUNT };
    let targets: Vec<Target> = used
        .iter()
        .map(|e| Target { label: f32::from(u8::from(e.same)), weight: e.weight, logit: 0.0 })
        .collect();
    let unseen = logits_of_unseen_sources(used, rows, &targets);
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
    table.weights = linear(used, &inputs, LINEAR_WEIGHT / total);
    table.answer_forest = evidence(used, &inputs, &table);
    table
}

fn bins(
    used: &[&Example],
    count: usize,
    value: impl Fn(&Example, usize) -> f32,
) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let of = |f| table::bins_of(&used.iter().map(|e| (value(e, f), e.weight)).collect::<Vec<_>>());
    (0..count).map(of).unzip()
}

/// Fits what the answers add to the logit that the prompts give, so that both can be added. That logit is first
/// calibrated for each source: otherwise the answers would be used to tell the sources apart, whose shares of equal
/// pairs differ.
fn evidence(used: &[&Example], inputs: &[table::Inputs], table: &Table) -> Forest {
    let logits: Vec<f32> =
        inputs.iter().map(|inputs| inputs.iter().zip(&table.weights).map(|(x, w)| x * w).sum()).collect();
    let logits = calibrated_by_source(used, &logits);
    let (mut bins, mut targets) = (Vec::new(), Vec::new());
    for (e, logit) in used.iter().zip(logits) {
        let weight = if e.real { e.weight } else { 0.3 * e.weight };
        bins.extend(table.bin_answers(&e.answers));
        targets.push(Target { label: f32::from(u8::from(e.same)), weight, logit });
    }
    boost::fit(Rows { bins: &bins, width: answer::COUNT }, &targets, &EVIDENCE_GROWTH)
}

/// Shifts and scales the logits of each source so that they come true on it.
fn calibrated_by_source(used: &[&Example], logits: &[f32]) -> Vec<f32> {
    let mut rows: HashMap<&str, Vec<usize>> = HashMap::new();
    used.iter().enumerate().for_each(|(i, e)| rows.entry(e.source.as_str()).or_default().push(i));
    let mut calibrated = logits.to_vec();
    for rows in rows.values() {
        let pairs: Vec<(f64, bool)> = rows.iter().map(|i| (f64::from(logits[*i]), used[*i].same)).collect();
        let (shift, scale) = calibration(&pairs);
        rows.iter().for_each(|i| calibrated[*i] = (shift + scale * f64::from(logits[*i])) as f32);
    }
    calibrated
}

/// Shift and scale of logits, by Newton's method under a weak prior that neither is needed.
fn calibration(pairs: &[(f64, bool)]) -> (f64, f64) {
    let (mut shift, mut scale) = (0.0_f64, 1.0_f64);
    for _ in 0..20 {
        let (mut g0, mut g1, mut h00, mut h01, mut h11) = (-0.1 * shift, -(scale - 1.0), 0.1, 0.0, 1.0);
        for (logit, same) in pairs {
            let p = sigmoid(shift + scale * logit);
            let (slope, curve) = (f64::from(u8::from(*same)) - p, (p * (1.0 - p)).max(1e-4));
            g0 += slope;
            g1 += slope * logit;
            h00 += curve;
            h01 += curve * logit;
            h11 += curve * logit * logit;
        }
        let det = h00 * h11 - h01 * h01;
        shift += ((h11 * g0 - h01 * g1) / det).clamp(-1.0, 1.0);
        scale += ((h00 * g1 - h01 * g0) / det).clamp(-0.3, 0.3);
    }
    (shift, scale)
}

/// How often the sign of the evidence is wrong on pairs that the prompts call probable, as hits are: on equal pairs, and
/// on others.
fn label_errors(pairs: &[(f64, f64, bool)]) -> (String, String) {
    let probable = || pairs.iter().filter(|(logit, ..)| *logit > PROBABLE_LOGIT);
    let share = |same: bool| {
        let all = probable().filter(|pair| pair.2 == same).count();
        let wrong = probable().filter(|pair| pair.2 == same && (pair.1 > 0.0) != same).count();
        format!("{:.1} % of {all}", 100.0 * wrong as f64 / all.max(1) as f64)
    };
    (share(true), share(false))
}

/// Mean logarithmic loss on a source of the prompts alone, calibrated on it, and with shares of the evidence.
fn losses(pairs: &[(f64, f64, bool)]) -> String {
    let (shift, scale) =
        calibration(&pairs.iter().map(|(logit, _, same)| (*logit, *same)).collect::<Vec<_>>());
    let loss = |share: f64| {
        let of = |(logit, evidence, same): &(f64, f64, bool)| {
            let p = sigmoid(shift + scale * logit + share * evidence.clamp(-2.5, 2.5));
            -(if *same { p } else { 1.0 - p }).max(1e-6).ln()
        };
        pairs.iter().map(of).sum::<f64>() / pairs.len() as f64
    };
    [0.0, 0.25, 0.5, 0.75, 1.0].map(|share| format!("{:.3}", loss(share))).join(" ")
}

/// Returns for each example the logit of a forest trained on the other sources. From these the linear weights learn
/// how far to trust the forest on sources that it has not seen.
fn logits_of_unseen_sources(used: &[&Example], rows: Rows<'_>, targets: &[Target]) -> Vec<f32> {
    let growth = Growth { trees: GROWTH.trees / 2, ..GROWTH };
    let mut logits = vec![0.0_f32; used.len()];
    let mut sources: Vec<&str> = used.iter().map(|e| e.source.as_str()).collect();
    sources.sort_unstable();
    sources.dedup();
    std::thread::scope(|scope| {
        let forest = |source: &str| {
            let others: Vec<usize> = (0..used.len()).filter(|i| used[*i].source != source).collect();
            let bins: Vec<u8> = others.iter().flat_map(|i| rows.row(*i).to_vec()).collect();
            let targets: Vec<Target> = others.iter().map(|i| targets[*i]).collect();
            boost::fit(Rows { bins: &bins, width: features::COUNT }, &targets, &growth)
        };
        for pair in sources.chunks(2) {
            let running: Vec<_> = pair.iter().map(|source| scope.spawn(move || forest(source))).collect();
            for (source, forest) in pair.iter().zip(running) {
                let Ok(forest) = forest.join() else { continue };
                for i in (0..used.len()).filter(|i| used[*i].source == *source) {
                    logits[i] = forest.logit(rows.row(i));
                }
            }
        }
    });
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
            evidence: if e.same { CERTAIN } else { -CERTAIN },
            weight: e.weight * scale,
        })
        .collect();
    let prior = Prior { mean: &[0.0; INPUTS], precision: &[1.0 / (LINEAR_SPREAD * LINEAR_SPREAD); INPUTS] };
    let fitted = Weights::of_prior(&prior).fit(&labels, &prior);
    fitted.mean.iter().map(|m| *m as f32).collect()
}

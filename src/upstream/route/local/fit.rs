//! Fit of the local classifier's weights, and its accuracy on held-out prompts.
//!
//! The tests print the weights. With `PROMPTKEEP_WRITE_FIT=1` in the environment they also write the
//! direction.

use std::{env, fs};

use super::*;

const PROMPTS: &str = include_str!("../prompts.tsv");
/// Embeddings of [`PROMPTS`] by all-MiniLM-L6-v2 in f32, each scaled to the range of i8.
const EMBEDDINGS: &[u8] = include_bytes!("../prompts.i8");
const DIMENSIONS: usize = 384;
const FOLDS: usize = 5;

/// Penalty on the weights: no worse than 0.003, 0.03 and 0.1 in cross-validation on the training half.
const RIDGE: f64 = 0.01;
/// Penalty on the direction: the best of 0.03, 0.1, 0.3, 1 and 3 in that cross-validation.
const DIRECTION_RIDGE: f64 = 0.3;
const STEPS: usize = 4000;
const RATE: f64 = 0.5;

#[derive(Clone)]
struct Example {
    text: &'static str,
    embedding: Embedding,
    label: Difficulty,
}

type Sample = (Features, Difficulty);

fn examples() -> Vec<Example> {
    let vectors = EMBEDDINGS.chunks_exact(DIMENSIONS);
    assert_eq!(vectors.len(), PROMPTS.lines().count());
    PROMPTS
        .lines()
        .zip(vectors)
        .map(|(line, vector)| {
            let (label, text) = line.split_once('\t').expect("a label and a text");
            let label = Difficulty::ALL.into_iter().find(|d| d.as_str() == label).expect("a known label");
            let vector = vector.iter().map(|byte| f32::from(byte.cast_signed())).collect();
            let embedding = Embedding::normalized(vector).expect("not zero");
            Example { text, embedding, label }
        })
        .collect()
}

/// The even lines, to fit to, and the odd lines, held out.
fn halves() -> (Vec<Example>, Vec<Example>) {
    let all = examples();
    let half = |odd: usize| all.iter().skip(odd).step_by(2).cloned().collect();
    (half(0), half(1))
}

fn split_fold(examples: &[Example], fold: usize) -> (Vec<Example>, Vec<Example>) {
    let pick = |in_fold: bool| {
        let chosen = examples.iter().enumerate().filter(|(at, _)| (at % FOLDS == fold) == in_fold);
        chosen.map(|(_, example)| example.clone()).collect()
    };
    (pick(false), pick(true))
}

/// Ridge regression of the class (0, 1, 2) on the centred embeddings, by conjugate gradients.
fn fit_direction(examples: &[Example]) -> Vec<f32> {
    let count = examples.len() as f64;
    let class_mean = examples.iter().map(|e| e.label as usize as f64).sum::<f64>() / count;
    let mut centre = vec![0.0; DIMENSIONS];
    for example in examples {
        centre.iter_mut().zip(example.embedding.as_slice()).for_each(|(m, x)| *m += f64::from(*x) / count);
    }
    let rows: Vec<Vec<f64>> = examples
        .iter()
        .map(|e| e.embedding.as_slice().iter().zip(&centre).map(|(x, m)| f64::from(*x) - m).collect())
        .collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    let multiply = |v: &[f64]| {
        let mut out: Vec<f64> = v.iter().map(|x| DIRECTION_RIDGE * x).collect();
        for row in &rows {
            let along = dot(row, v);
            out.iter_mut().zip(row).for_each(|(o, x)| *o += along * x);
        }
        out
    };
    let mut residual = vec![0.0; DIMENSIONS];
    for (row, example) in rows.iter().zip(examples) {
        let class = example.label as usize as f64 - class_mean;
        residual.iter_mut().zip(row).for_each(|(r, x)| *r += class * x);
    }
    let (mut solution, mut step) = (vec![0.0; DIMENSIONS], residual.clone());
    for _ in 0..60 {
        let (image, before) = (multiply(&step), dot(&residual, &residual));
        let length = before / dot(&step, &image);
        solution.iter_mut().zip(&step).for_each(|(s, d)| *s += length * d);
        residual.iter_mut().zip(&image).for_each(|(r, i)| *r -= length * i);
        let turn = dot(&residual, &residual) / before;
        step.iter_mut().zip(&residual).for_each(|(d, r)| *d = r + turn * *d);
    }
    // The scale makes its weight about as large as the others.
    solution.into_iter().map(|x| (3.0 * x) as f32).collect()
}

fn sample(example: &Example, direction: Option<&[f32]>) -> Sample {
    let mut features = Features::new(example.text, None);
    if let Some(direction) = direction {
        let along = example.embedding.as_slice().iter().zip(direction).map(|(x, d)| f64::from(x * d));
        features.0[FEATURES - 1] = along.sum();
    }
    (features, example.label)
}

/// Samples of the training prompts, each with a direction fitted without it, as real prompts will have.
fn cross_fitted(examples: &[Example]) -> Vec<Sample> {
    let mut samples = Vec::new();
    for fold in 0..FOLDS {
        let (others, fold) = split_fold(examples, fold);
        let direction = fit_direction(&others);
        samples.extend(fold.iter().map(|example| sample(example, Some(&direction))));
    }
    samples
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Gradient descent on the two cumulative logits, with a penalty on the weights. Deterministic.
fn fit(samples: &[Sample], ridge: f64) -> Regression {
    let mut regression = Regression { weights: [0.0; FEATURES], moderate_from: 0.0, hard_from: 1.0 };
    // Centred features make the descent converge; the thresholds take up the centre at the end.
    let count = samples.len() as f64;
    let mut centre = [0.0; FEATURES];
    for (features, _) in samples {
        centre.iter_mut().zip(features.0).for_each(|(mean, feature)| *mean += feature / count);
    }
    for _ in 0..STEPS {
        let mut slope = regression.weights.map(|weight| ridge * weight);
        let (mut slope_moderate, mut slope_hard) = (0.0, 0.0);
        for (features, label) in samples {
            let mut centred = features.0;
            centred.iter_mut().zip(centre).for_each(|(feature, mean)| *feature -= mean);
            let score = regression.score(&Features(centred));
            let error_moderate =
                sigmoid(score - regression.moderate_from) - f64::from(*label != Difficulty::Easy);
            let error_hard = sigmoid(score - regression.hard_from) - f64::from(*label == Difficulty::Hard);
            slope_moderate -= error_moderate / count;
            slope_hard -= error_hard / count;
            let error = (error_moderate + error_hard) / count;
            slope.iter_mut().zip(centred).for_each(|(slope, feature)| *slope += error * feature);
        }
        regression.weights.iter_mut().zip(slope).for_each(|(weight, slope)| *weight -= RATE * slope);
        regression.moderate_from -= RATE * slope_moderate;
        regression.hard_from -= RATE * slope_hard;
    }
    let offset = regression.score(&Features(centre));
    Regression {
        moderate_from: regression.moderate_from + offset,
        hard_from: regression.hard_from + offset,
        ..regression
    }
}

/// Counts by label (rows) and predicted class (columns).
fn confusion(regression: &Regression, samples: &[Sample]) -> [[usize; 3]; 3] {
    let mut counts = [[0; 3]; 3];
    for (features, label) in samples {
        counts[*label as usize][regression.difficulty(regression.score(features)) as usize] += 1;
    }
    counts
}

fn correct(counts: &[[usize; 3]; 3]) -> usize {
    (0..3).map(|class| counts[class][class]).sum()
}

fn report(name: &str, regression: &Regression, training: &[Sample], held_out: &[Sample]) -> [[usize; 3]; 3] {
    println!("{name}: thresholds {:.3} and {:.3}", regression.moderate_from, regression.hard_from);
    for (name, weight) in FEATURE_NAMES.iter().zip(regression.weights) {
        println!("    {name:20} {weight:7.3}");
    }
    for (half, samples) in [("fitted", training), ("held out", held_out)] {
        let counts = confusion(regression, samples);
        println!(
            "    {half}: {} of {} correct; label x prediction {counts:?}",
            correct(&counts),
            samples.len()
        );
    }
    confusion(regression, held_out)
}

fn assert_close(fitted: &Regression, committed: &Regression) {
    let is_close = |a: f64, b: f64| (a - b).abs() < 2e-3;
    let weights = fitted.weights.iter().zip(committed.weights).all(|(a, b)| is_close(*a, b));
    let thresholds = is_close(fitted.moderate_from, committed.moderate_from)
        && is_close(fitted.hard_from, committed.hard_from);
    assert!(weights && thresholds, "{fitted:.3?}");
}

#[test]
fn the_fit_repeats_the_weights_without_an_embedding() {
    let (training, held_out) = halves();
    let samples = |half: &[Example]| -> Vec<Sample> { half.iter().map(|e| sample(e, None)).collect() };
    let (training, held_out) = (samples(&training), samples(&held_out));
    let fitted = fit(&training, RIDGE);
    let counts = report("from the text", &fitted, &training, &held_out);
    assert_close(&fitted, &FROM_TEXT);
    assert_eq!(correct(&counts), 113);
    assert_eq!((counts[0][2], counts[2][0]), (0, 0), "none is off by two classes");

    let length_only = |samples: &[Sample]| -> Vec<Sample> {
        samples.iter().map(|(f, label)| (Features([f.0[0], 0., 0., 0., 0., 0., 0., 0.]), *label)).collect()
    };
    let (training, held_out) = (length_only(&training), length_only(&held_out));
    report("from the length alone", &fit(&training, RIDGE), &training, &held_out);
}

#[test]
fn the_fit_repeats_the_weights_with_an_embedding() {
    let (training, held_out) = halves();
    let direction = fit_direction(&training);
    if env::var_os("PROMPTKEEP_WRITE_FIT").is_some() {
        let bytes: Vec<u8> = direction.iter().flat_map(|x| x.to_le_bytes()).collect();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/upstream/route/local/direction.f32");
        fs::write(path, bytes).expect("writable");
    }
    let fitted = fit(&cross_fitted(&training), RIDGE);
    let samples = |half: &[Example]| -> Vec<Sample> {
        half.iter().map(|e| (Features::new(e.text, Some(&e.embedding)), e.label)).collect()
    };
    let counts = report("from text and embedding", &fitted, &samples(&training), &samples(&held_out));
    assert_eq!(DIRECTION.len(), 4 * DIMENSIONS);
    let committed = DIRECTION.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    assert!(committed.zip(&direction).all(|(a, b)| (a - b).abs() < 1e-3));
    assert_close(&fitted, &FROM_BOTH);
    assert_eq!(correct(&counts), 123);
    assert_eq!((counts[0][2], counts[2][0]), (0, 0), "none is off by two classes");
}

#[test]
fn any_text_is_classified_quickly_and_without_panic() {
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..300 {
        let text: String = (0..random.usize(..20_000)).map(|_| random.char(..)).collect();
        Features::new(&text, None);
    }
    let features = Features::new(&"\u{20ac}".repeat(5_000_000), None);
    assert!(features.0.iter().all(|feature| feature.is_finite()));
}

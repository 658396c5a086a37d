//! Local difficulty classifier: an ordinal logistic regression over a few features of the text and, if it was
//! computed, the embedding. It takes microseconds.
//!
//! The weights were fitted to the even lines of `prompts.tsv`, 260 English prompts written and labelled for
//! this project; the accuracies below are those on the odd lines, and the tests repeat the fit. One author
//! wrote prompts, labels and word lists, so accuracy on real traffic will be lower; `routing.classifier` can
//! name a model instead. Weights that single prompts cannot teach (earlier turns, tools) were set by hand.

use crate::{
    embed::Embedding,
    model::Difficulty,
    prompt::{Prompt, Role, prefix},
};

#[cfg(test)]
mod fit;

/// Inputs of the score, each between 0 and about 10; the last is 0 without an embedding.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Features([f64; FEATURES]);

/// Weights of the score, and the two thresholds that divide it into three classes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Regression {
    weights: [f64; FEATURES],
    /// Scores above it are at least moderate.
    moderate_from: f64,
    /// Scores above it are hard.
    hard_from: f64,
}

const FEATURES: usize = 8;
#[cfg(test)]
const FEATURE_NAMES: [&str; FEATURES] = [
    "instruction length",
    "material length",
    "code",
    "hard words",
    "moderate words",
    "easy words",
    "demands",
    "embedding",
];

/// Weights without an embedding. On the held-out half 113 of 130 match the label (101 from the length alone),
/// and none is off by two classes. Repeat the fit with `cargo test --lib route::local -- --nocapture`.
const FROM_TEXT: Regression = Regression {
    weights: [2.891, -0.224, -0.321, 1.900, 0.493, -0.917, 0.964, 0.0],
    moderate_from: 9.689,
    hard_from: 14.722,
};
/// Weights with an embedding. On the held-out half 123 of 130 match the label, and none is off by two
/// classes.
const FROM_BOTH: Regression = Regression {
    weights: [2.546, -0.325, -0.083, 1.586, 0.405, -0.726, 0.808, 1.137],
    moderate_from: 7.568,
    hard_from: 13.917,
};
/// Direction in which difficulty grows among embeddings, as little-endian f32. Written by the fit.
const DIRECTION: &[u8] = include_bytes!("local/direction.f32");
/// Prefix of the embedders that the direction was fitted to, in any precision.
const EMBEDDER: &str = "all-MiniLM-L6-v2/";

/// Hand-set terms of the score: a long conversation needs a model that can follow it, and tools need one that
/// can plan.
const PER_EARLIER_TURN: f64 = 0.3;
const EARLIER_TURNS_MAX: usize = 6;
const TOOLS: f64 = 1.5;
/// An answer of a few tokens is only a label, however hard the question sounds.
const SHORT_ANSWER: f64 = -3.0;
const SHORT_ANSWER_TOKENS: u32 = 16;

/// Longest text that is read, half of it from each end: the instruction is usually at one of them, and a
/// whole book would take too long.
const TEXT_BYTES_MAX: usize = 2 * 1024;

/// Stems of words that ask for long reasoning or construction.
const HARD: &str = "algorithm analys analyz architect assumption argue argument benchmark causal compiler concurren \
    conjecture constraint correctness counterexample critical debug deadlock deriv design devis \
    distributed equilibrium formal implement invariant investigat justif legal migrat optimal optimi \
    plan proof propos prove refactor reverse risk root scal simulat strateg synthesi theorem trade";
/// Stems of words that ask for an explanation or a short piece of work.
const MODERATE: &str = "advantage compare consider create describe difference draft example explain function how outline \
    paragraph query script show steps suggest summar table test ways why write";
/// Stems of words that ask for a look-up, a label or a small change.
const EASY: &str = "abbreviat answer categor classif convert detect extract false fix intent label language list name \
    number one opposite order replace return sentiment spell translate what where yes";
/// Largest count of matches per kind; more add no information.
const MATCHES_MAX: usize = 4;

/// Classifies a prompt. `embedding` must be that of the last user text, by an embedder that passes
/// [`is_fitted_to`].
pub(super) fn classify(prompt: &Prompt, embedding: Option<&Embedding>) -> Difficulty {
    let last = prompt.messages.iter().rposition(|message| message.role == Role::User);
    let text = last.map_or("", |at| prompt.messages[at].content.as_str());
    let features = Features::new(text, embedding);
    let regression = if embedding.is_some() { &FROM_BOTH } else { &FROM_TEXT };
    regression.difficulty(regression.score(&features) + conversation_score(prompt, last.unwrap_or(0)))
}

/// Whether the weights were fitted to this embedder's vectors.
pub(super) fn is_fitted_to(embedder: &str) -> bool {
    embedder.starts_with(EMBEDDER)
}

/// The hand-set part of the score, from everything but the last user text.
fn conversation_score(prompt: &Prompt, last: usize) -> f64 {
    let is_turn = |role| matches!(role, Role::User | Role::Assistant | Role::Tool);
    let earlier = prompt.messages[..last].iter().filter(|message| is_turn(message.role)).count();
    let mut score = PER_EARLIER_TURN * earlier.min(EARLIER_TURNS_MAX) as f64;
    if prompt.tools.is_some() {
        score += TOOLS;
    }
    if prompt.max_tokens.is_some_and(|tokens| tokens <= SHORT_ANSWER_TOKENS) {
        score += SHORT_ANSWER;
    }
    score
}

// === impl Regression ===

impl Regression {
    fn score(&self, features: &Features) -> f64 {
        self.weights.iter().zip(features.0).map(|(weight, feature)| weight * feature).sum()
    }

    fn difficulty(&self, score: f64) -> Difficulty {
        if score > self.hard_from {
            Difficulty::Hard
        } else if score > self.moderate_from {
            Difficulty::Moderate
        } else {
            Difficulty::Easy
        }
    }
}

// === impl Features ===

impl Features {
    fn new(text: &str, embedding: Option<&Embedding>) -> Self {
        let (instruction, material) = split_material(&both_ends(text));
        let lower = instruction.to_lowercase();
        let words: Vec<&str> =
            lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        let matches = |stems: &str| {
            let hits = words.iter().filter(|word| stems.split(' ').any(|stem| word.starts_with(stem)));
            hits.take(MATCHES_MAX).count() as f64
        };
        let demands = lower.chars().filter(|c| matches!(c, ',' | ';' | ':')).count()
            + words.iter().filter(|word| matches!(**word, "and" | "with" | "then")).count();
        Self([
            log2(words.len()),
            log2(material.split_whitespace().count()),
            f64::from(looks_like_code(text)),
            matches(HARD),
            matches(MODERATE),
            matches(EASY),
            log2(demands),
            embedding.map_or(0.0, along_direction),
        ])
    }
}

fn along_direction(embedding: &Embedding) -> f64 {
    let direction =
        DIRECTION.chunks_exact(4).filter_map(|bytes| bytes.try_into().ok()).map(f32::from_le_bytes);
    embedding.as_slice().iter().zip(direction).map(|(x, d)| f64::from(x * d)).sum()
}

fn log2(count: usize) -> f64 {
    (1.0 + count as f64).log2()
}

/// Splits a text into the instruction and the material, which is quoted or fenced. The length of a quoted
/// letter says nothing about the difficulty of finding a date in it.
fn split_material(text: &str) -> (String, String) {
    let (mut instruction, mut material) = (String::new(), String::new());
    for (fence_number, fenced) in text.split("```").enumerate() {
        let is_fenced = fence_number % 2 == 1;
        for (quote_number, part) in fenced.split(['"', '\u{201c}', '\u{201d}']).enumerate() {
            let into = if is_fenced || quote_number % 2 == 1 { &mut material } else { &mut instruction };
            into.push_str(part);
            into.push(' ');
        }
    }
    (instruction, material)
}

/// The beginning and the end of a long text.
fn both_ends(text: &str) -> String {
    if text.len() <= TEXT_BYTES_MAX {
        return text.to_owned();
    }
    let head = prefix(text, TEXT_BYTES_MAX / 2);
    let tail = &text[prefix(text, text.len() - TEXT_BYTES_MAX / 2).len()..];
    format!("{head} {tail}")
}

fn looks_like_code(text: &str) -> bool {
    let text = prefix(text, TEXT_BYTES_MAX);
    let marks = ["```", "();", "){", ") {", "=>", "==", "fn ", "def ", "SELECT ", "#include", "</"];
    marks.iter().any(|mark| text.contains(mark))
}

//! Judges how difficult a prompt is from the prompt itself, in microseconds: a few features of its text
//! and, when the path has computed it, its embedding; one score and two thresholds (an ordinal logistic
//! regression).
//!
//! Where the numbers come from: they were fitted to the even lines of `prompts.tsv`, 260 English prompts
//! written and labelled for this project; the accuracies below are those on the odd lines. The tests
//! repeat the fit. One author wrote prompts, labels and word lists, so real traffic will be judged less
//! well; `routing.classifier` can ask a model instead. What single prompts cannot teach (earlier turns,
//! tools) is weighed by hand.

use super::Difficulty;
use crate::{
    embed::Embedding,
    prompt::{Prompt, Role, prefix},
};

#[cfg(test)]
mod fit;

/// What the score is made of. Each is between 0 and about 10; the last is 0 without an embedding.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Features([f64; FEATURES]);

/// A fitted model: a score, and the two thresholds that cut it in three.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Model {
    weights: [f64; FEATURES],
    /// Above it a prompt is at least moderate.
    moderate_from: f64,
    /// Above it a prompt is hard.
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

/// Without an embedding. Held out: 113 of 130 as labelled (101 from the length alone), none of the
/// rest off by two grades. Repeat the fit with `cargo test --lib route::local -- --nocapture`.
const FROM_TEXT: Model = Model {
    weights: [2.891, -0.224, -0.321, 1.900, 0.493, -0.917, 0.964, 0.0],
    moderate_from: 9.689,
    hard_from: 14.722,
};
/// With one. Held out: 123 of 130 as labelled, none off by two grades.
const FROM_BOTH: Model = Model {
    weights: [2.546, -0.325, -0.083, 1.586, 0.405, -0.726, 0.808, 1.137],
    moderate_from: 7.568,
    hard_from: 13.917,
};
/// The direction in which difficulty grows among embeddings: little-endian f32, written by the fit.
const DIRECTION: &[u8] = include_bytes!("local/direction.f32");
/// Embedders whose vectors the direction is for, whatever their precision.
const EMBEDDER: &str = "all-MiniLM-L6-v2/";

/// Set by hand, on the scale of the score: a conversation of some length needs a model that follows it,
/// and tools need one that can plan.
const PER_EARLIER_TURN: f64 = 0.3;
const EARLIER_TURNS_MAX: usize = 6;
const TOOLS: f64 = 1.5;
/// An answer of a few tokens is a label, whatever the question sounds like.
const SHORT_ANSWER: f64 = -3.0;
const SHORT_ANSWER_TOKENS: u32 = 16;

/// How much of a text is looked at: the instruction stands at one of its ends, and the judgement must
/// not take long on a book.
const LOOKED_AT_BYTES: usize = 2 * 1024;

/// Beginnings of words that ask for long reasoning or construction.
const HARD: &str = "algorithm analys analyz architect assumption argue argument benchmark causal compiler concurren \
    conjecture constraint correctness counterexample critical debug deadlock deriv design devis \
    distributed equilibrium formal implement invariant investigat justif legal migrat optimal optimi \
    plan proof propos prove refactor reverse risk root scal simulat strateg synthesi theorem trade";
/// Of words that ask for an explanation or a short piece of work.
const MODERATE: &str = "advantage compare consider create describe difference draft example explain function how outline \
    paragraph query script show steps suggest summar table test ways why write";
/// Of words that ask for a look-up, a label or a small change.
const EASY: &str = "abbreviat answer categor classif convert detect extract false fix intent label language list name \
    number one opposite order replace return sentiment spell translate what where yes";
/// More matches of one kind say nothing more.
const MATCHES_MAX: usize = 4;

/// The judgement. `embedding` must be that of the last user text, by an embedder that
/// [`understands`].
pub(super) fn judge(prompt: &Prompt, embedding: Option<&Embedding>) -> Difficulty {
    let last = prompt.messages.iter().rposition(|message| message.role == Role::User);
    let text = last.map_or("", |at| prompt.messages[at].content.as_str());
    let features = Features::new(text, embedding);
    let model = if embedding.is_some() { &FROM_BOTH } else { &FROM_TEXT };
    model.difficulty(model.score(&features) + by_hand(prompt, last.unwrap_or(0)))
}

/// Whether this embedder's vectors can be judged.
pub(super) fn understands(embedder: &str) -> bool {
    embedder.starts_with(EMBEDDER)
}

/// What the conversation adds to the score of its last user text.
fn by_hand(prompt: &Prompt, last: usize) -> f64 {
    let said = |role| matches!(role, Role::User | Role::Assistant | Role::Tool);
    let earlier = prompt.messages[..last].iter().filter(|message| said(message.role)).count();
    let mut score = PER_EARLIER_TURN * earlier.min(EARLIER_TURNS_MAX) as f64;
    if prompt.tools.is_some() {
        score += TOOLS;
    }
    if prompt.max_tokens.is_some_and(|tokens| tokens <= SHORT_ANSWER_TOKENS) {
        score += SHORT_ANSWER;
    }
    score
}

// === impl Model ===

impl Model {
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

/// Apart, as one text: what is asked, and what is quoted or fenced to be worked on. The length of a
/// quoted letter says nothing about the difficulty of finding a date in it.
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
    if text.len() <= LOOKED_AT_BYTES {
        return text.to_owned();
    }
    let head = prefix(text, LOOKED_AT_BYTES / 2);
    let tail = &text[prefix(text, text.len() - LOOKED_AT_BYTES / 2).len()..];
    format!("{head} {tail}")
}

fn looks_like_code(text: &str) -> bool {
    let text = prefix(text, LOOKED_AT_BYTES);
    let marks = ["```", "();", "){", ") {", "=>", "==", "fn ", "def ", "SELECT ", "#include", "</"];
    marks.iter().any(|mark| text.contains(mark))
}

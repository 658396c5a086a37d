//! Whether two answers say the same. A comparison labels a pair of prompts for nothing, when both
//! answers were bought.

use std::collections::{HashMap, HashSet};

use super::lexicon::hash;

/// Overlap at which two answers are as likely to mean the same as not, and how sharply that changes.
/// Answers of language models to one question share most of their words, to similar questions fewer.
const OVERLAP_EVEN: f32 = 0.44;
const OVERLAP_SCALE: f32 = 0.02;
/// Of answers of one word: all of it must agree. In between it goes down evenly.
const OVERLAP_EVEN_SHORT: f32 = 0.9;
/// Words from which an answer is long enough for [`OVERLAP_EVEN`].
const LONG: f32 = 20.0;
/// What is left of the probability when the words agree but a number or a yes does not.
const CONTRADICTED: f32 = 0.05;
/// Words of an answer up to which a number that differs is what it says; longer ones mention many.
const SAYS_A_NUMBER: u32 = 60;
/// Longest reference, such as `[17]`, that may head an answer without being part of it.
const REFERENCE_BYTES_MAX: usize = 64;

/// First character of the scripts that are written without spaces.
const UNSPACED: char = '\u{2e80}';

/// An answer, prepared for comparison.
#[derive(Clone, Debug)]
pub struct Answer {
    words: HashMap<u64, u32>,
    count: u32,
    numbers: HashSet<u64>,
    /// It begins with "yes", or with "no".
    assents: Option<bool>,
}

// === impl Answer ===

impl Answer {
    pub fn of(text: &str) -> Self {
        let mut answer = Self { words: HashMap::new(), count: 0, numbers: HashSet::new(), assents: None };
        for run in without_reference(text).split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()) {
            // Scripts written without spaces: every character counts as a word.
            if run.starts_with(|c| c >= UNSPACED) {
                run.split_inclusive(|_| true).for_each(|character| answer.add(character));
            } else {
                answer.add(run);
            }
        }
        answer
    }

    fn add(&mut self, word: &str) {
        let word = word.to_lowercase();
        if self.count == 0 {
            self.assents = match word.as_str() {
                "yes" => Some(true),
                "no" => Some(false),
                _ => None,
            };
        }
        let hash = hash(&word);
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            self.numbers.insert(hash);
        }
        *self.words.entry(hash).or_default() += 1;
        self.count += 1;
    }

    /// Share of the words of the longer answer that the other has too.
    pub fn overlap(&self, other: &Self) -> f32 {
        let common: u32 = self.words.iter().map(|(w, n)| other.words.get(w).map_or(0, |m| *n.min(m))).sum();
        common as f32 / self.count.max(other.count).max(1) as f32
    }

    /// Probability that both mean the same.
    pub fn same(&self, other: &Self) -> f32 {
        let length = self.count.max(other.count);
        let shortness = (1.0 - (length as f32 - 1.0) / (LONG - 1.0)).clamp(0.0, 1.0);
        let even = OVERLAP_EVEN + shortness * (OVERLAP_EVEN_SHORT - OVERLAP_EVEN);
        let same = 1.0 / (1.0 + (-(self.overlap(other) - even) / OVERLAP_SCALE).exp());
        if self.contradicts(other) { same * CONTRADICTED } else { same }
    }

    /// The words may agree, but what they say does not.
    fn contradicts(&self, other: &Self) -> bool {
        let (x, y) = (&self.numbers, &other.numbers);
        let numbers = !x.is_empty() && !y.is_empty() && x.is_disjoint(y);
        let assents = self.assents.zip(other.assents).is_some_and(|(a, b)| a != b);
        assents || (numbers && self.count.max(other.count) <= SAYS_A_NUMBER)
    }
}

/// The text behind a reference in brackets.
fn without_reference(text: &str) -> &str {
    match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((reference, rest)) if reference.len() <= REFERENCE_BYTES_MAX => rest,
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(a: &str, b: &str) -> f32 {
        Answer::of(a).same(&Answer::of(b))
    }

    #[test]
    fn answers_that_differ_in_marks_and_case_are_the_same() {
        assert!(same("Yes.", "yes") > 0.99);
        assert!(
            same("[17] Open the settings, then choose Account.", "Open the settings; then choose account")
                > 0.95
        );
        assert!(same("巴黎是法国的首都。", "法国的首都是巴黎") > 0.95);
    }

    #[test]
    fn other_answers_are_not() {
        assert!(same("42", "43") < 0.05);
        assert!(same("alarm_set", "alarm_remove") < 0.05, "labels share words");
        assert!(same("The flight takes 4 hours from Vienna.", "The flight takes 6 hours from Vienna.") < 0.1);
        let (yes, no) = ("Yes, aspirin may be taken with food.", "No, aspirin may be taken with food.");
        assert!(same(yes, no) < 0.1);
        assert!(same("The capital of France is Paris.", "Reset the router and wait two minutes.") < 0.05);
        assert!(same("", "Paris") < 0.05);
    }
}

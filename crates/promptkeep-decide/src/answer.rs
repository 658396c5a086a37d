//! Probability that two answers mean the same, from their words. It labels a pair of prompts at no cost when models
//! have answered both.

use std::collections::{HashMap, HashSet};

use super::lexicon::hash;

/// Overlap at which two long answers mean the same with probability one half. Answers of language models share most
/// of their words when the questions mean the same, and fewer when they are only similar.
const OVERLAP_EVEN: f32 = 0.44;
/// Overlap above the even one at which the log-odds grow by one.
const OVERLAP_SCALE: f32 = 0.02;
/// [`OVERLAP_EVEN`] for answers of one word. Falls linearly towards [`LONG`].
const OVERLAP_EVEN_SHORT: f32 = 0.9;
/// Number of words from which [`OVERLAP_EVEN`] applies.
const LONG: f32 = 20.0;
/// Factor on the probability when the words agree but a number or a yes contradicts.
const CONTRADICTED: f32 = 0.05;
/// Maximum number of words of an answer whose point is its number. Longer answers mention many numbers.
const SAYS_A_NUMBER: u32 = 60;
/// Maximum length of a leading reference such as `[17]`, which is not part of the answer.
const REFERENCE_BYTES_MAX: usize = 64;

/// First character of the scripts without spaces.
const UNSPACED: char = '\u{2e80}';

/// An answer, prepared for comparison.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Number of occurrences by hash.
    words: HashMap<u64, u32>,
    /// Number of words.
    count: u32,
    numbers: HashSet<u64>,
    /// Whether the answer begins with "yes" or "no".
    assents: Option<bool>,
}

impl Answer {
    /// Prepares the answer `text`. Linear in its length.
    pub fn of(text: &str) -> Self {
        let mut answer = Self { words: HashMap::new(), count: 0, numbers: HashSet::new(), assents: None };
        for run in without_reference(text).split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()) {
            // In scripts without spaces every character counts as a word.
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

    /// Returns the fraction of the longer answer's words that the other has too, 0 to 1.
    pub fn overlap(&self, other: &Self) -> f32 {
        let common: u32 = self.words.iter().map(|(w, n)| other.words.get(w).map_or(0, |m| *n.min(m))).sum();
        common as f32 / self.count.max(other.count).max(1) as f32
    }

    /// Returns the probability that both answers mean the same, 0 to 1.
    pub fn same(&self, other: &Self) -> f32 {
        let length = self.count.max(other.count);
        let shortness = (1.0 - (length as f32 - 1.0) / (LONG - 1.0)).clamp(0.0, 1.0);
        let even = OVERLAP_EVEN + shortness * (OVERLAP_EVEN_SHORT - OVERLAP_EVEN);
        let same = 1.0 / (1.0 + (-(self.overlap(other) - even) / OVERLAP_SCALE).exp());
        if self.contradicts(other) { same * CONTRADICTED } else { same }
    }

    /// Whether the answers contradict each other in a yes or a number, even if their words agree.
    fn contradicts(&self, other: &Self) -> bool {
        let (x, y) = (&self.numbers, &other.numbers);
        let numbers = !x.is_empty() && !y.is_empty() && x.is_disjoint(y);
        let assents = self.assents.zip(other.assents).is_some_and(|(a, b)| a != b);
        assents || (numbers && self.count.max(other.count) <= SAYS_A_NUMBER)
    }
}

/// Removes a leading reference in brackets.
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
    fn different_answers_are_not_the_same() {
        assert!(same("42", "43") < 0.05);
        assert!(same("alarm_set", "alarm_remove") < 0.05, "labels share words");
        assert!(same("The flight takes 4 hours from Vienna.", "The flight takes 6 hours from Vienna.") < 0.1);
        let (yes, no) = ("Yes, aspirin may be taken with food.", "No, aspirin may be taken with food.");
        assert!(same(yes, no) < 0.1);
        assert!(same("The capital of France is Paris.", "Reset the router and wait two minutes.") < 0.05);
        assert!(same("", "Paris") < 0.05);
    }
}

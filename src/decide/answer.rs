//! Whether two answers say the same. A comparison labels a pair of prompts for nothing, when both
//! answers were bought.

use std::collections::HashMap;

use super::lexicon::hash;

/// Overlap at which two answers are as likely to mean the same as not, and how sharply that changes.
/// Answers of language models to one question share most of their words, to similar questions fewer.
const OVERLAP_EVEN: f32 = 0.46;
const OVERLAP_SCALE: f32 = 0.02;

/// First character of the scripts that are written without spaces.
const UNSPACED: char = '\u{2e80}';

/// An answer, prepared for comparison.
#[derive(Clone, Debug)]
pub struct Answer {
    words: HashMap<u64, u32>,
    count: u32,
}

// === impl Answer ===

impl Answer {
    pub fn of(text: &str) -> Self {
        let mut words: HashMap<u64, u32> = HashMap::new();
        let mut count = 0;
        let mut add = |word: &str| {
            *words.entry(hash(&word.to_lowercase())).or_default() += 1;
            count += 1;
        };
        for run in text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()) {
            // Scripts written without spaces: every character counts as a word.
            if run.starts_with(|c| c >= UNSPACED) {
                run.split_inclusive(|_| true).for_each(&mut add);
            } else {
                add(run);
            }
        }
        Self { words, count }
    }

    /// Share of the words of the longer answer that the other has too.
    pub fn overlap(&self, other: &Self) -> f32 {
        let common: u32 = self.words.iter().map(|(w, n)| other.words.get(w).map_or(0, |m| *n.min(m))).sum();
        common as f32 / self.count.max(other.count).max(1) as f32
    }

    /// Probability that both mean the same.
    pub fn same(&self, other: &Self) -> f32 {
        1.0 / (1.0 + (-(self.overlap(other) - OVERLAP_EVEN) / OVERLAP_SCALE).exp())
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
        assert!(same("The capital of France is Paris.", "Reset the router and wait two minutes.") < 0.05);
        assert!(same("", "Paris") < 0.05);
    }
}

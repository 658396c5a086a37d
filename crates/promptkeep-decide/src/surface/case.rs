//! Whether a capital makes another word: "Polish" is not "polish", and "US" is not "us".

use super::{
    tokens::{Kind, Token},
    typo,
    words::{
        ACRONYMS, ACRONYMS_AND_WORDS, BRANDS, EMPHASIS, I_AFTER, I_BEFORE, NAMES_AND_WORDS,
        ORDINARY_AT_START, is_in,
    },
};
use crate::{
    lexicon::{self, STOP},
    rarity::Rarity,
};

/// A word with what its case depends on.
pub struct Place<'t> {
    /// The word.
    pub text: &'t str,
    /// Whether it begins a sentence.
    pub first: bool,
    /// Whether all letters of the text are capitals.
    pub shouts: bool,
    /// The token before it, or nothing.
    pub before: &'t str,
    /// The token after it, or nothing.
    pub after: &'t str,
}

/// Which letters of a word are capitals.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Lower,
    /// The first one of several.
    Capital,
    Upper,
    Mixed,
}

/// Minimum length of a word in capitals that is emphasis rather than an acronym.
const EMPHASIS_BYTES_MIN: usize = 6;

impl Place<'_> {
    /// Whether the word may contain a typing mistake: it is not in capitals and is no name.
    pub fn may_be_misspelt(&self) -> bool {
        match shape(self.text) {
            Shape::Lower => true,
            Shape::Capital => self.first,
            Shape::Upper | Shape::Mixed => false,
        }
    }
}

/// Whether a text of several words has letters with case and none in lower case.
pub fn shouts(tokens: &[Token<'_>]) -> bool {
    let words = || tokens.iter().filter(|t| t.kind == Kind::Word && t.text.contains(char::is_uppercase));
    // A contraction's second word is in lower case whatever the text wrote.
    let is_lower = |t: &&Token<'_>| t.text.contains(char::is_lowercase) && !is_expansion(t.text);
    words().take(2).count() == 2 && !tokens.iter().any(|t| is_lower(&t))
}

fn is_expansion(word: &str) -> bool {
    matches!(word, "not" | "is" | "are" | "have" | "will" | "am")
}

/// Whether two words of equal letters are one word in different case.
pub fn is_surface(a: &Place<'_>, b: &Place<'_>, rarity: &Rarity) -> bool {
    let lower = a.text.to_lowercase();
    if lower.chars().nth(1).is_none() {
        return is_letter_surface(a, b, &lower);
    }
    let (x, y) = (shape(a.text), shape(b.text));
    if x == y && x != Shape::Mixed {
        return true;
    }
    if lower.contains(|c: char| c.is_numeric()) {
        return matches!((x, y), (Shape::Lower, Shape::Upper) | (Shape::Upper, Shape::Lower))
            && is_safe_with_digits(&lower);
    }
    match (x, y) {
        (Shape::Mixed, _) | (_, Shape::Mixed) => is_in(&BRANDS, &lower),
        (Shape::Upper, _) => is_upper_surface(a, b, &lower, rarity),
        (_, Shape::Upper) => is_upper_surface(b, a, &lower, rarity),
        (Shape::Capital, _) => is_capital_surface(a, &lower),
        _ => is_capital_surface(b, &lower),
    }
}

fn shape(word: &str) -> Shape {
    let mut letters = word.chars().filter(|c| c.is_lowercase() || c.is_uppercase());
    let Some(first) = letters.next() else { return Shape::Lower };
    let (mut upper, mut lower) = (0, 0);
    for c in letters {
        if c.is_uppercase() {
            upper += 1;
        } else {
            lower += 1;
        }
    }
    match (first.is_uppercase(), upper, lower) {
        (false, 0, _) => Shape::Lower,
        (true, 0, 1..) => Shape::Capital,
        (true, _, 0) => Shape::Upper,
        _ => Shape::Mixed,
    }
}

/// Single letters: the pronoun I, the article, and Cyrillic words at the start of a sentence. Any other letter is a
/// name, as in "vitamin C" or "type A".
fn is_letter_surface(a: &Place<'_>, b: &Place<'_>, lower: &str) -> bool {
    let upper = if a.text == lower { b } else { a };
    match lower {
        "i" => {
            let symbol =
                upper.first && !upper.after.is_empty() && !upper.after.contains(|c: char| c.is_ascii());
            symbol
                || is_in(&I_BEFORE, &upper.before.to_lowercase())
                || is_in(&I_AFTER, &upper.after.to_lowercase())
        }
        "a" if upper.shouts => {
            let before = lexicon::info(lexicon::hash(&upper.before.to_lowercase()));
            upper.first || before.has(STOP)
        }
        "a" => upper.first && upper.after.contains(char::is_alphabetic),
        "в" | "и" | "к" | "о" | "с" | "у" | "я" | "а" | "э" => upper.first || upper.shouts,
        _ => false,
    }
}

/// Compares a word in capitals with another case.
fn is_upper_surface(upper: &Place<'_>, other: &Place<'_>, lower: &str, rarity: &Rarity) -> bool {
    if is_in(&NAMES_AND_WORDS, lower) {
        return false;
    }
    let ordinary = || lower.len() >= EMPHASIS_BYTES_MIN || is_in(&EMPHASIS, lower) || is_in(&ACRONYMS, lower);
    let acronym = || is_in(&ACRONYMS_AND_WORDS, lower) || typo::is_known(lower, rarity);
    upper.shouts || other.shouts || ordinary() || !acronym()
}

/// Compares a capitalised word with its lower case.
fn is_capital_surface(capital: &Place<'_>, lower: &str) -> bool {
    if is_in(&ORDINARY_AT_START, lower) {
        return capital.first;
    }
    !is_in(&NAMES_AND_WORDS, lower)
}

/// Whether a word of letters and digits has one meaning in all case. Units do not: 5 Mb is not 5 MB.
fn is_safe_with_digits(lower: &str) -> bool {
    let letters = lower.trim_start_matches(|c: char| c.is_ascii_digit());
    if letters.len() < lower.len() {
        return matches!(letters, "fa" | "d" | "st" | "nd" | "rd" | "th" | "am" | "pm" | "km" | "cm" | "kg");
    }
    let name = lower.trim_end_matches(|c: char| c.is_ascii_digit());
    name.len() > 1 && name.bytes().all(|b| b.is_ascii_lowercase())
}

//! The analysis of one text: words, numbers with units, dates, quotations, code and roles. Computed once per text;
//! everything that compares two prompts works on two analyses and never on the texts. Knows no second text.

mod tokens;

use super::{
    lexicon, quantity, roles,
    word::{CAPITAL, DIGITS, FIRST},
};

pub(crate) use tokens::stem;

pub use super::{
    quantity::{Date, Quantity},
    roles::Roles,
    word::Word,
};

/// The parts of a text that carry its meaning.
#[derive(Clone, Debug)]
pub struct Analysis {
    /// The words in lower case, separated by single spaces.
    pub lower: String,
    /// The words in order.
    pub words: Vec<Word>,
    /// Stems of all words, sorted.
    pub stems: Vec<u64>,
    /// Numbers with their units.
    pub quantities: Vec<Quantity>,
    /// Dates and times.
    pub dates: Vec<Date>,
    /// Contents of quotation marks, in lower case.
    pub quoted: Vec<String>,
    /// Directions, comparisons, and who acts on whom.
    pub roles: Roles,
    /// Number of negating words, not counting "or not".
    pub negations: u32,
    /// Kind of thing that the text asks for.
    pub question: Question,
    /// Stem of the thing that the text asks for: the first noun after the question word.
    pub focus: Option<u64>,
    /// Whether numbers and dates are lower bounds (bit 0) or upper bounds (bit 1).
    pub bounds: u8,
    /// Whether the text is English, so that the lexicon applies.
    pub english: bool,
    /// Whether capitals indicate names. False for texts in capitals, in title case, and without capitals.
    pub cased: bool,
}

/// Kind of thing that a prompt asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Question {
    /// No question word.
    None = 0,
    /// What, which, how: may ask for anything.
    Open = 1,
    /// Who.
    Person = 2,
    /// When.
    Time = 3,
    /// Where.
    Place = 4,
    /// Why.
    Reason = 5,
    /// How many, how much.
    Amount = 6,
}

/// Maximum number of words before the question word, and from there to the thing asked for.
const FOCUS_REACH: usize = 5;

impl Analysis {
    /// Analyses `text` in time linear in its length.
    pub fn of(text: &str) -> Self {
        let (lower, mut words, mut dates, quoted) = tokens::split(text).into_parts();
        let english = is_english(&words);
        let quantities = quantity::extract(&mut words, &mut dates, english);
        let roles = if english { roles::extract(&words, &quantities) } else { Roles::default() };
        let mut stems: Vec<u64> = words.iter().map(|w| w.stem).collect();
        stems.sort_unstable();
        Self {
            stems,
            negations: if english { negations(&words) } else { 0 },
            question: Question::of(&words),
            focus: focus(&words),
            bounds: if english { quantity::bounds(&words) } else { 0 },
            cased: is_cased(&words),
            lower,
            words,
            quantities,
            dates,
            quoted,
            roles,
            english,
        }
    }

    /// Returns the lower-case form of `word`, which must be a word of this text.
    pub fn str(&self, word: &Word) -> &str {
        &self.lower[word.start as usize..word.end as usize]
    }

    /// Whether the text has a word with this hash or stem.
    pub fn mentions(&self, hash: u64, stem: u64) -> bool {
        self.words.iter().any(|w| w.hash == hash || w.stem == stem)
    }

    /// Returns the content words: neither function words nor parts of numbers and dates.
    pub fn content(&self) -> impl Iterator<Item = &Word> {
        self.words.iter().filter(|w| w.is_content())
    }

    /// Returns the content words whose stem does not occur in `other`.
    pub fn content_lacking_in(&self, other: &Self) -> impl Iterator<Item = &Word> {
        self.content().filter(|w| other.stems.binary_search(&w.stem).is_err())
    }
}

impl Question {
    fn of(words: &[Word]) -> Self {
        const AMOUNTS: [u64; 3] = [lexicon::hash("many"), lexicon::hash("much"), lexicon::hash("number")];
        if words.iter().any(|w| AMOUNTS.contains(&w.hash)) {
            return Self::Amount;
        }
        let Some(word) = words.iter().find(|w| w.info.wh > 0) else { return Self::None };
        match word.info.wh {
            lexicon::WHO => Self::Person,
            lexicon::WHEN => Self::Time,
            lexicon::WHERE => Self::Place,
            lexicon::WHY => Self::Reason,
            _ => Self::Open,
        }
    }
}

/// Returns the stem of X in "what is the X" and "which X". Skips superlatives and similar words: "which is the
/// smallest state" asks for a state.
fn focus(words: &[Word]) -> Option<u64> {
    let asks = |w: &Word| matches!(w.info.wh, lexicon::WHAT | lexicon::WHICH);
    let start = words.iter().take(FOCUS_REACH).position(asks)?;
    let qualifies = |w: &Word| w.info.has(lexicon::QUANTIFIER) || w.info.opposites[0].0 > 0;
    let mut after = words[start..].iter().take(FOCUS_REACH);
    after.find(|w| w.is_content() && !qualifies(w)).map(|w| w.stem)
}

/// Detects English by its function words. Without any, ASCII text counts as English. Beside letters that English does
/// not have, one English function word is not enough.
fn is_english(words: &[Word]) -> bool {
    let count = |flag| words.iter().filter(|w| w.info.has(flag)).count();
    let (english, other) = (count(lexicon::ENGLISH), count(lexicon::OTHER_LANGUAGE));
    let ascii = words.iter().all(|w| w.hash & lexicon::NON_ASCII == 0);
    let needed = if ascii { other } else { other + 1 };
    english > needed || (ascii && english + other == 0)
}

/// Counts negating words. "Or not" does not change a question, so it is not counted.
fn negations(words: &[Word]) -> u32 {
    const OR: u64 = lexicon::hash("or");
    let after_or = |i: usize| i > 0 && words[i - 1].hash == OR;
    let negates = |(i, w): &(usize, &Word)| w.info.has(lexicon::NEGATION) && !after_or(*i);
    words.iter().enumerate().filter(negates).count() as u32
}

/// Capitals indicate names only where most words have none.
fn is_cased(words: &[Word]) -> bool {
    let long_words = words.iter().filter(|w| !w.is(DIGITS | FIRST) && w.len() > 3);
    let (mut all, mut capital) = (0, 0);
    for word in long_words {
        all += 1;
        capital += usize::from(word.is(CAPITAL));
    }
    capital > 0 && (all <= 2 || capital * 4 <= all * 3)
}

#[cfg(test)]
mod tests;

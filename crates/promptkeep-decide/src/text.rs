//! What a text says, made once per text: words, numbers with units, dates, quoted strings, code and
//! directions. Everything that compares two prompts works on this and never on the text again.
//!
//! Words are named by `lexicon::hash`; nothing here knows a second text.

pub(super) mod tokens;

use super::{
    lexicon::{self, Info},
    quantity::{self, Date, Quantity},
    roles::{self, Roles},
};

/// A text's meaning-bearing parts.
#[derive(Clone, Debug)]
pub struct Analysis {
    /// Lower-case words, single spaces between them: for containment.
    pub lower: String,
    pub words: Vec<Word>,
    /// Stems of all words, sorted.
    pub stems: Vec<u64>,
    pub quantities: Vec<Quantity>,
    pub dates: Vec<Date>,
    /// Contents of quotation marks, lower case.
    pub quoted: Vec<String>,
    /// Directions and who does what to whom.
    pub roles: Roles,
    /// Number of negating words, "or not" apart.
    pub negations: u32,
    /// What kind of thing is asked for.
    pub question: Question,
    /// Stem of the thing that is asked for: the first noun behind the question word.
    pub focus: Option<u64>,
    /// Whether numbers and dates are bounds, see `quantity::bounds`.
    pub bounds: u8,
    /// Whether the English tables apply.
    pub english: bool,
    /// Whether capitals say anything: false for texts in capitals, in title case and without any.
    pub cased: bool,
}

/// What kind of thing a prompt asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Question {
    /// No question word.
    None = 0,
    /// What, which, how: may ask for anything.
    Open = 1,
    Person = 2,
    Time = 3,
    Place = 4,
    Reason = 5,
    /// How many, how much.
    Amount = 6,
}

/// One word of a text.
#[derive(Clone, Copy, Debug)]
pub struct Word {
    /// Of the lower-case form.
    pub hash: u64,
    /// Of the form without the commonest English endings.
    pub stem: u64,
    /// Where it stands in [`Analysis::lower`], bytes.
    pub start: u32,
    pub end: u32,
    pub shape: u16,
    /// Value when it is written in digits.
    pub number: f64,
    pub info: &'static Info,
}

/// Begins with a capital.
pub const CAPITAL: u16 = 1;
/// Begins a sentence, so that its capital says nothing.
pub const FIRST: u16 = 1 << 1;
/// Looks like code, a path, an address or a version.
pub const CODE: u16 = 1 << 2;
/// Written in digits.
pub const DIGITS: u16 = 1 << 3;
/// Stuck to the digits before it: the `km` of `5km`.
pub const SUFFIX: u16 = 1 << 4;
/// Follows a currency sign.
pub const CURRENCY: u16 = 1 << 5;
/// Part of a number or date already understood.
pub const TAKEN: u16 = 1 << 6;
/// Letters and digits mixed.
pub const MIXED: u16 = 1 << 7;
/// A comma, stop or bracket stands before it.
pub const BREAK: u16 = 1 << 8;
/// More than one letter, all capitals.
pub const UPPER: u16 = 1 << 9;
/// Digits with a colon.
pub const CLOCK: u16 = 1 << 10;

/// Words from the start to the question word, and from there to what it asks for.
const FOCUS_REACH: usize = 5;

// === impl Analysis ===

impl Analysis {
    /// Analyses `text`. Linear in its length.
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

    /// The lower-case form of `word`.
    pub fn str(&self, word: &Word) -> &str {
        &self.lower[word.start as usize..word.end as usize]
    }

    /// Whether a word with this hash or stem occurs.
    pub fn mentions(&self, hash: u64, stem: u64) -> bool {
        self.words.iter().any(|w| w.hash == hash || w.stem == stem)
    }

    /// Words that carry meaning of their own.
    pub fn content(&self) -> impl Iterator<Item = &Word> {
        self.words.iter().filter(|w| w.is_content())
    }
}

// === impl Word ===

impl Word {
    pub const fn is(&self, shape: u16) -> bool {
        self.shape & shape != 0
    }

    /// Neither a function word nor part of a number or date.
    pub const fn is_content(&self) -> bool {
        !self.info.has(lexicon::STOP) && !self.is(TAKEN)
    }

    /// Length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "no word is empty")]
    pub const fn len(&self) -> usize {
        (self.end - self.start) as usize
    }
}

// === impl Question ===

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

/// Of "what is the X" and "which X" only; superlatives and the like are skipped, so that "which is the
/// smallest state" asks for a state.
fn focus(words: &[Word]) -> Option<u64> {
    let asks = |w: &Word| matches!(w.info.wh, lexicon::WHAT | lexicon::WHICH);
    let start = words.iter().take(FOCUS_REACH).position(asks)?;
    let qualifies = |w: &Word| w.info.has(lexicon::QUANTIFIER) || w.info.opposites[0].0 > 0;
    let mut behind = words[start..].iter().take(FOCUS_REACH);
    behind.find(|w| w.is_content() && !qualifies(w)).map(|w| w.stem)
}

/// Function words decide. Without any, plain ASCII text counts as English; beside letters that English
/// has not, a single one may be a coincidence.
fn is_english(words: &[Word]) -> bool {
    let count = |flag| words.iter().filter(|w| w.info.has(flag)).count();
    let (english, foreign) = (count(lexicon::ENGLISH), count(lexicon::FOREIGN));
    let ascii = words.iter().all(|w| w.hash & lexicon::NON_ASCII == 0);
    let needed = if ascii { foreign } else { foreign + 1 };
    english > needed || (ascii && english + foreign == 0)
}

/// "or not" asks nothing that the question without it does not.
fn negations(words: &[Word]) -> u32 {
    const OR: u64 = lexicon::hash("or");
    let after_or = |i: usize| i > 0 && words[i - 1].hash == OR;
    let negates = |(i, w): &(usize, &Word)| w.info.has(lexicon::NEGATION) && !after_or(*i);
    words.iter().enumerate().filter(negates).count() as u32
}

/// Capitals mean names only where most words have none.
fn is_cased(words: &[Word]) -> bool {
    let letters = words.iter().filter(|w| !w.is(DIGITS | FIRST) && w.len() > 3);
    let (mut all, mut capital) = (0, 0);
    for word in letters {
        all += 1;
        capital += usize::from(word.is(CAPITAL));
    }
    capital > 0 && (all <= 2 || capital * 4 <= all * 3)
}

#[cfg(test)]
mod tests;

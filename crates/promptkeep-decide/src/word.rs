//! One word of a text: its hashes, its shape and what the [`lexicon`] says about it. Knows no other word.

use super::lexicon::{self, Info};

/// One word of an [`Analysis`](super::text::Analysis).
#[derive(Clone, Copy, Debug)]
pub struct Word {
    /// `lexicon::hash` of the lower-case form.
    pub hash: u64,
    /// `lexicon::hash` of the form without the most common English endings.
    pub stem: u64,
    /// Start of the word in [`Analysis::lower`](super::text::Analysis::lower), bytes.
    pub start: u32,
    /// End of the word in [`Analysis::lower`](super::text::Analysis::lower), bytes.
    pub end: u32,
    /// Shape bits, such as `CAPITAL`.
    pub shape: u16,
    /// Value of a word with `DIGITS`; 0 for others.
    pub number: f64,
    /// Entry of the lexicon.
    pub info: &'static Info,
}

/// Begins with a capital.
pub const CAPITAL: u16 = 1;
/// Begins a sentence, so a capital does not indicate a name.
pub const FIRST: u16 = 1 << 1;
/// Looks like code, a path, an address or a version.
pub const CODE: u16 = 1 << 2;
/// Written in digits.
pub const DIGITS: u16 = 1 << 3;
/// Follows digits without a space, like the `km` of `5km`.
pub const SUFFIX: u16 = 1 << 4;
/// Follows a currency sign.
pub const CURRENCY: u16 = 1 << 5;
/// Belongs to a number or date that was already parsed.
pub const TAKEN: u16 = 1 << 6;
/// Mixes letters and digits.
pub const MIXED: u16 = 1 << 7;
/// Follows a comma, full stop, bracket or similar mark.
pub const BREAK: u16 = 1 << 8;
/// Has more than one letter, all capitals.
pub const UPPER: u16 = 1 << 9;
/// Digits with a colon.
pub const CLOCK: u16 = 1 << 10;

impl Word {
    /// Whether any of the bits in `shape` is set.
    pub const fn is(&self, shape: u16) -> bool {
        self.shape & shape != 0
    }

    /// Whether the word is a content word: neither a function word nor part of a number or date.
    pub const fn is_content(&self) -> bool {
        !self.info.has(lexicon::STOP) && !self.is(TAKEN)
    }

    /// Whether its capitals make it a name, in a text where capitals indicate names.
    pub const fn is_name(&self) -> bool {
        self.is(CAPITAL | UPPER) && !self.is(FIRST | DIGITS) && self.is_content()
    }

    /// Length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "no word is empty")]
    pub const fn len(&self) -> usize {
        (self.end - self.start) as usize
    }
}

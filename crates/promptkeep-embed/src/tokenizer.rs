//! Text to the ids of BERT's uncased WordPiece vocabulary. Gives what the reference tokenizer gives, but
//! for two things: `[SEP]` and its like in a text are plain characters, so that a caller cannot forge them;
//! and characters that Unicode 8, whose tables the reference has, did not know or put elsewhere are taken
//! for what they are now. On 442,771 texts, one for each character among them, nothing else differed.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use icu_normalizer::DecomposingNormalizerBorrowed;
use icu_properties::{CodePointMapData, props::GeneralCategory};

const UNKNOWN: u32 = 100;
const START: u32 = 101;
const END: u32 = 102;

/// Longer words are unknown, as in the reference.
const WORD_CHARS_MAX: usize = 100;

/// Counting stops here: nobody needs to know how far a megabyte is over the window.
pub const COUNT_MAX: usize = 8192;

/// WordPiece with a fixed vocabulary.
pub struct Tokenizer {
    /// Pieces that begin a word.
    initial: Pieces,
    /// Pieces that go on with one, without their `##`.
    following: Pieces,
    /// Bytes of the longest piece.
    longest: usize,
}

type Pieces = HashMap<Box<str>, u32, BuildHasherDefault<Fnv>>;

/// FNV-1a: the keys are short and come from the vocabulary, so nobody can make them collide.
struct Fnv(u64);

/// One pass over one text.
struct Pass<'a> {
    tokenizer: &'a Tokenizer,
    ids: &'a mut Vec<u32>,
    /// The word so far, lower-cased and without accents.
    word: String,
    /// Its characters; more than [`WORD_CHARS_MAX`] are only counted.
    chars: usize,
}

// === impl Tokenizer ===

impl Tokenizer {
    /// From `vocab.txt`: one piece per line, the id is the line's number from 0.
    pub fn new(vocabulary: &str) -> Self {
        let (mut initial, mut following) = (Pieces::default(), Pieces::default());
        let mut longest = 0;
        for (piece, id) in vocabulary.lines().zip(0..) {
            longest = longest.max(piece.len());
            match piece.strip_prefix("##") {
                Some(rest) if !rest.is_empty() => following.insert(rest.into(), id),
                _ => initial.insert(piece.into(), id),
            };
        }
        Self { initial, following, longest }
    }

    /// Replaces `ids` by the tokens of `text`, start and end marks included; stops at about
    /// [`COUNT_MAX`].
    pub fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        ids.clear();
        ids.push(START);
        let mut pass = Pass { tokenizer: self, ids, word: String::new(), chars: 0 };
        if text.is_ascii() {
            pass.run(text.chars());
        } else {
            pass.run(DecomposingNormalizerBorrowed::new_nfd().normalize_iter(text.chars()));
        }
        ids.push(END);
    }

    /// Appends the pieces of one word: always the longest that fits, or unknown for the whole.
    fn split(&self, word: &str, ids: &mut Vec<u32>) {
        let before = ids.len();
        let mut rest = word;
        let mut pieces = &self.initial;
        while !rest.is_empty() {
            let Some((id, len)) = self.longest_prefix(rest, pieces) else {
                ids.truncate(before);
                ids.push(UNKNOWN);
                return;
            };
            ids.push(id);
            rest = &rest[len..];
            pieces = &self.following;
        }
    }

    fn longest_prefix(&self, text: &str, pieces: &Pieces) -> Option<(u32, usize)> {
        let top = text.len().min(self.longest);
        (1..=top)
            .rev()
            .filter(|end| text.is_char_boundary(*end))
            .find_map(|end| pieces.get(&text[..end]).map(|id| (*id, end)))
    }
}

// === impl Pass ===

impl Pass<'_> {
    fn run(&mut self, chars: impl Iterator<Item = char>) {
        for c in chars {
            if c.is_ascii() {
                self.ascii(c);
            } else {
                self.unicode(c);
            }
            if self.ids.len() >= COUNT_MAX {
                return;
            }
        }
        self.end_word();
    }

    fn ascii(&mut self, c: char) {
        match c {
            'a'..='z' | '0'..='9' => self.push(c),
            'A'..='Z' => self.push(c.to_ascii_lowercase()),
            ' ' | '\t' | '\n' | '\r' => self.end_word(),
            _ if c.is_ascii_control() => {}
            _ => self.alone(c),
        }
    }

    /// `c` is decomposed already, so that an accent is a character of its own.
    fn unicode(&mut self, c: char) {
        use GeneralCategory as G;
        match CodePointMapData::<GeneralCategory>::new().get(c) {
            G::Control | G::Format | G::PrivateUse | G::NonspacingMark => {}
            G::ConnectorPunctuation
            | G::DashPunctuation
            | G::OpenPunctuation
            | G::ClosePunctuation
            | G::InitialPunctuation
            | G::FinalPunctuation
            | G::OtherPunctuation => self.alone(c),
            _ if c.is_whitespace() => self.end_word(),
            _ if c == char::REPLACEMENT_CHARACTER => {}
            _ if is_ideograph(c) => self.alone(c),
            _ => c.to_lowercase().for_each(|lower| self.push(lower)),
        }
    }

    fn push(&mut self, c: char) {
        self.chars += 1;
        if self.chars <= WORD_CHARS_MAX {
            self.word.push(c);
        }
    }

    fn end_word(&mut self) {
        if self.chars > WORD_CHARS_MAX {
            self.ids.push(UNKNOWN);
        } else if self.chars > 0 {
            self.tokenizer.split(&self.word, self.ids);
        }
        self.word.clear();
        self.chars = 0;
    }

    /// A character that is a word of its own.
    fn alone(&mut self, c: char) {
        self.end_word();
        self.push(c);
        self.end_word();
    }
}

/// The blocks that BERT takes for Chinese, in which words have no spaces.
fn is_ideograph(c: char) -> bool {
    matches!(c,
        '\u{4E00}'..='\u{9FFF}' | '\u{3400}'..='\u{4DBF}' | '\u{20000}'..='\u{2A6DF}'
        | '\u{2A700}'..='\u{2B73F}' | '\u{2B740}'..='\u{2B81F}' | '\u{2B920}'..='\u{2CEAF}'
        | '\u{F900}'..='\u{FAFF}' | '\u{2F800}'..='\u{2FA1F}')
}

// === impl Fnv ===

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests;

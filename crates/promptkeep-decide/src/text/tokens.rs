//! Splits a text into words. Expands contractions ("don't" becomes "do not"), parses digits, keeps code in one piece
//! and collects quotations.

use crate::{
    lexicon::{self, hash},
    quantity::{self, Date},
    word::{BREAK, CAPITAL, CLOCK, CODE, CURRENCY, DIGITS, FIRST, MIXED, SUFFIX, TAKEN, UPPER, Word},
};

/// Maximum length of a quotation in bytes; longer ones are not collected.
const QUOTED_BYTES_MAX: usize = 200;

/// Collects the words of one text.
pub struct Splitter {
    lower: String,
    words: Vec<Word>,
    dates: Vec<Date>,
    quoted: Vec<String>,
    /// Shape bits for the next word.
    next: u16,
}

/// Splits `text` at white space and punctuation.
pub fn split(text: &str) -> Splitter {
    let mut splitter = Splitter {
        lower: String::with_capacity(text.len() + 16),
        words: Vec::with_capacity(text.len() / 5 + 4),
        dates: Vec::new(),
        quoted: quoted(text),
        next: FIRST,
    };
    for line in text.lines() {
        splitter.next |= FIRST;
        line.split_whitespace().for_each(|chunk| splitter.chunk(chunk));
    }
    splitter
}

impl Splitter {
    pub fn into_parts(self) -> (String, Vec<Word>, Vec<Date>, Vec<String>) {
        (self.lower, self.words, self.dates, self.quoted)
    }

    /// Splits one run of characters without white space.
    fn chunk(&mut self, chunk: &str) {
        let inner = chunk.trim_matches(|c: char| !c.is_alphanumeric() && !"+#$€£%".contains(c));
        let lead = &chunk[..inner.as_ptr() as usize - chunk.as_ptr() as usize];
        if lead.contains(['(', '[', ',', ';', ':', '-', '–', '—']) {
            self.next |= BREAK;
        }
        if inner.is_empty() {
            self.next |= if chunk.contains(['.', '!', '?']) { FIRST | BREAK } else { BREAK };
            return;
        }
        if let Some(date) = quantity::numeric_date(inner) {
            self.dates.push(date);
            self.push(inner, DIGITS | TAKEN);
        } else if is_code(inner, chunk) {
            self.push(inner, CODE);
        } else {
            self.pieces(inner);
        }
        self.after(&chunk[lead.len() + inner.len()..], inner);
    }

    /// Sets the shape of the next word by the marks after a chunk. "Dr." and "U.S." do not end a sentence.
    fn after(&mut self, marks: &str, inner: &str) {
        let abbreviation = marks.starts_with('.') && (inner.len() <= 2 || inner.contains('.'));
        if marks.contains(['!', '?', ':']) || (marks.contains('.') && !abbreviation) {
            self.next |= FIRST | BREAK;
        } else if !marks.is_empty() {
            self.next |= BREAK;
        }
    }

    /// Splits at marks inside the chunk, and between digits and letters.
    fn pieces(&mut self, chunk: &str) {
        let mut rest = chunk;
        while let Some(c) = rest.chars().next() {
            let length = if c.is_ascii_digit() {
                digits(rest)
            } else if is_ideograph(c) {
                c.len_utf8()
            } else if c.is_alphanumeric() {
                word_length(rest)
            } else {
                self.mark(c);
                rest = &rest[c.len_utf8()..];
                continue;
            };
            let (piece, left) = rest.split_at(length);
            if c.is_ascii_digit() {
                self.number(piece, left);
            } else {
                self.word(piece);
            }
            rest = left;
        }
    }

    fn mark(&mut self, c: char) {
        match c {
            '$' => self.next |= CURRENCY,
            '€' => self.push("euro", 0),
            '£' => self.push("gbp", 0),
            '%' => self.push("percent", SUFFIX),
            '.' | ',' | ';' | ':' | '!' | '?' | '(' | ')' | '/' | '。' | '，' | '？' | '、' => {
                self.next |= BREAK
            }
            _ => {}
        }
    }

    /// Adds a number. Letters right after it are its suffix: a unit, a magnitude or an ordinal ending.
    fn number(&mut self, piece: &str, left: &str) {
        let value = quantity::parse_digits(piece);
        self.push(piece, if piece.contains(':') { DIGITS | CLOCK } else { DIGITS });
        if let Some(word) = self.words.last_mut() {
            word.number = value;
        }
        if left.starts_with(|c: char| c.is_alphabetic()) {
            self.next |= SUFFIX;
        }
    }

    fn word(&mut self, piece: &str) {
        let Some((head, tail)) = piece.split_once(['\'', '’']) else {
            let shape = if piece.bytes().any(|b| b.is_ascii_digit()) { MIXED } else { 0 };
            return self.push(piece, shape);
        };
        let tail = tail.to_ascii_lowercase();
        match (head.to_ascii_lowercase().as_str(), tail.as_str()) {
            ("can", "t") => self.push_two("can", "not"),
            ("won", "t") => self.push_two("will", "not"),
            ("shan", "t") => self.push_two("shall", "not"),
            (_, "t") => self.push_two(head.strip_suffix('n').unwrap_or(head), "not"),
            (_, "re") => self.push_two(head, "are"),
            (_, "ve") => self.push_two(head, "have"),
            (_, "ll") => self.push_two(head, "will"),
            (_, "m") => self.push_two(head, "am"),
            (_, "d") => self.push_two(head, "would"),
            ("let", "s") => self.push_two(head, "us"),
            (lower, "s") if lexicon::info(hash(lower)).has(lexicon::STOP) => self.push_two(head, "is"),
            (_, "s") => self.push(head, 0),
            _ => {
                self.push(head, 0);
                self.push(&tail, 0);
            }
        }
    }

    fn push_two(&mut self, first: &str, second: &str) {
        self.push(first, 0);
        self.push(second, 0);
    }

    fn push(&mut self, piece: &str, shape: u16) {
        if !self.lower.is_empty() {
            self.lower.push(' ');
        }
        let start = self.lower.len();
        lower_into(&mut self.lower, piece);
        let word = &self.lower[start..];
        let mut shape = shape | std::mem::take(&mut self.next);
        let info = lexicon::info(expand(word));
        if shape & FIRST != 0 && info.has(lexicon::FILLER) {
            self.next |= FIRST;
        }
        if piece.starts_with(char::is_uppercase) {
            shape |= CAPITAL;
        }
        if piece.len() > 1 && piece.chars().all(char::is_uppercase) {
            shape |= UPPER;
        }
        let full = expand(word);
        let ascii = if word.is_ascii() { 0 } else { lexicon::NON_ASCII };
        self.words.push(Word {
            hash: full | ascii,
            stem: hash(stem(word)) | ascii,
            start: start as u32,
            end: self.lower.len() as u32,
            shape,
            number: 0.0,
            info,
        });
    }
}

/// Hashes a word. A contraction without its apostrophe, such as "dont", gets the hash of "not".
fn expand(word: &str) -> u64 {
    const NOT: u64 = hash("not");
    match word {
        "dont" | "doesnt" | "didnt" | "cant" | "wont" | "isnt" | "arent" | "wasnt" | "couldnt"
        | "shouldnt" => NOT,
        _ => hash(word),
    }
}

fn lower_into(to: &mut String, piece: &str) {
    if piece.is_ascii() {
        let start = to.len();
        to.push_str(piece);
        to[start..].make_ascii_lowercase();
    } else {
        piece.chars().for_each(|c| to.extend(c.to_lowercase()));
    }
}

/// Returns the word without plural, past and progressive endings.
pub fn stem(word: &str) -> &str {
    if word.len() <= 3 || !word.is_ascii() {
        return word;
    }
    for ending in ["ings", "ing", "ies", "ied", "es", "ed", "s", "e", "y"] {
        let Some(rest) = word.strip_suffix(ending) else { continue };
        if rest.len() < 3 || (ending == "s" && rest.ends_with(['s', 'u', 'i'])) {
            continue;
        }
        return undouble(rest, ending);
    }
    word
}

/// Removes a doubled consonant, so that "stopped" and "stop" have one stem.
fn undouble<'w>(rest: &'w str, ending: &str) -> &'w str {
    let bytes = rest.as_bytes();
    let last = bytes[bytes.len() - 1];
    let doubled = matches!(ending, "ing" | "ings" | "ed")
        && rest.len() > 3
        && bytes[bytes.len() - 2] == last
        && !matches!(last, b'l' | b's' | b'z');
    let rest = if doubled { &rest[..rest.len() - 1] } else { rest };
    match rest.strip_suffix('e') {
        Some(short) if ending == "s" && short.len() >= 3 => short,
        _ => rest,
    }
}

/// Returns the length of the number at the start: digits with single separators between them.
fn digits(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digit = |i: usize| bytes.get(i).is_some_and(u8::is_ascii_digit);
    let mut end = 0;
    while digit(end) || (end > 0 && matches!(bytes.get(end), Some(b'.' | b',' | b':')) && digit(end + 1)) {
        end += 1;
    }
    end
}

/// Returns the length of the word at the start: letters, digits after a letter, an apostrophe between letters.
fn word_length(text: &str) -> usize {
    let mut end = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((i, c)) = chars.next() {
        let joins = matches!(c, '\'' | '’') && i > 0 && chars.peek().is_some_and(|(_, n)| n.is_alphabetic());
        let plus = matches!(c, '+' | '#') && i > 0;
        if !(joins || plus || (c.is_alphanumeric() && !is_ideograph(c))) {
            break;
        }
        end = i + c.len_utf8();
    }
    end
}

/// Whether the character belongs to a script without spaces, in which every character counts as a word.
const fn is_ideograph(c: char) -> bool {
    matches!(c as u32, 0x3040..=0x30ff | 0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x0e00..=0x0e7f)
}

/// Whether a chunk is an identifier, path, address, version or flag. `inner` is `chunk` without outer marks.
fn is_code(inner: &str, chunk: &str) -> bool {
    if !inner.is_ascii() || inner.len() < 2 {
        return false;
    }
    let bytes = inner.as_bytes();
    let letter = |i: usize| bytes.get(i).is_some_and(u8::is_ascii_alphanumeric);
    let inside = |mark: u8| (1..bytes.len() - 1).any(|i| bytes[i] == mark && letter(i - 1) && letter(i + 1));
    let dotted = inside(b'.') && !inner.contains('=') && !is_plain_number(inner) && !is_initials(inner);
    inside(b'_')
        || inner.contains("::")
        || inner.contains('@') && dotted
        || chunk.starts_with("--")
        || chunk.starts_with(['/', '~']) && inner.len() > 2
        || inner.contains("://")
        || dotted
        || inner.contains("()")
        || is_camel(inner)
}

/// Whether this is a number such as 3.5 or 1,000.50, with or without a unit. 3.8.1 is a version.
fn is_plain_number(inner: &str) -> bool {
    let inner = inner.trim_start_matches(['$', '+']);
    inner.starts_with(|c: char| c.is_ascii_digit()) && inner.matches('.').count() == 1
}

/// Whether this is an abbreviation such as U.S. or p.m, or two sentences without a space after the full stop.
fn is_initials(inner: &str) -> bool {
    inner.split('.').all(|part| part.len() <= 1)
        || inner.split('.').any(|part| part.starts_with(char::is_uppercase))
}

/// Whether a capital follows a small letter, as in `useState`. Names such as `iPhone` match too, which is harmless:
/// comparisons of code ignore case.
fn is_camel(inner: &str) -> bool {
    let bytes = inner.as_bytes();
    let hump = |pair: &[u8]| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase();
    bytes.iter().all(u8::is_ascii_alphanumeric) && bytes.windows(2).any(hump)
}

/// Returns the contents of all pairs of quotation marks in lower case.
fn quoted(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if !text.contains(['"', '\'', '`', '“', '‘', '«', '„', '「']) {
        return found;
    }
    let mut rest = text;
    let mut before = ' ';
    while let Some(open) = rest.chars().next() {
        let inside = &rest[open.len_utf8()..];
        if let Some(end) = closing(open, before, inside) {
            let content = inside[..end].trim_matches(|c: char| !c.is_alphanumeric());
            if !content.is_empty() && content.len() <= QUOTED_BYTES_MAX {
                found.push(content.to_lowercase());
            }
            rest = &inside[end..];
            before = ' ';
            rest = &rest[rest.chars().next().map_or(0, char::len_utf8)..];
        } else {
            before = open;
            rest = inside;
        }
    }
    found
}

/// Returns the end of the quotation opened by `open`. An apostrophe opens a quotation only after white space or a
/// bracket.
fn closing(open: char, before: char, inside: &str) -> Option<usize> {
    let close: &[char] = match open {
        '"' => &['"'],
        '`' => &['`'],
        '“' => &['”'],
        '„' => &['“', '”'],
        '«' => &['»'],
        '「' => &['」'],
        '\'' | '‘' if before.is_whitespace() || before == '(' => return closing_apostrophe(inside),
        _ => return None,
    };
    inside.find(close)
}

/// Returns the first apostrophe that no letter or digit follows.
fn closing_apostrophe(inside: &str) -> Option<usize> {
    let ends =
        |(i, mark): &(usize, &str)| !inside[i + mark.len()..].starts_with(|c: char| c.is_alphanumeric());
    inside.match_indices(['\'', '’']).find(ends).map(|(i, _)| i)
}

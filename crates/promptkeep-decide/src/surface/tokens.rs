//! Splits a text into words, marks and breaks, and expands contractions. Drops nothing but spaces.

use icu_properties::{CodePointMapData, props::GeneralCategory};

use super::words::{FORM_WORDS, List, QUOTING_WORDS, is_in};

/// Kind of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Letters and digits of one script, with apostrophes between letters.
    Word,
    /// One character that is neither a letter, a digit nor white space.
    Mark,
    /// White space with a line break or tab; in code, any gap that is not a single space.
    Break,
}

/// A piece of a text.
#[derive(Clone, Copy, Debug)]
pub struct Token<'t> {
    /// The characters, without change except in contractions.
    pub text: &'t str,
    pub kind: Kind,
    /// Whether white space or the start of the text precedes it.
    pub spaced: bool,
    /// Whether it belongs to a path, flag, address or similar, of which every character counts.
    pub exact: bool,
    /// Whether it begins a sentence, so that a capital does not indicate a name.
    pub first: bool,
}

/// The tokens of one text.
pub struct Tokens<'t> {
    pub tokens: Vec<Token<'t>>,
    /// Whether every character counts, in code and in questions about spelling.
    pub code: bool,
    /// Whether the text ends in code or in a text it is about, so that its last mark may belong to that.
    pub ends_in_code: bool,
}

/// Characters that make the run of characters around them code when they stand inside it.
const JOINERS: &str = "_/\\@=#$~^&|<>+*:.%[]()";

/// Characters that make the run of characters after them code.
const LEADS: &str = "/.~$@#%<[*+^";

/// Whether a text is or contains code.
pub fn is_code(text: &str) -> bool {
    let pair = |pair: &[u8]| {
        matches!(
            pair,
            b"()" | b"::" | b"</" | b"/>" | b"->" | b"=>" | b"==" | b"!=" | b"&&" | b"||" | b"\n\t"
        )
    };
    let bytes = text.as_bytes();
    bytes.iter().any(|b| matches!(b, b'`' | b'{' | b'}' | b'\\'))
        || bytes.windows(2).any(pair)
        || text.contains("\n  ")
}

/// Whether the end of a text is code. It is not in one line whose code is all between backticks.
fn ends_in_code(text: &str) -> bool {
    let mut parts = 0;
    let mut outside = text.split('`').inspect(|_| parts += 1).step_by(2);
    let code = outside.any(is_code) || text.contains(is_break);
    code || parts % 2 == 0
}

/// Whether white space counts for more than a space.
pub const fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\t' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

// === impl Tokens ===

impl<'t> Tokens<'t> {
    /// Splits `text`, which must be trimmed.
    pub fn of(text: &'t str) -> Self {
        let code = is_code(text);
        let mut tokens = Self::split(text, code);
        // After a colon may stand the text that a request for a correction or translation is about.
        let quotes = tokens.tokens.iter().any(|t| t.text == ":") && tokens.has_any(&QUOTING_WORDS);
        if !code && (quotes || tokens.has_any(&FORM_WORDS)) {
            tokens = Self::split(text, true);
        }
        tokens.ends_in_code = quotes || (code && ends_in_code(text));
        tokens
    }

    fn split(text: &'t str, code: bool) -> Self {
        let tokens = Vec::with_capacity(text.len() / 4 + 2);
        let mut tokens = Self { tokens, code, ends_in_code: false };
        let mut first = true;
        let mut rest = text;
        while !rest.is_empty() {
            let gap = rest.len() - rest.trim_start().len();
            let (gap, after) = rest.split_at(gap);
            let end = after.find(char::is_whitespace).unwrap_or(after.len());
            let (chunk, left) = after.split_at(end);
            first |= tokens.gap(gap);
            first = tokens.chunk(chunk, first);
            rest = left;
        }
        tokens
    }

    /// Whether a word of a list occurs.
    fn has_any(&self, list: &List) -> bool {
        let mut words = self.tokens.iter().filter(|t| t.kind == Kind::Word);
        words.any(|t| is_in(list, t.text))
    }

    /// Adds a break if the gap is one. Returns whether a sentence may begin after it.
    fn gap(&mut self, gap: &'t str) -> bool {
        let lines = gap.chars().filter(|c| is_break(*c) && *c != '\t').count();
        let text = match lines {
            _ if gap.is_empty() => return false,
            _ if self.code => gap,
            0 if gap.contains('\t') => "\t",
            0 => return false,
            1 => "\n",
            _ => "\n\n",
        };
        if text != " " {
            self.tokens.push(Token { text, kind: Kind::Break, spaced: true, exact: false, first: false });
        }
        lines > 0
    }

    /// Splits a run of characters without white space. Returns whether a sentence may begin after it.
    fn chunk(&mut self, chunk: &'t str, mut first: bool) -> bool {
        let exact = is_exact(chunk);
        let mut spaced = true;
        let mut rest = chunk;
        while let Some(c) = rest.chars().next() {
            let length = if is_letter(c) { word_length(rest, exact) } else { c.len_utf8() };
            let (text, left) = rest.split_at(length);
            rest = left;
            if is_letter(c) {
                self.word(Token { text, kind: Kind::Word, spaced, exact, first });
                (spaced, first) = (false, false);
                continue;
            }
            // A long dash between letters means the same with and without spaces.
            let dash = c == '—' && !exact && self.ends_with_letter() && left.starts_with(char::is_alphabetic);
            self.tokens.push(Token { text, kind: Kind::Mark, spaced: spaced || dash, exact, first });
            let ends = matches!(c, '.' | '!' | '?' | ':' | '…' | '。' | '！' | '？');
            first |= ends && !left.contains(is_letter);
            spaced = dash;
        }
        first
    }

    fn ends_with_letter(&self) -> bool {
        self.tokens.last().is_some_and(|t| t.text.ends_with(char::is_alphabetic))
    }

    /// Adds a word; a contraction becomes two words.
    fn word(&mut self, word: Token<'t>) {
        let parts = if word.exact || self.code { None } else { expand(word.text) };
        let Some((head, tail)) = parts else { return self.tokens.push(word) };
        self.tokens.push(Token { text: head, ..word });
        self.tokens.push(Token { text: tail, spaced: true, first: false, ..word });
    }
}

/// Whether every character of a run without white space counts, as in paths, flags, addresses and formulas.
fn is_exact(chunk: &str) -> bool {
    let inner = chunk.trim_matches(|c| "\"'“”‘’«»„(),;:!?.".contains(c));
    let opened = chunk.trim_start_matches(['"', '\'', '“', '‘', '«', '(']);
    let flag = |text: &str| {
        text.strip_prefix('-').is_some_and(|flag| flag.starts_with(|c: char| c == '-' || c.is_alphabetic()))
    };
    let mut middle = inner.chars();
    middle.next();
    middle.next_back();
    let marked = middle.any(|c| JOINERS.contains(c))
        || inner.ends_with(['+', '#', '*', ')', ']'])
        || (opened.starts_with(|c| LEADS.contains(c)) && !opened.starts_with(".."))
        || flag(opened);
    marked && inner.contains(char::is_alphabetic)
}

fn is_ideograph(c: char) -> bool {
    matches!(c as u32, 0x3040..=0x30ff | 0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x20000..=0x3ffff)
}

/// Whether a word begins with a character of Chinese or Japanese, which are written without spaces.
pub fn is_ideographic(word: &str) -> bool {
    word.starts_with(is_ideograph)
}

/// Whether a character is a letter, a digit or a combining mark.
pub fn is_letter(c: char) -> bool {
    c.is_alphanumeric() || (!c.is_ascii() && is_combining(c))
}

/// Whether a character modifies the letter before it. Variation selectors and joiners of emoji are not letters.
pub fn is_combining(c: char) -> bool {
    let category = || CodePointMapData::<GeneralCategory>::new().get(c);
    !matches!(c as u32, 0..0x300 | 0x20d0..=0x20ff | 0xfe00..=0xfe0f | 0xe0000..)
        && matches!(category(), GeneralCategory::NonspacingMark | GeneralCategory::SpacingMark)
}

const fn is_apostrophe(c: char) -> bool {
    matches!(c, '\'' | '’' | 'ʼ')
}

/// Returns the length of the word at the start of `text`.
fn word_length(text: &str, exact: bool) -> usize {
    let mut end = 0;
    let mut ideographic = None;
    let mut chars = text.char_indices().peekable();
    while let Some((i, c)) = chars.next() {
        let joins =
            !exact && i > 0 && is_apostrophe(c) && chars.peek().is_some_and(|(_, next)| next.is_alphabetic());
        let same_script = *ideographic.get_or_insert(is_ideograph(c)) == is_ideograph(c);
        if !(joins || (is_letter(c) && same_script)) {
            break;
        }
        end = i + c.len_utf8();
    }
    end
}

/// Subjects whose contractions are unambiguous.
const SUBJECTS: [&str; 15] = [
    "i", "you", "he", "she", "it", "we", "they", "that", "there", "what", "who", "where", "how", "why",
    "here",
];

/// Contractions with "not" that are no other word without their apostrophe.
const UNMARKED: [&str; 13] = [
    "dont", "doesnt", "didnt", "isnt", "arent", "wasnt", "werent", "couldnt", "shouldnt", "wouldnt",
    "havent", "hasnt", "hadnt",
];

/// Splits a contraction into its two words. `None` when the word is none, or may stand for different words.
fn expand(word: &str) -> Option<(&str, &'static str)> {
    if word.eq_ignore_ascii_case("cannot") {
        return Some((&word[..3], "not"));
    }
    let Some((head, tail)) = word.split_once(is_apostrophe) else { return expand_unmarked(word) };
    let subject = || SUBJECTS.iter().any(|s| head.eq_ignore_ascii_case(s));
    match tail {
        "t" | "T" if head.eq_ignore_ascii_case("can") => Some((head, "not")),
        "t" | "T" if head.eq_ignore_ascii_case("won") => Some(("will", "not")),
        "t" | "T" => {
            let verb = head.strip_suffix(['n', 'N'])?;
            UNMARKED.iter().any(|u| u[..u.len() - 2].eq_ignore_ascii_case(verb)).then_some((verb, "not"))
        }
        "s" | "S" if subject() => Some((head, "is")),
        "re" | "RE" if subject() => Some((head, "are")),
        "ve" | "VE" if subject() => Some((head, "have")),
        "ll" | "LL" if subject() => Some((head, "will")),
        "m" | "M" if head.eq_ignore_ascii_case("i") => Some((head, "am")),
        _ => None,
    }
}

fn expand_unmarked(word: &str) -> Option<(&str, &'static str)> {
    if UNMARKED.iter().any(|u| word.eq_ignore_ascii_case(u)) {
        return Some((&word[..word.len() - 2], "not"));
    }
    let is = ["whats", "thats", "hes", "shes", "theres", "wheres"];
    is.iter().any(|u| word.eq_ignore_ascii_case(u)).then(|| (&word[..word.len() - 1], "is"))
}

/// Returns the character in lower case, with one shape for apostrophes and for the Greek sigma.
fn fold(c: char) -> impl Iterator<Item = char> {
    c.to_lowercase().map(|c| match c {
        '’' | 'ʼ' => '\'',
        'ς' => 'σ',
        _ => c,
    })
}

/// Whether two words have equal letters in any case.
pub fn same_letters(a: &str, b: &str) -> bool {
    if a.is_ascii() && b.is_ascii() {
        return a.eq_ignore_ascii_case(b);
    }
    a.chars().flat_map(fold).eq(b.chars().flat_map(fold))
}

/// Whether two marks are shapes of one mark.
pub fn same_mark(a: &str, b: &str) -> bool {
    let shape = |mark: &str| match mark.chars().next() {
        Some('“' | '”' | '„' | '‟' | '«' | '»' | '"') => '"',
        Some('‘' | '’' | '‚' | '‛' | '\'') => '\'',
        Some('‐' | '‑' | '‒' | '–' | '—' | '―' | '-') => '-',
        other => other.unwrap_or_default(),
    };
    shape(a) == shape(b)
}

//! Whether two texts differ on the surface only, so that one answer serves both: in case, end marks, spaces, shapes of
//! quotes and dashes, courtesy, contractions and typing mistakes. In doubt two texts are different. Works on the raw
//! texts, because the analysis drops marks. Courtesy, contractions and typing mistakes are English.
//!
//! * `tokens` splits a text into words and marks.
//! * `courtesy` drops end marks and politeness around a request.
//! * `case` knows capitals that make another word; `typo` knows typing mistakes.
//! * `marks` lists the marks that a text encoder drops or cannot tell apart.

mod case;
mod courtesy;
mod marks;
mod tokens;
mod typo;
mod words;

use icu_normalizer::ComposingNormalizerBorrowed;

use super::rarity::Rarity;
use tokens::{Kind, Token, Tokens};

pub use marks::same_marks;

/// Length in bytes above which texts are compared by spaces and composed characters only.
const TEXT_BYTES_MAX: usize = 4096;

/// Maximum number of typing mistakes between two texts.
const TYPOS_MAX: usize = 2;

/// Number of words that allow one typing mistake.
const WORDS_PER_TYPO: usize = 5;

/// How two texts differ, beyond what an encoder sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// On the surface only: the same answer serves both.
    Surface,
    /// In their words; the encoder and the features tell how much.
    Wording,
    /// In marks that the encoder drops or cannot tell apart: no likeness of the words makes them one question.
    Marks,
}

/// Returns how two texts differ. `rarity` tells which words are common.
pub fn difference(a: &str, b: &str, rarity: &Rarity) -> Difference {
    if is_variant(a, b, rarity) {
        Difference::Surface
    } else if same_marks(a, b) {
        Difference::Wording
    } else {
        Difference::Marks
    }
}

/// Whether `a` and `b` differ on the surface only, so that the same answer serves both with certainty. `rarity` tells
/// which words are common. Symmetric and reflexive; linear in the length of the texts.
pub fn is_variant(a: &str, b: &str, rarity: &Rarity) -> bool {
    if a == b {
        return true;
    }
    let normalizer = ComposingNormalizerBorrowed::new_nfc();
    let (a, b) = (normalizer.normalize(a), normalizer.normalize(b));
    let (a, b) = (a.trim(), b.trim());
    if a.len().max(b.len()) > TEXT_BYTES_MAX {
        return is_same_but_for_spaces(a, b);
    }
    let (a, b) = (Tokens::of(a), Tokens::of(b));
    if a.code != b.code {
        return false;
    }
    let (a, b) = (Side::of(&a), Side::of(&b));
    a.tokens.len() == b.tokens.len() && if a.code { same_code(&a, &b) } else { same_prose(&a, &b, rarity) }
}

/// Whether two long texts differ in the lengths of their gaps only. Gaps with line breaks or tabs must be equal.
fn is_same_but_for_spaces(a: &str, b: &str) -> bool {
    if tokens::is_code(a) || tokens::is_code(b) {
        return a == b;
    }
    plain(a).eq(plain(b))
}

/// Returns the characters with every run of spaces as one space.
fn plain(text: &str) -> impl Iterator<Item = char> {
    let mut after_space = false;
    text.chars().filter_map(move |c| {
        let space = c.is_whitespace() && !tokens::is_break(c);
        let skipped = space && after_space;
        after_space = space;
        (!skipped).then_some(if space { ' ' } else { c })
    })
}

/// The tokens of one text that are compared.
struct Side<'t> {
    tokens: &'t [Token<'t>],
    /// Whether the text is or contains code, in which every character counts.
    code: bool,
    /// Whether all letters are capitals.
    shouts: bool,
}

impl<'t> Side<'t> {
    fn of(text: &'t Tokens<'t>) -> Self {
        let tokens = courtesy::core(text);
        Self { tokens, code: text.code, shouts: case::shouts(tokens) }
    }

    /// Returns a token with what its case depends on.
    fn place(&self, index: usize) -> case::Place<'t> {
        let word = |i: Option<usize>| i.and_then(|i| self.tokens.get(i)).map_or("", |t| t.text);
        case::Place {
            text: self.tokens[index].text,
            first: index == 0 || self.tokens[index].first,
            shouts: self.shouts,
            before: word(index.checked_sub(1)),
            after: word(Some(index + 1)),
        }
    }
}

/// Compares texts with code: all characters count but the capital of the first word.
fn same_code(a: &Side<'_>, b: &Side<'_>) -> bool {
    a.tokens.iter().zip(b.tokens).enumerate().all(|(i, (x, y))| {
        let opening = i == 0 && courtesy::opens_request(x.text) && x.text.eq_ignore_ascii_case(y.text);
        (x.text == y.text || opening) && (i == 0 || x.spaced == y.spaced)
    })
}

/// Compares texts without code, word by word and mark by mark.
fn same_prose(a: &Side<'_>, b: &Side<'_>, rarity: &Rarity) -> bool {
    let mut typos = 0;
    for i in 0..a.tokens.len() {
        let (x, y) = (&a.tokens[i], &b.tokens[i]);
        if x.kind != y.kind || !same_gap(a.tokens, b.tokens, i) {
            return false;
        }
        let same = match x.kind {
            _ if x.text == y.text => true,
            Kind::Break => false,
            _ if x.exact || y.exact => false,
            Kind::Mark => tokens::same_mark(x.text, y.text),
            Kind::Word if tokens::same_letters(x.text, y.text) => {
                case::is_surface(&a.place(i), &b.place(i), rarity)
            }
            Kind::Word => {
                typos += 1;
                let (p, q) = (a.place(i), b.place(i));
                typos <= TYPOS_MAX
                    && p.may_be_misspelt()
                    && q.may_be_misspelt()
                    && typo::is_typo(x.text, y.text, rarity)
            }
        };
        if !same {
            return false;
        }
    }
    let words = a.tokens.iter().filter(|t| t.kind == Kind::Word).count();
    typos * WORDS_PER_TYPO <= words
}

/// Whether the gaps before token `i` are equal or mean nothing.
fn same_gap(a: &[Token<'_>], b: &[Token<'_>], i: usize) -> bool {
    i == 0 || a[i].spaced == b[i].spaced || (is_loose(a, i) && is_loose(b, i))
}

/// Whether the gap before token `i` means nothing, as before a comma that a space follows.
fn is_loose(t: &[Token<'_>], i: usize) -> bool {
    if t[i].exact || t[i - 1].exact {
        return false;
    }
    let spaced = |j: usize| t.get(j).is_none_or(|x| x.spaced);
    let letters = |j: usize| t[j].kind == Kind::Word && t[j].text.chars().all(char::is_alphabetic);
    let digits = |j: usize| t.get(j).is_some_and(|x| x.text.bytes().all(|b| b.is_ascii_digit()));
    let arithmetic = |j: usize| {
        j > 0
            && matches!(t[j].text, "+" | "*" | "×" | "÷" | "=")
            && digits(j - 1)
            && digits(j + 1)
            && t[j].spaced == spaced(j + 1)
    };
    let ends =
        t[i].kind == Kind::Mark && t[i].text.starts_with([',', ';', ':', '.', '!', '?']) && spaced(i + 1);
    let comma = i > 1 && t[i - 1].text == "," && letters(i - 2) && letters(i);
    let scripts = t[i].kind == Kind::Word
        && t[i - 1].kind == Kind::Word
        && tokens::is_ideographic(t[i].text) != tokens::is_ideographic(t[i - 1].text);
    ends || comma || scripts || arithmetic(i) || arithmetic(i - 1)
}

#[cfg(test)]
mod tests;

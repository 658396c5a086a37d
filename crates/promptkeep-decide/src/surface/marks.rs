//! The marks of a text that a text encoder drops or cannot tell apart from others.

use icu_normalizer::{ComposingNormalizerBorrowed, DecomposingNormalizerBorrowed};

use super::tokens::{is_combining, is_letter};

/// Whether both texts have the same sequence of marks that a text encoder drops or cannot tell apart: operators, signs,
/// numbers with a decimal mark, brackets, emoji, symbols, flags and letters of scripts that it does not know. Words that
/// both texts have must also have the same diacritics. Ignores the punctuation of prose. Symmetric and reflexive;
/// linear in the length of the texts, apart from sorting the words with diacritics.
pub fn same_marks(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    let normalizer = ComposingNormalizerBorrowed::new_nfc();
    let (a, b) = (normalizer.normalize(a), normalizer.normalize(b));
    of(&a) == of(&b) && same_diacritics(&a, &b)
}

/// Collects the marks of one text.
struct Marks {
    chars: Vec<char>,
    found: Vec<Option<char>>,
    /// Open parentheses: the place in `found` and in `chars`.
    open: Vec<(usize, usize)>,
}

/// Returns the marks of a text in order.
fn of(text: &str) -> Vec<char> {
    let chars: Vec<char> = text.chars().collect();
    let mut marks = Marks { chars, found: Vec::new(), open: Vec::new() };
    let mut i = 0;
    while i < marks.chars.len() {
        i = marks.read(i);
    }
    marks.found.into_iter().flatten().collect()
}

// === impl Marks ===

impl Marks {
    /// Reads the character at `i` and what belongs to it. Returns the place after it.
    fn read(&mut self, i: usize) -> usize {
        let c = self.chars[i];
        if c.is_numeric() {
            return self.number(i);
        }
        if is_letter(c) {
            if !is_covered(c) {
                self.push(c);
            }
        } else if c.is_whitespace() {
        } else if is_dash(c) {
            return self.dash(i);
        } else if matches!(c, '(' | '（') {
            self.open.push((self.found.len(), i));
            self.push('(');
        } else if matches!(c, ')' | '）') {
            self.close(i);
        } else if self.is_mark(i) {
            self.push(c);
        }
        i + 1
    }

    fn push(&mut self, c: char) {
        self.found.push(Some(c));
    }

    fn at(&self, i: usize) -> char {
        self.chars.get(i).copied().unwrap_or(' ')
    }

    fn before(&self, i: usize) -> char {
        i.checked_sub(1).map_or(' ', |i| self.chars[i])
    }

    /// Reads a number. It counts if it has a decimal mark, is no plain digit, or follows a decimal mark.
    fn number(&mut self, start: usize) -> usize {
        let mut end = start;
        while self.at(end).is_numeric()
            || (matches!(self.at(end), '.' | ',' | '٫' | '٬') && self.at(end + 1).is_numeric())
        {
            end += 1;
        }
        let leading = self.before(start) == '.' && !is_letter(self.before(start - 1));
        let number: String = self.chars[start..end].iter().collect();
        let number = without_groups(&number);
        if leading {
            self.push('.');
        }
        if leading || !number.bytes().all(|b| b.is_ascii_digit()) {
            number.chars().for_each(|c| self.push(c));
            self.push(' ');
        }
        end
    }

    /// Reads a dash: a sign or operator beside a number, or a flag. Ignores dashes between words.
    fn dash(&mut self, i: usize) -> usize {
        let (before, after) = (self.before(i), self.at(i + 1));
        let opens = !is_letter(before) && !matches!(before, ')' | '"' | '\'' | '”' | '’' | ']' | '}');
        let beside = |step: &dyn Fn(usize) -> Option<usize>| {
            let mut at = step(i);
            while at.is_some_and(|j| self.at(j) == ' ' && j + 1 < self.chars.len()) {
                at = at.and_then(step);
            }
            at.map_or(' ', |j| self.at(j))
        };
        let (left, right) = (beside(&|j| j.checked_sub(1)), beside(&|j| Some(j + 1)));
        let operator = left.is_numeric() && right.is_numeric() || is_operator(left) || is_operator(right);
        let flag = opens && (is_letter(after) || is_dash(after)) && !after.is_numeric() && before != '-';
        if flag && before.is_whitespace() && self.chars[i] == '-' {
            return self.flag(i);
        }
        if operator
            || (opens && after.is_numeric())
            || (before.is_numeric() && after.is_whitespace() && is_operand(right))
        {
            self.push('-');
        }
        i + 1
    }

    /// Reads a flag such as `-v` or `--force`; its case counts.
    fn flag(&mut self, start: usize) -> usize {
        let mut end = start;
        while is_letter(self.at(end)) || self.at(end) == '-' {
            end += 1;
        }
        if self.chars[start..end].iter().any(|c| *c != '-') {
            let flag: Vec<char> = self.chars[start..end].to_vec();
            flag.into_iter().for_each(|c| self.push(c));
            self.push(' ');
        }
        end
    }

    /// Reads a closing parenthesis. A pair around prose does not count.
    fn close(&mut self, i: usize) {
        let Some((place, start)) = self.open.pop() else { return self.push(')') };
        let empty = place + 1 == self.found.len();
        let outside =
            !is_letter(self.before(start)) && !is_letter(self.at(i + 1)) && !is_operator(self.at(i + 1));
        let words = self.chars[start..i].windows(2).any(|pair| pair.iter().all(|c| c.is_alphabetic()))
            || self.chars[start..i].iter().any(|c| c.is_numeric());
        if empty && outside && words && !is_operator(self.before(start)) {
            self.found[place] = None;
        } else {
            self.push(')');
        }
    }

    /// Whether a character that is neither letter, digit, dash nor parenthesis counts.
    fn is_mark(&self, i: usize) -> bool {
        let (c, before, after) = (self.chars[i], self.before(i), self.at(i + 1));
        let letters = is_letter(before) && is_letter(after);
        match c {
            '/' => !(before.is_alphabetic() && after.is_alphabetic()),
            '\'' | '’' | '"' => before.is_numeric() && !is_letter(after) && self.is_unpaired(i),
            '!' if before.is_numeric() => true,
            '?' | '!' if letters || after == '=' => true,
            '.' | '?' | '!' | ':' | ',' | ';' => {
                is_symbol(after) || (is_symbol(before) && !after.is_whitespace())
            }
            _ => !is_prose(c),
        }
    }

    /// Whether the quotation mark at `i` has no partner, so that it means feet, inches, minutes or seconds.
    fn is_unpaired(&self, i: usize) -> bool {
        let quote = self.chars[i];
        let opening = |j: &usize| {
            self.chars[*j] == quote && !is_letter(self.before(*j)) && !self.at(*j + 1).is_whitespace()
        };
        let opening_before = (i.saturating_sub(QUOTATION_MAX)..i).rev().any(|j| opening(&j));
        !opening_before && !(i.saturating_sub(QUOTATION_MAX)..i).any(|j| self.chars[j] == '‘')
    }
}

/// Maximum length of a quotation whose opening mark is searched.
const QUOTATION_MAX: usize = 200;

/// Removes the commas between groups of three digits.
fn without_groups(number: &str) -> String {
    let mut groups = number.split('.').next().unwrap_or_default().split(',');
    let first = groups.next().unwrap_or_default();
    let grouped = (1..=3).contains(&first.len()) && !first.starts_with('0') && groups.all(|g| g.len() == 3);
    if grouped && number.matches('.').count() <= 1 { number.replace(',', "") } else { number.to_owned() }
}

const fn is_dash(c: char) -> bool {
    matches!(c, '-' | '‐' | '‑' | '‒' | '–' | '—' | '―' | '−')
}

const fn is_operator(c: char) -> bool {
    matches!(c, '+' | '*' | '/' | '=' | '<' | '>' | '^' | '%' | '×' | '÷' | '|' | '&' | '~')
}

fn is_operand(c: char) -> bool {
    c.is_numeric() || c == '('
}

/// Whether a character makes the punctuation beside it part of a pattern or formula.
const fn is_symbol(c: char) -> bool {
    matches!(
        c,
        '+' | '*'
            | '='
            | '<'
            | '>'
            | '^'
            | '|'
            | '&'
            | '\\'
            | '['
            | '{'
            | '('
            | '$'
            | '@'
            | '#'
            | '~'
            | '_'
            | '/'
    )
}

/// Whether a character is punctuation of prose in some script.
const fn is_prose(c: char) -> bool {
    matches!(
        c,
        '.' | ','
            | ';'
            | ':'
            | '!'
            | '?'
            | '"'
            | '\''
            | '“'
            | '”'
            | '„'
            | '‟'
            | '‘'
            | '’'
            | '‚'
            | '‛'
            | '«'
            | '»'
            | '‹'
            | '›'
            | '…'
            | '¿'
            | '¡'
            | '。'
            | '，'
            | '、'
            | '；'
            | '：'
            | '！'
            | '？'
            | '「'
            | '」'
            | '『'
            | '』'
            | '《'
            | '》'
            | '؟'
            | '،'
            | '؛'
            | '।'
            | '॥'
            | '־'
            | '׳'
            | '״'
            | '·'
            | '։'
            | '՞'
            | '՝'
            | '՛'
            | '።'
            | '፣'
    )
}

/// Whether the encoder knows the letters of the script of `c`. It knows few Chinese characters, and parts of Thai,
/// Armenian and others, so different words of these have equal encodings.
const fn is_covered(c: char) -> bool {
    matches!(
        c as u32,
        0..=0x24f | 0x2b0..=0x3ff | 0x400..=0x45f | 0x490..=0x4ff | 0x591..=0x5ea | 0x610..=0x6d5 | 0x900..=0x9ff
            | 0x1100..=0x11ff | 0x1e00..=0x1fff | 0x3040..=0x30ff | 0xac00..=0xd7a3
    )
}

/// Whether every word that both texts have, diacritics ignored, has the same diacritics in both.
fn same_diacritics(a: &str, b: &str) -> bool {
    if a.is_ascii() && b.is_ascii() {
        return true;
    }
    let (a, b) = (bare_words(a), bare_words(b));
    let (mut i, mut j) = (0, 0);
    while i < a.len() && j < b.len() {
        let (x, y) = (run(&a[i..]), run(&b[j..]));
        match x[0].0.cmp(&y[0].0) {
            std::cmp::Ordering::Less => i += x.len(),
            std::cmp::Ordering::Greater => j += y.len(),
            std::cmp::Ordering::Equal if x != y => return false,
            std::cmp::Ordering::Equal => (i, j) = (i + x.len(), j + y.len()),
        }
    }
    true
}

/// Returns the first words of equal letters.
fn run(words: &[(String, String)]) -> &[(String, String)] {
    let length = words.iter().take_while(|w| w.0 == words[0].0).count();
    &words[..length]
}

/// Returns the different words of a text in lower case, without and with diacritics, sorted.
fn bare_words(text: &str) -> Vec<(String, String)> {
    let normalizer = DecomposingNormalizerBorrowed::new_nfd();
    let lower = text.to_lowercase();
    let words = lower.split(|c| !is_letter(c)).filter(|word| !word.is_empty());
    let mut words: Vec<_> = words
        .map(|word| {
            let full = normalizer.normalize(word).into_owned();
            (full.chars().filter(|c| !is_combining(*c)).collect(), full)
        })
        .collect();
    words.sort_unstable();
    words.dedup();
    words
}

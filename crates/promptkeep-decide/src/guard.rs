//! The lexical guards: each compares two analyses and reports a difference that changes the answer. Mode `static`
//! serves a candidate only if no guard objects.
//!
//! The lexicon is English. For texts in other languages the guards compare only digits, dates in digits, quotations
//! and code.

use std::collections::HashSet;

use promptkeep_core::outcome::Guard;

use super::{
    lexicon::{self, hash},
    quantity::Quantity,
    similar::is_variant,
    text::{Analysis, Question},
    word::{CAPITAL, CODE, DIGITS, FIRST, MIXED, UPPER, Word},
};

/// All guards, in the order in which they are checked.
pub const ALL: [Guard; 13] = [
    Guard::Numbers,
    Guard::Units,
    Guard::Dates,
    Guard::Quoted,
    Guard::Code,
    Guard::Negation,
    Guard::Antonyms,
    Guard::Direction,
    Guard::Language,
    Guard::Format,
    Guard::Entities,
    Guard::Question,
    Guard::Wording,
];

/// Returns the difference that `guard` finds between two texts, or `None`. Symmetric except for the order of the
/// words in the description.
pub fn objection(guard: Guard, a: &Analysis, b: &Analysis) -> Option<String> {
    match guard {
        Guard::Numbers => numbers(a, b),
        Guard::Units => units(a, b),
        Guard::Dates => dates(a, b),
        Guard::Quoted => quoted(a, b).or_else(|| quoted(b, a)),
        Guard::Code => code(a, b).or_else(|| code(b, a)),
        _ if !(a.english && b.english) => None,
        Guard::Negation => negation(a, b),
        Guard::Antonyms => antonyms(a, b),
        Guard::Direction => direction(a, b),
        Guard::Language => topics(a, b, lexicon::SPOKEN).or_else(|| topics(a, b, lexicon::PROGRAMMING)),
        Guard::Format => topics(a, b, lexicon::FORMAT),
        Guard::Question => question(a, b),
        Guard::Wording => wording(a, b).or_else(|| wording(b, a)),
        Guard::Entities => entities(a, b).or_else(|| entities(b, a)),
    }
}

/// Whether `guard` finds a difference between two texts.
pub fn objects(guard: Guard, a: &Analysis, b: &Analysis) -> bool {
    objection(guard, a, b).is_some()
}

/// Compares the values of numbers in any notation. Outside English, digits in one text only may be spelled out in the
/// other, so they are no objection.
fn numbers(a: &Analysis, b: &Analysis) -> Option<String> {
    let only_a = a.quantities.iter().find(|q| has(a, q) != has(b, q));
    let only_b = b.quantities.iter().find(|q| has(a, q) != has(b, q));
    let english = a.english && b.english;
    match (only_a, only_b) {
        (None, None) if a.bounds != b.bounds && english => Some("a bound in one only".to_owned()),
        (None, None) => None,
        (None, _) | (_, None) if !english => None,
        (x, y) => Some(format!("{} / {}", shown(x), shown(y))),
    }
}

/// Whether `text` has a number of equal value. False for infinite values, even those of `text` itself.
fn has(text: &Analysis, quantity: &Quantity) -> bool {
    let equal = |q: &Quantity| (q.value - quantity.value).abs() <= 1e-9 * quantity.value.abs();
    text.quantities.iter().any(equal)
}

fn shown(quantity: Option<&Quantity>) -> String {
    quantity.map_or_else(|| "none".to_owned(), |q| q.value.to_string())
}

/// Objects when one number has different units in the two texts.
pub(super) fn units(a: &Analysis, b: &Analysis) -> Option<String> {
    for q in a.quantities.iter().filter(|q| q.unit > 0) {
        let mut same = b.quantities.iter().filter(|r| r.value == q.value && r.unit > 0).peekable();
        if same.peek().is_some() && same.all(|r| r.unit != q.unit) {
            return Some(format!("{} in different units", q.value));
        }
    }
    None
}

/// Compares dates and times. Outside English only those in digits are parsed, so both texts must lack one.
fn dates(a: &Analysis, b: &Analysis) -> Option<String> {
    let (only_a, only_b) = (has_other_date(a, b), has_other_date(b, a));
    let differ = if a.english && b.english { only_a || only_b } else { only_a && only_b };
    differ.then(|| "different dates or times".to_owned())
}

/// Whether `a` has a date or time that `b` does not have.
pub(super) fn has_other_date(a: &Analysis, b: &Analysis) -> bool {
    a.dates.iter().any(|d| !b.dates.iter().any(|e| d.same(e)))
}

/// Objects to a quotation of `a` that does not occur in `b`, quoted or not.
pub(super) fn quoted(a: &Analysis, b: &Analysis) -> Option<String> {
    let known = |q: &&String| b.quoted.contains(q) || b.lower.contains(q.as_str()) || same_words(q, b);
    a.quoted.iter().find(|q| !known(q)).map(|q| format!("\"{q}\" is in one only"))
}

/// Whether the words of `quotation` occur consecutively in `text`, with any punctuation between them.
fn same_words(quotation: &str, text: &Analysis) -> bool {
    let other = Analysis::of(quotation);
    let words: Vec<u64> = other.words.iter().map(|w| w.hash).collect();
    let hashes: Vec<u64> = text.words.iter().map(|w| w.hash).collect();
    !words.is_empty() && hashes.windows(words.len()).any(|window| window == words)
}

/// Objects to an identifier, path, version or code of `a`, such as `np.argmax`, `E0308` or `3.8.1`, that `b` lacks.
pub(super) fn code(a: &Analysis, b: &Analysis) -> Option<String> {
    let is_code = |w: &&Word| w.is(CODE | MIXED) && !w.info.has(lexicon::PROGRAMMING);
    let known = |w: &Word| b.words.iter().any(|v| v.hash == w.hash) || joined(a.str(w), &b.lower);
    a.words.iter().filter(is_code).find(|w| !known(w)).map(|w| format!("`{}` is in one only", a.str(w)))
}

/// Whether `text` has the letters of `word` with other gaps: "wi-fi" is "wifi", "mp 3" is "mp3".
fn joined(word: &str, text: &str) -> bool {
    let solid = |s: &str| s.chars().filter(|c| c.is_alphanumeric()).collect::<String>();
    solid(text).contains(&solid(word))
}

/// Objects when only one text is negated, by a word or by a prefix.
fn negation(a: &Analysis, b: &Analysis) -> Option<String> {
    if (a.negations > 0) != (b.negations > 0) {
        return Some("negated in one only".to_owned());
    }
    prefixed(a, b).or_else(|| prefixed(b, a))
}

/// Objects to a word of `a` with a negating prefix whose base is in `b`: "unable" and "able".
pub(super) fn prefixed(a: &Analysis, b: &Analysis) -> Option<String> {
    for word in a.content().filter(|w| w.len() > 5) {
        let text = a.str(word);
        for prefix in ["un", "dis", "non", "in", "im", "ir", "mis"] {
            let Some(base) = text.strip_prefix(prefix).filter(|base| base.len() > 3) else { continue };
            let base = hash(base);
            let stands = b.words.iter().any(|w| w.hash == base);
            if stands && !b.mentions(word.hash, word.stem) && !a.words.iter().any(|w| w.hash == base) {
                return Some(format!("\"{text}\" against its base"));
            }
        }
    }
    None
}

/// Objects when the texts have opposite words, or when opposites qualify exchanged nouns.
pub(super) fn antonyms(a: &Analysis, b: &Analysis) -> Option<String> {
    for word in &a.words {
        for (group, _) in word.info.opposites.iter().filter(|o| o.0 > 0) {
            let (sides_a, sides_b) = (sides(a, *group), sides(b, *group));
            if sides_b != 0 && sides_a & sides_b == 0 {
                let other = b.words.iter().find(|w| w.info.opposites.iter().any(|o| o.0 == *group));
                return Some(format!("{} / {}", a.str(word), other.map_or("", |w| b.str(w))));
            }
            if sides_a == sides_b
                && sides_a.count_ones() > 1
                && let Some(head) = exchanged(a, b, *group)
            {
                return Some(format!("\"{head}\" on the other side"));
            }
        }
    }
    None
}

/// Returns a noun that opposite words qualify in the two texts, as in "the biggest city in the smallest state" and
/// "the smallest city in the biggest state".
fn exchanged<'t>(a: &'t Analysis, b: &Analysis, group: u8) -> Option<&'t str> {
    let other = heads(b, group);
    let opposed = |(noun, side): &(&Word, u8)| {
        let mut same = other.iter().filter(|(n, _)| n.stem == noun.stem).peekable();
        same.peek().is_some() && same.all(|(_, s)| s != side)
    };
    heads(a, group).into_iter().find(opposed).map(|(noun, _)| a.str(noun))
}

/// Returns the nouns that words of a group of opposites qualify, each with the side of its qualifier.
fn heads(text: &Analysis, group: u8) -> Vec<(&Word, u8)> {
    let mut heads = Vec::new();
    for (i, word) in text.words.iter().enumerate() {
        let Some((_, side)) = word.info.opposites.iter().find(|o| o.0 == group) else { continue };
        if let Some(noun) = text.words[i + 1..].iter().find(|w| w.is_content()) {
            heads.push((noun, *side));
        }
    }
    heads
}

/// Returns the sides of a group of opposites that occur in a text, as bits.
pub(super) fn sides(text: &Analysis, group: u8) -> u8 {
    let opposites = text.words.iter().flat_map(|w| w.info.opposites);
    opposites.filter(|o| o.0 == group).fold(0, |bits, o| bits | 1 << o.1)
}

/// Objects when a word has opposite roles in the two texts, such as source and target.
fn direction(a: &Analysis, b: &Analysis) -> Option<String> {
    let key = a.roles.swapped(&b.roles)?;
    let word = a.words.iter().find(|w| w.stem == key);
    Some(word.map_or_else(|| "units swapped".to_owned(), |w| format!("\"{}\" on the other side", a.str(w))))
}

/// Objects when the texts name different topics of the kind `flag`: languages or formats.
pub(super) fn topics(a: &Analysis, b: &Analysis, flag: u32) -> Option<String> {
    missing_topic(a, b, flag).or_else(|| missing_topic(b, a, flag))
}

fn missing_topic(a: &Analysis, b: &Analysis, flag: u32) -> Option<String> {
    let named = |word: &Word| {
        let same_topic = |w: &Word| w.info.has(flag) && w.info.topic == word.info.topic;
        // "German" and "Germany" name one topic.
        b.words
            .iter()
            .any(|w| same_topic(w) || (flag == lexicon::SPOKEN && is_variant(a.str(word), b.str(w))))
    };
    a.words.iter().find(|w| w.info.has(flag) && !named(w)).map(|w| format!("\"{}\" is in one only", a.str(w)))
}

/// Objects to different question words, such as "who" and "when", and to two questions of which each asks for what
/// the other only mentions.
fn question(a: &Analysis, b: &Analysis) -> Option<String> {
    let definite = |q: Question| q > Question::Open;
    // A question with a number may ask for an amount without "how many": "what is 60 cm in inches".
    let counts = !a.quantities.is_empty() || !b.quantities.is_empty();
    let amount = |q: Question, r: Question| q == Question::Amount && r == Question::Open && !counts;
    let (q, r) = (a.question, b.question);
    if q != r && (definite(q) && definite(r) || amount(q, r) || amount(r, q)) {
        return Some(format!("{q:?} / {r:?}"));
    }
    let (x, y) = (a.focus?, b.focus?);
    let crossed = x != y && a.mentions(y, y) && b.mentions(x, x);
    crossed.then(|| "asks for another part".to_owned())
}

/// Number of words of a long text, in which one changed word hardly moves the embedding.
const LONG_TEXT: usize = 40;

/// Maximum difference between the numbers of content words of two long texts.
const LONG_TEXT_SLACK: usize = 2;

/// Objects when two long texts have different content words.
fn wording(a: &Analysis, b: &Analysis) -> Option<String> {
    if a.words.len().max(b.words.len()) < LONG_TEXT {
        return None;
    }
    if a.negations != b.negations {
        return Some("different numbers of negations".to_owned());
    }
    let (words_a, words_b) = (a.content().count(), b.content().count());
    if words_a.abs_diff(words_b) > LONG_TEXT_SLACK {
        return Some(format!("{words_a} / {words_b} words"));
    }
    let known: HashSet<u64> = b.words.iter().map(|w| w.stem).collect();
    let unknown = a.content().filter(|w| !known.contains(&w.stem)).find(|w| !names(a, w, b));
    unknown.map(|w| format!("\"{}\" is in one only", a.str(w)))
}

/// Objects to a capitalised name of `a` that `b` does not have, in any case, spelling variant or abbreviation.
fn entities(a: &Analysis, b: &Analysis) -> Option<String> {
    if !a.cased {
        return None;
    }
    let unknown = |w: &&Word| is_name(w) && !names(a, w, b);
    a.words.iter().find(unknown).map(|w| format!("\"{}\" is in one only", a.str(w)))
}

fn is_name(word: &Word) -> bool {
    word.is(CAPITAL) && !word.is(FIRST | DIGITS) && word.is_content() && word.len() > 1
}

/// Whether `b` names the thing that `word` of `a` names.
pub(super) fn names(a: &Analysis, word: &Word, b: &Analysis) -> bool {
    let same_topic = |w: &Word| word.info.topic > 0 && w.info.topic == word.info.topic;
    if b.words.iter().any(|w| w.hash == word.hash || w.stem == word.stem || same_topic(w)) {
        return true;
    }
    let text = a.str(word);
    b.words.iter().any(|w| is_variant(text, b.str(w)))
        || (word.is(UPPER) && has_initials(text, b))
        || abbreviated(a, word, b)
}

/// Whether consecutive words of `text` begin with the letters of `initials`. The last letter may be missing, as in
/// "USA" for "United States".
fn has_initials(initials: &str, text: &Analysis) -> bool {
    let letters = initials.as_bytes();
    let starts_at = |i: usize| {
        let words = text.words[i..].iter().map(|w| text.lower.as_bytes()[w.start as usize]);
        words.zip(letters).take_while(|(first, letter)| first == *letter).count()
    };
    let needed = letters.len().saturating_sub(1).max(2);
    (0..text.words.len()).any(|i| starts_at(i) >= needed)
}

/// Whether `word` belongs to consecutive words of `a` that `b` abbreviates to their initials.
fn abbreviated(a: &Analysis, word: &Word, b: &Analysis) -> bool {
    let short = b.words.iter().filter(|w| w.len() <= 4 && w.len() > 1 && !w.info.has(lexicon::STOP));
    let first = a.lower.as_bytes()[word.start as usize];
    short.into_iter().any(|w| b.str(w).as_bytes().contains(&first) && has_initials(b.str(w), a))
}

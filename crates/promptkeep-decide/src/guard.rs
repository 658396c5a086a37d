//! The lexical guards: each compares two analyses and names what differs. All of mode `static`'s
//! caution beyond the similarity is here.
//!
//! The tables are English. In texts of other languages only what is written alike everywhere is
//! compared: digits, dates in digits, quotations and code.

use std::collections::HashSet;

use super::{
    Guard,
    lexicon::{self, hash},
    quantity::Quantity,
    similar::is_variant,
    text::{Analysis, CAPITAL, CODE, DIGITS, FIRST, MIXED, Question, UPPER, Word},
};

/// Every guard, in the order in which they are asked.
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

/// What `guard` has against answering one text with the other's answer, if anything. Symmetric but
/// for the order of the names in the detail.
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

/// Whether [`objection`] has one.
pub fn objects(guard: Guard, a: &Analysis, b: &Analysis) -> bool {
    objection(guard, a, b).is_some()
}

/// Equal numbers, however they are written. Where number words are not understood, digits on one side
/// alone may be spelled out on the other.
fn numbers(a: &Analysis, b: &Analysis) -> Option<String> {
    let only_a = a.quantities.iter().find(|q| count(a, q) != count(b, q));
    let only_b = b.quantities.iter().find(|q| count(a, q) != count(b, q));
    let english = a.english && b.english;
    match (only_a, only_b) {
        (None, None) if a.bounds != b.bounds && english => Some("a bound in one only".to_owned()),
        (None, None) => None,
        (None, _) | (_, None) if !english => None,
        (x, y) => Some(format!("{} / {}", shown(x), shown(y))),
    }
}

fn count(text: &Analysis, quantity: &Quantity) -> usize {
    let near = |q: &&Quantity| (q.value - quantity.value).abs() <= 1e-9 * quantity.value.abs();
    text.quantities.iter().filter(near).count().min(1)
}

fn shown(quantity: Option<&Quantity>) -> String {
    quantity.map_or_else(|| "none".to_owned(), |q| q.value.to_string())
}

/// One number with two units.
pub(super) fn units(a: &Analysis, b: &Analysis) -> Option<String> {
    for q in a.quantities.iter().filter(|q| q.unit > 0) {
        let mut same = b.quantities.iter().filter(|r| r.value == q.value && r.unit > 0).peekable();
        if same.peek().is_some() && same.all(|r| r.unit != q.unit) {
            return Some(format!("{} in different units", q.value));
        }
    }
    None
}

/// Month and weekday names are understood in English only, digits everywhere.
fn dates(a: &Analysis, b: &Analysis) -> Option<String> {
    let lacks = |x: &Analysis, y: &Analysis| x.dates.iter().any(|d| !y.dates.iter().any(|e| d.same(e)));
    let (only_a, only_b) = (lacks(a, b), lacks(b, a));
    let differ = if a.english && b.english { only_a || only_b } else { only_a && only_b };
    differ.then(|| "different dates or times".to_owned())
}

/// A quotation must occur in the other text, quoted or not.
pub(super) fn quoted(a: &Analysis, b: &Analysis) -> Option<String> {
    let known = |q: &&String| b.quoted.contains(q) || b.lower.contains(q.as_str()) || same_words(q, b);
    a.quoted.iter().find(|q| !known(q)).map(|q| format!("\"{q}\" is in one only"))
}

/// Whether the words of `quotation` follow one another in `text`, whatever marks stand between them.
fn same_words(quotation: &str, text: &Analysis) -> bool {
    let other = Analysis::of(quotation);
    let words: Vec<u64> = other.words.iter().map(|w| w.hash).collect();
    let hashes: Vec<u64> = text.words.iter().map(|w| w.hash).collect();
    !words.is_empty() && hashes.windows(words.len()).any(|window| window == words)
}

/// Identifiers, paths, versions and codes such as `np.argmax`, `E0308` or `3.8.1`.
pub(super) fn code(a: &Analysis, b: &Analysis) -> Option<String> {
    let is_code = |w: &&Word| w.is(CODE | MIXED) && !w.info.has(lexicon::PROGRAMMING);
    let known = |w: &Word| b.words.iter().any(|v| v.hash == w.hash) || joined(a.str(w), &b.lower);
    a.words.iter().filter(is_code).find(|w| !known(w)).map(|w| format!("`{}` is in one only", a.str(w)))
}

/// "wi-fi" is "wifi", "mp 3" is "mp3": the same letters with other gaps.
fn joined(word: &str, text: &str) -> bool {
    let solid = |s: &str| s.chars().filter(|c| c.is_alphanumeric()).collect::<String>();
    solid(text).contains(&solid(word))
}

/// One text denies what the other says, in a word of its own or in a prefix.
fn negation(a: &Analysis, b: &Analysis) -> Option<String> {
    if (a.negations > 0) != (b.negations > 0) {
        return Some("negated in one only".to_owned());
    }
    prefixed(a, b).or_else(|| prefixed(b, a))
}

/// "able" there and "unable" here.
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

/// Each text has a word of one side of a pair of opposites, and not of the same side.
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

/// "The biggest city in the smallest state" against "the smallest city in the biggest state": a noun that
/// has one side's word before it here and the other's there.
fn exchanged<'t>(a: &'t Analysis, b: &Analysis, group: u8) -> Option<&'t str> {
    let there = heads(b, group);
    let opposed = |(noun, side): &(&Word, u8)| {
        let mut same = there.iter().filter(|(n, _)| n.stem == noun.stem).peekable();
        same.peek().is_some() && same.all(|(_, s)| s != side)
    };
    heads(a, group).into_iter().find(opposed).map(|(noun, _)| a.str(noun))
}

/// The nouns that words of a group of opposites qualify, and on which side.
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

/// Which sides of a group of opposites a text takes, as bits.
pub(super) fn sides(text: &Analysis, group: u8) -> u8 {
    let opposites = text.words.iter().flat_map(|w| w.info.opposites);
    opposites.filter(|o| o.0 == group).fold(0, |bits, o| bits | 1 << o.1)
}

fn direction(a: &Analysis, b: &Analysis) -> Option<String> {
    let key = a.roles.swapped(&b.roles)?;
    let word = a.words.iter().find(|w| w.stem == key);
    Some(word.map_or_else(|| "units swapped".to_owned(), |w| format!("\"{}\" on the other side", a.str(w))))
}

/// The same languages or formats are named.
pub(super) fn topics(a: &Analysis, b: &Analysis, flag: u32) -> Option<String> {
    missing_topic(a, b, flag).or_else(|| missing_topic(b, a, flag))
}

fn missing_topic(a: &Analysis, b: &Analysis, flag: u32) -> Option<String> {
    let named = |word: &Word| {
        let same_topic = |w: &Word| w.info.has(flag) && w.info.topic == word.info.topic;
        // "German" and "Germany" are one thing to ask about.
        b.words
            .iter()
            .any(|w| same_topic(w) || (flag == lexicon::SPOKEN && is_variant(a.str(word), b.str(w))))
    };
    a.words.iter().find(|w| w.info.has(flag) && !named(w)).map(|w| format!("\"{}\" is in one only", a.str(w)))
}

/// Who, when, where, why and how many ask for different things; so do two questions about the same
/// things of which each asks for what the other only mentions.
fn question(a: &Analysis, b: &Analysis) -> Option<String> {
    let definite = |q: Question| q > Question::Open;
    // A number in the question may itself ask for an amount: "what is 60 cm in inches".
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

/// Words from which on a text is long: one changed word hardly moves its embedding.
const LONG_TEXT: usize = 40;

/// Most words that a long text may have more than the other, all of which occur there too.
const LONG_TEXT_SLACK: usize = 2;

/// Long texts must have the same meaning-bearing words.
fn wording(a: &Analysis, b: &Analysis) -> Option<String> {
    if a.words.len().max(b.words.len()) < LONG_TEXT {
        return None;
    }
    if a.negations != b.negations {
        return Some("another number of negations".to_owned());
    }
    let (words_a, words_b) = (a.content().count(), b.content().count());
    if words_a.abs_diff(words_b) > LONG_TEXT_SLACK {
        return Some(format!("{words_a} / {words_b} words"));
    }
    let known: HashSet<u64> = b.words.iter().map(|w| w.stem).collect();
    let unknown = a.content().filter(|w| !known.contains(&w.stem)).find(|w| !names(a, w, b));
    unknown.map(|w| format!("\"{}\" is in one only", a.str(w)))
}

/// A name written with a capital must occur in the other text, in whatever case, as a variant of a
/// word or as the initials of several.
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

/// Whether `b` names what `word` of `a` does.
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

/// Whether consecutive words of `text` begin with the letters of `initials`; the last one or two may
/// be missing, as in "USA" for "United States".
fn has_initials(initials: &str, text: &Analysis) -> bool {
    let letters = initials.as_bytes();
    let starts_at = |i: usize| {
        let words = text.words[i..].iter().map(|w| text.lower.as_bytes()[w.start as usize]);
        words.zip(letters).take_while(|(first, letter)| first == *letter).count()
    };
    let needed = letters.len().saturating_sub(1).max(2);
    (0..text.words.len()).any(|i| starts_at(i) >= needed)
}

/// Whether `word` belongs to a run of names that `b` writes as initials.
fn abbreviated(a: &Analysis, word: &Word, b: &Analysis) -> bool {
    let short = b.words.iter().filter(|w| w.len() <= 4 && w.len() > 1 && !w.info.has(lexicon::STOP));
    let first = a.lower.as_bytes()[word.start as usize];
    short.into_iter().any(|w| b.str(w).as_bytes().contains(&first) && has_initials(b.str(w), a))
}

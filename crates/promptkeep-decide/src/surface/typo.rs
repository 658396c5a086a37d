//! Whether one word is a typing mistake of another: one letter added, left out or replaced, or two neighbours
//! exchanged, in a common word, where the result is no other word. Conservative, because real words may be rare.

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

use super::words::{COMMON, COMMON_NAMES, MISSPELLINGS, RARE, REQUEST_VERBS, is_in};
use crate::{
    lexicon::{self, Info, hash},
    rarity::Rarity,
    text::stem,
};

/// Minimum length of a common word that may be misspelt, bytes.
const COMMON_BYTES_MIN: usize = 5;

/// Minimum length of one with a letter doubled, bytes.
const DOUBLED_BYTES_MIN: usize = 4;

/// Maximum length of a word, bytes.
const WORD_BYTES_MAX: usize = 24;

/// Number of last letters in which an edit may be an ending rather than a mistake.
const ENDING: usize = 3;

/// The place of one letter edit between two words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edit {
    /// The longer word has one more letter at this place, equal to its neighbour.
    Doubled(usize),
    /// The longer word has one more letter at this place.
    Added(usize),
    /// The letters at this place differ.
    Replaced(usize),
    /// The letters at this place and the next are exchanged.
    Exchanged(usize),
}

/// Whether one of two words is a common word and the other is a typing mistake of it. Symmetric.
pub fn is_typo(a: &str, b: &str, rarity: &Rarity) -> bool {
    let letters = |w: &str| w.len() <= WORD_BYTES_MAX && w.bytes().all(|b| b.is_ascii_alphabetic());
    if a.len().abs_diff(b.len()) > 1 || !letters(a) || !letters(b) {
        return false;
    }
    let (a, b) = (&*a.to_ascii_lowercase(), &*b.to_ascii_lowercase());
    is_misspelling(a, b) || is_misspelling(b, a) || mistypes(a, b, rarity) || mistypes(b, a, rarity)
}

/// Whether a word is in the table, the lexicon or a list, in any form.
pub fn is_known(word: &str, rarity: &Rarity) -> bool {
    let full = hash(word);
    *lexicon::info(full) != Info::default()
        || rarity.rareness(hash(stem(word))) < 1.0
        || [&COMMON, &RARE, &COMMON_NAMES, &REQUEST_VERBS].iter().any(|list| is_in(list, word))
        || STEMS.contains(&hash(stem(word)))
}

/// Stems of the listed words.
static STEMS: LazyLock<HashSet<u64>> = LazyLock::new(|| {
    [&COMMON, &RARE, &COMMON_NAMES]
        .iter()
        .flat_map(|list| list.words())
        .map(|word| hash(stem(word)))
        .collect()
});

/// The right word of each listed misspelling.
static RIGHT: LazyLock<HashMap<&'static str, &'static str>> = LazyLock::new(|| {
    let words: Vec<&str> = MISSPELLINGS.split_ascii_whitespace().collect();
    words.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
});

fn is_misspelling(wrong: &str, right: &str) -> bool {
    RIGHT.get(wrong).is_some_and(|word| *word == right)
}

/// Whether a word or its singular is listed as common. Words of the table do not count: some are names or misspelt.
fn is_common(word: &str) -> bool {
    is_in(&COMMON, word) || word.strip_suffix('s').is_some_and(|singular| is_in(&COMMON, singular))
}

/// Whether `wrong` is a typing mistake of `right`.
fn mistypes(wrong: &str, right: &str, rarity: &Rarity) -> bool {
    if right.len() < DOUBLED_BYTES_MIN || lexicon::info(hash(right)).has(lexicon::NEGATION) {
        return false;
    }
    let Some(edit) = edit(wrong.as_bytes(), right.as_bytes()) else { return false };
    is_slip(edit, wrong.as_bytes(), right.as_bytes())
        && is_common(right)
        && !is_known(wrong, rarity)
        && !is_derived(wrong, rarity)
}

/// Finds the one edit between two words.
fn edit(a: &[u8], b: &[u8]) -> Option<Edit> {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    let same = short.iter().zip(long).take_while(|(x, y)| x == y).count();
    let (s, l) = (&short[same..], &long[same..]);
    if s.len() < l.len() {
        let doubled = same > 0 && long[same] == long[same - 1];
        return (s == &l[1..]).then_some(if doubled { Edit::Doubled(same) } else { Edit::Added(same) });
    }
    if s.is_empty() {
        return None;
    }
    if s[1..] == l[1..] {
        return Some(Edit::Replaced(same));
    }
    let exchanged = s.len() > 1 && s[0] == l[1] && s[1] == l[0] && s[2..] == l[2..];
    exchanged.then_some(Edit::Exchanged(same))
}

/// Whether an edit is likely a slip: not of the first letter, and not one that changes the ending.
fn is_slip(edit: Edit, wrong: &[u8], right: &[u8]) -> bool {
    let (wrong_len, right_len) = (wrong.len(), right.len());
    let long = wrong_len.max(right_len);
    match edit {
        Edit::Doubled(_) if wrong_len > right_len => right_len >= DOUBLED_BYTES_MIN,
        Edit::Doubled(_) => right_len >= COMMON_BYTES_MIN,
        Edit::Added(at) => at > 0 && at + 1 < long && right_len >= COMMON_BYTES_MIN,
        Edit::Exchanged(at) => at > 0 && right_len >= COMMON_BYTES_MIN,
        Edit::Replaced(at) => {
            at > 0 && at + ENDING < long && right_len > COMMON_BYTES_MIN && are_confused(wrong[at], right[at])
        }
    }
}

/// Whether two letters are both vowels or neighbours on a keyboard.
fn are_confused(a: u8, b: u8) -> bool {
    let vowel = |c| matches!(c, b'a' | b'e' | b'i' | b'o' | b'u' | b'y');
    let pair = |keys: &[u8]| keys == [a, b] || keys == [b, a];
    (vowel(a) && vowel(b)) || b"qwertyuiop asdfghjkl zxcvbnm".windows(2).any(pair)
}

const PREFIXES: [&str; 22] = [
    "un", "re", "in", "im", "ir", "il", "dis", "non", "mis", "pre", "de", "co", "en", "em", "sub", "over",
    "under", "out", "anti", "inter", "trans", "super",
];

const SUFFIXES: [&str; 36] = [
    "s", "es", "ed", "er", "ers", "or", "ors", "ing", "ings", "ly", "al", "ally", "ic", "ical", "ist",
    "ists", "ism", "ity", "ness", "less", "ful", "able", "ible", "ous", "ive", "ion", "ions", "ation",
    "ment", "ments", "ish", "y", "en", "ty", "ship", "th",
];

/// Whether a word that is not known is a known word with a prefix or ending, or two known words.
fn is_derived(word: &str, rarity: &Rarity) -> bool {
    let base = |base: &str| base.len() >= 3 && is_known(base, rarity);
    let with_vowel = |cut: &str| base(cut) || (cut.len() > 3 && base(&format!("{cut}e")));
    PREFIXES.iter().any(|p| word.strip_prefix(p).is_some_and(base))
        || SUFFIXES.iter().any(|s| word.strip_suffix(s).is_some_and(with_vowel))
        || (4..word.len().saturating_sub(3)).any(|i| base(&word[..i]) && base(&word[i..]))
}

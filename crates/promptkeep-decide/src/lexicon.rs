//! The lexicon: what single words contribute to the meaning of a prompt, such as numbers, units, months, negation,
//! opposites, languages and formats. [`text`](super::text) combines words.

mod words;

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::LazyLock,
};

use words::*;

/// Entry of one word; all zero for words that are not in the lexicon.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Info {
    /// Flags, such as [`STOP`].
    pub flags: u32,
    /// Value of a number word, month, weekday or bound, as its flag defines.
    pub value: f64,
    /// Index of the unit of measure, from 1.
    pub unit: u8,
    /// Index of the named language or format, from 1.
    pub topic: u8,
    /// Index of the question word, from 1, such as [`WHAT`].
    pub wh: u8,
    /// Group (from 1) and side of up to two groups of opposites.
    pub opposites: [(u8, u8); 2],
}

/// A function word.
pub const STOP: u32 = 1;
/// A word of politeness, which does not change the answer.
pub const FILLER: u32 = 1 << 1;
/// A negating word.
pub const NEGATION: u32 = 1 << 2;
/// A cardinal: seven, forty.
pub const CARDINAL: u32 = 1 << 3;
/// Multiplies the number before it: hundred, million.
pub const MAGNITUDE: u32 = 1 << 4;
/// An ordinal: third.
pub const ORDINAL: u32 = 1 << 5;
/// A month; value from 1.
pub const MONTH: u32 = 1 << 6;
/// A weekday; value from 1 for Monday.
pub const WEEKDAY: u32 = 1 << 7;
/// A day relative to now: tomorrow.
pub const RELATIVE_DAY: u32 = 1 << 8;
/// A language that people speak.
pub const SPOKEN: u32 = 1 << 9;
/// A programming language.
pub const PROGRAMMING: u32 = 1 << 10;
/// A format of the answer.
pub const FORMAT: u32 = 1 << 11;
/// A verb whose subject acts on its object, so exchanging them changes the meaning.
pub const ACTION: u32 = 1 << 12;
/// A function word that only English has among the supported languages.
pub const ENGLISH: u32 = 1 << 13;
/// A function word of another language that is not an English word.
pub const OTHER_LANGUAGE: u32 = 1 << 14;
/// A month that is also another word, so its neighbours must confirm it.
pub const AMBIGUOUS: u32 = 1 << 15;
/// "am" or "pm"; value 0 or 12, in hours.
pub const MERIDIEM: u32 = 1 << 16;
/// Relates its two sides, like to, from or than.
pub const PREPOSITION: u32 = 1 << 17;
/// Makes the number after it a bound. Value 1 for a lower bound, 2 for an upper one.
pub const BOUND: u32 = 1 << 19;
/// A pronoun.
pub const PRONOUN: u32 = 1 << 20;
/// Restricts what the prompt asks for, like all, only or first.
pub const QUANTIFIER: u32 = 1 << 18;

/// Values of [`Info::wh`], in the order of [`QUESTION_WORDS`].
pub const WHAT: u8 = 1;
pub const WHICH: u8 = 2;
pub const WHO: u8 = 3;
pub const WHEN: u8 = 5;
pub const WHERE: u8 = 6;
pub const WHY: u8 = 7;

/// Bit that is set in the hash of a word with a character beyond ASCII, and clear in all others.
pub const NON_ASCII: u64 = 1 << 63;

/// Returns the hash that identifies a word throughout the crate: FNV-1a of its lower-case bytes without the top bit,
/// which is reserved for [`NON_ASCII`]. The decision table contains such hashes, so the function must not change.
pub const fn hash(word: &str) -> u64 {
    let bytes = word.as_bytes();
    let mut h = 0xcbf2_9ce4_8422_2325_u64;
    let mut i = 0;
    while i < bytes.len() {
        h = (h ^ bytes[i] as u64).wrapping_mul(0x0100_0000_01b3);
        i += 1;
    }
    h & !NON_ASCII
}

/// Returns the entry of the word with this [`hash`].
pub fn info(hash: u64) -> &'static Info {
    static NOTHING: Info = Info { flags: 0, value: 0.0, unit: 0, topic: 0, wh: 0, opposites: [(0, 0); 2] };
    TABLE.get(&hash).unwrap_or(&NOTHING)
}

/// Map whose keys are hashes of words.
pub type WordMap<K, V> = HashMap<K, V, BuildHasherDefault<WordHasher>>;

/// Hasher for keys that are hashes already: it only spreads their bits over the whole word.
#[derive(Default)]
pub struct WordHasher(u64);

type Table = WordMap<u64, Info>;

static TABLE: LazyLock<Table> = LazyLock::new(build);

// === impl WordHasher ===

impl Hasher for WordHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

fn build() -> Table {
    let mut table = Table::default();
    add_flags(&mut table);
    add_numbers(&mut table);
    add_topics(&mut table);
    for (group, sides) in (1_u8..).zip(OPPOSITES) {
        for (side, words) in (0_u8..).zip(*sides) {
            words.split_ascii_whitespace().for_each(|w| add_opposite(entry(&mut table, w), group, side));
        }
    }
    table
}

fn entry<'t>(table: &'t mut Table, word: &str) -> &'t mut Info {
    table.entry(hash(word)).or_default()
}

fn add_flags(table: &mut Table) {
    let lists = [
        (ENGLISH_WORDS, ENGLISH),
        (OTHER_LANGUAGE_WORDS, OTHER_LANGUAGE),
        (STOP_WORDS, STOP),
        (FILLER_WORDS, FILLER | STOP),
        (NEGATION_WORDS, NEGATION),
        (PREPOSITION_WORDS, PREPOSITION),
        (QUANTIFIER_WORDS, QUANTIFIER),
        (ACTION_WORDS, ACTION),
        (PRONOUN_WORDS, PRONOUN),
        ("may march mar", AMBIGUOUS),
        (LOWER_BOUNDS, BOUND),
        (UPPER_BOUNDS, BOUND),
    ];
    for (words, flag) in lists {
        words.split_ascii_whitespace().for_each(|w| entry(table, w).flags |= flag);
    }
    for (word, noon) in [("am", 0.0), ("pm", 12.0)] {
        let info = entry(table, word);
        info.flags |= MERIDIEM;
        info.value = noon;
    }
    UPPER_BOUNDS.split_ascii_whitespace().for_each(|w| entry(table, w).value = 2.0);
    LOWER_BOUNDS.split_ascii_whitespace().for_each(|w| entry(table, w).value = 1.0);
}

fn add_numbers(table: &mut Table) {
    for (list, flag) in [(CARDINALS, CARDINAL), (MAGNITUDES, MAGNITUDE), (ORDINALS, ORDINAL)] {
        for (word, value) in list {
            let info = entry(table, word);
            info.flags |= flag;
            info.value = *value;
        }
    }
    add_dated(table, &MONTHS, MONTH);
    add_dated(table, &WEEKDAYS, WEEKDAY);
    add_dated(table, &RELATIVE_DAYS, RELATIVE_DAY);
    for (unit, words) in (1_u8..).zip(UNITS) {
        words.split_ascii_whitespace().for_each(|w| entry(table, w).unit = unit);
    }
}

fn add_dated(table: &mut Table, names: &[&str], flag: u32) {
    for (index, words) in (1_u8..).zip(names) {
        for word in words.split_ascii_whitespace() {
            let info = entry(table, word);
            info.flags |= flag;
            info.value = f64::from(index);
        }
    }
}

fn add_topics(table: &mut Table) {
    for (topic, word) in (1_u8..).zip(SPOKEN_LANGUAGES.split_ascii_whitespace()) {
        let info = entry(table, word);
        info.flags |= SPOKEN;
        info.topic = topic;
    }
    for (list, flag) in [(PROGRAMMING_LANGUAGES, PROGRAMMING), (FORMATS, FORMAT)] {
        for (topic, words) in (1_u8..).zip(list) {
            for word in words.split_ascii_whitespace() {
                let info = entry(table, word);
                info.flags |= flag;
                info.topic = topic;
            }
        }
    }
    for (wh, words) in (1_u8..).zip(QUESTION_WORDS) {
        words.split_ascii_whitespace().for_each(|w| entry(table, w).wh = wh);
    }
}

/// Adds a membership. Drops a third one: the tables have none that matters.
fn add_opposite(info: &mut Info, group: u8, side: u8) {
    if let Some(free) = info.opposites.iter_mut().find(|o| o.0 == 0) {
        *free = (group, side);
    }
}

// === impl Info ===

impl Info {
    /// Whether any of the bits in `flag` is set.
    pub const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_of_a_unit_share_its_index() {
        assert_eq!(info(hash("km")).unit, info(hash("kilometers")).unit);
        assert_ne!(info(hash("km")).unit, info(hash("miles")).unit);
    }

    #[test]
    fn opposites_have_one_group_and_different_sides() {
        let (enable, disable) = (info(hash("enable")).opposites[0], info(hash("disable")).opposites[0]);
        assert_eq!(enable.0, disable.0);
        assert_ne!(enable.1, disable.1);
    }

    #[test]
    fn an_unknown_word_has_an_empty_entry() {
        assert_eq!(*info(hash("xylophone")), Info::default());
    }
}

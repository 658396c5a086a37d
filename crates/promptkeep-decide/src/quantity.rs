//! Parsing of numbers with units, dates and times in their usual notations.

use super::{
    lexicon::{self, hash, info},
    word::{BREAK, CAPITAL, CLOCK, CURRENCY, DIGITS, FIRST, SUFFIX, TAKEN, Word},
};

/// A number and its unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantity {
    pub value: f64,
    /// Index of the unit in the lexicon; 0 without a unit.
    pub unit: u8,
}

/// A day, a time or a part of either. Fields that the text does not give are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Date {
    pub year: u16,
    /// From 1.
    pub month: u8,
    /// Day of the month.
    pub day: u8,
    /// From 1 for Monday.
    pub weekday: u8,
    /// From 1 for today, tomorrow, yesterday, tonight.
    pub relative: u8,
    /// Minutes after midnight, plus one.
    pub time: u16,
    /// Whether day and month may be exchanged, as in 01/05/2024.
    pub ambiguous: bool,
}

/// Returns the numbers of `words`, appends their dates to `dates`, and marks both as taken. `dates` already has the
/// dates written in digits.
pub fn extract(words: &mut [Word], dates: &mut Vec<Date>, english: bool) -> Vec<Quantity> {
    let mut quantities = Vec::new();
    let mut i = 0;
    while i < words.len() {
        let used = match date_at(words, i, english) {
            Some((date, used)) => {
                dates.push(date);
                used
            }
            None => match quantity_at(words, i, english) {
                Some((quantity, used)) => {
                    quantities.push(quantity);
                    used
                }
                None => 0,
            },
        };
        words[i..i + used].iter_mut().for_each(|w| w.shape |= TAKEN);
        i += used.max(1);
    }
    quantities
}

/// Parses digits with separators: "1,000" is a thousand, "3,5" is three and a half, "12:30" is a number of minutes.
/// Digits that are no number get an arbitrary value derived from their hash.
pub fn parse_digits(text: &str) -> f64 {
    if let Some((hours, minutes)) = text.split_once(':') {
        let number = |s: &str| s.parse::<f64>().unwrap_or(0.0);
        return number(hours) * 60.0 + number(minutes);
    }
    let grouped = |mark| text.split(mark).skip(1).all(|group| group.len() == 3);
    let plain = if text.contains(',') && grouped(',') {
        text.replace(',', "")
    } else if text.matches('.').count() > 1 && grouped('.') {
        text.replace('.', "")
    } else {
        text.replace(',', ".")
    };
    plain.parse().unwrap_or_else(|_| f64::from((hash(text) >> 33) as u32))
}

/// Parses a date such as 2024-01-05, 5.1.2024 or 01/05/2024.
pub fn numeric_date(text: &str) -> Option<Date> {
    let mark = ['-', '/', '.'].into_iter().find(|m| text.matches(*m).count() == 2)?;
    let mut parts = text.split(mark).map(|p| p.parse::<u16>().ok());
    let (a, b, c) = (parts.next()??, parts.next()??, parts.next()??);
    let (year, month, day, ambiguous) = match (a, b, c) {
        (1000.., ..) => (a, b, c, false),
        (.., 1000..) if mark == '.' || a > 12 => (c, b, a, false),
        (.., 1000..) => (c, a, b, b <= 12),
        _ => return None,
    };
    ((1..=12).contains(&month) && (1..=31).contains(&day)).then(|| Date {
        year,
        month: month as u8,
        day: day as u8,
        ambiguous,
        ..Date::default()
    })
}

impl Date {
    /// Whether both may be the same date.
    pub fn same(&self, other: &Self) -> bool {
        let swapped = Self { month: self.day, day: self.month, ..*self };
        let equal = |a: &Self| Self { ambiguous: false, ..*a } == Self { ambiguous: false, ..*other };
        equal(self) || ((self.ambiguous || other.ambiguous) && equal(&swapped))
    }
}

/// Parses a date or time that starts at word `i`. Returns it with its number of words.
fn date_at(words: &[Word], i: usize, english: bool) -> Option<(Date, usize)> {
    let word = &words[i];
    if word.is(TAKEN) {
        return None;
    }
    if let Some(found) = time_at(words, i) {
        return Some(found);
    }
    let index = word.info.value as u8;
    if english && word.info.has(lexicon::WEEKDAY) {
        return Some((Date { weekday: index, ..Date::default() }, 1));
    }
    if english && let Some(time) = noon(word) {
        return Some((Date { time, ..Date::default() }, 1));
    }
    if english && word.info.has(lexicon::RELATIVE_DAY) {
        return Some((Date { relative: index, ..Date::default() }, 1));
    }
    if english && let Some(found) = month_at(words, i) {
        return Some(found);
    }
    year(word).map(|year| (Date { year, ..Date::default() }, 1))
}

/// Parses "5pm", "5:30 pm" or "17:30".
fn time_at(words: &[Word], i: usize) -> Option<(Date, usize)> {
    let word = &words[i];
    if !word.is(DIGITS) {
        return None;
    }
    let meridiem =
        words.get(i + 1).filter(|w| w.info.has(lexicon::MERIDIEM) && (!w.is(FIRST) || w.is(SUFFIX)));
    let clock = word.is(CLOCK);
    let minutes = match (meridiem, clock) {
        (None, false) => return None,
        (_, true) => word.number,
        (Some(_), false) => word.number * 60.0,
    };
    let minutes = meridiem.map_or(minutes, |m| minutes % 720.0 + m.info.value * 60.0);
    let date = |time| Date { time, ..Date::default() };
    let in_a_day = (0.0..1440.0).contains(&minutes);
    in_a_day.then(|| (date(minutes as u16 + 1), 1 + usize::from(meridiem.is_some())))
}

fn noon(word: &Word) -> Option<u16> {
    const NOON: u64 = hash("noon");
    const MIDNIGHT: u64 = hash("midnight");
    match word.hash {
        NOON => Some(721),
        MIDNIGHT => Some(1),
        _ => None,
    }
}

/// Parses "January 5th, 2024", "5 January 2024", "the 5th of January", "January 2024" or "in May".
fn month_at(words: &[Word], i: usize) -> Option<(Date, usize)> {
    const OF: u64 = hash("of");
    let is_month = |w: &&Word| w.info.has(lexicon::MONTH);
    let mut date = Date::default();
    let mut at = i;
    if let Some((day, used)) = day(words, at) {
        date.day = day;
        at += used;
        at += usize::from(words.get(at).is_some_and(|w| w.hash == OF));
    }
    let month = words.get(at).filter(is_month)?;
    date.month = month.info.value as u8;
    at += 1;
    if date.day == 0
        && let Some((day, used)) = day(words, at)
    {
        date.day = day;
        at += used;
    }
    if let Some(year) = words.get(at).and_then(year) {
        date.year = year;
        at += 1;
    }
    let certain = date.day + u8::from(date.year > 0) > 0 || month.is(CAPITAL) && !month.is(FIRST);
    let confirmed = certain || !month.info.has(lexicon::AMBIGUOUS) && month.len() > 3;
    confirmed.then_some((date, at - i))
}

/// Parses a day of the month, "5" or "5th". Returns it with its number of words.
fn day(words: &[Word], i: usize) -> Option<(u8, usize)> {
    let word = words.get(i).filter(|w| w.is(DIGITS) && !w.is(TAKEN))?;
    let suffixed = words.get(i + 1).is_some_and(|w| w.is(SUFFIX) && is_ordinal_suffix(w));
    let whole = word.number >= 1.0 && word.number <= 31.0 && word.number.fract() == 0.0;
    whole.then_some((word.number as u8, 1 + usize::from(suffixed)))
}

/// Parses a year: a number from 1900 to 2099 without a currency sign.
fn year(word: &Word) -> Option<u16> {
    let plain = word.is(DIGITS) && word.len() == 4 && !word.is(TAKEN | CURRENCY);
    (plain && (1900.0..2100.0).contains(&word.number) && word.number.fract() == 0.0)
        .then_some(word.number as u16)
}

fn is_ordinal_suffix(word: &Word) -> bool {
    const ENDINGS: [u64; 4] = [hash("st"), hash("nd"), hash("rd"), hash("th")];
    ENDINGS.contains(&word.hash)
}

/// Parses a number with magnitude and unit that starts at word `i`. Returns it with its number of words.
fn quantity_at(words: &[Word], i: usize, english: bool) -> Option<(Quantity, usize)> {
    let word = &words[i];
    if word.is(TAKEN) {
        return None;
    }
    let (value, mut used) = if word.is(DIGITS) {
        (word.number, 1)
    } else if english && (word.info.has(lexicon::ORDINAL) || is_second(words, i)) {
        (if word.info.has(lexicon::ORDINAL) { word.info.value } else { 2.0 }, 1)
    } else if english && word.info.has(lexicon::CARDINAL) {
        spelled(words, i)
    } else {
        return None;
    };
    let mut quantity = Quantity { value, unit: 0 };
    if word.is(CURRENCY) {
        quantity.unit = info(hash("dollar")).unit;
    }
    while let Some(next) = words.get(i + used) {
        if next.info.has(lexicon::MAGNITUDE) && !next.is(BREAK) {
            quantity.value *= next.info.value;
        } else if next.is(SUFFIX) && is_million(next) {
            quantity.value *= 1e6;
        } else if next.is(SUFFIX) && is_ordinal_suffix(next) {
        } else {
            break;
        }
        used += 1;
    }
    if let Some(next) = words.get(i + used).filter(|w| w.info.unit != 0 && is_unit(w)) {
        quantity.unit = next.info.unit;
        used += 1;
    }
    Some((quantity, used))
}

/// Whether word `i` is "second" as an ordinal and not as a unit of time.
fn is_second(words: &[Word], i: usize) -> bool {
    const SECOND: u64 = hash("second");
    const TIMES: [u64; 4] = [hash("per"), hash("a"), hash("each"), hash("every")];
    words[i].hash == SECOND && (i == 0 || !(TIMES.contains(&words[i - 1].hash) || words[i - 1].is(TAKEN)))
}

/// Whether numbers or dates are bounds ("at least 5", "before 2000"), as bits: 1 for a lower bound, 2 for an upper
/// one.
pub fn bounds(words: &[Word]) -> u8 {
    const THAN: u64 = hash("than");
    let mut bits = 0;
    for (i, word) in words.iter().enumerate().filter(|(_, w)| w.info.has(lexicon::BOUND) && !w.is(TAKEN)) {
        let skip =
            usize::from(words.get(i + 1).is_some_and(|w| w.hash == THAN || w.is(CURRENCY) && !w.is(TAKEN)));
        if words.get(i + 1 + skip).is_some_and(|w| w.is(TAKEN)) {
            bits |= word.info.value as u8;
        }
    }
    bits
}

/// Whether a suffix means millions: "5M" is five millions, "5m" are five metres.
fn is_million(word: &Word) -> bool {
    const M: u64 = hash("m");
    word.hash == M && word.is(CAPITAL)
}

/// Whether a word may be a unit. One letter counts only right after the number or as a capital, as in "20 C".
fn is_unit(word: &Word) -> bool {
    word.len() > 1 || word.is(SUFFIX | CAPITAL)
}

/// Parses a number word, or two such as "twenty five". Returns the value with its number of words.
fn spelled(words: &[Word], i: usize) -> (f64, usize) {
    const ONE: u64 = hash("one");
    let value = words[i].info.value;
    let tens = (20.0..100.0).contains(&value) && value % 10.0 == 0.0;
    match words.get(i + 1) {
        Some(next) if tens && next.hash == ONE => (value + 1.0, 2),
        Some(next) if tens && next.info.has(lexicon::CARDINAL) && next.info.value < 10.0 => {
            (value + next.info.value, 2)
        }
        _ => (value, 1),
    }
}

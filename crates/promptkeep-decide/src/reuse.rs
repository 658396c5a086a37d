//! Detection of prompts whose answers may hardly be reused: time-dependent ones ("today", "latest") and personal ones
//! (addresses, numbers of accounts and orders).
//!
//! Uses words and shapes only and prefers false positives, which cost some model calls.

use std::{collections::HashSet, sync::LazyLock};

/// Why an answer is reused for a short time only, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoReuse {
    /// The answer is valid for a short time only. Other prompts share it if their [`particulars`] are equal.
    TimeDependent,
    /// The answer concerns one person. Other prompts share it if their [`particulars`] are equal.
    Personal,
    /// The caller wants a different answer each time.
    Variety,
}

/// Words of time-dependent prompts, in several languages.
const MOMENT: &str = "today today's tonight tomorrow yesterday now nowadays currently latest newest current recently \
    heute morgen gestern jetzt aktuell aktuelle aktuellen aujourd'hui demain hier maintenant actuellement hoy mañana \
    ayer ahora actualmente oggi domani ieri adesso hoje amanhã ontem agora";
static MOMENT_WORDS: LazyLock<HashSet<&str>> = LazyLock::new(|| MOMENT.split_ascii_whitespace().collect());
/// Parts of time-dependent prompts in scripts without spaces.
const MOMENT_PARTS: [&str; 10] =
    ["今天", "明天", "昨天", "现在", "目前", "最新", "今日", "明日", "昨日", "今の"];
/// First words of time-dependent pairs such as "this week"; [`PERIODS`] has the second words.
const DEICTIC: [&str; 3] = ["this", "next", "last"];
/// Second words of time-dependent pairs.
const PERIODS: [&str; 10] =
    ["week", "weekend", "month", "year", "quarter", "season", "morning", "afternoon", "evening", "night"];
/// Things with a number that identifies a person's own one.
const OWNED: [&str; 22] = [
    "order",
    "account",
    "invoice",
    "ticket",
    "booking",
    "reservation",
    "card",
    "subscription",
    "delivery",
    "package",
    "parcel",
    "shipment",
    "payment",
    "refund",
    "claim",
    "case",
    "contract",
    "policy",
    "loan",
    "flight",
    "appointment",
    "balance",
];
/// Maximum distance in words from an owned thing to its number.
const NUMBER_REACH: usize = 4;
/// Number of digits of telephone numbers.
const PHONE_DIGITS: std::ops::RangeInclusive<usize> = 9..=15;
/// Number of digits of payment cards.
const CARD_DIGITS: std::ops::RangeInclusive<usize> = 13..=19;

impl NoReuse {
    /// Returns the label used in metrics, reports and `Explain`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TimeDependent => "moment",
            Self::Personal => "person",
            Self::Variety => "variety",
        }
    }

    /// Checks a prompt's text. Returns `None` when its answer may be reused. A text that is both personal and
    /// time-dependent counts as personal.
    pub fn of(text: &str) -> Option<Self> {
        let lower = text.to_lowercase();
        let words = words(&lower);
        if is_personal(&lower, &words) {
            return Some(Self::Personal);
        }
        (!times(&lower, &words).is_empty()).then_some(Self::TimeDependent)
    }
}

/// The words that tie the answer of a prompt to one person or moment, sorted: its time words, and of a personal prompt its
/// addresses and numbers. None if its answer may be reused for any other prompt that asks the same.
pub fn particulars(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let words = words(&lower);
    let mut found = times(&lower, &words);
    if is_personal(&lower, &words) {
        let is_own = |word: &&&str| word.contains(|c: char| c.is_numeric() || c == '@');
        found.extend(words.iter().filter(is_own).map(|word| word.trim_start_matches('#').to_owned()));
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The words of a text in lower case, without punctuation.
fn words(lower: &str) -> Vec<&str> {
    lower
        .split(|c: char| c.is_whitespace() || ",;:!?()[]\"“”".contains(c))
        .map(|w| w.trim_matches(|c: char| !c.is_alphanumeric() && c != '+' && c != '#'))
        .filter(|w| !w.is_empty())
        .collect()
}

/// Words and phrases whose meaning depends on when they are said. A genitive is its word: "today's".
fn times(lower: &str, words: &[&str]) -> Vec<String> {
    let moment = |word: &&str| MOMENT_WORDS.get(word).map(|word| word.trim_end_matches("'s").to_owned());
    let deictic =
        |pair: &[&str]| (DEICTIC.contains(&pair[0]) && PERIODS.contains(&pair[1])).then(|| pair.join(" "));
    let parts = MOMENT_PARTS.iter().filter(|part| !lower.is_ascii() && lower.contains(**part));
    let words = words.iter().filter_map(moment).chain(words.windows(2).filter_map(deictic));
    words.chain(parts.map(|part| (*part).to_owned())).collect()
}

fn is_personal(lower: &str, words: &[&str]) -> bool {
    words.iter().any(|w| is_email(w) || is_iban(w)) || has_long_number(lower) || has_own_number(words)
}

/// Whether the word is an address such as name@host.tld.
fn is_email(word: &str) -> bool {
    let Some((name, host)) = word.split_once('@') else { return false };
    let dotted = host.split_once('.').is_some_and(|(a, b)| !a.is_empty() && b.len() >= 2);
    !name.is_empty() && dotted
}

/// Whether the word has the shape of an IBAN: two letters, two digits, and at least eleven letters and digits, eight
/// of them digits.
fn is_iban(word: &str) -> bool {
    let bytes = word.as_bytes();
    bytes.len() >= 15
        && bytes.iter().all(u8::is_ascii_alphanumeric)
        && bytes[..2].iter().all(u8::is_ascii_alphabetic)
        && bytes[2..4].iter().all(u8::is_ascii_digit)
        && bytes[4..].iter().filter(|b| b.is_ascii_digit()).count() >= 8
}

/// Whether the text has a telephone, social security or card number: a sequence of digits with single separators.
fn has_long_number(text: &str) -> bool {
    let mut digits = String::new();
    let mut shape = Shape::default();
    for c in text.chars().chain(['\n']) {
        let separates = matches!(c, ' ' | '-' | '.' | '/' | '(' | ')');
        if c.is_ascii_digit() {
            digits.push(c);
            shape.gap = false;
        } else if separates && !digits.is_empty() && !shape.gap {
            shape.groups += 1;
            shape.gap = true;
        } else if c == '+' && digits.is_empty() {
            shape.plus = true;
        } else {
            if shape.is_personal(&digits) {
                return true;
            }
            digits.clear();
            shape = Shape { plus: c == '+', ..Shape::default() };
        }
    }
    false
}

/// Notation of a sequence of digits.
#[derive(Default)]
struct Shape {
    /// Whether a plus sign precedes it.
    plus: bool,
    /// Number of separators.
    groups: usize,
    /// Whether the last character was a separator.
    gap: bool,
}

impl Shape {
    fn is_personal(&self, digits: &str) -> bool {
        let phone = PHONE_DIGITS.contains(&digits.len())
            && (self.plus || self.groups >= 2 || digits.starts_with('0'));
        phone || (CARD_DIGITS.contains(&digits.len()) && passes_luhn(digits))
    }
}

/// Whether the last digit is the check digit of a payment card number (Luhn).
fn passes_luhn(digits: &str) -> bool {
    let value = |(i, d): (usize, u8)| {
        let digit = u32::from(d - b'0');
        match i % 2 {
            0 => digit,
            _ if digit > 4 => 2 * digit - 9,
            _ => 2 * digit,
        }
    };
    digits.bytes().rev().enumerate().map(value).sum::<u32>().is_multiple_of(10)
}

/// Whether the text has an owned thing and its number: "my order 4711", "invoice #20-118".
fn has_own_number(words: &[&str]) -> bool {
    let numbered = |w: &&str| w.bytes().filter(u8::is_ascii_digit).count() >= 3;
    words.iter().enumerate().any(|(i, w)| {
        let own =
            i > 0 && matches!(words[i - 1], "my" | "our" | "mein" | "meine" | "meiner" | "ma" | "mon" | "mi");
        let following = &words[i + 1..words.len().min(i + 1 + NUMBER_REACH)];
        OWNED.contains(w)
            && following.iter().any(|n| numbered(n) && (own || n.starts_with('#') || !is_year(n)))
    })
}

fn is_year(word: &str) -> bool {
    word.len() == 4 && (word.starts_with("19") || word.starts_with("20"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn personal_prompts_are_detected() {
        for text in [
            "Write to ann.lee@example.org about it",
            "call me at +49 170 1234567",
            "my number is (555) 010-9999 22",
            "is 4111 1111 1111 1111 a valid card?",
            "Where is my order 4711?",
            "status of invoice #20118",
            "transfer to DE89370400440532013000",
            "My SSN is 078-05-1120",
        ] {
            assert_eq!(NoReuse::of(text), Some(NoReuse::Personal), "{text}");
        }
    }

    #[test]
    fn time_dependent_prompts_are_detected() {
        for text in [
            "What's the weather today?",
            "latest iPhone model",
            "who is winning right now",
            "events this weekend",
            "Wie wird das Wetter heute?",
            "¿Qué hora es ahora?",
            "今天天气怎么样",
        ] {
            assert_eq!(NoReuse::of(text), Some(NoReuse::TimeDependent), "{text}");
        }
    }

    #[test]
    fn particulars_are_what_ties_an_answer_to_a_person_or_moment() {
        let equal = |a: &str, b: &str| particulars(a) == particulars(b);
        assert!(equal("Where is my order 4711?", "what's the status of order #4711"));
        assert!(!equal("Where is my order 4711?", "Where is my order 4712?"));
        assert!(!equal("Where is my order 4711?", "Where is my order?"));
        assert!(equal("What's the weather today?", "tell me today's weather"));
        assert!(!equal("What's the weather today?", "What's the weather tomorrow?"));
        assert!(!equal("events this weekend", "events next weekend"));
        assert!(!equal("今天天气怎么样", "明天天气怎么样"));
        assert_eq!(particulars("What is 123456 times 987654?"), [""; 0], "numbers alone tie it to nobody");
        assert_eq!(particulars("Mail ann.lee@example.org now"), ["ann.lee@example.org", "now"]);
    }

    #[test]
    fn other_prompts_may_be_reused() {
        for text in [
            "How do I know a good restaurant?",
            "What is 123456 times 987654?",
            "capital of France in 1998",
            "order of operations in 2020",
            "Convert 1,000,000 to hexadecimal",
            "explain the @ operator in Python",
            "How do I reset my password?",
            "",
            "+",
        ] {
            assert_eq!(NoReuse::of(text), None, "{text}");
        }
    }
}

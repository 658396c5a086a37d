//! Which prompts must not be answered for somebody else or at another time: those bound to a moment
//! ("today", "latest") and those bound to a person (addresses, numbers of accounts and orders).
//!
//! Recognised by words and shapes alone, in doubt as bound: the price of a mistake is one bought answer.

use std::collections::HashSet;

/// What a prompt is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bound {
    /// The answer holds for a short time.
    Moment,
    /// The answer is one person's.
    Person,
    /// The caller wants another answer each time.
    Variety,
}

/// Words that bind to a moment, in several languages.
const MOMENT: &str = "today today's tonight tomorrow yesterday now nowadays currently latest newest current recently \
    heute morgen gestern jetzt aktuell aktuelle aktuellen aujourd'hui demain hier maintenant actuellement hoy mañana \
    ayer ahora actualmente oggi domani ieri adesso hoje amanhã ontem agora";
/// The same in scripts without spaces.
const MOMENT_PARTS: [&str; 10] =
    ["今天", "明天", "昨天", "现在", "目前", "最新", "今日", "明日", "昨日", "今の"];
/// "this week", "next month", "right now".
const DEICTIC: [&str; 3] = ["this", "next", "last"];
const PERIODS: [&str; 10] =
    ["week", "weekend", "month", "year", "quarter", "season", "morning", "afternoon", "evening", "night"];
/// Things of which everybody has another one.
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
/// Words between an owned thing and its number.
const NUMBER_REACH: usize = 4;
/// Digits of telephone numbers, and of payment cards.
const PHONE_DIGITS: std::ops::RangeInclusive<usize> = 9..=15;
const CARD_DIGITS: std::ops::RangeInclusive<usize> = 13..=19;

// === impl Bound ===

impl Bound {
    /// The label on every surface.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Moment => "moment",
            Self::Person => "person",
            Self::Variety => "variety",
        }
    }

    /// What `text` is bound to; a person before a moment.
    pub fn of(text: &str) -> Option<Self> {
        let lower = text.to_lowercase();
        let words: Vec<&str> = lower
            .split(|c: char| c.is_whitespace() || ",;:!?()[]\"“”".contains(c))
            .map(|w| w.trim_matches(|c: char| !c.is_alphanumeric() && c != '+' && c != '#'))
            .filter(|w| !w.is_empty())
            .collect();
        if is_personal(&lower, &words) {
            return Some(Self::Person);
        }
        is_momentary(&lower, &words).then_some(Self::Moment)
    }
}

fn is_momentary(lower: &str, words: &[&str]) -> bool {
    let known: HashSet<&str> = MOMENT.split_ascii_whitespace().collect();
    let deictic = |pair: &[&str]| DEICTIC.contains(&pair[0]) && PERIODS.contains(&pair[1]);
    words.iter().any(|w| known.contains(w))
        || words.windows(2).any(deictic)
        || (!lower.is_ascii() && MOMENT_PARTS.iter().any(|part| lower.contains(part)))
}

fn is_personal(lower: &str, words: &[&str]) -> bool {
    words.iter().any(|w| is_email(w) || is_iban(w)) || has_long_number(lower) || has_own_number(words)
}

/// "name@host.tld".
fn is_email(word: &str) -> bool {
    let Some((name, host)) = word.split_once('@') else { return false };
    let dotted = host.split_once('.').is_some_and(|(a, b)| !a.is_empty() && b.len() >= 2);
    !name.is_empty() && dotted
}

/// Two letters, two digits, and eleven or more of both.
fn is_iban(word: &str) -> bool {
    let bytes = word.as_bytes();
    bytes.len() >= 15
        && bytes.iter().all(u8::is_ascii_alphanumeric)
        && bytes[..2].iter().all(u8::is_ascii_alphabetic)
        && bytes[2..4].iter().all(u8::is_ascii_digit)
        && bytes[4..].iter().filter(|b| b.is_ascii_digit()).count() >= 8
}

/// A run of digits, single separators within, that is a telephone, social security or card number.
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

/// How a run of digits is written.
#[derive(Default)]
struct Shape {
    plus: bool,
    groups: usize,
    gap: bool,
}

// === impl Shape ===

impl Shape {
    fn is_personal(&self, digits: &str) -> bool {
        let phone = PHONE_DIGITS.contains(&digits.len())
            && (self.plus || self.groups >= 2 || digits.starts_with('0'));
        phone || (CARD_DIGITS.contains(&digits.len()) && passes_luhn(digits))
    }
}

/// The check digit of payment cards.
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

/// "my order 4711", "invoice #20-118": a thing of one's own and its number.
fn has_own_number(words: &[&str]) -> bool {
    let numbered = |w: &&str| w.bytes().filter(u8::is_ascii_digit).count() >= 3;
    words.iter().enumerate().any(|(i, w)| {
        let own =
            i > 0 && matches!(words[i - 1], "my" | "our" | "mein" | "meine" | "meiner" | "ma" | "mon" | "mi");
        let near = &words[i + 1..words.len().min(i + 1 + NUMBER_REACH)];
        OWNED.contains(w) && near.iter().any(|n| numbered(n) && (own || n.starts_with('#') || !is_year(n)))
    })
}

fn is_year(word: &str) -> bool {
    word.len() == 4 && (word.starts_with("19") || word.starts_with("20"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn personal_prompts_are_recognised() {
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
            assert_eq!(Bound::of(text), Some(Bound::Person), "{text}");
        }
    }

    #[test]
    fn momentary_prompts_are_recognised() {
        for text in [
            "What's the weather today?",
            "latest iPhone model",
            "who is winning right now",
            "events this weekend",
            "Wie wird das Wetter heute?",
            "¿Qué hora es ahora?",
            "今天天气怎么样",
        ] {
            assert_eq!(Bound::of(text), Some(Bound::Moment), "{text}");
        }
    }

    #[test]
    fn lasting_prompts_are_not() {
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
            assert_eq!(Bound::of(text), None, "{text}");
        }
    }
}

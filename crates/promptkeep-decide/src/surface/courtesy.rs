//! Drops the end marks of a text, and the politeness around a request. Keeps words that may be what is asked about, as
//! in "how do I say hello in French".

use super::{
    tokens::{Kind, Token, Tokens},
    words::{CODE_WORDS, List, PATTERN_WORDS, QUOTING_WORDS, REQUEST_VERBS, is_in},
};
use crate::lexicon::{self, NEGATION, PREPOSITION, PROGRAMMING, STOP};

/// Minimum number of words that remain of a request without its politeness.
const WORDS_MIN: usize = 2;

const GREETINGS: [&[&str]; 10] = [
    &["hi", "there"],
    &["hello", "there"],
    &["hey", "there"],
    &["good", "morning"],
    &["good", "afternoon"],
    &["good", "evening"],
    &["hi"],
    &["hello"],
    &["hey"],
    &["greetings"],
];

const THANKS: [&[&str]; 10] = [
    &["thank", "you", "very", "much"],
    &["thank", "you", "so", "much"],
    &["thank", "you", "in", "advance"],
    &["thanks", "in", "advance"],
    &["thanks", "so", "much"],
    &["thanks", "a", "lot"],
    &["many", "thanks"],
    &["thank", "you"],
    &["thanks"],
    &["thx"],
];

/// Returns the tokens without end marks and politeness. Drops nothing at the end of a text that ends in code.
pub fn core<'s, 't>(text: &'s Tokens<'t>) -> &'s [Token<'t>] {
    let mut core = &text.tokens[..];
    loop {
        let before = core.len();
        if !text.ends_in_code {
            core = without_end_marks(core);
            core = without(core, tail(core));
        }
        core = without(core, head(core).map(|length| (length, core.len())));
        if core.len() == before {
            return core;
        }
    }
}

/// Cuts to a range if enough words remain.
fn without<'s, 't>(tokens: &'s [Token<'t>], range: Option<(usize, usize)>) -> &'s [Token<'t>] {
    let Some((from, to)) = range else { return tokens };
    let rest = &tokens[from..to];
    let words = rest.iter().filter(|t| t.kind == Kind::Word).count();
    if words >= WORDS_MIN { rest } else { tokens }
}

/// Whether a word may open a request.
pub fn opens_request(word: &str) -> bool {
    is_question_word(word) || is_verb(word)
}

// === end marks ===

/// Returns the tokens without the marks at the end and the inverted ones at the start. Marks stay where they mean
/// something, as in "5!", an ellipsis or a pattern.
fn without_end_marks<'s, 't>(tokens: &'s [Token<'t>]) -> &'s [Token<'t>] {
    let tokens = match tokens {
        [mark, rest @ ..] if matches!(mark.text, "¿" | "¡") && !rest.is_empty() => rest,
        _ => tokens,
    };
    let is_end =
        |t: &Token<'_>| matches!(t.text, "." | "!" | "?" | "。" | "！" | "？" | "؟" | "।" | "։" | ";");
    let count = tokens.iter().rev().take_while(|t| t.kind == Kind::Mark && is_end(t)).count();
    if count == 0 {
        return tokens;
    }
    let (kept, marks) = tokens.split_at(tokens.len() - count);
    let Some(last) = kept.last() else { return tokens };
    let has = |mark: &str| marks.iter().any(|t| t.text == mark);
    let words = |list: &List| tokens.iter().any(|t| t.kind == Kind::Word && is_in(list, t.text));
    let meant = !(last.kind == Kind::Word || matches!(last.text, "\"" | "'" | "”" | "’" | "»"))
        || marks.windows(2).any(|pair| pair[0].text == "." && pair[1].text == ".")
        || (has("!") && (is_symbolic(last.text) || tokens.iter().any(|t| is_code_word(t.text))))
        || (has(";") && !last.text.ends_with(|c| matches!(c, 'Ͱ'..='Ͽ' | 'ἀ'..='῾')))
        || words(&PATTERN_WORDS);
    if meant { tokens } else { kept }
}

/// Whether an exclamation mark after it may be a factorial or a verdict on a move of chess.
fn is_symbolic(word: &str) -> bool {
    word.chars().count() == 1 || word.contains(|c: char| c.is_numeric())
}

fn is_code_word(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    lexicon::info(lexicon::hash(&lower)).has(PROGRAMMING) || is_in(&CODE_WORDS, &lower)
}

// === politeness ===

/// Returns the number of tokens of politeness at the start.
fn head(t: &[Token<'_>]) -> Option<usize> {
    let length = greeting(t).or_else(|| please(t)).or_else(|| could_you(t)).or_else(|| tell_me(t))?;
    let rest = &t[length..];
    // The text may be about its own wording.
    let quotes = rest.iter().skip(1).any(|t| is_word_of(&QUOTING_WORDS, t)) && has_inner_break(rest);
    (!quotes).then_some(length)
}

/// "Hello, …"
fn greeting(t: &[Token<'_>]) -> Option<usize> {
    let length = GREETINGS.iter().find(|words| starts(t, words))?.len();
    let marked = t.get(length).is_some_and(|m| matches!(m.text, "," | "!" | "." | "\n" | "\n\n"));
    let start = length + usize::from(marked);
    let rest = &t[start..];
    let request = question(rest) || starts_any(rest, &["please", "pls", "plz"]);
    (request || (marked && rest.first().is_some_and(|w| is_verb(w.text)))).then_some(start)
}

/// "Please explain …"
fn please(t: &[Token<'_>]) -> Option<usize> {
    if !starts_any(t, &["please", "pls", "plz", "kindly"]) {
        return None;
    }
    let start = 1 + usize::from(t.get(1).is_some_and(|m| m.text == ","));
    let rest = &t[start..];
    (question(rest) || rest.first().is_some_and(|w| is_verb(w.text))).then_some(start)
}

/// "Could you explain …". Without "please" only verbs of telling count: "could you make bread" asks for an ability.
fn could_you(t: &[Token<'_>]) -> Option<usize> {
    if !starts_any(t, &["could", "would", "can", "will"]) || !starts_any(t.get(1..)?, &["you"]) {
        return None;
    }
    let polite = starts_any(t.get(2..)?, &["please", "kindly"]);
    let start = 2 + usize::from(polite);
    let rest = &t[start..];
    let to_me = starts_any(rest, &["tell", "give", "show", "help", "teach", "write"])
        && starts_any(rest.get(1..)?, &["me"]);
    let tells = to_me
        || starts_any(rest, &["explain"])
        || (starts_any(t, &["could"]) && starts_any(rest, &["list", "summarize", "summarise", "describe"]));
    let asks = rest.first().is_some_and(|w| is_verb(w.text)) && rest.len() > WORDS_MIN;
    (asks && (polite || tells)).then_some(start)
}

/// "Tell me how …", "Tell me: …"
fn tell_me(t: &[Token<'_>]) -> Option<usize> {
    if !starts(t, &["tell", "me"]) {
        return None;
    }
    if t.get(2)?.text == ":" {
        return question(&t[3..]).then_some(3);
    }
    // "Tell me when" and "tell me if" may ask to be notified.
    let asks = starts_any(&t[2..], &["how", "what", "which", "why", "where", "who", "whose"]);
    (asks && t.len() > 4).then_some(2)
}

/// Returns the range of tokens before politeness at the end.
fn tail(t: &[Token<'_>]) -> Option<(usize, usize)> {
    let thanks = THANKS.iter().find(|words| ends(t, words)).map(|words| words.len());
    let length = thanks.or_else(|| ["please", "pls", "plz"].iter().any(|w| ends(t, &[w])).then_some(1))?;
    let rest = &t[..t.len() - length];
    if has_quotation(rest) || t.iter().any(|t| is_word_of(&QUOTING_WORDS, t)) {
        return None;
    }
    let end = match rest.last()?.text {
        "," | "-" | "–" | "—" | "\n" | "\n\n" => rest.len() - 1,
        "." | "!" | "?" => rest.len(),
        word if thanks.is_none() && may_precede_please(rest, word) => rest.len(),
        _ => return None,
    };
    Some((0, end))
}

/// Whether a bare "please" after `last` is politeness and no verb, as it is in "how to please".
fn may_precede_please(rest: &[Token<'_>], last: &str) -> bool {
    let lower = last.to_ascii_lowercase();
    let function = lexicon::info(lexicon::hash(&lower)).has(STOP | PREPOSITION | NEGATION);
    let asks = question(rest) || rest.first().is_some_and(|w| is_verb(w.text));
    asks && rest.len() > 3 && (!function || matches!(lower.as_str(), "me" | "it" | "this"))
}

/// Whether the tokens begin like a question or a polite request.
fn question(t: &[Token<'_>]) -> bool {
    let Some(first) = t.first() else { return false };
    let auxiliary = starts_any(
        t,
        &["can", "could", "would", "will", "do", "does", "did", "is", "are", "should", "may", "was", "were"],
    );
    let subject = || {
        let subjects =
            ["you", "i", "we", "it", "there", "they", "he", "she", "the", "this", "that", "my", "your"];
        t.get(1).is_some_and(|w| subjects.iter().any(|s| w.text.eq_ignore_ascii_case(s)))
    };
    is_question_word(first.text) || starts(t, &["tell", "me"]) || (auxiliary && subject())
}

/// Whether a colon, quotation or second sentence may hold a text that the request is about.
fn has_inner_break(t: &[Token<'_>]) -> bool {
    let t = without_end_marks(t);
    let ends = |t: &Token<'_>| t.kind == Kind::Break || matches!(t.text, "." | "!" | "?" | ";");
    t.iter().any(ends) || has_quotation(t)
}

fn has_quotation(t: &[Token<'_>]) -> bool {
    let marks = [":", "\"", "“", "”", "„", "«", "'", "‘", "「"];
    t.iter().any(|t| t.kind == Kind::Mark && marks.contains(&t.text))
}

fn is_question_word(word: &str) -> bool {
    let words = ["how", "what", "why", "when", "where", "who", "which", "whose"];
    words.iter().any(|w| word.eq_ignore_ascii_case(w))
}

fn is_verb(word: &str) -> bool {
    is_in(&REQUEST_VERBS, word)
}

fn is_word_of(list: &List, token: &Token<'_>) -> bool {
    token.kind == Kind::Word && is_in(list, token.text)
}

fn starts(t: &[Token<'_>], words: &[&str]) -> bool {
    t.len() >= words.len() && t.iter().zip(words).all(|(t, w)| !t.exact && t.text.eq_ignore_ascii_case(w))
}

fn ends(t: &[Token<'_>], words: &[&str]) -> bool {
    t.len() >= words.len() && starts(&t[t.len() - words.len()..], words)
}

fn starts_any(t: &[Token<'_>], words: &[&str]) -> bool {
    words.iter().any(|word| starts(t, &[word]))
}

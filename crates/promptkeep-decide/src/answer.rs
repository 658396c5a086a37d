//! What two answers say about whether their prompts ask the same. Models that answer one question twice rarely use the
//! same words, and they answer near misses of one frame with answers of one frame; so an answer pair is not a label but
//! *evidence*: a likelihood ratio, trained on real answers of models, that the learner combines with what the prompts
//! say.

use std::collections::HashSet;

use promptkeep_core::prompt::prefix;

use super::{
    lexicon::hash,
    overlap::{common, dice},
    text::Analysis,
    word::{CODE, Word},
};

/// Number of features of a pair of answers.
pub const COUNT: usize = NAMES.len();

/// Names of the features, in order.
pub const NAMES: [&str; 30] = [
    "overlap",
    "contained",
    "content",
    "bigrams",
    "similarity",
    "opening_similarity",
    "opening_words",
    "numbers",
    "numbers_disjoint",
    "last_number",
    "assent",
    "negation",
    "length_ratio",
    "shorter",
    "longer",
    "refusals",
    "names",
    "code",
    "questions",
    "asked_new",
    "asked_entry",
    "asked_kept_new",
    "asked_kept_entry",
    "asked_absent",
    "asked_numbers",
    "prompt_similarity",
    "prompt_differences",
    "prompt_shared",
    "coverage_new",
    "coverage_entry",
];

/// Values of the features.
pub type Features = [f32; COUNT];

/// Value of a feature that cannot be computed for a pair.
const UNKNOWN: f32 = -1.0;

/// Words of an answer's opening.
const OPENING_WORDS: usize = 20;
/// Bytes of the texts that are embedded: the opening and the beginning.
const OPENING_BYTES: usize = 200;
const BEGINNING_BYTES: usize = 900;
/// Words of an answer up to which an apology makes it a refusal. Longer answers apologise and then help.
const REFUSAL_WORDS_MAX: usize = 80;
/// Words of an answer up to which a question mark at its end makes it a clarifying question.
const ASKING_WORDS_MAX: usize = 25;

/// An answer, prepared for comparison.
#[derive(Clone, Debug)]
pub struct Answer {
    analysis: Analysis,
    /// Hashes of the words, sorted.
    words: Vec<u64>,
    /// Hashes of neighbouring words, sorted.
    bigrams: Vec<u64>,
    /// Stems of the content words.
    content: HashSet<u64>,
    names: HashSet<u64>,
    /// Numbers in order, as the bits of their values.
    numbers: Vec<u64>,
    /// Hashes of neighbouring tokens of code, sorted; empty for prose.
    code: Vec<u64>,
    assents: Option<bool>,
    refuses: bool,
    asks: bool,
}

/// Cosine similarities of two answers' vectors, in [-1, 1].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Similarity {
    /// Of the texts of [`beginning`].
    pub beginning: f32,
    /// Of the texts of [`opening`].
    pub opening: f32,
}

/// The two prompts of a pair, and the cosine similarity of their vectors.
#[derive(Clone, Copy, Debug)]
pub struct Prompts<'a> {
    pub new: &'a Analysis,
    pub entry: &'a Analysis,
    pub similarity: f32,
}

/// The beginning of an answer, to embed: about as much as a small encoder takes.
pub fn beginning(text: &str) -> &str {
    prefix(text, BEGINNING_BYTES)
}

/// The first sentences of an answer, to embed.
pub fn opening(text: &str) -> &str {
    prefix(text, OPENING_BYTES)
}

/// Features of the answers to a new prompt and of an entry. Without `similarity` the comparison goes by words.
pub fn features(
    new: &Answer,
    entry: &Answer,
    similarity: Option<Similarity>,
    prompts: Prompts<'_>,
) -> Features {
    let mut values = [0.0; COUNT];
    let similar = similarity.map_or([UNKNOWN; 2], |s| [s.beginning, s.opening]);
    let parts: [&[f32]; 7] = [
        &wording(new, entry),
        &similar,
        &[new.opening_overlap(entry)],
        &numbers(new, entry),
        &stance(new, entry),
        &things(new, entry),
        &asked(new, entry, prompts),
    ];
    let all = parts.into_iter().flatten();
    values.iter_mut().zip(all).for_each(|(value, part)| *value = *part);
    values
}

/// Words in common.
fn wording(a: &Answer, b: &Answer) -> [f32; 4] {
    let common = common(&a.words, &b.words) as f32;
    let (longer, shorter) = (a.words.len().max(b.words.len()), a.words.len().min(b.words.len()));
    [
        common / longer.max(1) as f32,
        common / shorter.max(1) as f32,
        jaccard(&a.content, &b.content),
        dice(&a.bigrams, &b.bigrams),
    ]
}

fn numbers(a: &Answer, b: &Answer) -> [f32; 3] {
    let (x, y): (HashSet<u64>, HashSet<u64>) =
        (a.numbers.iter().copied().collect(), b.numbers.iter().copied().collect());
    if x.is_empty() || y.is_empty() {
        return [UNKNOWN, 0.0, 0.0];
    }
    let last = if a.numbers.last() == b.numbers.last() { 1.0 } else { 2.0 };
    [jaccard(&x, &y), flag(x.is_disjoint(&y)), last]
}

/// Yes or no, negations, lengths and refusals.
fn stance(a: &Answer, b: &Answer) -> [f32; 6] {
    let assent = match a.assents.zip(b.assents) {
        None => 0.0,
        Some((x, y)) if x == y => 1.0,
        Some(_) => 2.0,
    };
    let (x, y) = (a.words.len().max(1) as f32, b.words.len().max(1) as f32);
    [
        assent,
        a.analysis.negations.abs_diff(b.analysis.negations).min(4) as f32,
        (x / y).ln().abs(),
        x.min(y).ln(),
        x.max(y).ln(),
        flag(a.refuses) + flag(b.refuses),
    ]
}

fn things(a: &Answer, b: &Answer) -> [f32; 3] {
    let names = if a.names.is_empty() || b.names.is_empty() { UNKNOWN } else { jaccard(&a.names, &b.names) };
    let code = if a.code.is_empty() || b.code.is_empty() { UNKNOWN } else { dice(&a.code, &b.code) };
    [names, code, flag(a.asks) + flag(b.asks)]
}

/// Whether the answers mirror what only one of the prompts asks.
fn asked(new: &Answer, entry: &Answer, prompts: Prompts<'_>) -> [f32; 11] {
    let only = |a: &Analysis, b: &Analysis| a.content_lacking_in(b).map(|w| w.stem).collect::<Vec<_>>();
    let (only_new, only_entry) = (only(prompts.new, prompts.entry), only(prompts.entry, prompts.new));
    let count = |stems: &[u64], holds: &dyn Fn(&u64) -> bool| {
        stems.iter().filter(|stem| holds(stem)).count().min(3) as f32
    };
    let mirrored = |a: &Answer, b: &Answer, stems: &[u64]| count(stems, &|s| a.says(*s) && !b.says(*s));
    let kept = |a: &Answer, b: &Answer, stems: &[u64]| count(stems, &|s| a.says(*s) && b.says(*s));
    let absent = |s: &u64| !new.says(*s) && !entry.says(*s);
    let shared = prompts.new.content().filter(|w| prompts.entry.stems.binary_search(&w.stem).is_ok()).count();
    [
        mirrored(new, entry, &only_new),
        mirrored(entry, new, &only_entry),
        kept(new, entry, &only_new),
        kept(new, entry, &only_entry),
        count(&only_new, &absent) + count(&only_entry, &absent),
        numbers_asked(new, entry, prompts),
        prompts.similarity,
        ((only_new.len() + only_entry.len()) as f32).min(8.0),
        (shared as f32).min(8.0),
        coverage(prompts.new, entry),
        coverage(prompts.entry, new),
    ]
}

/// Share of the prompt's content words that the other prompt's answer has.
fn coverage(prompt: &Analysis, answer: &Answer) -> f32 {
    let (mut all, mut said) = (0, 0);
    for word in prompt.content() {
        all += 1;
        said += usize::from(answer.says(word.stem));
    }
    if all == 0 { UNKNOWN } else { said as f32 / all as f32 }
}

/// Numbers that one prompt has alone and its answer too, but not the other answer.
fn numbers_asked(new: &Answer, entry: &Answer, prompts: Prompts<'_>) -> f32 {
    let lacks = |text: &Analysis, value: f64| text.quantities.iter().all(|q| q.value != value);
    let mirrored = |own: &Analysis, other: &Analysis, answer: &Answer, others: &Answer| {
        let values = own.quantities.iter().map(|q| q.value).filter(|value| lacks(other, *value));
        values
            .filter(|v| answer.numbers.contains(&v.to_bits()) && !others.numbers.contains(&v.to_bits()))
            .count()
    };
    let count =
        mirrored(prompts.new, prompts.entry, new, entry) + mirrored(prompts.entry, prompts.new, entry, new);
    count.min(4) as f32
}

// === impl Answer ===

impl Answer {
    /// Prepares the answer `text`. Linear in its length.
    pub fn of(text: &str) -> Self {
        let analysis = Analysis::of(text);
        let mut words: Vec<u64> = analysis.words.iter().map(|w| w.hash).collect();
        let mut bigrams: Vec<u64> = words.windows(2).map(|pair| pair[0].rotate_left(7) ^ pair[1]).collect();
        words.sort_unstable();
        bigrams.sort_unstable();
        Self {
            words,
            bigrams,
            content: analysis.content().map(|w| w.stem).collect(),
            names: analysis.words.iter().filter(|w| w.is_name()).map(|w| w.stem).collect(),
            numbers: analysis.quantities.iter().map(|q| q.value.to_bits()).collect(),
            code: code(text, &analysis),
            assents: assents(&analysis),
            refuses: refuses(&analysis),
            asks: text.trim_end().ends_with('?'),
            analysis,
        }
    }

    fn says(&self, stem: u64) -> bool {
        self.analysis.stems.binary_search(&stem).is_ok()
    }

    fn opening_overlap(&self, other: &Self) -> f32 {
        let opening = |answer: &Self| -> Vec<u64> {
            let mut words: Vec<u64> =
                answer.analysis.words.iter().take(OPENING_WORDS).map(|w| w.hash).collect();
            words.sort_unstable();
            words
        };
        dice(&opening(self), &opening(other))
    }

    /// Whether the answer declines to help, only asks back, or is empty: it says nothing about what was asked.
    pub fn says_nothing(&self) -> bool {
        let asks_back = self.asks && self.words.len() <= ASKING_WORDS_MAX;
        self.refuses || asks_back || self.words.is_empty()
    }
}

/// Whether the answer begins with "yes" or "no".
fn assents(analysis: &Analysis) -> Option<bool> {
    match analysis.str(analysis.words.first()?) {
        "yes" | "true" | "correct" => Some(true),
        "no" | "false" | "incorrect" => Some(false),
        _ => None,
    }
}

/// Openings of answers that decline.
const REFUSALS: [&str; 12] = [
    "i am sorry",
    "i m sorry",
    "sorry",
    "i apologize",
    "as an ai",
    "i cannot",
    "i can not",
    "i am unable",
    "i am not able",
    "unfortunately i",
    "i do not have",
    "it is not appropriate",
];

fn refuses(analysis: &Analysis) -> bool {
    let opening = prefix(&analysis.lower, OPENING_BYTES);
    analysis.words.len() <= REFUSAL_WORDS_MAX && REFUSALS.iter().any(|refusal| opening.starts_with(refusal))
}

/// Neighbouring tokens of the fenced code, or of the whole text if it looks like code. SQL and other languages ignore
/// case often enough that it is ignored everywhere.
fn code(text: &str, analysis: &Analysis) -> Vec<u64> {
    let fenced: Vec<&str> = text.split("```").skip(1).step_by(2).collect();
    let is_query = || text.trim_start().get(..6).is_some_and(|head| head.eq_ignore_ascii_case("select"));
    let is_code = |w: &&Word| w.is(CODE);
    let many = analysis.words.iter().filter(is_code).count() * 8 > analysis.words.len().max(8);
    let marks = text.bytes().filter(|b| b"{};=()".contains(b)).count();
    let whole = fenced.is_empty() && (is_query() || many || marks * 30 > text.len().max(60));
    let sources = if whole { vec![text] } else { fenced };
    let mut pairs = Vec::new();
    for source in sources {
        let tokens: Vec<u64> = tokens(source).map(|token| hash(&token.to_lowercase())).collect();
        pairs.extend(tokens.windows(2).map(|pair| pair[0].rotate_left(7) ^ pair[1]));
    }
    pairs.sort_unstable();
    pairs
}

/// Identifiers, numbers and single marks.
fn tokens(source: &str) -> impl Iterator<Item = &str> {
    let mut rest = source;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        let first = rest.chars().next()?;
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let length =
            if is_word(first) { rest.find(|c| !is_word(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        let (token, left) = rest.split_at(length);
        rest = left;
        Some(token)
    })
}

fn flag(set: bool) -> f32 {
    f32::from(u8::from(set))
}

fn jaccard(a: &HashSet<u64>, b: &HashSet<u64>) -> f32 {
    let both = a.intersection(b).count();
    let all = a.len() + b.len() - both;
    if all == 0 { 1.0 } else { both as f32 / all as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Table;

    fn evidence(prompts: (&str, &str), answers: (&str, &str)) -> f32 {
        let table = Table::embedded().unwrap();
        let (new, entry) = (Analysis::of(prompts.0), Analysis::of(prompts.1));
        let prompts = Prompts { new: &new, entry: &entry, similarity: 0.9 };
        table.evidence(&features(&Answer::of(answers.0), &Answer::of(answers.1), None, prompts))
    }

    #[test]
    fn answers_that_agree_say_more_for_a_pair_than_answers_that_do_not() {
        let prompts = ("How many people live in Oslo?", "What is the population of Oslo?");
        let agree = ("About 700,000 people live in Oslo.", "The population of Oslo is about 700,000.");
        let differ =
            ("About 700,000 people live in Oslo.", "Oslo has 17 museums, and most are free on Mondays.");
        assert!(evidence(prompts, agree) > evidence(prompts, differ));
        let query = "SELECT name FROM singer WHERE age > 20";
        let other = "SELECT COUNT(*) FROM concert GROUP BY stadium";
        assert!(evidence(prompts, (query, query)) > evidence(prompts, (query, other)));
    }

    #[test]
    fn refusals_questions_and_empty_answers_say_nothing() {
        for text in ["", " ", "I'm sorry, but I can't help with that.", "Which country do you mean?"] {
            assert!(Answer::of(text).says_nothing(), "{text}");
        }
        for text in
            ["No.", "Sorting takes n log n steps.", "Because it is cold. Shall I explain more? It depends."]
        {
            assert!(!Answer::of(text).says_nothing(), "{text}");
        }
    }

    #[test]
    fn any_text_has_finite_features() {
        let long = "word ".repeat(200_000);
        for text in ["", "\u{0}\u{1}", "שלום עולם", "巴黎是法国的首都。", "```\n{};\n```", "😀😀", &long]
        {
            let prompt = Analysis::of(prefix(text, 500));
            let prompts = Prompts { new: &prompt, entry: &prompt, similarity: f32::NAN };
            let answer = Answer::of(text);
            let values = features(&answer, &answer, None, prompts);
            let finite = values.iter().filter(|value| value.is_finite()).count();
            assert_eq!(finite, COUNT - 1, "all but the similarity that was passed");
        }
    }
}

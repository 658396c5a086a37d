//! Features of a new prompt and an entry: the numbers from which the learned decision is made. Computed from the two
//! analyses and the similarity, without another pass of a network.
//!
//! The number and order of [`NAMES`] belong to the version of the trained table.

mod diff;

use promptkeep_core::outcome::Guard;

use super::{
    guard,
    lexicon::{self, Info},
    rarity::Rarity,
    text::{Analysis, Question},
    word::Word,
};
use diff::Diff;

/// Number of features.
pub const COUNT: usize = NAMES.len();

/// Index of the feature that is 1 when both texts are English, the language of the lexicon.
pub const ENGLISH: usize = 62;

/// Values of the features, in the order of [`NAMES`].
pub type Features = [f32; COUNT];

/// Names of the features in `Explain`.
pub const NAMES: [&str; 66] = [
    "similarity",
    "distance_log",
    "next_gap",
    "crowd",
    "content_jaccard",
    "only_new",
    "only_entry",
    "only_min",
    "only_max",
    "rare_new",
    "rare_entry",
    "rarest",
    "harm_new",
    "harm_entry",
    "harm_worst",
    "alike_new",
    "alike_entry",
    "alike_least",
    "alien_new",
    "alien_entry",
    "alike_best",
    "reworded",
    "bigrams",
    "subsequence",
    "inversions",
    "length_ratio",
    "length_log",
    "middle_new",
    "middle_entry",
    "middle_content",
    "middle_function",
    "trigrams",
    "spelled_alike",
    "numbers_conflict",
    "numbers_missing",
    "numbers_shared",
    "units",
    "dates_conflict",
    "dates_missing",
    "quoted",
    "code",
    "negation",
    "negation_prefix",
    "antonyms",
    "opposites_differ",
    "direction",
    "roles_agree",
    "languages",
    "formats",
    "names_new",
    "names_entry",
    "question",
    "question_word",
    "focus_crossed",
    "focus_differs",
    "bounds",
    "prepositions",
    "quantifiers",
    "pronouns",
    "first_content",
    "last_content",
    "function_jaccard",
    "english",
    "surface",
    "actions",
    "objections",
];

/// Similarities of a prompt's candidates around one of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Neighbourhood {
    /// Similarity of the most similar other candidate; 0 when there is none.
    pub best_other: f32,
    /// Mean similarity of all candidates.
    pub mean: f32,
}

impl Neighbourhood {
    /// Computes the neighbourhood of candidate `k` from all `candidates` with their similarities.
    pub fn of<T>(candidates: &[(T, f32)], k: usize) -> Self {
        let others = candidates.iter().enumerate().filter(|(i, _)| *i != k).map(|(_, c)| c.1);
        let mean = candidates.iter().map(|c| c.1).sum::<f32>() / candidates.len().max(1) as f32;
        Self { best_other: others.fold(0.0, f32::max), mean }
    }
}

/// Writes the features in order.
struct Row {
    values: Features,
    next: usize,
}

/// Returns the features of answering the prompt `new` with the answer of `entry`. `similarity` is the cosine of the
/// two embeddings, in [-1, 1].
pub fn of(
    new: &Analysis,
    entry: &Analysis,
    similarity: f32,
    neighbourhood: Neighbourhood,
    rarity: &Rarity,
) -> Features {
    let diff = Diff::of(new, entry);
    let mut row = Row { values: [0.0; COUNT], next: 0 };
    row.push(similarity);
    row.push(-(1.0005 - similarity.min(1.0)).ln());
    row.push(similarity - neighbourhood.best_other);
    row.push(neighbourhood.mean);
    words(&mut row, new, entry, &diff, rarity);
    order(&mut row, &diff, new, entry);
    values(&mut row, new, entry);
    meaning(&mut row, new, entry);
    asking(&mut row, new, entry);
    function_words(&mut row, new, entry, &diff);
    let objects = |guard: &&Guard| guard::objects(**guard, new, entry);
    row.push(guard::ALL.iter().filter(objects).count().min(3) as f32);
    debug_assert_eq!(row.next, COUNT, "every name has its value");
    row.values
}

impl Row {
    fn push(&mut self, value: f32) {
        self.values[self.next] = value;
        self.next += 1;
    }

    fn flag(&mut self, set: bool) {
        self.push(f32::from(u8::from(set)));
    }
}

/// Content words that only one of the texts has.
fn words(row: &mut Row, new: &Analysis, entry: &Analysis, diff: &Diff<'_>, rarity: &Rarity) {
    let (x, y) = (diff.only_new.len() as f32, diff.only_entry.len() as f32);
    let shared = diff.shared as f32;
    row.push(if shared + x + y == 0.0 { 1.0 } else { 2.0 * shared / (2.0 * shared + x + y) });
    row.push(x);
    row.push(y);
    row.push(x.min(y));
    row.push(x.max(y));
    let rare = |words: &[&Word]| words.iter().map(|w| rarity.rareness(w.stem)).sum::<f32>();
    let (rare_new, rare_entry) = (rare(&diff.only_new), rare(&diff.only_entry));
    row.push(rare_new);
    row.push(rare_entry);
    let all = || diff.only_new.iter().chain(&diff.only_entry);
    row.push(all().map(|w| rarity.rareness(w.stem)).fold(0.0, f32::max));
    let evidence = |words: &[&Word]| words.iter().map(|w| rarity.evidence(w.stem)).sum::<f32>();
    row.push(evidence(&diff.only_new));
    row.push(evidence(&diff.only_entry));
    row.push(all().map(|w| rarity.evidence(w.stem)).fold(-1.0, f32::max));
    rewording(row, new, entry, diff, rarity);
}

/// Similarity of word vectors above which two words count as synonyms.
const SYNONYM: f32 = 0.5;
/// Maximum number of words of each text whose vectors are compared.
const COMPARED_MAX: usize = 12;

/// Whether one text says in other words what only the other seems to have.
fn rewording(row: &mut Row, new: &Analysis, entry: &Analysis, diff: &Diff<'_>, rarity: &Rarity) {
    let x = best_similarities(&diff.only_new, entry, rarity);
    let y = best_similarities(&diff.only_entry, new, rarity);
    let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len().max(1) as f32;
    row.push(if x.is_empty() { 1.0 } else { mean(&x) });
    row.push(if y.is_empty() { 1.0 } else { mean(&y) });
    row.push(x.iter().chain(&y).copied().fold(1.0, f32::min));
    let unrelated = |values: &[f32]| values.iter().map(|v| 1.0 - v.max(0.0)).sum::<f32>();
    row.push(unrelated(&x));
    row.push(unrelated(&y));
    // Similar words that each text has alone: a synonym, or one thing in the place of another.
    let pair = |a: &&Word| {
        let others = diff.only_entry.iter().take(COMPARED_MAX);
        others.filter_map(|b| rarity.similarity(a.stem, b.stem)).fold(0.0, f32::max)
    };
    let best: Vec<f32> = diff.only_new.iter().take(COMPARED_MAX).map(pair).collect();
    row.push(best.iter().copied().fold(0.0, f32::max));
    row.push(x.iter().chain(&y).filter(|v| **v > SYNONYM).count() as f32);
}

/// Returns for each of `words` the similarity of the most similar content word of `text`; 0 for unknown words.
fn best_similarities(words: &[&Word], text: &Analysis, rarity: &Rarity) -> Vec<f32> {
    let nearest = |word: &&Word| {
        let others = text.content().take(COMPARED_MAX * 2);
        others.filter_map(|b| rarity.similarity(word.stem, b.stem)).fold(0.0, f32::max)
    };
    words.iter().take(COMPARED_MAX).map(nearest).collect()
}

/// Agreement in order and spelling.
fn order(row: &mut Row, diff: &Diff<'_>, new: &Analysis, entry: &Analysis) {
    row.push(diff.bigrams());
    row.push(diff.subsequence());
    row.push(diff.inversions());
    let (n, m) = (new.words.len().max(1) as f32, entry.words.len().max(1) as f32);
    row.push((n / m).ln().abs());
    row.push((n.min(m)).ln());
    let (middle_new, middle_entry) = diff.middle();
    row.push((middle_new.len() as f32).min(12.0));
    row.push((middle_entry.len() as f32).min(12.0));
    let count =
        |words: &[Word], content: bool| words.iter().filter(|w| w.is_content() == content).count() as f32;
    row.push((count(middle_new, true) + count(middle_entry, true)).min(12.0));
    row.push((count(middle_new, false) + count(middle_entry, false)).min(12.0));
    row.push(diff::trigrams(middle_new, &new.lower, middle_entry, &entry.lower));
    row.push(diff.spelled_alike as f32);
}

/// Numbers, units, dates, quotations and code.
fn values(row: &mut Row, new: &Analysis, entry: &Analysis) {
    let lacks = |x: &Analysis, y: &Analysis| {
        x.quantities.iter().any(|q| !y.quantities.iter().any(|r| r.value == q.value))
    };
    let (x, y) = (lacks(new, entry), lacks(entry, new));
    row.flag(x && y);
    row.flag(x != y);
    row.push((new.quantities.len().min(entry.quantities.len()) as f32).min(4.0));
    row.flag(guard::units(new, entry).is_some());
    let (x, y) = (guard::has_other_date(new, entry), guard::has_other_date(entry, new));
    row.flag(x && y);
    row.flag(x != y);
    row.flag(guard::quoted(new, entry).is_some() || guard::quoted(entry, new).is_some());
    row.flag(guard::code(new, entry).is_some() || guard::code(entry, new).is_some());
}

/// Negation, opposites, roles, topics, names.
fn meaning(row: &mut Row, new: &Analysis, entry: &Analysis) {
    row.push(new.negations.abs_diff(entry.negations).min(3) as f32);
    row.flag(guard::prefixed(new, entry).is_some() || guard::prefixed(entry, new).is_some());
    row.flag(guard::antonyms(new, entry).is_some());
    row.push(opposites_differ(new, entry));
    row.flag(new.roles.swapped(&entry.roles).is_some());
    row.push((new.roles.agreeing(&entry.roles) as f32).min(4.0));
    let topics = |flag| guard::topics(new, entry, flag).is_some();
    row.flag(topics(lexicon::SPOKEN) || topics(lexicon::PROGRAMMING));
    row.flag(topics(lexicon::FORMAT));
    row.push(names_missing(new, entry));
    row.push(names_missing(entry, new));
}

/// What the texts ask for.
fn asking(row: &mut Row, new: &Analysis, entry: &Analysis) {
    let (q, r) = (new.question, entry.question);
    let definite = |q: Question| q > Question::Open;
    row.push(match (q == r, definite(q), definite(r)) {
        (true, ..) => 0.0,
        (_, true, true) => 2.0,
        _ => 1.0,
    });
    let first = |text: &Analysis| text.words.iter().find(|w| w.info.wh > 0).map_or(0, |w| w.info.wh);
    row.flag(first(new) != first(entry));
    let (crossed, differs) = match (new.focus, entry.focus) {
        (Some(x), Some(y)) if x != y => (new.mentions(y, y) && entry.mentions(x, x), true),
        _ => (false, false),
    };
    row.flag(crossed);
    row.flag(differs);
    row.flag(new.bounds != entry.bounds);
}

/// Function words, which change the meaning more often than their size suggests.
fn function_words(row: &mut Row, new: &Analysis, entry: &Analysis, diff: &Diff<'_>) {
    row.push(unmatched(new, entry, |w| w.info.has(lexicon::PREPOSITION)));
    row.push(unmatched(new, entry, |w| w.info.has(lexicon::QUANTIFIER)));
    row.push(unmatched(new, entry, |w| w.info.has(lexicon::PRONOUN)));
    let first = |text: &Analysis| text.content().next().map(|w| w.stem);
    let last = |text: &Analysis| text.content().last().map(|w| w.stem);
    row.flag(first(new) == first(entry));
    row.flag(last(new) == last(entry));
    row.push(function_jaccard(new, entry));
    row.flag(new.english && entry.english);
    row.flag(diff.is_surface());
    row.push(unmatched(new, entry, |w| w.info.has(lexicon::ACTION)));
}

/// Counts the words of a kind that only one text has, at most four.
fn unmatched(a: &Analysis, b: &Analysis, kind: impl Fn(&Word) -> bool) -> f32 {
    let lacking = |x: &Analysis, y: &Analysis| {
        x.words.iter().filter(|w| kind(w) && !y.words.iter().any(|v| v.hash == w.hash)).take(4).count()
    };
    (lacking(a, b) + lacking(b, a)).min(4) as f32
}

/// Returns the fraction of function words that both texts have.
fn function_jaccard(a: &Analysis, b: &Analysis) -> f32 {
    let is_function = |w: &&Word| w.info.has(lexicon::STOP) && !w.info.has(lexicon::FILLER);
    let total = a.words.iter().chain(&b.words).filter(is_function).count();
    if total == 0 {
        return 1.0;
    }
    let missing = |x: &Analysis, y: &Analysis| {
        x.words.iter().filter(is_function).filter(|w| !y.words.iter().any(|v| v.hash == w.hash)).count()
    };
    1.0 - (missing(a, b) + missing(b, a)) as f32 / total as f32
}

/// Counts the groups of opposites of which the texts have different sides, at most three.
fn opposites_differ(a: &Analysis, b: &Analysis) -> f32 {
    let mut groups: Vec<u8> = Vec::new();
    for (group, _) in a.words.iter().chain(&b.words).flat_map(|w: &Word| opposites(w.info)) {
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    let differ = |group: &&u8| guard::sides(a, **group) != guard::sides(b, **group);
    groups.iter().filter(differ).count().min(3) as f32
}

fn opposites(info: &Info) -> impl Iterator<Item = (u8, u8)> {
    info.opposites.into_iter().filter(|o| o.0 > 0)
}

/// Counts the names in `a` that `b` does not have, at most three.
fn names_missing(a: &Analysis, b: &Analysis) -> f32 {
    if !a.cased {
        return 0.0;
    }
    a.words.iter().filter(|w| w.is_name()).filter(|w| !guard::names(a, w, b)).count().min(3) as f32
}

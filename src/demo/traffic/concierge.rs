//! Traffic that is made, not written: guests of a small group of hotels ask its concierge the same few hundred
//! things in many ways, fast enough for a cache to learn from them while one looks on. A guest's question is a
//! subject and a city, so every question has near misses: the same in another city, the way back, closing for
//! opening, the cheapest for the best. The model answers each question in ever new words, and now and then it
//! evades. Everything follows from a seed; hotels and answers are fiction.

mod words;

use std::collections::HashMap;

use fastrand::Rng;

use super::Request;
use words::{CITIES, DETAILS, EVASIONS, FACTS, GREETINGS, SUBJECTS, Subject};

/// The application that asks.
pub const NAMESPACE: &str = "concierge";

/// Enough for the cache to learn while the reader waits.
pub const REQUESTS: usize = 900;

/// In how many ways the model answers one question; the last of them is an evasion, so 3 in 100.
const WORDINGS: usize = 32;

/// Sentences that an answer has beside the one that answers.
const DETAILS_PER_ANSWER: usize = 3;

/// The `n`th most popular subject or city has a weight of 1 / (n + this).
const POPULARITY_OFFSET: f64 = 2.0;

/// Shares of the requests that begin with a greeting, end with thanks, and are typed in small letters.
const GREETED: f64 = 0.2;
const THANKED: f64 = 0.1;
const SMALL: f64 = 0.15;

const SEED: u64 = 11;

const SYSTEM: &str = "You are the concierge of the Harbour & Hill hotels. Answer the guest's question about \
    the house that is named in three or four friendly sentences.";

/// A subject and a city: what has one answer.
#[derive(Clone, Copy)]
struct Question {
    subject: &'static Subject,
    city: &'static str,
}

/// What is so in one house.
struct Facts {
    /// By placeholder.
    values: Vec<(&'static str, &'static str)>,
    /// Each in its phrasings.
    details: Vec<&'static [&'static str]>,
}

/// `count` requests in order of arrival, and the model's answers by class. Fewer are the beginning of more.
pub(super) fn generate(count: usize) -> (Vec<Request>, HashMap<String, Vec<String>>) {
    let mut random = Rng::with_seed(SEED);
    let mut answers = HashMap::new();
    let mut draw = || {
        let question = Question::draw(&mut random);
        answers.entry(question.class()).or_insert_with(|| question.wordings());
        question.request(&mut random)
    };
    ((0..count).map(|_| draw()).collect(), answers)
}

/// An index below `count`, small ones more often.
fn popular(random: &mut Rng, count: usize) -> usize {
    let weight = |index: usize| 1.0 / (index as f64 + POPULARITY_OFFSET);
    let mut left = random.f64() * (0..count).map(weight).sum::<f64>();
    for index in 0..count {
        left -= weight(index);
        if left < 0.0 {
            return index;
        }
    }
    count - 1
}

fn pick<'a>(random: &mut Rng, from: &[&'a str]) -> &'a str {
    from[random.usize(..from.len())]
}

fn seeded(name: &str) -> Rng {
    let hash = blake3::hash(name.as_bytes());
    Rng::with_seed(u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes")))
}

/// With a capital.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

// === impl Question ===

impl Question {
    fn draw(random: &mut Rng) -> Self {
        let subject = &SUBJECTS[popular(random, SUBJECTS.len())];
        Self { subject, city: CITIES[popular(random, CITIES.len())] }
    }

    fn class(&self) -> String {
        format!("{NAMESPACE}/{}/{}", self.subject.id, self.city.to_lowercase())
    }

    /// Puts subject and city into a form.
    fn fill(&self, form: &str) -> String {
        let [a, b] = self.subject.slots;
        form.replace("{a}", a).replace("{b}", b).replace("{city}", self.city)
    }

    /// In the words of some guest.
    fn request(&self, random: &mut Rng) -> Request {
        let mut text = self.fill(pick(random, self.subject.kind.forms()));
        if random.f64() < GREETED {
            text = format!("{}{text}", pick(random, &GREETINGS));
        }
        text = if random.f64() < SMALL { text.to_lowercase() } else { sentence(&text) };
        if random.f64() < THANKED {
            text.push_str(" Thanks!");
        }
        Request {
            namespace: NAMESPACE.to_owned(),
            system: SYSTEM.to_owned(),
            model: "cold".to_owned(),
            history: Vec::new(),
            text,
            class: self.class(),
            together: false,
        }
    }

    /// All that the model says to it: the facts stay, the words do not.
    fn wordings(&self) -> Vec<String> {
        let mut random = seeded(&self.class());
        let facts = self.facts(&mut random);
        let mut wordings: Vec<_> = (1..WORDINGS).map(|_| self.answer(&facts, &mut random)).collect();
        let question = sentence(&self.fill(self.subject.kind.forms()[0]));
        wordings.push(pick(&mut random, &EVASIONS).replace("{question}", &question));
        wordings
    }

    /// No two houses have the same to say of a subject.
    fn facts(&self, random: &mut Rng) -> Facts {
        let values = FACTS.iter().map(|(name, values)| (*name, pick(random, values))).collect();
        let mut details = DETAILS;
        seeded(self.subject.id).shuffle(&mut details);
        let house = CITIES.iter().position(|city| *city == self.city).unwrap_or_default();
        let details = details.chunks(DETAILS_PER_ANSWER).nth(house).unwrap_or_default().to_vec();
        Facts { values, details }
    }

    fn answer(&self, facts: &Facts, random: &mut Rng) -> String {
        let mut sentences = vec![pick(random, self.subject.kind.statements())];
        let mut details: Vec<_> = facts.details.iter().map(|phrasings| pick(random, phrasings)).collect();
        random.shuffle(&mut details);
        sentences.extend(details);
        let say = |form: &&str| sentence(&facts.fill(&self.fill(form)));
        sentences.iter().map(say).collect::<Vec<_>>().join(" ")
    }
}

// === impl Facts ===

impl Facts {
    fn fill(&self, form: &str) -> String {
        self.values.iter().fold(form.to_owned(), |text, (name, value)| text.replace(name, value))
    }
}

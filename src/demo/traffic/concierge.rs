//! Generated traffic: guests of a small group of hotels ask its concierge a few hundred questions in many wordings,
//! enough for a cache to learn during the demo. A question is a subject and a city, so each has near misses: another
//! city, the way back, closing for opening, the cheapest for the best. The model words each answer differently and
//! sometimes evades. Everything follows from a seed; hotels and answers are fiction.

use std::collections::HashMap;

use fastrand::Rng;
use serde::Deserialize;

use super::Request;
use crate::demo::seeded_random;

const VOCABULARY: &str = include_str!("concierge.json");

/// Name of the application.
pub const NAMESPACE: &str = "concierge";

/// Requests of the demo: enough for the cache to learn while the reader waits.
pub const REQUESTS: usize = 900;

/// Wordings of an answer. The last is an evasion, so 3 in 100 answers are.
const WORDINGS: usize = 32;

/// Sentences of an answer beside the one that answers the question.
const DETAILS_PER_ANSWER: usize = 3;

/// The `n`th most popular subject or city is drawn with weight 1 / (n + this).
const POPULARITY_OFFSET: f64 = 2.0;

/// Shares of the requests that begin with a greeting, end with thanks, or are in lower case.
const GREETED: f64 = 0.2;
const THANKED: f64 = 0.1;
const LOWER_CASE: f64 = 0.15;

const SEED: u64 = 11;

/// System prompt of the application.
pub const SYSTEM: &str = "You are the concierge of the Harbour & Hill hotels. Answer the guest's question about \
    the house that is named in three or four friendly sentences.";

/// Words of questions and answers. The placeholders `{a}`, `{b}` and `{city}` belong to a question, the others to one
/// house.
#[derive(Deserialize)]
struct Vocabulary {
    /// The most popular first.
    cities: Vec<String>,
    /// The most popular first. Neighbours are near misses of each other.
    subjects: Vec<Subject>,
    kinds: HashMap<String, Kind>,
    /// Prefixes of a question.
    greetings: Vec<String>,
    /// Values that differ between houses and subjects, by placeholder.
    facts: Vec<(String, Vec<String>)>,
    /// Details that an answer adds, each in phrasings that share most of their words.
    details: Vec<Vec<String>>,
    /// Answers that evade the question.
    evasions: Vec<String>,
}

#[derive(Deserialize)]
struct Subject {
    id: String,
    kind: String,
    /// For `{a}` and `{b}`.
    slots: [String; 2],
}

/// Wordings of one kind of question and of its answer.
#[derive(Deserialize)]
struct Kind {
    forms: Vec<String>,
    statements: Vec<String>,
}

/// A question, which has one answer.
#[derive(Clone, Copy)]
struct Question<'a> {
    vocabulary: &'a Vocabulary,
    subject: &'a Subject,
    city: &'a str,
}

/// Facts about one house.
struct Facts<'a> {
    /// By placeholder.
    values: Vec<(&'a str, &'a str)>,
    /// Each in several phrasings.
    details: Vec<&'a [String]>,
}

/// Generates `count` requests in order of arrival, and the wordings of their answers by class. A smaller count yields
/// a prefix of a larger one.
pub(super) fn generate(count: usize) -> (Vec<Request>, HashMap<String, Vec<String>>) {
    let vocabulary: Vocabulary =
        serde_json::from_str(VOCABULARY).expect("the committed file is parsed by a test");
    let mut random = Rng::with_seed(SEED);
    let mut answers = HashMap::new();
    let mut draw = || {
        let question = Question::draw(&vocabulary, &mut random);
        answers.entry(question.class()).or_insert_with(|| question.wordings());
        question.request(&mut random)
    };
    ((0..count).map(|_| draw()).collect(), answers)
}

/// Draws an index below `count`, smaller ones more often.
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

fn pick<'a>(random: &mut Rng, from: &'a [String]) -> &'a str {
    &from[random.usize(..from.len())]
}

/// Capitalises the first letter.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

impl<'a> Question<'a> {
    fn draw(vocabulary: &'a Vocabulary, random: &mut Rng) -> Self {
        let Vocabulary { subjects, cities, .. } = vocabulary;
        let subject = &subjects[popular(random, subjects.len())];
        Self { vocabulary, subject, city: &cities[popular(random, cities.len())] }
    }

    fn class(&self) -> String {
        format!("{NAMESPACE}/{}/{}", self.subject.id, self.city.to_lowercase())
    }

    /// Fills subject and city into a sentence.
    fn fill(&self, form: &str) -> String {
        let [a, b] = &self.subject.slots;
        form.replace("{a}", a).replace("{b}", b).replace("{city}", self.city)
    }

    fn kind(&self) -> &'a Kind {
        &self.vocabulary.kinds[&self.subject.kind]
    }

    /// Words the question as some guest would.
    fn request(&self, random: &mut Rng) -> Request {
        let mut text = self.fill(pick(random, &self.kind().forms));
        if random.f64() < GREETED {
            text = format!("{}{text}", pick(random, &self.vocabulary.greetings));
        }
        text = if random.f64() < LOWER_CASE { text.to_lowercase() } else { sentence(&text) };
        if random.f64() < THANKED {
            text.push_str(" Thanks!");
        }
        Request {
            namespace: NAMESPACE.to_owned(),
            system: SYSTEM.to_owned(),
            model: "hot".to_owned(),
            history: Vec::new(),
            text,
            class: self.class(),
            together: false,
        }
    }

    /// Returns the answer's wordings: they state equal facts in different words.
    fn wordings(&self) -> Vec<String> {
        let mut random = seeded_random(&self.class());
        let facts = self.facts(&mut random);
        let mut wordings: Vec<_> = (1..WORDINGS).map(|_| self.answer(&facts, &mut random)).collect();
        let question = sentence(&self.fill(&self.kind().forms[0]));
        wordings.push(pick(&mut random, &self.vocabulary.evasions).replace("{question}", &question));
        wordings
    }

    /// Draws the facts so that no two houses have the same details about a subject.
    fn facts(&self, random: &mut Rng) -> Facts<'a> {
        let Vocabulary { facts, details, cities, .. } = self.vocabulary;
        let values = facts.iter().map(|(name, values)| (name.as_str(), pick(random, values))).collect();
        let mut details: Vec<_> = details.iter().map(Vec::as_slice).collect();
        seeded_random(&self.subject.id).shuffle(&mut details);
        let house = cities.iter().position(|city| city == self.city).unwrap_or_default();
        let details = details.chunks(DETAILS_PER_ANSWER).nth(house).unwrap_or_default().to_vec();
        Facts { values, details }
    }

    fn answer(&self, facts: &Facts<'_>, random: &mut Rng) -> String {
        let mut sentences = vec![pick(random, &self.kind().statements)];
        let mut details: Vec<_> = facts.details.iter().map(|phrasings| pick(random, phrasings)).collect();
        random.shuffle(&mut details);
        sentences.extend(details);
        let say = |form: &&str| sentence(&facts.fill(&self.fill(form)));
        sentences.iter().map(say).collect::<Vec<_>>().join(" ")
    }
}

impl Facts<'_> {
    fn fill(&self, form: &str) -> String {
        self.values.iter().fold(form.to_owned(), |text, (name, value)| text.replace(name, value))
    }
}

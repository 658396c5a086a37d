//! The demo's traffic with its ground truth: a few hundred prompts of four applications of a fictional company,
//! written for this project, and after them those of a [`concierge`], made by a generator.

pub mod concierge;

use std::collections::HashMap;

use serde::Deserialize;

const REQUESTS: &str = include_str!("traffic.jsonl");
const ANSWERS: &str = include_str!("answers.jsonl");

/// One request, in order of arrival.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The application that asks.
    pub namespace: String,
    /// The application's system prompt.
    pub system: String,
    /// Model id, tier or `auto`.
    pub model: String,
    /// Earlier turns of the conversation: user and assistant in alternation, oldest first.
    #[serde(default)]
    pub history: Vec<String>,
    /// The last user text.
    pub text: String,
    /// The ground truth: requests of one class are answered by one completion.
    pub class: String,
    /// Arrives at the same moment as the request before it.
    #[serde(default)]
    pub together: bool,
}

/// Requests and the right answer to each.
#[derive(Clone, Debug)]
pub struct Traffic {
    requests: Vec<Request>,
    /// By class, in all the wordings that a model has for it.
    answers: HashMap<String, Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    class: String,
    answer: String,
}

// === impl Request ===

impl Request {
    /// The conversation as (role, content), oldest first.
    pub fn messages(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let roles = ["user", "assistant"].into_iter().cycle();
        let history = roles.zip(self.history.iter().map(String::as_str));
        [("system", self.system.as_str())].into_iter().chain(history).chain([("user", self.text.as_str())])
    }

    /// Whether everything but the last user text is equal, so that a cache may compare the two.
    pub fn same_scope(&self, other: &Self) -> bool {
        self.namespace == other.namespace
            && self.model == other.model
            && self.system == other.system
            && self.history == other.history
    }
}

// === impl Traffic ===

impl Traffic {
    /// The traffic of the demo.
    pub fn embedded() -> Self {
        let mut all = Self::parse(REQUESTS, ANSWERS).expect("the committed files are parsed by a test");
        let made = Self::generated(concierge::REQUESTS);
        all.requests.extend(made.requests);
        all.answers.extend(made.answers);
        all
    }

    /// What the [`concierge`] is asked, `count` requests.
    pub fn generated(count: usize) -> Self {
        let (requests, answers) = concierge::generate(count);
        Self { requests, answers }
    }

    /// Reads JSON lines: requests, and answers by class.
    ///
    /// # Errors
    /// On a malformed line, or a request whose class has no answer.
    pub fn parse(requests: &str, answers: &str) -> Result<Self, serde_json::Error> {
        let requests = lines::<Request>(requests)?;
        let answers: HashMap<_, _> =
            lines::<Answer>(answers)?.into_iter().map(|line| (line.class, vec![line.answer])).collect();
        match requests.iter().find(|request| !answers.contains_key(&request.class)) {
            Some(request) => Err(serde::de::Error::custom(format!("class {} has no answer", request.class))),
            None => Ok(Self { requests, answers }),
        }
    }

    /// The first `count` requests, or all when there are fewer.
    #[must_use]
    pub fn first(mut self, count: usize) -> Self {
        self.requests.truncate(count);
        self
    }

    /// In order of arrival.
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// The right answers to `request`, one of this traffic's: several where the model's words vary from call to
    /// call.
    pub fn answers(&self, request: &Request) -> &[String] {
        &self.answers[&request.class]
    }

    /// The first of them.
    pub fn answer(&self, request: &Request) -> &str {
        &self.answers(request)[0]
    }

    /// Whether one answer serves both: the same class, or classes with the same answer, such as two
    /// messages that deserve the same label.
    pub fn same_answer(&self, a: &Request, b: &Request) -> bool {
        self.answer(a) == self.answer(b)
    }

    /// Number of distinct applications.
    pub fn applications(&self) -> usize {
        let mut names: Vec<_> = self.requests.iter().map(|request| &request.namespace).collect();
        names.sort_unstable();
        names.dedup();
        names.len()
    }
}

fn lines<T: serde::de::DeserializeOwned>(text: &str) -> Result<Vec<T>, serde_json::Error> {
    text.lines().filter(|line| !line.is_empty()).map(serde_json::from_str).collect()
}

#[cfg(test)]
mod tests;

//! The demo's traffic and its ground truth: a few hundred prompts written for this project, from four applications of
//! a fictional company, followed by the generated prompts of a [`concierge`].

pub mod concierge;

use std::collections::HashMap;

use serde::Deserialize;

const REQUESTS: &str = include_str!("traffic.jsonl");
const ANSWERS: &str = include_str!("answers.jsonl");

/// One request of an application.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Name of the application.
    pub namespace: String,
    pub system: String,
    /// Model id, tier or `auto`.
    pub model: String,
    /// Earlier turns, oldest first: user and assistant alternate.
    #[serde(default)]
    pub history: Vec<String>,
    /// The last user text.
    pub text: String,
    /// The ground truth: one answer is right for all requests of a class.
    pub class: String,
    /// Arrives together with the request before it.
    #[serde(default)]
    pub together: bool,
}

/// Requests and their right answers.
#[derive(Clone, Debug)]
pub struct Traffic {
    requests: Vec<Request>,
    /// Wordings of the right answer, by class.
    answers: HashMap<String, Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    class: String,
    answer: String,
}

impl Request {
    /// Returns the conversation as (role, content), oldest first.
    pub fn messages(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let roles = ["user", "assistant"].into_iter().cycle();
        let history = roles.zip(self.history.iter().map(String::as_str));
        [("system", self.system.as_str())].into_iter().chain(history).chain([("user", self.text.as_str())])
    }

    /// Whether everything but the last user text is equal, so that a cache may compare the two texts.
    pub fn same_scope(&self, other: &Self) -> bool {
        self.namespace == other.namespace
            && self.model == other.model
            && self.system == other.system
            && self.history == other.history
    }
}

impl Traffic {
    /// Returns all traffic of the demo.
    pub fn embedded() -> Self {
        let mut all = Self::parse(REQUESTS, ANSWERS).expect("the committed files are parsed by a test");
        let generated = Self::generated(concierge::REQUESTS);
        all.requests.extend(generated.requests);
        all.answers.extend(generated.answers);
        all
    }

    /// Generates `count` requests to the [`concierge`].
    pub fn generated(count: usize) -> Self {
        let (requests, answers) = concierge::generate(count);
        Self { requests, answers }
    }

    /// Parses JSON lines of requests and of answers.
    ///
    /// # Errors
    /// When a line is malformed, or the class of a request has no answer.
    pub fn parse(requests: &str, answers: &str) -> Result<Self, serde_json::Error> {
        let requests = lines::<Request>(requests)?;
        let answers: HashMap<_, _> =
            lines::<Answer>(answers)?.into_iter().map(|line| (line.class, vec![line.answer])).collect();
        match requests.iter().find(|request| !answers.contains_key(&request.class)) {
            Some(request) => Err(serde::de::Error::custom(format!("class {} has no answer", request.class))),
            None => Ok(Self { requests, answers }),
        }
    }

    /// Keeps the first `count` requests.
    #[must_use]
    pub fn first(mut self, count: usize) -> Self {
        self.requests.truncate(count);
        self
    }

    /// Returns the requests in order of arrival.
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// Returns the wordings of the right answer to `request`, which must belong to this traffic.
    pub fn answers(&self, request: &Request) -> &[String] {
        &self.answers[&request.class]
    }

    /// Returns the first wording of the right answer.
    pub fn answer(&self, request: &Request) -> &str {
        &self.answers(request)[0]
    }

    /// Whether one answer is right for both requests: they have one class, or two classes with equal answers, such as
    /// two messages with one label.
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

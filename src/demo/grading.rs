//! Grades every reply of a demo run by the ground truth of the traffic.

use std::cmp::Ordering;

use serde::Serialize;

use crate::{
    demo::{
        exchange::Exchange,
        traffic::{Request, Traffic},
    },
    outcome::Outcome,
};

/// Cosine from which a refused candidate counts as a near miss, unless a guard refused it: no cache would serve a
/// less similar one.
const NEAR_MISS_SIMILARITY: f32 = 0.8;

/// The run compared with the ground truth.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Grades {
    /// Requests that got a right answer, from the cache or from a model.
    pub answered_rightly: usize,
    /// Hits with the answer to another question.
    pub wrong_hits: Vec<Pair>,
    /// Semantic hits with the right answer, least similar first.
    pub paraphrases_hit: Vec<Pair>,
    /// Requests that called a model although an equivalent request in other words had finished; most similar first.
    pub paraphrases_missed: Vec<Pair>,
    /// Refused candidates that were similar but had another answer, most similar first.
    pub near_misses_refused: Vec<Pair>,
    /// Refused requests that repeat the words of an earlier one in another application or conversation, where they
    /// have another answer.
    pub same_words_refused: Vec<SameWords>,
}

/// A request and the earlier one whose answer it got, or might have got.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    pub namespace: String,
    pub asked: String,
    pub earlier: String,
    /// Cosine, if the server compared the two.
    pub similarity: Option<f32>,
    /// Why it was not served; empty if it was.
    pub reason: String,
}

/// A request with the words of an earlier one that had another meaning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SameWords {
    pub asked: String,
    pub namespace: String,
    /// Equals `namespace` if the two belong to different conversations of one application.
    pub earlier_namespace: String,
    /// Why it was not served.
    pub reason: String,
}

/// An exchange with its request.
#[derive(Clone, Copy)]
pub struct Case<'a> {
    pub traffic: &'a Traffic,
    pub exchange: &'a Exchange,
    pub request: &'a Request,
}

impl Grades {
    /// Grades one exchange per request.
    pub fn new(traffic: &Traffic, exchanges: &[Exchange]) -> Self {
        let mut grades = Self::default();
        let cases = Case::all(traffic, exchanges);
        for case in &cases {
            grades.add(case, &cases);
        }
        grades.paraphrases_hit.sort_by(by_similarity);
        grades.near_misses_refused.sort_by(|a, b| by_similarity(b, a));
        grades.paraphrases_missed.sort_by(|a, b| by_similarity(b, a));
        grades
    }

    fn add(&mut self, case: &Case<'_>, all: &[Case<'_>]) {
        let is_right = case.is_right();
        self.answered_rightly += usize::from(is_right);
        match case.exchange.outcome {
            hit if hit.is_hit() && !is_right => self.wrong_hits.push(case.pair_with_match()),
            Outcome::Semantic => self.paraphrases_hit.push(case.pair_with_match()),
            Outcome::Upstream => self.add_miss(case, all),
            _ => {}
        }
    }

    fn add_miss(&mut self, case: &Case<'_>, all: &[Case<'_>]) {
        if let Some(earlier) = case.same_words_before(all) {
            self.same_words_refused.push(SameWords {
                asked: case.request.text.clone(),
                namespace: case.request.namespace.clone(),
                earlier_namespace: earlier.request.namespace.clone(),
                reason: case.exchange.reason.clone(),
            });
        } else if case.is_refused_near_miss() {
            self.near_misses_refused.push(case.pair_with_match());
        }
        if let Some(earlier) = case.paraphrase_before(all) {
            let matched = case.exchange.matched.as_ref();
            let matched = matched.filter(|matched| matched.matched_text == earlier.request.text);
            let similarity = matched.map(|matched| matched.similarity);
            self.paraphrases_missed.push(case.pair(&earlier.request.text, similarity));
        }
    }
}

fn by_similarity(a: &Pair, b: &Pair) -> Ordering {
    let key = |pair: &Pair| pair.similarity.unwrap_or(0.0);
    key(a).total_cmp(&key(b))
}

impl<'a> Case<'a> {
    pub fn all(traffic: &'a Traffic, exchanges: &'a [Exchange]) -> Vec<Self> {
        let case = |exchange: &'a Exchange| {
            let request = &traffic.requests()[exchange.index];
            Self { traffic, exchange, request }
        };
        exchanges.iter().map(case).collect()
    }

    pub fn is_right(&self) -> bool {
        self.traffic.answers(self.request).contains(&self.exchange.content)
    }

    /// Whether an earlier answer would have been right.
    pub fn has_equivalent_before(&self, all: &[Self]) -> bool {
        all.iter().any(|other| self.is_equivalent_after(other))
    }

    fn is_equivalent_after(&self, other: &Self) -> bool {
        self.is_after(other)
            && other.request.class == self.request.class
            && other.request.same_scope(self.request)
    }

    /// Whether the other was answered before this one started, so that the cache could have found it.
    fn is_after(&self, other: &Self) -> bool {
        other.exchange.outcome != Outcome::Error && other.exchange.finished() <= self.exchange.started
    }

    fn same_words_before<'b>(&self, all: &'b [Self]) -> Option<&'b Self> {
        all.iter().find(|other| {
            self.is_after(other)
                && other.request.text == self.request.text
                && !other.request.same_scope(self.request)
                && !self.traffic.same_answer(self.request, other.request)
        })
    }

    /// Whether the nearest entry has another answer and is similar enough to mislead a cache.
    fn is_refused_near_miss(&self) -> bool {
        let Some(matched) = &self.exchange.matched else { return false };
        let is_similar = matched.similarity >= NEAR_MISS_SIMILARITY;
        let is_right = |other: &Request| {
            other.text == matched.matched_text
                && other.same_scope(self.request)
                && self.traffic.same_answer(other, self.request)
        };
        (is_similar || self.exchange.reason.starts_with("guard_"))
            && !self.traffic.requests().iter().any(is_right)
    }

    /// Returns an earlier equivalent request, preferably the one that the server found nearest.
    fn paraphrase_before<'b>(&self, all: &'b [Self]) -> Option<&'b Self> {
        let nearest = self.exchange.matched.as_ref().map(|matched| &matched.matched_text);
        let is_nearest = |other: &&Self| Some(&other.request.text) == nearest;
        let mut candidates = all.iter().filter(|other| self.is_equivalent_after(other));
        candidates.clone().find(is_nearest).or_else(|| candidates.next())
    }

    fn pair_with_match(&self) -> Pair {
        match &self.exchange.matched {
            Some(matched) => self.pair(&matched.matched_text, Some(matched.similarity)),
            None => self.pair("", None),
        }
    }

    fn pair(&self, earlier: &str, similarity: Option<f32>) -> Pair {
        Pair {
            namespace: self.request.namespace.clone(),
            asked: self.request.text.clone(),
            earlier: earlier.to_owned(),
            similarity,
            reason: self.exchange.reason.clone(),
        }
    }
}

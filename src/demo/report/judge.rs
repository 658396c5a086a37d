//! Holds every answer against the ground truth of the traffic.

use std::{cmp::Ordering, collections::HashSet};

use serde::Serialize;

use crate::{
    demo::{
        record::Record,
        traffic::{Request, Traffic},
    },
    outcome::Outcome,
};

/// Cosine from which a refused candidate counts as a near miss, whatever refused it: below, no cache
/// would be tempted.
const NEAR_MISS_SIMILARITY: f32 = 0.8;

/// What the ground truth says of a replay.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdicts {
    /// Requests with the right text in the end, however answered.
    pub answered_rightly: usize,
    /// Hits that brought the answer to another question.
    pub wrong_hits: Vec<Pair>,
    /// Semantic hits with the right answer, least similar first.
    pub paraphrases_hit: Vec<Pair>,
    /// Requests that had an equivalent, finished request before them in other words, and yet cost a
    /// model call; most similar first.
    pub paraphrases_missed: Vec<Pair>,
    /// Tempting candidates of another answer that were refused, most similar first.
    pub near_misses_refused: Vec<Pair>,
    /// Requests with the words of an earlier one but another context (application, conversation), so
    /// with another answer, that were refused.
    pub same_words_refused: Vec<SameWords>,
}

/// A request and the earlier one that it was, or might have been, answered from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    pub namespace: String,
    pub asked: String,
    pub earlier: String,
    /// Cosine, when the server compared the two.
    pub similarity: Option<f32>,
    /// Why it was not served; empty when it was.
    pub reason: String,
}

/// A request in the words of an earlier one, which meant something else there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SameWords {
    pub asked: String,
    pub namespace: String,
    /// The same as `namespace` when the two belong to different conversations.
    pub earlier_namespace: String,
    /// Why it was not served.
    pub reason: String,
}

/// One answered request beside what the traffic knows of it.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) traffic: &'a Traffic,
    pub(super) record: &'a Record,
    pub(super) request: &'a Request,
}

// === impl Verdicts ===

impl Verdicts {
    /// Judges one record per request.
    pub(super) fn of(traffic: &Traffic, records: &[Record]) -> Self {
        let mut verdicts = Self::default();
        let case = |record| Case { traffic, record, request: &traffic.requests()[record.index] };
        let cases: Vec<_> = records.iter().map(case).collect();
        for case in &cases {
            verdicts.add(case, &cases);
        }
        verdicts.paraphrases_hit.sort_by(by_similarity);
        verdicts.near_misses_refused.sort_by(|a, b| by_similarity(b, a));
        verdicts.paraphrases_missed.sort_by(|a, b| by_similarity(b, a));
        verdicts
    }

    fn add(&mut self, case: &Case<'_>, all: &[Case<'_>]) {
        let right = case.is_right();
        self.answered_rightly += usize::from(right);
        match case.record.outcome {
            hit if hit.is_hit() && !right => self.wrong_hits.push(case.with_match()),
            Outcome::Semantic => self.paraphrases_hit.push(case.with_match()),
            Outcome::Upstream => self.add_miss(case, all),
            _ => {}
        }
    }

    fn add_miss(&mut self, case: &Case<'_>, all: &[Case<'_>]) {
        if let Some(earlier) = case.same_words_before(all) {
            self.same_words_refused.push(case.in_the_words_of(earlier));
        } else if case.refused_near_miss() {
            self.near_misses_refused.push(case.with_match());
        }
        if let Some(earlier) = case.paraphrase_before(all) {
            let similarity = case.similarity_to(&earlier.request.text);
            self.paraphrases_missed.push(case.with(&earlier.request.text, similarity));
        }
    }
}

fn by_similarity(a: &Pair, b: &Pair) -> Ordering {
    let key = |pair: &Pair| pair.similarity.unwrap_or(0.0);
    key(a).total_cmp(&key(b))
}

// === impl Case ===

impl<'a> Case<'a> {
    pub(super) fn is_right(&self) -> bool {
        self.traffic.answers(self.request).contains(&self.record.content)
    }

    /// Whether the other was answered before this one was asked, so that it could have been found.
    fn is_after(&self, other: &Self) -> bool {
        other.record.outcome != Outcome::Error && other.record.finished() <= self.record.started
    }

    fn same_words_before<'b>(&self, all: &'b [Case<'a>]) -> Option<&'b Case<'a>> {
        all.iter().find(|other| {
            self.is_after(other)
                && other.request.text == self.request.text
                && !other.request.same_scope(self.request)
                && !self.traffic.same_answer(self.request, other.request)
        })
    }

    /// The nearest entry, where it answers another question and is like enough to tempt a cache.
    fn refused_near_miss(&self) -> bool {
        let Some(matched) = &self.record.matched else { return false };
        let tempting = matched.similarity >= NEAR_MISS_SIMILARITY || self.record.reason.starts_with("guard_");
        tempting && !self.answers_of(&matched.text).contains(self.traffic.answer(self.request))
    }

    /// The right answers to a text of this scope.
    fn answers_of(&self, text: &str) -> HashSet<&'a str> {
        let requests = self.traffic.requests().iter();
        requests
            .filter(|other| other.text == text && other.same_scope(self.request))
            .map(|other| self.traffic.answer(other))
            .collect()
    }

    /// Whether an answer to it could have been found.
    pub(super) fn has_equivalent_before(&self, all: &[Self]) -> bool {
        all.iter().any(|other| self.is_equivalent_after(other))
    }

    fn is_equivalent_after(&self, other: &Self) -> bool {
        self.is_after(other)
            && other.request.class == self.request.class
            && other.request.same_scope(self.request)
    }

    fn paraphrase_before<'b>(&self, all: &'b [Case<'a>]) -> Option<&'b Case<'a>> {
        let nearest = self.record.matched.as_ref().map(|matched| matched.text.as_str());
        let is_nearest = |other: &&Case<'_>| Some(other.request.text.as_str()) == nearest;
        let mut candidates = all.iter().filter(|other| self.is_equivalent_after(other));
        candidates.clone().find(is_nearest).or_else(|| candidates.next())
    }

    fn similarity_to(&self, text: &str) -> Option<f32> {
        let matched = self.record.matched.as_ref()?;
        (matched.text == text).then_some(matched.similarity)
    }

    fn with_match(&self) -> Pair {
        let matched = self.record.matched.as_ref();
        self.with(matched.map_or("", |m| &m.text), matched.map(|m| m.similarity))
    }

    fn in_the_words_of(&self, earlier: &Self) -> SameWords {
        SameWords {
            asked: self.request.text.clone(),
            namespace: self.request.namespace.clone(),
            earlier_namespace: earlier.request.namespace.clone(),
            reason: self.record.reason.clone(),
        }
    }

    fn with(&self, earlier: &str, similarity: Option<f32>) -> Pair {
        Pair {
            namespace: self.request.namespace.clone(),
            asked: self.request.text.clone(),
            earlier: earlier.to_owned(),
            similarity,
            reason: self.record.reason.clone(),
        }
    }
}

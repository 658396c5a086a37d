//! The latest semantic hits, which the dashboard shows to operators.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use super::{RequestId, Subject};
use crate::{entry::EntryId, key::Owner, outcome::Verdict, prompt::prefix};

/// Maximum number of remembered hits.
const HITS_MAX: usize = 200;

/// Maximum bytes remembered of a prompt.
const TEXT_MAX: usize = 400;

/// One semantic hit.
#[derive(Clone, Debug)]
pub struct RecentHit {
    /// Id of the reply.
    pub id: RequestId,
    pub at: SystemTime,
    pub owner: Owner,
    pub namespace: String,
    pub entry: EntryId,
    /// Cosine, in [-1, 1].
    pub similarity: f32,
    /// Probability that the answer is right; 0 in modes that do not estimate it.
    pub confidence: f32,
    pub saved_usd: f64,
    /// Set only with `dashboard.show_prompts`.
    pub texts: Option<Texts>,
    /// The latest feedback.
    pub verdict: Option<Verdict>,
}

/// The beginnings of the two prompts of a hit.
#[derive(Clone, Debug)]
pub struct Texts {
    pub asked: String,
    pub matched: String,
}

/// Newest last. A std mutex: held for one push, scan or copy, never across an await.
#[derive(Default)]
pub(super) struct RecentHits(Mutex<VecDeque<RecentHit>>);

impl RecentHits {
    pub fn push(&self, hit: RecentHit) {
        let mut hits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if hits.len() >= HITS_MAX {
            hits.pop_front();
        }
        hits.push_back(hit);
    }

    /// Records feedback on the hits of `subject`.
    pub fn feedback(&self, subject: Subject, verdict: Verdict) {
        let mut hits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for hit in hits.iter_mut().filter(|hit| hit.is(subject)) {
            hit.verdict = Some(verdict);
        }
    }

    /// The hits, newest first.
    pub fn newest(&self) -> Vec<RecentHit> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }
}

impl RecentHit {
    /// Whether feedback on `subject` is about this hit.
    fn is(&self, subject: Subject) -> bool {
        subject == Subject::Reply(self.id) || subject == Subject::Entry(self.entry)
    }
}

impl Texts {
    /// Keeps the beginnings of both prompts.
    pub fn new(asked: &str, matched: &str) -> Self {
        let beginning = |text| prefix(text, TEXT_MAX).to_owned();
        Self { asked: beginning(asked), matched: beginning(matched) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(n: u32) -> RecentHit {
        RecentHit {
            id: RequestId::parse(&format!("{n:032x}")).expect("hex"),
            at: SystemTime::UNIX_EPOCH,
            owner: Owner::Shared,
            namespace: "faq".to_owned(),
            entry: EntryId::parse(&format!("{:032x}", n % 2)).expect("hex"),
            similarity: 0.97,
            confidence: 0.0,
            saved_usd: 0.01,
            texts: Some(Texts::new(&"ä".repeat(TEXT_MAX), "b")),
            verdict: None,
        }
    }

    #[test]
    fn the_newest_hits_are_remembered_and_feedback_finds_them_by_reply_and_entry() {
        let hits = RecentHits::default();
        for n in 0..HITS_MAX as u32 + 5 {
            hits.push(hit(n));
        }
        hits.feedback(Subject::Reply(hit(7).id), Verdict::WrongHit);
        let newest = hits.newest();
        assert_eq!(newest.len(), HITS_MAX);
        assert_eq!(newest[0].id, hit(HITS_MAX as u32 + 4).id);
        assert_eq!(newest.iter().filter(|hit| hit.verdict.is_some()).count(), 1);
        hits.feedback(Subject::Entry(hit(1).entry), Verdict::Down);
        assert_eq!(
            hits.newest().iter().filter(|hit| hit.verdict == Some(Verdict::Down)).count(),
            HITS_MAX / 2
        );
        assert!(newest[0].texts.as_ref().is_some_and(|texts| texts.asked.len() <= TEXT_MAX));
    }
}

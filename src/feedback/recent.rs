//! The last semantic hits, for operators who look over them.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use super::{RequestId, Subject, Verdict};
use crate::{entry::EntryId, key::Owner, prompt::prefix};

/// Hits remembered.
const HITS_MAX: usize = 200;

/// Bytes of a prompt that are remembered of it.
const TEXT_MAX: usize = 400;

/// One semantic hit.
#[derive(Clone, Debug)]
pub struct RecentHit {
    /// Of the reply.
    pub id: RequestId,
    pub at: SystemTime,
    pub owner: Owner,
    pub namespace: String,
    pub entry: EntryId,
    /// Cosine.
    pub similarity: f32,
    /// Probability that the answer is right; 0 where none is estimated.
    pub confidence: f32,
    pub saved_usd: f64,
    /// Only where the operator wants to see prompts.
    pub texts: Option<Texts>,
    /// What was said of it last.
    pub verdict: Option<Verdict>,
}

/// The two prompts that were taken for one.
#[derive(Clone, Debug)]
pub struct Texts {
    pub asked: String,
    pub matched: String,
}

/// Newest last. A std mutex: held for one push or a copy, never across an await.
#[derive(Default)]
pub(super) struct RecentHits(Mutex<VecDeque<RecentHit>>);

// === impl RecentHits ===

impl RecentHits {
    pub fn push(&self, hit: RecentHit) {
        let mut hits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if hits.len() >= HITS_MAX {
            hits.pop_front();
        }
        hits.push_back(hit);
    }

    /// Notes what was said of the hits that `subject` names.
    pub fn judged(&self, subject: Subject, verdict: Verdict) {
        let mut hits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for hit in hits.iter_mut().filter(|hit| hit.is(subject)) {
            hit.verdict = Some(verdict);
        }
    }

    /// Newest first.
    pub fn newest(&self) -> Vec<RecentHit> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
    }
}

// === impl RecentHit ===

impl RecentHit {
    /// Whether feedback on `subject` is about this hit.
    fn is(&self, subject: Subject) -> bool {
        subject == Subject::Reply(self.id) || subject == Subject::Entry(self.entry)
    }
}

// === impl Texts ===

impl Texts {
    /// The beginnings of both.
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
    fn the_newest_hits_are_kept_and_feedback_finds_them_by_reply_and_by_entry() {
        let hits = RecentHits::default();
        for n in 0..HITS_MAX as u32 + 5 {
            hits.push(hit(n));
        }
        hits.judged(Subject::Reply(hit(7).id), Verdict::WrongHit);
        let newest = hits.newest();
        assert_eq!(newest.len(), HITS_MAX);
        assert_eq!(newest[0].id, hit(HITS_MAX as u32 + 4).id);
        assert_eq!(newest.iter().filter(|hit| hit.verdict.is_some()).count(), 1);
        hits.judged(Subject::Entry(hit(1).entry), Verdict::Down);
        assert_eq!(
            hits.newest().iter().filter(|hit| hit.verdict == Some(Verdict::Down)).count(),
            HITS_MAX / 2
        );
        assert!(newest[0].texts.as_ref().is_some_and(|texts| texts.asked.len() <= TEXT_MAX));
    }
}

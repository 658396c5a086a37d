//! Deltas and merging: what one learner learned since it last published, and how learners of one namespace become
//! one. Labels have ids and audit findings are stored per learner, so whatever arrives twice counts once, and a
//! merge loses nothing.

use std::collections::{HashMap, HashSet, VecDeque};

use promptkeep_core::codec::{Malformed, Reader, ensure};

use super::{EXAMPLES_MAX, Example, FIT_EVERY, Learner, audit::Findings};
use crate::table::Table;

/// Labels that may wait to be published. The oldest are dropped and reach other replicas with the snapshot.
const UNPUBLISHED_MAX: usize = 1000;

/// Learners whose last delta is remembered, besides those that have labels in the state.
const SENDERS_MAX: usize = 1000;

/// Identifies one learner in memory, among all that learn for the namespace. A namespace that is evicted and loaded
/// again has a new one, because it numbers its labels anew. 0 where nothing is published.
pub type LearnerId = u32;

/// Identifies a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LabelId {
    learner: LearnerId,
    number: u32,
}

/// What a learner learned since its last delta.
#[derive(Clone, Debug)]
pub struct Delta {
    learner: LearnerId,
    /// Ascends with every delta of the learner.
    number: u32,
    /// Requests of the learner since its last delta.
    requests: u64,
    /// All requests that the learner knows of.
    known: u64,
    findings: Findings,
    labels: Vec<Example>,
}

/// What a learner has published and received.
#[derive(Debug, Default)]
pub(super) struct Replication {
    id: LearnerId,
    /// Labels made so far.
    labels: u32,
    /// Deltas taken so far.
    deltas: u32,
    unpublished: VecDeque<Example>,
    unpublished_requests: u64,
    /// Whether there is anything to publish.
    is_pending: bool,
    /// Labels dropped from `unpublished`.
    dropped: usize,
    received: HashMap<LearnerId, Received>,
}

/// The last label and delta received from a learner.
#[derive(Clone, Copy, Debug, Default)]
struct Received {
    label: u32,
    delta: u32,
}

// === impl Replication ===

impl Replication {
    pub fn next_label(&mut self) -> LabelId {
        self.labels += 1;
        LabelId { learner: self.id, number: self.labels }
    }

    pub fn add(&mut self, example: Example) {
        if self.unpublished.len() == UNPUBLISHED_MAX {
            self.unpublished.pop_front();
            self.dropped += 1;
        }
        self.unpublished.push_back(example);
        self.is_pending = true;
    }

    pub fn count_request(&mut self) {
        self.unpublished_requests += 1;
    }

    pub fn set_pending(&mut self) {
        self.is_pending = true;
    }

    /// Records which labels of other learners are among `examples`.
    fn record(&mut self, examples: &VecDeque<Example>) {
        for LabelId { learner, number } in examples.iter().map(|example| example.id) {
            let received = self.received.entry(learner).or_default();
            received.label = received.label.max(number);
        }
    }
}

// === impl Learner ===

impl Learner {
    /// Attributes later labels and audits to the learner `id`.
    pub fn set_id(&mut self, id: LearnerId) {
        self.replication.id = id;
        self.audits.set_id(id);
        self.replication.record(&self.examples);
    }

    /// Takes what is to be published; `None` when there is nothing.
    pub fn take_delta(&mut self) -> Option<Delta> {
        let replication = &mut self.replication;
        // Requests alone wait for the next labels.
        if !std::mem::take(&mut replication.is_pending) {
            return None;
        }
        replication.deltas += 1;
        Some(Delta {
            learner: replication.id,
            number: replication.deltas,
            requests: std::mem::take(&mut replication.unpublished_requests),
            known: self.requests,
            findings: self.audits.own(),
            labels: std::mem::take(&mut replication.unpublished).into(),
        })
    }

    /// Puts back a delta that could not be published; the next one includes it.
    pub fn restore_delta(&mut self, delta: Delta) {
        let replication = &mut self.replication;
        replication.unpublished_requests += delta.requests;
        replication.is_pending = true;
        let since = std::mem::take(&mut replication.unpublished);
        delta.labels.into_iter().chain(since).for_each(|example| replication.add(example));
    }

    /// Takes the number of labels that were dropped unpublished.
    pub fn take_dropped(&mut self) -> usize {
        std::mem::take(&mut self.replication.dropped)
    }

    /// Merges the delta of another learner; returns the number of new labels.
    pub fn merge_delta(&mut self, delta: &Delta) -> usize {
        let replication = &mut self.replication;
        let Received { label, delta: last } =
            replication.received.get(&delta.learner).copied().unwrap_or_default();
        if delta.learner == replication.id || delta.number <= last {
            return 0;
        }
        self.audits.merge(delta.findings);
        let newest = delta.labels.iter().map(|example| example.id.number).fold(label, u32::max);
        if replication.received.len() >= SENDERS_MAX {
            replication.received.clear();
            replication.record(&self.examples);
        }
        replication.received.insert(delta.learner, Received { label: newest, delta: delta.number });
        // A snapshot had these labels already, and the requests too.
        if newest == label && !delta.labels.is_empty() {
            return 0;
        }
        self.requests = (self.requests + delta.requests).max(delta.known);
        let new: Vec<_> = delta.labels.iter().filter(|example| example.id.number > label).collect();
        for example in &new {
            self.push(Example { at: example.at.min(self.requests), ..**example });
        }
        new.len()
    }

    /// Merges the whole state of another learner; returns the number of new labels.
    pub fn merge(&mut self, other: &Self) -> usize {
        self.audits.merge_all(&other.audits);
        self.requests = self.requests.max(other.requests);
        let known: HashSet<_> = self.examples.iter().map(|example| example.id).collect();
        let before = self.examples.len();
        self.examples.extend(other.examples.iter().filter(|example| !known.contains(&example.id)));
        let new = self.examples.len() - before;
        self.examples.make_contiguous().sort_by_key(|example| (example.at, example.id));
        let surplus = self.examples.len().saturating_sub(EXAMPLES_MAX);
        self.examples.drain(..surplus);
        self.count_wrong_variants();
        self.replication.record(&self.examples);
        if self.recent.is_empty() {
            self.recent.clone_from(&other.recent);
        }
        new
    }

    /// Whether a fit is due, counting the requests of all replicas.
    pub fn is_behind(&self) -> bool {
        self.requests - self.fitted_at >= FIT_EVERY && self.labelled() >= FIT_EVERY
    }

    /// Labels in use.
    pub fn labels(&self) -> usize {
        self.examples.len()
    }
}

// === impl Delta ===

impl Delta {
    /// Number of labels.
    pub fn labels(&self) -> usize {
        self.labels.len()
    }

    pub fn encode(&self, to: &mut Vec<u8>) {
        to.extend(self.learner.to_le_bytes());
        to.extend(self.number.to_le_bytes());
        [self.requests, self.known].iter().for_each(|count| to.extend(count.to_le_bytes()));
        self.findings.encode(to);
        to.extend((self.labels.len() as u32).to_le_bytes());
        self.labels.iter().for_each(|example| example.encode(to));
    }

    /// Reads what [`Delta::encode`] wrote by a learner with the same table.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(bytes: &[u8], table: &Table) -> Result<Self, Malformed> {
        let from = &mut Reader::new(bytes);
        let (learner, number) = (from.u32()?, from.u32()?);
        let (requests, known) = (from.u64()?, from.u64()?);
        ensure(requests <= known && known < u64::MAX / 2, "requests")?;
        let findings = Findings::decode(from)?;
        let count = from.count(UNPUBLISHED_MAX)?;
        let labels: Vec<_> = from.repeat(count, |from| Example::decode(from, table))?;
        let is_own = labels.iter().all(|example| example.id.learner == learner);
        ensure(findings.learner == learner && is_own, "learner")?;
        from.end()?;
        Ok(Self { learner, number, requests, known, findings, labels })
    }
}

// === impl LabelId ===

impl LabelId {
    pub fn encode(self, to: &mut Vec<u8>) {
        to.extend(self.learner.to_le_bytes());
        to.extend(self.number.to_le_bytes());
    }

    pub fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { learner: from.u32()?, number: from.u32()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        features::Features,
        learner::{Budget, Label, Origin},
        surface::Difference,
    };

    const BUDGET: Budget = Budget { max_error_rate: 0.01, max_wrong_hits: 0.05 };

    fn learner(id: LearnerId) -> Learner {
        let mut learner = Learner::new(Table::embedded().unwrap(), 1);
        learner.set_id(id);
        learner
    }

    /// Decides and observes random requests, every tenth as an audit.
    fn learn(learner: &mut Learner, random: &mut fastrand::Rng, requests: usize) {
        for n in 0..requests {
            let features: Features = std::array::from_fn(|_| random.f32());
            let scored = learner.score(&features, Difference::Wording, 1);
            learner.decide(std::slice::from_ref(&scored), &BUDGET, 0.02, None);
            let audit = n % 10 == 0 && learner.audits.draw(learner.requests, 1.0).is_some();
            let origin = if audit {
                Origin::Audit { propensity: 1.0, probability: 0.9, approved: false, verified: 0.0 }
            } else {
                Origin::Miss { best: true }
            };
            learner.observe(&scored, Label::compared(if n % 3 == 0 { 1.0 } else { 0.9 }), origin);
        }
    }

    fn sent(delta: &Delta, table: &Table) -> Delta {
        let mut bytes = Vec::new();
        delta.encode(&mut bytes);
        for length in 0..bytes.len() {
            assert!(Delta::decode(&bytes[..length], table).is_err(), "cut to {length}");
        }
        Delta::decode(&bytes, table).unwrap()
    }

    /// Label ids and counts, which are equal in two learners that know the same.
    fn knowledge(learner: &Learner) -> (Vec<LabelId>, u64, u64, u64) {
        let mut labels: Vec<_> = learner.examples.iter().map(|example| example.id).collect();
        labels.sort();
        (labels, learner.labelled(), learner.audits.checks(), learner.requests)
    }

    #[test]
    fn learners_that_exchange_deltas_know_the_same() {
        let (mut a, mut b) = (learner(1), learner(2));
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..5 {
            learn(&mut a, &mut random, 20);
            learn(&mut b, &mut random, 30);
            let (of_a, of_b) = (a.take_delta().unwrap(), b.take_delta().unwrap());
            let (of_a, of_b) = (sent(&of_a, &a.table), sent(&of_b, &a.table));
            assert_eq!((a.merge_delta(&of_b), b.merge_delta(&of_a)), (30, 20));
            let again = (a.merge_delta(&of_b), b.merge_delta(&of_a), a.merge_delta(&of_a));
            assert_eq!(again, (0, 0, 0), "merged once");
        }
        assert!(a.take_delta().is_none());
        assert_eq!(knowledge(&a), knowledge(&b));
        assert_eq!((a.labels(), a.requests, a.labelled()), (250, 250, 250));
        assert_eq!(a.audits.checks(), 25);
        assert!((a.wrong_hits().rate - b.wrong_hits().rate).abs() < 0.01);
        assert!(a.is_due() && b.is_behind());
    }

    #[test]
    fn a_delta_that_could_not_be_published_is_part_of_the_next() {
        let (mut a, mut b) = (learner(1), learner(2));
        let mut random = fastrand::Rng::with_seed(3);
        learn(&mut a, &mut random, 10);
        let lost = a.take_delta().unwrap();
        learn(&mut a, &mut random, 10);
        // It did arrive after all, and is published again.
        b.merge_delta(&lost);
        a.restore_delta(lost);
        assert_eq!(b.merge_delta(&a.take_delta().unwrap()), 10);
        assert_eq!(knowledge(&a).0, knowledge(&b).0);
    }

    #[test]
    fn unpublished_labels_are_bounded() {
        let mut a = learner(1);
        learn(&mut a, &mut fastrand::Rng::with_seed(3), UNPUBLISHED_MAX + 7);
        assert_eq!(a.take_dropped(), 7);
        assert_eq!(a.take_delta().unwrap().labels(), UNPUBLISHED_MAX);
    }

    #[test]
    fn counts_outlive_their_learners() {
        let table = Table::embedded().unwrap();
        let mut bytes = learner(1).encode();
        for id in 1..=100 {
            let mut a = Learner::decode_unfitted(&bytes, table.clone(), 1).unwrap();
            a.set_id(id);
            learn(&mut a, &mut fastrand::Rng::with_seed(id.into()), 11);
            bytes = a.encode();
        }
        let a = Learner::decode_unfitted(&bytes, table, 1).unwrap();
        assert_eq!((a.labelled(), a.labels(), a.audits.checks()), (1100, 1100, 200));
    }

    #[test]
    fn merged_learners_lose_and_double_nothing() {
        let table = Table::embedded().unwrap();
        let read = |bytes: &[u8]| Learner::decode_unfitted(bytes, table.clone(), 1).unwrap();
        let mut a = learner(1);
        let mut random = fastrand::Rng::with_seed(3);
        learn(&mut a, &mut random, 100);
        // One continues from the other's snapshot, both learn more, and publish some of it.
        let mut b = read(&a.encode());
        b.set_id(2);
        learn(&mut b, &mut random, 50);
        b.merge_delta(&a.take_delta().unwrap());
        assert_eq!(b.labels(), 150, "the snapshot had these labels already");
        learn(&mut a, &mut random, 50);
        a.merge_delta(&b.take_delta().unwrap());
        learn(&mut b, &mut random, 10);
        let (of_a, of_b) = (a.encode(), b.encode());
        assert_eq!((a.merge(&read(&of_b)), b.merge(&read(&of_a))), (10, 50));
        assert_eq!((a.merge(&read(&of_b)), b.merge(&read(&of_a))), (0, 0));
        assert_eq!(knowledge(&a).0, knowledge(&b).0);
        assert_eq!((a.labels(), a.audits.checks(), b.audits.checks()), (210, 21, 21));
        assert_eq!((a.labelled(), b.labelled()), (210, 210));
    }
}

//! What processes that learn for the same namespace tell each other, and how two states become one. A label has
//! an id, and what checks found is kept by process: so whatever is heard twice, or comes with a note too, counts
//! once, and nothing is lost when two states are joined.

use std::collections::{HashMap, HashSet, VecDeque};

use super::{EXAMPLES_MAX, Example, FIT_EVERY, Learner, audit::Findings};
use crate::table::{Reader, Table};

/// Labels that wait to be told; the oldest go, and reach others with the note.
const UNTOLD_MAX: usize = 1000;

/// Processes whose lessons are told apart, beside those that have labels in the state.
const PROCESSES_MAX: usize = 1000;

/// Names a label: the process that made it, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LabelId {
    origin: u32,
    number: u32,
}

/// What a process learned of a namespace since its last lesson.
#[derive(Clone, Debug)]
pub struct Lesson {
    origin: u32,
    /// Ascends with every lesson of its process.
    number: u32,
    /// Requests of its process since the last lesson.
    requests: u64,
    /// Requests that the process knows of in all.
    known: u64,
    findings: Findings,
    labels: Vec<Example>,
}

/// What a learner knows of telling and hearing.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// This process; 0 where there is only one.
    origin: u32,
    labels: u32,
    lessons: u32,
    /// Of this process, since the last lesson.
    untold: VecDeque<Example>,
    untold_requests: u64,
    /// There is something to tell.
    is_news: bool,
    /// Labels that went untold.
    dropped: usize,
    /// Requests of this process since the last fit.
    since_fit: u64,
    /// By process, the last label and lesson heard.
    heard: HashMap<u32, Heard>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    label: u32,
    lesson: u32,
}

// === impl Sharing ===

impl Sharing {
    pub fn next_label(&mut self) -> LabelId {
        self.labels += 1;
        LabelId { origin: self.origin, number: self.labels }
    }

    pub fn keep(&mut self, example: Example) {
        if self.untold.len() == UNTOLD_MAX {
            self.untold.pop_front();
            self.dropped += 1;
        }
        self.untold.push_back(example);
        self.is_news = true;
    }

    pub fn count_request(&mut self) {
        self.untold_requests += 1;
        self.since_fit += 1;
    }

    pub fn set_news(&mut self) {
        self.is_news = true;
    }

    pub fn since_fit(&self) -> u64 {
        self.since_fit
    }

    pub fn fitted(&mut self) {
        self.since_fit = 0;
    }

    /// Notes which labels of other processes `examples` has.
    fn hear_of(&mut self, examples: &VecDeque<Example>) {
        for LabelId { origin, number } in examples.iter().map(|example| example.id) {
            let heard = self.heard.entry(origin).or_default();
            heard.label = heard.label.max(number);
        }
    }

    /// Forgets processes whose labels are gone, when there are too many.
    fn make_room(&mut self, examples: &VecDeque<Example>) {
        if self.heard.len() >= PROCESSES_MAX {
            self.heard.clear();
            self.hear_of(examples);
        }
    }
}

// === impl Learner ===

impl Learner {
    /// What this process learns from now on is marked as its own.
    pub fn set_origin(&mut self, origin: u32) {
        self.sharing.origin = origin;
        self.audits.set_origin(origin);
        self.sharing.hear_of(&self.examples);
    }

    /// What others do not know yet; `None` when that is nothing.
    pub fn lesson(&mut self) -> Option<Lesson> {
        let sharing = &mut self.sharing;
        // Requests alone are told with the labels that follow.
        if !std::mem::take(&mut sharing.is_news) {
            return None;
        }
        sharing.lessons += 1;
        Some(Lesson {
            origin: sharing.origin,
            number: sharing.lessons,
            requests: std::mem::take(&mut sharing.untold_requests),
            known: self.requests,
            findings: self.audits.own(),
            labels: std::mem::take(&mut sharing.untold).into(),
        })
    }

    /// The lesson did not reach the others: the next one tells of it too.
    pub fn take_back(&mut self, lesson: Lesson) {
        self.sharing.untold_requests += lesson.requests;
        self.sharing.is_news = true;
        let since = std::mem::take(&mut self.sharing.untold);
        for example in lesson.labels.into_iter().chain(since) {
            self.sharing.keep(example);
        }
    }

    /// Labels that went untold since this was last asked.
    pub fn take_dropped(&mut self) -> usize {
        std::mem::take(&mut self.sharing.dropped)
    }

    /// Learns what another process learned; returns the labels that are news.
    pub fn hear(&mut self, lesson: &Lesson) -> usize {
        let Heard { label, lesson: last } =
            self.sharing.heard.get(&lesson.origin).copied().unwrap_or_default();
        if lesson.origin == self.sharing.origin || lesson.number <= last {
            return 0;
        }
        self.audits.hear(lesson.findings);
        let newest = lesson.labels.iter().map(|example| example.id.number).fold(label, u32::max);
        self.sharing.make_room(&self.examples);
        self.sharing.heard.insert(lesson.origin, Heard { label: newest, lesson: lesson.number });
        // Known from a note, and the requests too.
        if newest == label && !lesson.labels.is_empty() {
            return 0;
        }
        self.requests = (self.requests + lesson.requests).max(lesson.known);
        let news: Vec<_> = lesson.labels.iter().filter(|example| example.id.number > label).collect();
        for example in &news {
            self.push(Example { at: example.at.min(self.requests), ..**example });
        }
        news.len()
    }

    /// Takes over what the learner of another process knows and this one does not; returns how many labels.
    pub fn join(&mut self, other: &Self) -> usize {
        self.audits.hear_all(&other.audits);
        self.requests = self.requests.max(other.requests);
        let known: HashSet<_> = self.examples.iter().map(|example| example.id).collect();
        let news: Vec<_> =
            other.examples.iter().filter(|example| !known.contains(&example.id)).copied().collect();
        self.examples.extend(&news);
        self.examples.make_contiguous().sort_by_key(|example| (example.at, example.id));
        let surplus = self.examples.len().saturating_sub(EXAMPLES_MAX);
        self.examples.drain(..surplus);
        self.sharing.hear_of(&self.examples);
        if self.recent.is_empty() {
            self.recent.clone_from(&other.recent);
        }
        news.len()
    }

    /// Whether enough is new for another fit, counting what other processes saw.
    pub fn is_behind(&self) -> bool {
        self.requests - self.fitted_at >= FIT_EVERY && self.labelled() >= FIT_EVERY
    }

    /// Labels in use.
    pub fn labels(&self) -> usize {
        self.examples.len()
    }
}

// === impl Lesson ===

impl Lesson {
    /// Labels in it.
    pub fn labels(&self) -> usize {
        self.labels.len()
    }

    /// Little-endian.
    pub fn encode(&self, to: &mut Vec<u8>) {
        to.extend(self.origin.to_le_bytes());
        to.extend(self.number.to_le_bytes());
        [self.requests, self.known].iter().for_each(|count| to.extend(count.to_le_bytes()));
        self.findings.encode(to);
        to.extend((self.labels.len() as u32).to_le_bytes());
        self.labels.iter().for_each(|example| example.encode(to));
    }

    /// Reads what [`Lesson::encode`] wrote with the same table. `None` for anything else.
    pub fn decode(bytes: &[u8], table: &Table) -> Option<Self> {
        let mut from = Reader::new(bytes);
        let (origin, number) = (from.u32()?, from.u32()?);
        let (requests, known) = (from.u64()?, from.u64()?);
        let findings = Findings::decode(&mut from)?;
        let labels = from.u32()? as usize;
        let valid = labels <= UNTOLD_MAX && requests <= known;
        let valid = valid && known < u64::MAX / 2 && findings.origin == origin;
        let labels: Vec<_> = (0..if valid { labels } else { return None })
            .map(|_| Example::decode(&mut from, table).filter(|example| example.id.origin == origin))
            .collect::<Option<_>>()?;
        from.is_empty().then_some(Self { origin, number, requests, known, findings, labels })
    }
}

// === impl LabelId ===

impl LabelId {
    pub fn encode(self, to: &mut Vec<u8>) {
        to.extend(self.origin.to_le_bytes());
        to.extend(self.number.to_le_bytes());
    }

    pub fn decode(from: &mut Reader<'_>) -> Option<Self> {
        Some(Self { origin: from.u32()?, number: from.u32()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        features::Features,
        learner::{Budget, Label, Origin},
    };

    const BUDGET: Budget = Budget { max_error_rate: 0.01, max_wrong_hits: 0.05 };

    fn learner(origin: u32) -> Learner {
        let mut learner = Learner::new(Table::embedded().unwrap(), 1);
        learner.set_origin(origin);
        learner
    }

    /// Asks and learns, with a check every tenth time.
    fn learn(learner: &mut Learner, random: &mut fastrand::Rng, requests: usize) {
        for n in 0..requests {
            let features: Features = std::array::from_fn(|_| random.f32());
            let scored = learner.score(&features, 1);
            learner.decide(std::slice::from_ref(&scored), &BUDGET, 0.02);
            let check = n % 10 == 0 && learner.audits.draw(learner.requests, 1.0).is_some();
            let origin = if check { Origin::Audit { propensity: 1.0 } } else { Origin::Miss { best: true } };
            learner.observe(&scored, Label::compared(if n % 3 == 0 { 1.0 } else { 0.9 }), origin);
        }
    }

    fn sent(lesson: &Lesson, table: &Table) -> Lesson {
        let mut bytes = Vec::new();
        lesson.encode(&mut bytes);
        for length in 0..bytes.len() {
            assert!(Lesson::decode(&bytes[..length], table).is_none(), "{length} bytes are no lesson");
        }
        Lesson::decode(&bytes, table).unwrap()
    }

    /// What two states have in common when they know the same.
    fn knowledge(learner: &Learner) -> (Vec<LabelId>, u64, u64, u64) {
        let mut labels: Vec<_> = learner.examples.iter().map(|example| example.id).collect();
        labels.sort();
        (labels, learner.labelled(), learner.audits.checks(), learner.requests)
    }

    #[test]
    fn lessons_make_learners_know_the_same() {
        let (mut a, mut b) = (learner(1), learner(2));
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..5 {
            learn(&mut a, &mut random, 20);
            learn(&mut b, &mut random, 30);
            let (of_a, of_b) = (a.lesson().unwrap(), b.lesson().unwrap());
            let (of_a, of_b) = (sent(&of_a, &a.table), sent(&of_b, &a.table));
            assert_eq!((a.hear(&of_b), b.hear(&of_a)), (30, 20));
            assert_eq!((a.hear(&of_b), b.hear(&of_a), a.hear(&of_a)), (0, 0, 0), "heard once");
        }
        assert!(a.lesson().is_none());
        assert_eq!(knowledge(&a), knowledge(&b));
        assert_eq!((a.labels(), a.requests, a.labelled()), (250, 250, 250));
        assert_eq!(a.audits.checks(), 25);
        assert!((a.wrong_hits().rate - b.wrong_hits().rate).abs() < 0.01);
        assert!(a.is_due() && b.is_behind());
    }

    #[test]
    fn a_lesson_that_did_not_arrive_is_told_with_the_next() {
        let (mut a, mut b) = (learner(1), learner(2));
        let mut random = fastrand::Rng::with_seed(3);
        learn(&mut a, &mut random, 10);
        let lost = a.lesson().unwrap();
        learn(&mut a, &mut random, 10);
        // It did arrive after all, and is told again.
        b.hear(&lost);
        a.take_back(lost);
        assert_eq!(b.hear(&a.lesson().unwrap()), 10);
        assert_eq!(knowledge(&a).0, knowledge(&b).0);
    }

    #[test]
    fn what_waits_to_be_told_is_bounded() {
        let mut a = learner(1);
        learn(&mut a, &mut fastrand::Rng::with_seed(3), UNTOLD_MAX + 7);
        assert_eq!(a.take_dropped(), 7);
        assert_eq!(a.lesson().unwrap().labels(), UNTOLD_MAX);
    }

    #[test]
    fn counts_outlive_their_processes() {
        let table = Table::embedded().unwrap();
        let mut bytes = learner(1).encode();
        for process in 1..=100 {
            let mut a = Learner::decode_unfitted(&bytes, table.clone(), 1).unwrap();
            a.set_origin(process);
            learn(&mut a, &mut fastrand::Rng::with_seed(process.into()), 11);
            bytes = a.encode();
        }
        let a = Learner::decode_unfitted(&bytes, table, 1).unwrap();
        assert_eq!((a.labelled(), a.labels(), a.audits.checks()), (1100, 1100, 200));
    }

    #[test]
    fn joined_states_lose_and_double_nothing() {
        let table = Table::embedded().unwrap();
        let read = |bytes: &[u8]| Learner::decode_unfitted(bytes, table.clone(), 1).unwrap();
        let mut a = learner(1);
        let mut random = fastrand::Rng::with_seed(3);
        learn(&mut a, &mut random, 100);
        // One goes on from the other's note, both learn more, and some of it is told.
        let mut b = read(&a.encode());
        b.set_origin(2);
        learn(&mut b, &mut random, 50);
        b.hear(&a.lesson().unwrap());
        assert_eq!(b.labels(), 150, "the note told of it already");
        learn(&mut a, &mut random, 50);
        a.hear(&b.lesson().unwrap());
        learn(&mut b, &mut random, 10);
        let (of_a, of_b) = (a.encode(), b.encode());
        assert_eq!((a.join(&read(&of_b)), b.join(&read(&of_a))), (10, 50));
        assert_eq!((a.join(&read(&of_b)), b.join(&read(&of_a))), (0, 0));
        assert_eq!(knowledge(&a).0, knowledge(&b).0);
        assert_eq!((a.labels(), a.audits.checks(), b.audits.checks()), (210, 21, 21));
        assert_eq!((a.labelled(), b.labelled()), (210, 210));
    }
}

//! Audits of semantic hits: which are chosen, and what their outcomes say about all of them.

use std::collections::VecDeque;

use promptkeep_core::codec::{Malformed, Reader, ensure};

use crate::logistic::posterior;

use super::{
    Budget, LearnerId,
    wrong_rate::{Audited, LabelErrors, Tally, WrongHits},
};

/// Audits of a namespace's first hits: a hit is audited with this probability over the number of hits.
const EARLY: f32 = 100.0;
/// Maximum audits per request, as a multiple of the audit rate. A new namespace audits a larger share of its hits,
/// but has few of them.
const COST_MAX: f32 = 2.0;
/// Audits after which an older one counts half.
const HALF_LIFE: f32 = 300.0;
/// Recent audits without which a namespace is not closed.
const CLOSE_AFTER: f64 = 20.0;
/// Multiple of the budget that closes a namespace.
const CLOSE_BEYOND: f32 = 2.0;
/// Requests during a closure after which findings count half.
const IDLE_HALF_LIFE: f64 = 2000.0;
/// Pseudo-count of errors that occurred as expected: how many surprises it takes to believe them.
const BELIEF: f32 = 3.0;

/// Learners whose findings are stored one by one. Beyond that the one not heard from for longest is [`Retired`].
const LEARNERS_MAX: usize = 64;

/// Retired learners whose ids are remembered; the oldest are forgotten.
const RETIRED_MAX: usize = 1024;

/// Id under which the sum of retired learners is stored.
const RETIRED: LearnerId = LearnerId::MAX;

/// Audits of a namespace, by every replica.
#[derive(Clone, Debug)]
pub struct Audits {
    random: fastrand::Rng,
    /// One element per learner, so that its later state replaces an earlier one. This learner comes first; the
    /// others follow in the order in which they were last heard from.
    findings: Vec<Findings>,
    retired: Retired,
}

/// The sum over learners not heard from for long.
#[derive(Clone, Debug)]
struct Retired {
    findings: Findings,
    /// Their ids: findings of one that arrive late must not count again.
    ids: VecDeque<LearnerId>,
}

/// Audit counts of one learner.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Findings {
    pub(super) learner: LearnerId,
    /// Requests that gave labels.
    labelled: u64,
    hits: u64,
    /// Hits chosen for an audit.
    checks: u64,
    /// Audits that were completed.
    outcomes: u64,
    /// Audits whose label was replaced by a better one.
    improved: u64,
    /// All completed audits, for the estimate that is reported.
    served: Tally,
    recent: Recent,
}

/// Sums over completed audits, for decisions. They decay with every audit, whichever learner makes it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Recent {
    /// Unweighted audits.
    count: f64,
    /// Unweighted errors.
    observed: f64,
    /// Errors that the model expected.
    expected: f64,
    /// With the first label of each audit; one that replaces it comes too late for the sums that decayed since.
    tally: Tally,
}

// === impl Audits ===

impl Audits {
    pub fn new(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            findings: vec![Findings::of(0)],
            retired: Retired::default(),
        }
    }

    /// Encodes all but the state of the random generator.
    pub fn encode(&self, to: &mut Vec<u8>) {
        to.extend((self.findings.len() as u32).to_le_bytes());
        self.findings.iter().for_each(|findings| findings.encode(to));
        self.retired.findings.encode(to);
        to.extend((self.retired.ids.len() as u32).to_le_bytes());
        self.retired.ids.iter().for_each(|id| to.extend(id.to_le_bytes()));
    }

    /// Reads what [`Audits::encode`] wrote.
    pub fn decode(from: &mut Reader<'_>, seed: u64) -> Result<Self, Malformed> {
        let count = from.count(LEARNERS_MAX)?;
        ensure(count > 0, "findings")?;
        let findings: Vec<Findings> = from.repeat(count, Findings::decode)?;
        let retired = Findings::decode(from)?;
        let count = from.count(RETIRED_MAX)?;
        let retired = Retired { findings: retired, ids: from.repeat(count, Reader::u32)? };
        let audits = Self { random: fastrand::Rng::new(), findings, retired };
        Ok(Self { random: fastrand::Rng::with_seed(seed ^ audits.hits()), ..audits })
    }

    /// Attributes later audits to the learner `id`.
    pub(super) fn set_id(&mut self, id: LearnerId) {
        if self.findings[0].learner != id {
            // The learner that wrote this state was the last one active. An empty one need not be remembered.
            self.findings.rotate_left(1);
            self.findings.retain(|findings| findings.learner != id && !findings.is_empty());
            self.findings.insert(0, Findings::of(id));
            self.retire_surplus(LEARNERS_MAX);
        }
    }

    /// Findings of this learner.
    pub(super) fn own(&self) -> Findings {
        self.findings[0]
    }

    /// Merges the findings of another learner, unless they are known.
    pub(super) fn merge(&mut self, new: Findings) {
        if self.retired.has(new.learner) {
            return;
        }
        let at = self.findings.iter().position(|known| known.learner == new.learner);
        let before = at.map_or(0, |at| self.findings[at].outcomes);
        match at {
            Some(0) => return,
            Some(at) if new.counts() < self.findings[at].counts() => return,
            Some(at) if new.counts() == self.findings[at].counts() => {
                return self.findings[at].recent.decay_to(&new.recent);
            }
            Some(at) => drop(self.findings.remove(at)),
            None => self.retire_surplus(LEARNERS_MAX - 1),
        }
        self.decay(decay_of(new.outcomes.saturating_sub(before)));
        self.findings.push(new);
    }

    /// Merges all findings of another state.
    pub(super) fn merge_all(&mut self, other: &Self) {
        self.merge_retired(&other.retired);
        // The learner that wrote the state was the last one active.
        let (writer, others) = other.findings.split_at(1);
        others.iter().chain(writer).for_each(|findings| self.merge(*findings));
    }

    /// Keeps whichever sum of retired learners counts more, whole. Most of it was known before, so nothing decays.
    fn merge_retired(&mut self, other: &Retired) {
        let is_more = other.findings.counts() > self.retired.findings.counts();
        if is_more && !other.has(self.findings[0].learner) {
            self.retired.clone_from(other);
            self.findings.retain(|findings| !other.has(findings.learner));
        }
    }

    /// Retires learners until at most `max` are left.
    fn retire_surplus(&mut self, max: usize) {
        while self.findings.len() > max {
            let oldest = self.findings.remove(1);
            self.retired.add(&oldest);
        }
    }

    /// Counts a request during a closure. Nothing is served and audited then, so old findings decay until semantic
    /// hits are tried again.
    pub fn idle(&mut self) {
        self.decay(0.5_f64.powf(1.0 / IDLE_HALF_LIFE));
    }

    fn decay(&mut self, factor: f64) {
        self.findings.iter_mut().for_each(|findings| findings.recent.decay(factor));
        self.retired.findings.recent.decay(factor);
    }

    /// Counts a hit. Returns the propensity if the hit is to be audited: the probability with which it was chosen.
    /// `rate` is the lowest share of hits to audit; at 0 none is audited, at 1 all are.
    pub fn draw(&mut self, requests: u64, rate: f32) -> Option<f32> {
        self.findings[0].hits += 1;
        if rate == 0.0 {
            return None;
        }
        let propensity = (EARLY / self.hits() as f32).clamp(rate, 1.0);
        let affordable = rate >= 1.0 || (self.checks() as f32) < COST_MAX * rate * requests as f32;
        (affordable && self.random.f32() < propensity).then(|| {
            self.findings[0].checks += 1;
            propensity
        })
    }

    /// Records the outcome of an audit, of a hit that the model gave the `probability` of a right answer. `evidence` is
    /// all that the label says.
    pub fn observe(&mut self, probability: f32, evidence: f32, audited: &Audited) {
        let Some(tally) = Tally::of(audited) else { return };
        self.decay(decay_of(1));
        let own = &mut self.findings[0];
        own.outcomes += 1;
        own.served.add(&tally);
        own.recent.add(&Recent {
            count: 1.0,
            observed: 1.0 - after(probability, evidence),
            expected: f64::from(1.0 - probability),
            tally,
        });
    }

    /// Replaces the label of an audit that this learner observed. One that it does not know changes nothing.
    pub fn improve(&mut self, before: &Audited, after: &Audited) {
        let own = &mut self.findings[0];
        if let (Some(before), Some(after)) = (Tally::of(before), Tally::of(after)) {
            own.improved += 1;
            own.served.replace(&before, &after);
        }
    }

    /// Errors expected after the audits over those expected before. Evidence that says little moves it little.
    pub fn surplus(&self) -> f32 {
        let Recent { observed, expected, .. } = self.sums();
        (observed as f32 + BELIEF) / (expected as f32 + BELIEF)
    }

    /// Whether even the lower end of the interval of recent hits is far beyond the budget, so that only exact hits are
    /// served. Few audits must not close a namespace, nor labels that say "different" by mistake.
    pub fn is_over_budget(&self, budget: &Budget, errors: &LabelErrors) -> bool {
        let Recent { count, tally, .. } = self.sums();
        count > CLOSE_AFTER && tally.is_above(CLOSE_BEYOND * budget.max_wrong_hits, errors)
    }

    /// Counts a request that gave labels.
    pub(super) fn count_labelled(&mut self) {
        self.findings[0].labelled += 1;
    }

    /// Requests that gave labels.
    pub(super) fn labelled(&self) -> u64 {
        self.all().map(|findings| findings.labelled).sum()
    }

    fn hits(&self) -> u64 {
        self.all().map(|findings| findings.hits).sum()
    }

    /// Hits chosen for an audit so far.
    pub fn checks(&self) -> u64 {
        self.all().map(|findings| findings.checks).sum()
    }

    fn all(&self) -> impl Iterator<Item = &Findings> {
        self.findings.iter().chain([&self.retired.findings])
    }

    fn sums(&self) -> Recent {
        let mut sums = Recent::default();
        self.all().for_each(|findings| sums.add(&findings.recent));
        sums
    }

    /// Adds the findings of another namespace, to report both as one.
    pub fn add(&mut self, other: &Self) {
        let own = &mut self.findings[0];
        own.hits += other.hits();
        own.checks += other.checks();
        own.served.add(&other.served());
        own.recent.add(&other.sums());
    }

    fn served(&self) -> Tally {
        let mut served = Tally::default();
        self.all().for_each(|findings| served.add(&findings.served));
        served
    }

    /// The share of wrong answers among all hits so far.
    pub fn estimate(&self, errors: &LabelErrors) -> WrongHits {
        self.served().estimate(errors, self.checks())
    }

    /// The share of wrong answers among recent hits, which decisions depend on.
    pub fn recent(&self, errors: &LabelErrors) -> WrongHits {
        self.sums().tally.estimate(errors, self.checks())
    }
}

/// Probability of a right answer after the evidence of its audit.
fn after(probability: f32, evidence: f32) -> f64 {
    let p = f64::from(probability.clamp(1e-4, 1.0 - 1e-4));
    posterior((p / (1.0 - p)).ln(), evidence.into())
}

/// Factor of a sum after so many audits.
fn decay_of(audits: u64) -> f64 {
    0.5_f64.powf(audits as f64 / f64::from(HALF_LIFE))
}

// === impl Retired ===

impl Default for Retired {
    fn default() -> Self {
        Self { findings: Findings::of(RETIRED), ids: VecDeque::new() }
    }
}

impl Retired {
    fn has(&self, learner: LearnerId) -> bool {
        self.ids.contains(&learner)
    }

    fn add(&mut self, findings: &Findings) {
        self.findings.add(findings);
        if self.ids.len() == RETIRED_MAX {
            self.ids.pop_front();
        }
        self.ids.push_back(findings.learner);
    }
}

// === impl Findings ===

impl Findings {
    fn of(learner: LearnerId) -> Self {
        Self {
            learner,
            labelled: 0,
            hits: 0,
            checks: 0,
            outcomes: 0,
            improved: 0,
            served: Tally::default(),
            recent: Recent::default(),
        }
    }

    fn is_empty(&self) -> bool {
        self.counts() == [0; 5]
    }

    fn add(&mut self, other: &Self) {
        self.labelled += other.labelled;
        self.hits += other.hits;
        self.checks += other.checks;
        self.outcomes += other.outcomes;
        self.improved += other.improved;
        self.served.add(&other.served);
        self.recent.add(&other.recent);
    }

    /// No count ever falls, so a later state of one learner compares greater.
    fn counts(&self) -> [u64; 5] {
        [self.labelled, self.hits, self.checks, self.outcomes, self.improved]
    }

    pub(super) fn encode(&self, to: &mut Vec<u8>) {
        to.extend(self.learner.to_le_bytes());
        self.counts().iter().for_each(|count| to.extend(count.to_le_bytes()));
        self.served.encode(to);
        let Recent { count, observed, expected, tally } = self.recent;
        [count, observed, expected].iter().for_each(|sum| to.extend(sum.to_le_bytes()));
        tally.encode(to);
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut findings = Self::of(from.u32()?);
        let Self { labelled, hits, checks, outcomes, improved, .. } = &mut findings;
        for count in [&mut *labelled, &mut *hits, &mut *checks, &mut *outcomes, &mut *improved] {
            *count = from.u64()?;
        }
        // Sums over all learners must not overflow.
        let plausible = [*labelled, *hits, *outcomes, *improved].iter().all(|count| *count < u64::MAX >> 8);
        ensure(plausible && checks <= hits, "counts")?;
        let served = Tally::decode(from)?;
        let (count, observed, expected) = (from.f64()?, from.f64()?, from.f64()?);
        ensure([count, observed, expected].iter().all(|sum| (0.0..1e100).contains(sum)), "sum")?;
        let recent = Recent { count, observed, expected, tally: Tally::decode(from)? };
        Ok(Self { served, recent, ..findings })
    }
}

// === impl Recent ===

impl Recent {
    fn decay(&mut self, factor: f64) {
        let Self { count, observed, expected, tally } = self;
        [count, observed, expected].into_iter().for_each(|sum| *sum *= factor);
        tally.decay(factor);
    }

    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.observed += other.observed;
        self.expected += other.expected;
        self.tally.add(&other.tally);
    }

    /// Of two states with the same audits, the one that decayed more has seen more audits since.
    fn decay_to(&mut self, other: &Self) {
        if other.count < self.count {
            *self = *other;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learner::Label;

    /// One audited hit by each of `learners` learners, the first of them `first`.
    fn audited(mut audits: Audits, first: u32, learners: u32) -> Audits {
        for id in first..first + learners {
            audits.set_id(id);
            audits.count_labelled();
            audits.draw(1000, 1.0);
            audits.observe(
                0.9,
                4.0,
                &Audited { propensity: 1.0, verified: 0.0, label: Label::compared(4.0) },
            );
        }
        audits
    }

    fn totals(audits: &Audits) -> (u64, u64, f64) {
        (audits.labelled(), audits.checks(), audits.sums().count)
    }

    /// Beyond the number of learners stored one by one, every merged snapshot counted retired ones once more and
    /// made the findings of active ones decay.
    #[test]
    fn retired_learners_count_once_however_often_they_are_merged() {
        let learners = 3 * LEARNERS_MAX as u32;
        let all = audited(Audits::new(1), 1, learners);
        assert_eq!((all.labelled(), all.checks()), (learners.into(), learners.into()));
        assert_eq!(all.findings.len(), LEARNERS_MAX);
        let mut one = audited(all.clone(), 1000, 1);
        let mut other = audited(all.clone(), 2000, 1);
        one.merge_all(&other);
        other.merge_all(&one);
        let (before, after) = (totals(&one), totals(&other));
        assert_eq!((before.0, before.1), (u64::from(learners) + 2, u64::from(learners) + 2));
        assert_eq!((after.0, after.1), (before.0, before.1));
        for _ in 0..5 {
            one.merge_all(&all);
            one.merge_all(&other);
            other.merge_all(&one);
        }
        let after = totals(&one);
        assert_eq!((after.0, after.1), (before.0, before.1));
        assert!((after.2 - before.2).abs() < 0.01 * before.2, "{before:?} {after:?}");
        assert_eq!((totals(&other).0, totals(&other).1), (before.0, before.1));
        assert_eq!(one.findings.len(), LEARNERS_MAX);
        let mut bytes = Vec::new();
        one.encode(&mut bytes);
        assert_eq!(totals(&Audits::decode(&mut Reader::new(&bytes), 1).unwrap()).0, before.0);
    }

    const BUDGET: Budget = Budget { max_error_rate: 0.01, max_wrong_hits: 0.05 };

    fn observe(audits: &mut Audits, propensity: f32, same: bool) {
        let evidence = LabelErrors::ASSUMED.verifier.evidence(same);
        let label = Label::compared(4.0).verified(same);
        audits.observe(0.9, evidence, &Audited { propensity, verified: 1.0, label });
    }

    /// One odd hit early on, which stood for many, closed a namespace with "98.9 % wrong (14.9 to 100)".
    #[test]
    fn a_namespace_closes_for_many_wrong_hits_but_not_for_one_and_reopens() {
        let mut audits = Audits::new(1);
        (0..40).for_each(|_| observe(&mut audits, 1.0, true));
        observe(&mut audits, 0.0005, false);
        assert!(audits.estimate(&LabelErrors::ASSUMED).rate > 0.9);
        assert!(!audits.is_over_budget(&BUDGET, &LabelErrors::ASSUMED));
        let mut audits = Audits::new(1);
        (0..60).for_each(|n| observe(&mut audits, 0.2, n % 2 == 0));
        assert!(audits.is_over_budget(&BUDGET, &LabelErrors::ASSUMED));
        let reported = audits.estimate(&LabelErrors::ASSUMED);
        (0..2 * IDLE_HALF_LIFE as usize).for_each(|_| audits.idle());
        assert!(!audits.is_over_budget(&BUDGET, &LabelErrors::ASSUMED));
        assert_eq!(audits.estimate(&LabelErrors::ASSUMED), reported, "what was served stays wrong");
    }

    #[test]
    fn an_improved_label_reaches_other_learners_and_the_encoding() {
        let mut audits = audited(Audits::new(1), 1, 1);
        let mut other = audited(Audits::new(1), 2, 1);
        other.merge_all(&audits);
        let before = Audited { propensity: 1.0, verified: 0.0, label: Label::compared(4.0) };
        audits.improve(&before, &Audited { label: Label::reported(false), ..before });
        other.merge_all(&audits);
        let mut bytes = Vec::new();
        other.encode(&mut bytes);
        let read = Audits::decode(&mut Reader::new(&bytes), 1).unwrap();
        for audits in [&other, &read] {
            let labels = audits.estimate(&LabelErrors::ASSUMED).labels;
            assert_eq!((labels.comparison, labels.feedback), (1, 1));
        }
    }

    #[test]
    fn an_active_learner_is_not_retired() {
        let mut audits = audited(Audits::new(1), 1, 1);
        let mut active = audited(Audits::new(1), 5000, 1);
        for id in 10..10 + 2 * LEARNERS_MAX as u32 {
            active.count_labelled();
            audits.merge(active.own());
            audits.merge(audited(Audits::new(1), id, 1).own());
        }
        assert!(audits.findings.iter().any(|findings| findings.learner == 5000));
        assert_eq!(audits.labelled(), 2 + 4 * LEARNERS_MAX as u64);
    }
}

//! Which hits are checked, and what the checks say about all of them.

use std::collections::VecDeque;

use super::Budget;
use crate::table::Reader;

/// Checks that a young namespace makes of its first hits, spread as this many over the number of hits.
const EARLY: f32 = 100.0;
/// Most checks as a share of all requests, over the share of the hits that is checked: a young namespace
/// checks more of its hits, and it has few of them.
const COST_MAX: f32 = 2.0;
/// Checks after which an older one counts half.
const HALF_LIFE: f32 = 300.0;
/// Requests without hits after which findings count half.
const REST: f64 = 2000.0;
/// Pseudo-counts of errors as expected: how many surprises it takes to believe them.
const BELIEF: f32 = 3.0;

/// Processes whose findings are kept apart; of more, the one that was longest not heard of joins [`Gone`].
const PROCESSES_MAX: usize = 64;

/// Processes of which it is remembered that they have joined; the oldest are forgotten.
const GONE_MAX: usize = 1024;

/// Stands for them.
const GONE: u32 = u32::MAX;

/// Bookkeeping of checked hits.
#[derive(Clone, Debug)]
pub struct Audits {
    random: fastrand::Rng,
    /// By the process that made them, so that a later state of one takes the place of an earlier one. This process
    /// is the first; the others follow in the order in which they were last heard of.
    findings: Vec<Findings>,
    gone: Gone,
}

/// Processes that have not been heard of for long, which count together.
#[derive(Clone, Debug)]
struct Gone {
    findings: Findings,
    /// Which they are: what is still told of one counts no second time.
    origins: VecDeque<u32>,
}

/// What the checks of one process found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Findings {
    /// The process.
    pub(super) origin: u32,
    /// Its requests that gave labels.
    labelled: u64,
    hits: u64,
    checks: u64,
    /// Checks that came to an end.
    outcomes: u64,
    sums: Sums,
}

/// Faded sums over checked hits: they fade with each check, whoever makes it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sums {
    /// Weighted by one over their propensity.
    weight: f64,
    square: f64,
    differing: f64,
    /// Unweighted.
    count: f64,
    observed: f64,
    expected: f64,
}

/// Share of wrong answers among semantic hits, with a 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct WrongHits {
    pub rate: f32,
    pub low: f32,
    pub high: f32,
    /// Checked hits behind it, ever.
    #[serde(rename = "checked")]
    pub checks: u64,
}

// === impl Audits ===

impl Audits {
    pub fn new(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            findings: vec![Findings::of(0)],
            gone: Gone::default(),
        }
    }

    /// Little-endian; the random sequence is not kept.
    pub fn encode(&self, to: &mut Vec<u8>) {
        to.extend((self.findings.len() as u32).to_le_bytes());
        self.findings.iter().for_each(|findings| findings.encode(to));
        self.gone.findings.encode(to);
        to.extend((self.gone.origins.len() as u32).to_le_bytes());
        self.gone.origins.iter().for_each(|origin| to.extend(origin.to_le_bytes()));
    }

    /// Reads what [`Audits::encode`] wrote.
    pub fn decode(from: &mut Reader<'_>, seed: u64) -> Option<Self> {
        let processes = Some(from.u32()? as usize).filter(|n| (1..=PROCESSES_MAX).contains(n))?;
        let findings = (0..processes).map(|_| Findings::decode(from)).collect::<Option<Vec<_>>>()?;
        let gone = Findings::decode(from)?;
        let count = Some(from.u32()? as usize).filter(|n| *n <= GONE_MAX)?;
        let origins = (0..count).map(|_| from.u32()).collect::<Option<_>>()?;
        let hits = findings.iter().map(|findings| findings.hits).fold(gone.hits, u64::wrapping_add);
        let gone = Gone { findings: gone, origins };
        Some(Self { random: fastrand::Rng::with_seed(seed ^ hits), findings, gone })
    }

    /// What is found from now on is found by the process `origin`.
    pub(super) fn set_origin(&mut self, origin: u32) {
        if self.findings[0].origin != origin {
            // Who wrote it was heard of last. Who found nothing need not be known.
            self.findings.rotate_left(1);
            self.findings.retain(|findings| findings.origin != origin && !findings.is_empty());
            self.findings.insert(0, Findings::of(origin));
            self.make_room(PROCESSES_MAX);
        }
    }

    /// What this process found.
    pub(super) fn own(&self) -> Findings {
        self.findings[0]
    }

    /// Takes over what another process found, if it is news.
    pub(super) fn hear(&mut self, news: Findings) {
        if self.gone.has(news.origin) {
            return;
        }
        let at = self.findings.iter().position(|known| known.origin == news.origin);
        let before = at.map_or(0, |at| self.findings[at].outcomes);
        match at {
            Some(0) => return,
            Some(at) if news.age() < self.findings[at].age() => return,
            Some(at) if news.age() == self.findings[at].age() => {
                return self.findings[at].sums.fade_to(&news.sums);
            }
            Some(at) => drop(self.findings.remove(at)),
            None => self.make_room(PROCESSES_MAX - 1),
        }
        self.fade(keep_after(news.outcomes.saturating_sub(before)));
        self.findings.push(news);
    }

    /// The same for all that another state knows.
    pub(super) fn hear_all(&mut self, other: &Self) {
        self.hear_of_gone(&other.gone);
        // Who wrote it was heard of last.
        let (writer, others) = other.findings.split_at(1);
        others.iter().chain(writer).for_each(|findings| self.hear(*findings));
    }

    /// Of two views of them the one that counts more takes the place of the other, whole. What is in it was
    /// heard of before, for the most part, so nothing fades for it.
    fn hear_of_gone(&mut self, other: &Gone) {
        let is_more = other.findings.age() > self.gone.findings.age();
        if is_more && !other.has(self.findings[0].origin) {
            self.gone.clone_from(other);
            self.findings.retain(|findings| !other.has(findings.origin));
        }
    }

    /// So that at most `most` are known apart.
    fn make_room(&mut self, most: usize) {
        while self.findings.len() > most {
            let oldest = self.findings.remove(1);
            self.gone.add(&oldest);
        }
    }

    /// While nothing is served nothing is checked either: old findings fade, so that the namespace may be
    /// tried again.
    pub fn rest(&mut self) {
        let keep = 0.5_f64.powf(1.0 / REST);
        self.fade(keep);
    }

    fn fade(&mut self, keep: f64) {
        self.findings.iter_mut().for_each(|findings| findings.sums.fade(keep));
        self.gone.findings.sums.fade(keep);
    }

    /// Counts a hit and says with which probability it was chosen to be checked, if it was. `rate`: least
    /// share of the hits that is checked; 0 checks none of them, 1 all.
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

    /// The outcome of a check.
    pub fn observe(&mut self, probability: f32, same: f32, propensity: f32) {
        let weight = 1.0 / f64::from(propensity);
        self.fade(keep_after(1));
        let own = &mut self.findings[0];
        own.outcomes += 1;
        own.sums.add(&Sums {
            weight,
            square: weight * weight,
            differing: weight * f64::from(1.0 - same),
            count: 1.0,
            observed: f64::from(1.0 - same),
            expected: f64::from(1.0 - probability),
        });
    }

    /// Observed over expected errors; `missed` of the labels say "different" by mistake.
    pub fn surplus(&self, missed: f32) -> f32 {
        let Sums { count, observed, expected, .. } = self.sums();
        let wrong = (observed as f32 - missed * count as f32).max(0.0);
        (wrong + BELIEF) / (expected as f32 + BELIEF)
    }

    /// Whether even the lower end of the estimate is far beyond the budget: nothing but exact hits then.
    /// `missed` of the labels say "different" by mistake, or a few of those would close a namespace.
    pub fn is_blown(&self, budget: &Budget, missed: f32) -> bool {
        self.sums().count > 20.0 && self.estimate(missed).low > 2.0 * budget.max_wrong_hits
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

    /// Hits that were chosen to be checked, ever.
    pub fn checks(&self) -> u64 {
        self.all().map(|findings| findings.checks).sum()
    }

    fn all(&self) -> impl Iterator<Item = &Findings> {
        self.findings.iter().chain([&self.gone.findings])
    }

    fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        self.all().for_each(|findings| sums.add(&findings.sums));
        sums
    }

    /// Adds the findings of another namespace, to report both as one.
    pub fn add(&mut self, other: &Self) {
        let own = &mut self.findings[0];
        own.hits += other.hits();
        own.checks += other.checks();
        own.sums.add(&other.sums());
    }

    /// Inverse-propensity estimate with Wilson's interval over the effective number of checks.
    pub fn estimate(&self, missed: f32) -> WrongHits {
        let Sums { weight, square, differing, .. } = self.sums();
        let checks = self.checks();
        if weight == 0.0 {
            return WrongHits { checks, ..WrongHits::UNKNOWN };
        }
        let n = weight * weight / square;
        let (low, high) = wilson(differing / weight, n);
        let corrected = |rate: f64| ((rate as f32 - missed) / (1.0 - missed)).clamp(0.0, 1.0);
        WrongHits { rate: corrected(differing / weight), low: corrected(low), high: corrected(high), checks }
    }
}

// === impl Gone ===

impl Default for Gone {
    fn default() -> Self {
        Self { findings: Findings::of(GONE), origins: VecDeque::new() }
    }
}

impl Gone {
    fn has(&self, origin: u32) -> bool {
        self.origins.contains(&origin)
    }

    fn add(&mut self, findings: &Findings) {
        self.findings.add(findings);
        if self.origins.len() == GONE_MAX {
            self.origins.pop_front();
        }
        self.origins.push_back(findings.origin);
    }
}

/// What is left of a sum after so many checks.
fn keep_after(checks: u64) -> f64 {
    0.5_f64.powf(checks as f64 / f64::from(HALF_LIFE))
}

// === impl Findings ===

impl Findings {
    fn of(origin: u32) -> Self {
        Self { origin, labelled: 0, hits: 0, checks: 0, outcomes: 0, sums: Sums::default() }
    }

    fn is_empty(&self) -> bool {
        self.age() == [0; 4]
    }

    fn add(&mut self, other: &Self) {
        self.labelled += other.labelled;
        self.hits += other.hits;
        self.checks += other.checks;
        self.outcomes += other.outcomes;
        self.sums.add(&other.sums);
    }

    /// Ascends with every change of its process.
    fn age(&self) -> [u64; 4] {
        [self.labelled, self.hits, self.checks, self.outcomes]
    }

    pub(super) fn encode(&self, to: &mut Vec<u8>) {
        to.extend(self.origin.to_le_bytes());
        self.age().iter().for_each(|count| to.extend(count.to_le_bytes()));
        let Sums { weight, square, differing, count, observed, expected } = self.sums;
        let sums = [weight, square, differing, count, observed, expected];
        sums.iter().for_each(|sum| to.extend((*sum as f32).to_le_bytes()));
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Option<Self> {
        let origin = from.u32()?;
        let (labelled, hits) = (from.u64()?, from.u64()?);
        let (checks, outcomes) = (from.u64()?, from.u64()?);
        let sums = from.floats(6)?;
        let sum = |i: usize| f64::from(sums[i]);
        // Sums of them must not overflow.
        let plausible = [labelled, hits, outcomes].iter().all(|count| *count < u64::MAX >> 8);
        let valid = plausible && checks <= hits && sums.iter().all(|sum| *sum >= 0.0);
        valid.then(|| Self {
            origin,
            labelled,
            hits,
            checks,
            outcomes,
            sums: Sums {
                weight: sum(0),
                square: sum(1),
                differing: sum(2),
                count: sum(3),
                observed: sum(4),
                expected: sum(5),
            },
        })
    }
}

// === impl Sums ===

impl Sums {
    fn all(&mut self) -> [&mut f64; 6] {
        let Self { weight, square, differing, count, observed, expected } = self;
        [weight, square, differing, count, observed, expected]
    }

    fn fade(&mut self, keep: f64) {
        self.all().into_iter().for_each(|sum| *sum *= keep);
    }

    fn add(&mut self, other: &Self) {
        let mut other = *other;
        self.all().into_iter().zip(other.all()).for_each(|(sum, other)| *sum += *other);
    }

    /// Of two views of the same checks, the one that knows of more since.
    fn fade_to(&mut self, other: &Self) {
        if other.count < self.count {
            *self = *other;
        }
    }
}

// === impl WrongHits ===

impl WrongHits {
    /// Before anything is checked.
    pub const UNKNOWN: Self = Self { rate: 0.0, low: 0.0, high: 1.0, checks: 0 };
}

/// 95 % interval of a share seen in `n` trials.
fn wilson(rate: f64, n: f64) -> (f64, f64) {
    const Z: f64 = 1.96;
    let scale = 1.0 + Z * Z / n;
    let centre = rate + Z * Z / (2.0 * n);
    let half = Z * (rate * (1.0 - rate) / n + Z * Z / (4.0 * n * n)).sqrt();
    ((centre - half) / scale, (centre + half) / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was checked by so many processes, one after the other, the first of them `first`.
    fn checked(mut audits: Audits, first: u32, processes: u32) -> Audits {
        for origin in first..first + processes {
            audits.set_origin(origin);
            audits.count_labelled();
            audits.draw(1000, 1.0);
            audits.observe(0.9, 1.0, 1.0);
        }
        audits
    }

    fn known(audits: &Audits) -> (u64, u64, f64) {
        (audits.labelled(), audits.checks(), audits.sums().count)
    }

    /// Past the number of processes that are kept apart, each note that was joined counted those that had ended
    /// once more, and what live ones had found faded for it.
    #[test]
    fn processes_that_ended_count_once_however_often_they_are_told_of() {
        let processes = 3 * PROCESSES_MAX as u32;
        let all = checked(Audits::new(1), 1, processes);
        assert_eq!((all.labelled(), all.checks()), (processes.into(), processes.into()));
        assert_eq!(all.findings.len(), PROCESSES_MAX);
        let mut one = checked(all.clone(), 1000, 1);
        let mut other = checked(all.clone(), 2000, 1);
        one.hear_all(&other);
        other.hear_all(&one);
        let (before, after) = (known(&one), known(&other));
        assert_eq!((before.0, before.1), (u64::from(processes) + 2, u64::from(processes) + 2));
        assert_eq!((after.0, after.1), (before.0, before.1));
        for _ in 0..5 {
            one.hear_all(&all);
            one.hear_all(&other);
            other.hear_all(&one);
        }
        let after = known(&one);
        assert_eq!((after.0, after.1), (before.0, before.1));
        assert!((after.2 - before.2).abs() < 0.01 * before.2, "{before:?} {after:?}");
        assert_eq!((known(&other).0, known(&other).1), (before.0, before.1));
        assert_eq!(one.findings.len(), PROCESSES_MAX);
        let mut bytes = Vec::new();
        one.encode(&mut bytes);
        assert_eq!(known(&Audits::decode(&mut Reader::new(&bytes), 1).unwrap()).0, before.0);
    }

    #[test]
    fn who_is_heard_of_is_kept_apart() {
        let mut audits = checked(Audits::new(1), 1, 1);
        let mut live = checked(Audits::new(1), 5000, 1);
        for origin in 10..10 + 2 * PROCESSES_MAX as u32 {
            live.count_labelled();
            audits.hear(live.own());
            audits.hear(checked(Audits::new(1), origin, 1).own());
        }
        assert!(audits.findings.iter().any(|findings| findings.origin == 5000));
        assert_eq!(audits.labelled(), 2 + 4 * PROCESSES_MAX as u64);
    }
}

//! A namespace: its learner, and the pairs of prompt and entry that feedback has rejected.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use promptkeep_core::codec::{Malformed, Reader};

use super::{
    ScoredCandidates,
    message::Unpublished,
    rejected_pairs::{REJECTED_MAX, RejectedPair, RejectedPairs, read_pairs},
    snapshot_timer::SnapshotTimer,
};
use crate::{
    decide::{
        Check,
        features::{self, Features, Neighbourhood},
        learner::{
            Audits, Budget, Delta, Fit, Fitted, Label, Learner, MeasuredErrors, Origin, Price, Reckoning,
            SourceErrors, Standing, Verdict, WrongHits,
        },
        surface,
        table::Table,
        text::Analysis,
    },
    entry::Candidate,
    key::{CacheKey, Owner, Scope},
    outcome::MissReason,
    store::SnapshotVersion,
};

/// First bytes of a snapshot.
const MAGIC: &[u8; 8] = b"pknote\0\x02";

/// Identifies a namespace. Each learns for itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamespaceId {
    pub owner: Owner,
    pub name: String,
}

/// The learner of one namespace, its rejected pairs, and the state of its snapshot.
pub struct Namespace {
    id: NamespaceId,
    table: Arc<Table>,
    /// Std mutexes: held for a few computations, never across an await.
    learner: Mutex<Learner>,
    pub(super) rejected: RejectedPairs,
    pub(super) saving: SnapshotTimer,
    /// Version of the last snapshot read or written. Locked while one is written, see `Learning::save`.
    pub(super) version: tokio::sync::Mutex<Option<SnapshotVersion>>,
    is_over_budget: AtomicBool,
    is_fitting: AtomicBool,
}

/// A namespace's assessment of the candidates of a prompt, for `Explain`.
#[derive(Clone, Debug)]
pub struct Assessment {
    /// In the order of the candidates.
    pub candidates: Vec<CandidateAssessment>,
    /// Lowest probability that may be served; above 1 if nothing may.
    pub threshold: f32,
    pub threshold_reason: String,
    /// Reason for a candidate that is not accepted.
    pub refusal: MissReason,
    /// What is expected of serving and of asking, where a verifier may be asked.
    pub reckoning: Option<Reckoning>,
}

/// The assessment of one candidate.
#[derive(Clone, Debug)]
pub struct CandidateAssessment {
    /// Probability that the answer is right.
    pub probability: f32,
    /// Standard deviation of the probability's logit.
    pub deviation: f32,
    /// Whether the candidate would be served.
    pub accepted: bool,
}

// === impl CandidateAssessment ===

impl CandidateAssessment {
    /// The probability, then every feature that is not zero, as `Explain` lists them.
    pub fn checks(&self, features: &Features) -> Vec<Check> {
        let detail = format!("{:.3}, logit ± {:.2}", self.probability, self.deviation);
        let mut checks = vec![Check { name: "probability", passed: self.accepted, detail }];
        let named = features::NAMES.iter().zip(features).filter(|(_, value)| **value != 0.0);
        checks.extend(named.map(|(name, value)| Check { name, passed: true, detail: format!("{value:.3}") }));
        checks
    }
}

// === impl NamespaceId ===

impl NamespaceId {
    /// Name of the snapshot. No two namespaces share one.
    pub fn snapshot_name(&self) -> String {
        let name = &self.name;
        match &self.owner {
            Owner::Tenant(tenant) => format!("learned/tenant/{}:{tenant}/{name}", tenant.len()),
            Owner::Shared => format!("learned/shared/{name}"),
        }
    }

    /// Seed of random decisions. It differs between namespaces and is the same in a replay.
    pub fn seed(&self) -> u64 {
        let hash = blake3::hash(self.snapshot_name().as_bytes());
        hash.as_bytes()[..8].iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte))
    }
}

// === impl Namespace ===

impl Namespace {
    pub(super) fn new(id: NamespaceId, learner: Learner) -> Self {
        Self {
            id,
            table: Arc::clone(learner.table()),
            learner: learner.into(),
            rejected: RejectedPairs::default(),
            saving: SnapshotTimer::default(),
            version: tokio::sync::Mutex::default(),
            is_over_budget: AtomicBool::new(false),
            is_fitting: AtomicBool::new(false),
        }
    }

    pub fn id(&self) -> &NamespaceId {
        &self.id
    }

    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// Scores the candidates of a prompt, except rejected ones. Counts nothing.
    pub fn score(
        self: &Arc<Self>,
        prompt: CacheKey,
        scope: Scope,
        text: &str,
        mut candidates: Vec<Candidate>,
    ) -> ScoredCandidates {
        candidates.retain(|candidate| !self.rejected.contains(prompt, candidate.entry.key));
        let features = self.features(text, &candidates);
        let difference =
            |candidate: &Candidate| surface::difference(text, candidate.text(), &self.table.rarity);
        let differences: Vec<_> = candidates.iter().map(difference).collect();
        let scored = {
            let learner = self.learner();
            let both = features.iter().zip(differences);
            both.map(|(features, difference)| learner.score(features, difference, scope.tag())).collect()
        };
        let verdicts = vec![None; candidates.len()];
        ScoredCandidates {
            namespace: Arc::clone(self),
            candidates,
            features,
            scored,
            verdicts,
            verifier: None,
            pending: Vec::new(),
            audit: None,
        }
    }

    fn features(&self, text: &str, candidates: &[Candidate]) -> Vec<Features> {
        if candidates.is_empty() {
            return Vec::new();
        }
        let new = Analysis::of(text);
        let similarities: Vec<_> = candidates.iter().map(|candidate| ((), candidate.similarity)).collect();
        let features = |(index, candidate): (usize, &Candidate)| {
            let entry = Analysis::of(candidate.text());
            let around = Neighbourhood::of(&similarities, index);
            features::of(&new, &entry, candidate.similarity, around, &self.table.rarity)
        };
        candidates.iter().enumerate().map(features).collect()
    }

    /// Counts the request and decides it. `price` is that of asking a verifier, where one may be asked.
    pub fn decide(
        &self,
        near: &ScoredCandidates,
        budget: &Budget,
        audit_rate: f32,
        price: Option<Price>,
    ) -> Verdict {
        let verdict = self.learner().decide(&near.scored, budget, audit_rate, price);
        self.note_closure(near, &verdict);
        verdict
    }

    /// Decides a request that a verifier was to be asked about and gave no verdict on.
    pub fn decide_unverified(&self, near: &ScoredCandidates, budget: &Budget, audit_rate: f32) -> Verdict {
        self.learner().decide_unverified(&near.scored, budget, audit_rate)
    }

    /// Decides a request by what a verifier said of its candidates.
    pub fn decide_verified(&self, near: &ScoredCandidates, budget: &Budget, audit_rate: f32) -> Verdict {
        let verdicts: Vec<_> =
            near.verdicts.iter().enumerate().filter_map(|(n, fits)| Some((n, (*fits)?))).collect();
        self.learner().decide_verified(&near.scored, &verdicts, budget, audit_rate)
    }

    /// Learns what a verifier said of the candidates `asked`.
    pub(super) fn observe_verdicts(&self, near: &ScoredCandidates, verdicts: &[(usize, bool)]) {
        let best = near.best();
        let mut learner = self.learner();
        for (index, fits) in verdicts {
            let origin = Origin::Miss { best: best == Some(*index) };
            learner.observe(&near.scored[*index], Label::verdict(*fits), origin);
        }
        self.saving.set_unsaved();
    }

    /// Whether the candidate at `index` differs from the prompt on the surface only, and is served for that.
    pub fn is_variant(&self, near: &ScoredCandidates, index: usize) -> bool {
        self.learner().is_certain(&near.scored[index])
    }

    /// Measured error rates of the verifier.
    pub fn verifier_errors(&self) -> SourceErrors {
        *self.learner().verifier()
    }

    /// [`Self::verifier_errors`], with the number of verdicts behind them.
    pub(super) fn measured_errors(&self) -> MeasuredErrors {
        let learner = self.learner();
        MeasuredErrors { errors: *learner.verifier(), verdicts: learner.verdicts() }
    }

    fn note_closure(&self, near: &ScoredCandidates, verdict: &Verdict) {
        let is_over = *verdict == Verdict::OverBudget;
        if !near.scored.is_empty() && self.is_over_budget.swap(is_over, Ordering::Relaxed) != is_over {
            self.log_over_budget(is_over);
        }
    }

    fn log_over_budget(&self, is_over: bool) {
        let namespace = self.id.name.as_str();
        if is_over {
            let WrongHits { rate, low, checks, .. } = self.learner().wrong_hits();
            tracing::error!(
                namespace,
                rate,
                low,
                checks,
                "too many hits were wrong: only exact hits are served for now"
            );
        } else {
            tracing::info!(namespace, "semantic hits are tried again");
        }
    }

    /// What `decide` would say, and why.
    pub fn assess(&self, near: &ScoredCandidates, budget: &Budget, price: Option<Price>) -> Assessment {
        let learner = self.learner();
        let view = |scored| {
            let (probability, deviation) = learner.estimate(scored);
            CandidateAssessment { probability, deviation, accepted: learner.would_serve(scored, budget) }
        };
        let (threshold, threshold_reason, standing) = learner.explain_threshold(budget);
        let refusal = match standing {
            Standing::OverBudget => MissReason::OverBudget,
            Standing::WarmUp => MissReason::Learning,
            Standing::Trusted => MissReason::BelowThreshold,
        };
        Assessment {
            candidates: near.scored.iter().map(view).collect(),
            threshold,
            threshold_reason,
            refusal,
            reckoning: price.and_then(|price| learner.reckon(&near.scored, budget, price)),
        }
    }

    /// Whether the candidate at `index` would be served.
    pub fn would_serve(&self, near: &ScoredCandidates, index: usize, budget: &Budget) -> bool {
        self.learner().would_serve(&near.scored[index], budget)
    }

    /// Starts a fit if it `is_due` and none is running: under load the next would be due before it is done, and outdate
    /// it.
    pub(super) fn start_fit(&self, is_due: fn(&Learner) -> bool) -> Option<Fit> {
        let mut learner = self.learner();
        let start = is_due(&learner) && !self.is_fitting.swap(true, Ordering::Relaxed);
        start.then(|| learner.start_fit())
    }

    /// Ends a fit, which may have failed.
    pub(super) fn end_fit(&self, fitted: Option<Fitted>) {
        let mut learner = self.learner();
        fitted.into_iter().for_each(|fitted| learner.install(fitted));
        self.is_fitting.store(false, Ordering::Relaxed);
    }

    /// Whether the last decision was that too many hits had been wrong.
    pub fn is_over_budget(&self) -> bool {
        self.is_over_budget.load(Ordering::Relaxed)
    }

    pub(super) fn audits(&self) -> Audits {
        self.learner().audits().clone()
    }

    pub(super) fn learner(&self) -> MutexGuard<'_, Learner> {
        lock(&self.learner)
    }

    /// Never serves the entry to the prompt again. Returns whether the pair is new.
    pub(super) fn reject(&self, prompt: CacheKey, entry: CacheKey) -> bool {
        let is_new = self.rejected.reject((prompt, entry));
        if is_new {
            self.saving.save_at_once();
        }
        is_new
    }

    /// Takes what is to be published, and the number of labels that were dropped unpublished.
    pub(super) fn take_unpublished(&self) -> (Option<Unpublished>, usize) {
        let rejected = self.rejected.take_unpublished();
        let mut learner = self.learner();
        let (delta, dropped) = (learner.take_delta(), learner.take_dropped());
        let is_any = !rejected.is_empty() || delta.is_some();
        (is_any.then_some(Unpublished { rejected, delta }), dropped)
    }

    /// Puts back what could not be published.
    pub(super) fn restore_unpublished(&self, Unpublished { rejected, delta }: Unpublished) {
        self.rejected.restore_unpublished(rejected);
        delta.into_iter().for_each(|delta| self.learner().restore_delta(delta));
    }

    /// Merges what another process learned; returns the number of new labels. A rejected pair is saved here only if it
    /// comes from another region; otherwise its sender saves it.
    pub(super) fn merge(
        &self,
        rejected: &[RejectedPair],
        delta: Option<&Delta>,
        from_other_region: bool,
    ) -> usize {
        for pair in rejected {
            if self.rejected.add(*pair) && from_other_region {
                self.saving.save_at_once();
            }
        }
        delta.map_or(0, |delta| self.learner().merge_delta(delta))
    }

    /// Merges a snapshot that another process wrote of this namespace. Takes milliseconds.
    pub(super) fn merge_snapshot(&self, snapshot: &[u8]) {
        let decode = |learner: &[u8]| Learner::decode_unfitted(learner, Arc::clone(&self.table), 0);
        let Ok((rejected, learner)) = parse(snapshot, decode) else { return };
        rejected.into_iter().for_each(|pair| {
            self.rejected.add(pair);
        });
        self.learner().merge(&learner);
    }

    /// Encodes a snapshot.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut snapshot = MAGIC.to_vec();
        self.rejected.encode(&mut snapshot);
        snapshot.extend(self.learner().encode());
        snapshot
    }

    /// Reads a snapshot. One of another version is ignored, and `fresh` learns anew.
    pub(super) fn decode(id: NamespaceId, snapshot: &[u8], fresh: Learner) -> Self {
        let table = Arc::clone(fresh.table());
        let decode = |learner: &[u8]| Learner::decode(learner, table, id.seed());
        match parse(snapshot, decode) {
            Ok((rejected, learner)) => {
                Self { rejected: RejectedPairs::from(rejected), ..Self::new(id, learner) }
            }
            Err(error) => {
                tracing::warn!(%error, "a snapshot is of another version; its namespace learns anew");
                Self::new(id, fresh)
            }
        }
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Namespace").field("id", &self.id).finish_non_exhaustive()
    }
}

type Parsed = (VecDeque<RejectedPair>, Learner);

fn parse(
    snapshot: &[u8],
    decode: impl FnOnce(&[u8]) -> Result<Learner, Malformed>,
) -> Result<Parsed, Malformed> {
    let mut from = Reader::new(snapshot);
    from.expect(MAGIC, "magic")?;
    let rejected = read_pairs(&mut from, REJECTED_MAX)?;
    Ok((rejected, decode(from.rest())?))
}

/// A panic under the lock leaves sums that are at most one label short.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

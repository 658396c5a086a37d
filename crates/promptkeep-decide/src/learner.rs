//! The learned decision of one namespace: the probability that an entry's answer is right, learned online from the
//! answers of models, and the threshold that keeps the error budgets.
//!
//! A request computes [`features::of`](super::features::of) of each candidate, then calls [`Learner::score`] and
//! [`Learner::decide`]. When a model answers the request, [`answer`](super::answer) compares that answer with the
//! candidates', [`Learner::observe`] takes the labels, and a [`Fit`] runs when [`Learner::is_due`].
//!
//! Scoring and deciding are cheap and happen on the request path. A fit takes tens of milliseconds: [`Learner::start_fit`]
//! copies its input, [`Fit::run`] belongs on another thread, and [`Learner::install`] takes the result. Nothing here
//! waits, reads a clock or holds a lock, and everything random comes from a seed, so a replay repeats itself.

mod asking;
mod audit;
mod budget;
mod delta;
mod label;
mod model;
mod scopes;
mod state;
mod verifier;
mod wrong_rate;

use std::{collections::VecDeque, sync::Arc};

use super::{
    features::{ENGLISH, Features},
    surface::Difference,
    table::{Bins, Table},
};
use asking::Choice;
pub use asking::{ASKED_MAX, Price, Reckoning};
pub use audit::Audits;
use budget::Estimate;
pub use budget::{Budget, Surplus, Threshold};
pub use delta::{Delta, LearnerId};
use delta::{LabelId, Replication};
pub use label::{Label, LabelSource, Origin};
pub use model::Model;
pub use scopes::ScopeTag;
pub use verifier::MeasuredErrors;
pub use wrong_rate::{Audited, ErrorRate, LabelCounts, LabelErrors, SourceErrors, WrongHits};

/// Logit below which the label "different" is obvious and teaches little.
const OBVIOUS_LOGIT: f32 = -3.0;
/// One in so many obvious labels is stored, and counts for all of them.
const OBVIOUS_STORED: u64 = 4;
/// Maximum number of labels; the oldest are dropped.
const EXAMPLES_MAX: usize = 8000;
/// Requests whose best candidate determines the threshold.
const RECENT_MAX: usize = 2000;
/// Probability that is served before the first fit has set a threshold.
const START_PROBABILITY: f32 = 0.97;
/// Least probability of a surface variant.
const SURFACE_PROBABILITY: f32 = 0.995;
/// Surface variants found wrong, by feedback or a verifier, after which they are decided on like other candidates.
const WRONG_VARIANTS_MAX: usize = 3;
/// Labelled requests at which expected errors count twice. They count more before and less after.
const WARM_UP: f32 = 5.0;
/// Labelled requests before the first fit.
const FIT_AFTER: u64 = 50;
/// Requests between two fits.
const FIT_EVERY: u64 = 100;
/// Requests after which a label counts half.
const HALF_LIFE: f32 = 12_000.0;

/// Decides and learns for a namespace.
#[derive(Debug)]
pub struct Learner {
    table: Arc<Table>,
    model: Model,
    /// Measured error rates of the verifier.
    verifier: SourceErrors,
    /// Verdicts that these rates are estimated from.
    verdicts: u64,
    examples: VecDeque<Example>,
    recent: VecDeque<Option<Recent>>,
    threshold: Threshold,
    audits: Audits,
    /// Requests seen by all replicas.
    requests: u64,
    fitted_at: u64,
    /// Requests of this replica since the last fit.
    since_fit: u64,
    /// Obvious labels so far.
    obvious: u64,
    /// Surface variants that feedback or a verifier found wrong.
    wrong_variants: usize,
    replication: Replication,
}

/// A candidate as the model sees it.
#[derive(Clone, Debug)]
pub struct Scored {
    pub bins: Bins,
    /// Logit of the pooled forest.
    forest: f32,
    scope: ScopeTag,
    /// Logit of the answer being right, before calibration and uncertainty.
    pub logit: f32,
    /// How the texts differ beyond what the features see.
    pub difference: Difference,
    /// Both texts are in the language that most features know.
    pub english: bool,
}

/// The decision on a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Serve {
        /// Index among the scored candidates.
        candidate: usize,
        probability: f32,
        /// Set if the hit is to be audited: a model answers too, and [`Learner::observe`] takes the comparison. Holds
        /// the probability with which the hit was chosen.
        audit: Option<f32>,
    },
    /// A verifier is to be asked, then [`Learner::decide_verified`].
    Verify {
        /// Indices among the scored candidates, most probable first; at most [`ASKED_MAX`].
        asked: Vec<usize>,
        probability: f32,
    },
    /// The best candidate is below the threshold.
    Below { probability: f32 },
    /// Audits found far too many wrong hits, so only exact hits are served for now. Worth an alarm.
    OverBudget,
    /// The namespace is in its warm-up, which serves only what is nearly certain.
    Learning { probability: f32 },
    /// There is no candidate.
    Nothing,
}

/// Whether a candidate may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Permit {
    Granted,
    /// Its probability is below the threshold.
    Below,
    /// Too many hits were wrong.
    OverBudget,
}

/// What a namespace may serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Surface variants, and what is nearly certain.
    WarmUp,
    /// Candidates above the threshold.
    Trusted,
    /// Exact hits and surface variants only.
    OverBudget,
}

/// A stored label.
#[derive(Clone, Copy, Debug)]
struct Example {
    id: LabelId,
    bins: Bins,
    forest: f32,
    scope: ScopeTag,
    english: bool,
    /// Log-likelihood ratio of what was observed, without the verdict.
    evidence: f32,
    /// Whether a verifier said that the answer fits.
    verdict: Option<bool>,
    /// It is from a comparison of answers.
    compared: bool,
    /// It is from the audit of a hit that a verifier approved, and says only how often the verifier errs.
    review: bool,
    /// The texts differ on the surface only.
    surface: bool,
    weight: f32,
    /// Number of the request.
    at: u64,
    /// Set for best candidates: the logit before the label was known, and one over the probability of learning it.
    predicted: Option<(f32, f32)>,
}

/// The best candidate of a recent request.
#[derive(Clone, Copy, Debug)]
struct Recent {
    bins: Bins,
    forest: f32,
    scope: ScopeTag,
    english: bool,
    /// Price of asking a verifier, where one could be asked.
    price: Option<f32>,
}

/// A fit's input, copied out of the learner.
#[derive(Debug)]
pub struct Fit {
    table: Arc<Table>,
    model: Model,
    verifier: SourceErrors,
    examples: Vec<Example>,
    recent: Vec<Option<Recent>>,
    audits: Audits,
    requests: u64,
    labelled: u64,
}

/// A finished fit.
#[derive(Debug)]
pub struct Fitted {
    model: Model,
    verifier: SourceErrors,
    verdicts: u64,
    threshold: Threshold,
    requests: u64,
}

// === impl Learner ===

impl Learner {
    /// A learner without labels.
    pub fn new(table: Arc<Table>, seed: u64) -> Self {
        Self {
            model: Model::of_prior(&table),
            table,
            verifier: SourceErrors::of_new_verifier(),
            verdicts: 0,
            examples: VecDeque::new(),
            recent: VecDeque::new(),
            threshold: Threshold::default(),
            audits: Audits::new(seed),
            requests: 0,
            fitted_at: 0,
            since_fit: 0,
            obvious: 0,
            wrong_variants: 0,
            replication: Replication::default(),
        }
    }

    /// Scores a candidate in its scope.
    pub fn score(&self, features: &Features, difference: Difference, scope: ScopeTag) -> Scored {
        let bins = self.table.bin(features);
        let forest = self.table.forest.logit(&bins);
        let inputs = self.table.inputs_with(&bins, forest);
        let english = features[ENGLISH] > 0.5;
        let logit = self.model.logit(&inputs, &bins, scope);
        Scored { bins, forest, scope, logit, difference, english }
    }

    /// Probability that the candidate's answer is right, uncertainty included, and the standard deviation of its
    /// logit. Costs more than the score, so a request computes it for the best candidate only.
    pub fn estimate(&self, scored: &Scored) -> (f32, f32) {
        let deviation = self.model.deviation(&self.table.inputs_with(&scored.bins, scored.forest));
        let probability =
            self.model.probability(self.model.penalised(scored.logit, scored.english), deviation);
        (if self.is_certain(scored) { probability.max(SURFACE_PROBABILITY) } else { probability }, deviation)
    }

    /// Counts the request and decides it. `budget` is the namespace's or a caller's stricter one; `audit_rate` is the
    /// lowest share of hits to audit; `price` is that of asking a verifier, where one may be asked.
    pub fn decide(
        &mut self,
        candidates: &[Scored],
        budget: &Budget,
        audit_rate: f32,
        price: Option<Price>,
    ) -> Verdict {
        self.requests += 1;
        self.since_fit += 1;
        self.replication.count_request();
        let best = Scored::best(candidates);
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(best.map(|b| Recent::of(&candidates[b], price)));
        let Some(candidate) = best else { return Verdict::Nothing };
        let (probability, _) = self.estimate(&candidates[candidate]);
        let permit = self.permits(&candidates[candidate], probability, budget);
        if let Choice::Ask(asked) = self.choose(candidates, permit, budget, price) {
            return Verdict::Verify { asked, probability };
        }
        self.verdict(candidate, probability, permit, audit_rate)
    }

    /// Decides a request that a verifier was to be asked about, without its verdicts.
    pub fn decide_unverified(&mut self, candidates: &[Scored], budget: &Budget, audit_rate: f32) -> Verdict {
        let Some(candidate) = Scored::best(candidates) else { return Verdict::Nothing };
        let (probability, _) = self.estimate(&candidates[candidate]);
        let permit = self.permits(&candidates[candidate], probability, budget);
        self.verdict(candidate, probability, permit, audit_rate)
    }

    /// Decides a request that a verifier was asked about; `verdicts` are those on the candidates with these indices. The
    /// verdicts must have been learned from, see [`Learner::observe`].
    pub fn decide_verified(
        &mut self,
        candidates: &[Scored],
        verdicts: &[(usize, bool)],
        budget: &Budget,
        audit_rate: f32,
    ) -> Verdict {
        let after = |(index, fits): &(usize, bool)| {
            let (probability, _) = self.estimate(&candidates[*index]);
            (*index, asking::after_verdict(probability, *fits, &self.verifier))
        };
        let best = verdicts.iter().map(after).max_by(|a, b| a.1.total_cmp(&b.1));
        let Some((candidate, probability)) = best else { return Verdict::Nothing };
        let permit = self.permits(&candidates[candidate], probability, budget);
        self.verdict(candidate, probability, permit, audit_rate)
    }

    fn verdict(&mut self, candidate: usize, probability: f32, permit: Permit, audit_rate: f32) -> Verdict {
        match permit {
            Permit::Granted => {
                let audit = self.audits.draw(self.requests, audit_rate);
                Verdict::Serve { candidate, probability, audit }
            }
            Permit::OverBudget => {
                self.audits.idle();
                Verdict::OverBudget
            }
            Permit::Below if self.threshold.is_unknown() => Verdict::Learning { probability },
            Permit::Below => Verdict::Below { probability },
        }
    }

    /// Chooses between serving the best candidate, which `permit` is about, and asking a verifier. Surface variants are
    /// not asked about, nor what a verdict could not change.
    fn choose(&self, candidates: &[Scored], permit: Permit, budget: &Budget, price: Option<Price>) -> Choice {
        if price.is_none() || !self.may_ask(candidates, permit, budget) {
            return Choice::Miss;
        }
        asking::choose(&self.rank(candidates), self.threshold_at(budget), &self.verifier, price)
    }

    /// Whether a verdict could change the decision, and the best candidate is no surface variant.
    fn may_ask(&self, candidates: &[Scored], permit: Permit, budget: &Budget) -> bool {
        permit != Permit::OverBudget
            && budget.max_error_rate > 0.0
            && self.threshold_at(budget) <= 1.0
            && !Scored::best(candidates).is_some_and(|best| self.is_certain(&candidates[best]))
    }

    /// Candidates that a verifier may be asked about, most probable first.
    fn rank(&self, candidates: &[Scored]) -> Vec<(usize, f32)> {
        let may_ask = |(_, scored): &(usize, &Scored)| scored.difference != Difference::Marks;
        let probability = |(index, scored)| (index, self.estimate(scored).0);
        let mut ranked: Vec<_> = candidates.iter().enumerate().filter(may_ask).map(probability).collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        ranked
    }

    /// What is expected of serving the best candidate and of asking a verifier, for `Explain`. `None` where none is asked
    /// whatever it costs.
    pub fn reckon(&self, candidates: &[Scored], budget: &Budget, price: Price) -> Option<Reckoning> {
        let best = &candidates[Scored::best(candidates)?];
        let permit = self.permits(best, self.estimate(best).0, budget);
        self.may_ask(candidates, permit, budget)
            .then(|| Reckoning::of(&self.rank(candidates), self.threshold_at(budget), &self.verifier, price))
    }

    fn threshold_at(&self, budget: &Budget) -> f32 {
        if self.threshold.is_unknown() { START_PROBABILITY } else { self.threshold.at(budget) }
    }

    /// Whether the candidate would be served.
    pub fn would_serve(&self, scored: &Scored, budget: &Budget) -> bool {
        let (probability, _) = self.estimate(scored);
        self.permits(scored, probability, budget) == Permit::Granted
    }

    /// The lowest probability that may be served, above 1 if nothing may, and the reason for it.
    pub fn explain_threshold(&self, budget: &Budget) -> (f32, String, Standing) {
        if self.is_over_budget(budget) {
            let found = self.audits.recent(&LabelErrors::ASSUMED);
            let (rate, low) = (100.0 * found.rate, 100.0 * found.low);
            let reason =
                format!("{rate:.0} % (at least {low:.0} %) of recent hits were wrong: exact hits only");
            return (2.0, reason, Standing::OverBudget);
        }
        if self.threshold.is_unknown() {
            let reason =
                format!("warm-up, {} answers compared: only what is nearly certain", self.labelled());
            return (START_PROBABILITY, reason, Standing::WarmUp);
        }
        let (threshold, reason) = (self.threshold.at(budget), self.threshold.reason(budget));
        let reason =
            if threshold > 1.0 { format!("no candidate is probable enough: {reason}") } else { reason };
        (threshold, reason, Standing::Trusted)
    }

    fn is_over_budget(&self, budget: &Budget) -> bool {
        self.audits.is_over_budget(budget, &LabelErrors::ASSUMED)
    }

    /// Surface variants are served whatever the namespace has learned, unless several of them were found wrong.
    fn permits(&self, scored: &Scored, probability: f32, budget: &Budget) -> Permit {
        if budget.max_error_rate <= 0.0 || scored.difference == Difference::Marks {
            Permit::Below
        } else if self.is_certain(scored) {
            Permit::Granted
        } else if self.is_over_budget(budget) {
            Permit::OverBudget
        } else if probability >= self.threshold_at(budget) {
            Permit::Granted
        } else {
            Permit::Below
        }
    }

    /// Whether the candidate is served because it differs on the surface only.
    pub fn is_certain(&self, scored: &Scored) -> bool {
        scored.difference == Difference::Surface && self.wrong_variants < WRONG_VARIANTS_MAX
    }

    /// Learns whether the answers of a pair are the same.
    pub fn observe(&mut self, scored: &Scored, label: Label, origin: Origin) {
        let Label { evidence, mut verdict, mut weight, .. } = label;
        let total = evidence + verdict.map_or(0.0, |fits| self.verifier.evidence(fits));
        let predicted = match origin {
            Origin::Miss { best } => best.then_some((scored.logit, 1.0)),
            Origin::Audit { propensity, probability, approved, verified } => {
                self.audits.observe(probability, total, &Audited { propensity, verified, label });
                (!approved).then_some((scored.logit, 1.0 / propensity.max(0.02)))
            }
            Origin::Feedback => None,
        };
        if matches!(origin, Origin::Miss { best: true } | Origin::Audit { .. }) {
            self.audits.count_labelled();
            self.replication.set_pending();
        }
        // The verdict has been learned from. Learning from pairs again because it was a yes would make all look alike.
        let review = matches!(origin, Origin::Audit { approved: true, .. });
        if review {
            verdict = Some(true);
        }
        if !review && total < 0.0 && scored.logit < OBVIOUS_LOGIT {
            self.obvious += 1;
            if !self.obvious.is_multiple_of(OBVIOUS_STORED) {
                return;
            }
            weight *= OBVIOUS_STORED as f32;
        }
        let &Scored { bins, forest, scope, english, .. } = scored;
        let compared = label.source == LabelSource::Comparison;
        let surface = scored.difference == Difference::Surface;
        let (id, at) = (self.replication.next_label(), self.requests);
        let example = Example {
            id,
            bins,
            forest,
            scope,
            english,
            evidence,
            verdict,
            compared,
            review,
            surface,
            weight,
            at,
            predicted,
        };
        self.replication.add(example);
        self.push(example);
    }

    /// Replaces the label of an audited hit in the estimate of [`Learner::wrong_hits`], when a better one arrives after
    /// [`Learner::observe`] took the first. Does not teach the model; that is another [`Learner::observe`].
    pub fn improve_audit(&mut self, before: &Audited, label: Label) {
        self.audits.improve(before, &Audited { label, ..*before });
        self.replication.set_pending();
    }

    fn push(&mut self, example: Example) {
        if self.examples.len() == EXAMPLES_MAX {
            self.examples.pop_front();
        }
        self.wrong_variants += usize::from(example.is_wrong_variant());
        self.examples.push_back(example);
    }

    fn count_wrong_variants(&mut self) {
        self.wrong_variants = self.examples.iter().filter(|example| example.is_wrong_variant()).count();
    }

    /// Whether a fit is due, counting the requests of this replica.
    pub fn is_due(&self) -> bool {
        self.since_fit >= FIT_EVERY && self.labelled() >= FIT_AFTER
    }

    /// Copies the input of a fit, which is cheap.
    pub fn start_fit(&mut self) -> Fit {
        self.fitted_at = self.requests;
        self.since_fit = 0;
        Fit {
            table: Arc::clone(&self.table),
            model: self.model.clone(),
            verifier: self.verifier,
            examples: self.examples.iter().copied().collect(),
            recent: self.recent.iter().copied().collect(),
            audits: self.audits.clone(),
            requests: self.requests,
            labelled: self.labelled().max(1),
        }
    }

    /// Decides by `fitted` from now on, unless a later fit was started.
    pub fn install(&mut self, fitted: Fitted) {
        if fitted.requests >= self.fitted_at {
            self.model = fitted.model;
            self.verifier = fitted.verifier;
            self.verdicts = fitted.verdicts;
            self.threshold = fitted.threshold;
        }
    }

    /// Requests that gave labels.
    fn labelled(&self) -> u64 {
        self.audits.labelled()
    }

    /// Estimate of the share of wrong answers among all semantic hits so far.
    pub fn wrong_hits(&self) -> WrongHits {
        self.audits.estimate(&LabelErrors::ASSUMED)
    }

    /// Audits of served answers.
    pub const fn audits(&self) -> &Audits {
        &self.audits
    }

    pub const fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Measured error rates of the verifier.
    pub const fn verifier(&self) -> &SourceErrors {
        &self.verifier
    }

    /// Number of verdicts behind [`Self::verifier`]; 0 while it holds what is assumed of a new verifier.
    pub const fn verdicts(&self) -> u64 {
        self.verdicts
    }

    pub const fn threshold(&self) -> &Threshold {
        &self.threshold
    }

    pub const fn model(&self) -> &Model {
        &self.model
    }
}

// === impl Example ===

impl Example {
    fn is_wrong_variant(&self) -> bool {
        self.surface && !self.compared && !self.review && (self.evidence < 0.0 || self.verdict == Some(false))
    }
}

// === impl Scored ===

impl Scored {
    /// Index of the candidate to serve first: a surface variant, else the most probable one.
    pub fn best(candidates: &[Self]) -> Option<usize> {
        let rank = |candidate: &Self| match candidate.difference {
            Difference::Surface => 2,
            Difference::Wording => 1,
            Difference::Marks => 0,
        };
        let order = |a: &Self, b: &Self| rank(a).cmp(&rank(b)).then(a.logit.total_cmp(&b.logit));
        (0..candidates.len()).max_by(|a, b| order(&candidates[*a], &candidates[*b]))
    }
}

// === impl Recent ===

impl Recent {
    fn of(scored: &Scored, price: Option<Price>) -> Self {
        let &Scored { bins, forest, scope, english, .. } = scored;
        Self { bins, forest, scope, english, price: price.map(|price| price.call) }
    }
}

// === impl Fit ===

impl Fit {
    /// Fits the model to the labels and sets the threshold by the recent requests.
    pub fn run(&self) -> Fitted {
        let (model, verifier) = self.model.fit(&self.table, &self.examples, self.requests, &self.verifier);
        let estimate = |r: &Recent| {
            let inputs = self.table.inputs_with(&r.bins, r.forest);
            let logit = model.penalised(model.logit(&inputs, &r.bins, r.scope), r.english);
            Estimate { probability: model.probability(logit, model.deviation(&inputs)), price: r.price }
        };
        let estimates: Vec<Estimate> = self.recent.iter().flatten().map(estimate).collect();
        // Promises of few labels are discounted.
        let warm_up = 1.0 + WARM_UP / self.labelled as f32;
        let surplus = Surplus::new(self.audits.surplus(), warm_up);
        let threshold = Threshold::new(&estimates, self.recent.len(), surplus, &verifier);
        let verdicts = self.examples.iter().filter(|example| example.verdict.is_some()).count() as u64;
        Fitted { model, verifier, verdicts, threshold, requests: self.requests }
    }
}

#[cfg(test)]
mod tests;

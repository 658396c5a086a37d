//! The learned decision of one namespace: how probable it is that an entry's answer is right, learned
//! online from the answers that are bought anyway, and how probable it must be to stay inside the error
//! budgets.
//!
//! The path of a request: [`features::of`](super::features::of) for each candidate, [`Learner::score`],
//! [`Learner::decide`]; then, once an answer was bought anyway, [`Learner::observe`] with what
//! [`answer`](super::answer) says of it and each candidate's; then, when [`Learner::is_due`], a snapshot's fit.
//!
//! Scoring and deciding are cheap and happen on the request path. Fitting is not: `Learner::fit` takes
//! a snapshot and its result is installed later. Nothing here waits, knows time or holds a lock;
//! everything random comes from a seed, so that a replay repeats itself.

mod audit;
mod budget;
mod label;
mod model;
mod scopes;
mod share;
mod state;

use std::{collections::VecDeque, sync::Arc};

use super::{
    features::{ENGLISH, Features, SURFACE},
    logistic::Noise,
    table::{Bins, Table},
};
pub use audit::{Audits, WrongHits};
pub use budget::{Budget, Surplus, Threshold};
pub use label::{Label, Origin};
pub use model::Model;
pub use scopes::ScopeTag;
pub use share::Lesson;
use share::{LabelId, Sharing};

/// Below this logit a label "different" is no news; of such labels one in so many is kept, and counts
/// for all of them.
const PLAIN_LOGIT: f32 = -3.0;
const PLAIN_KEPT: u64 = 4;
/// Labels kept; the oldest go.
const EXAMPLES_MAX: usize = 8000;
/// Requests whose best candidate is kept to set the threshold by.
const RECENT_MAX: usize = 2000;
/// Labelled requests before the model may decide.
const TRUST_AFTER: u64 = 150;
/// Labelled requests at which expected errors count twice; more before, fewer after.
const YOUTH: f32 = 150.0;
/// Requests with new labels between two fits.
const FIT_EVERY: u64 = 100;
/// Requests after which a label counts half.
const HALF_LIFE: f32 = 12_000.0;

/// How a namespace decides and learns.
#[derive(Debug)]
pub struct Learner {
    table: Arc<Table>,
    model: Model,
    examples: VecDeque<Example>,
    recent: VecDeque<Option<Recent>>,
    threshold: Threshold,
    audits: Audits,
    /// Requests seen.
    requests: u64,
    fitted_at: u64,
    /// Labels that were no news.
    plain: u64,
    sharing: Sharing,
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
    /// Differs on the surface only.
    pub surface: bool,
    /// Both texts are in the language that most features know.
    pub english: bool,
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    Serve {
        /// Index among the scored candidates.
        candidate: usize,
        probability: f32,
        /// Buy an answer too, and tell [`Learner::observe`] how it compares: with this probability it
        /// was chosen to be checked.
        audit: Option<f32>,
    },
    /// The best candidate is not good enough.
    Below { probability: f32 },
    /// Checked hits were wrong far too often: exact hits only for now. Worth an alarm.
    Blown,
    /// Nothing but surface variants is served yet.
    Learning { probability: f32 },
    /// No candidate.
    Nothing,
}

/// How far a namespace is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Surface variants only.
    Young,
    /// What the threshold lets pass.
    Trusted,
    /// Exact hits only.
    Blown,
}

/// One label, kept.
#[derive(Clone, Copy, Debug)]
struct Example {
    id: LabelId,
    bins: Bins,
    forest: f32,
    scope: ScopeTag,
    english: bool,
    same: f32,
    weight: f32,
    /// Number of the request.
    at: u64,
    /// For the best candidates: the logit before the label was known, and one over the probability
    /// that it became known.
    foreseen: Option<(f32, f32)>,
}

/// The best candidate of a recent request.
#[derive(Clone, Copy, Debug)]
struct Recent {
    bins: Bins,
    forest: f32,
    scope: ScopeTag,
    english: bool,
}

/// All that a fit needs, apart from the learner, so that it can run elsewhere.
#[derive(Debug)]
pub struct Snapshot {
    table: Arc<Table>,
    model: Model,
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
    threshold: Threshold,
    requests: u64,
}

// === impl Learner ===

impl Learner {
    /// A namespace that has seen nothing.
    pub fn new(table: Arc<Table>, seed: u64) -> Self {
        Self {
            model: Model::of_prior(&table),
            table,
            examples: VecDeque::new(),
            recent: VecDeque::new(),
            threshold: Threshold::default(),
            audits: Audits::new(seed),
            requests: 0,
            fitted_at: 0,
            plain: 0,
            sharing: Sharing::default(),
        }
    }

    /// How probable it is that the pair's answer is right in its scope.
    pub fn score(&self, features: &Features, scope: ScopeTag) -> Scored {
        let bins = self.table.bin(features);
        let forest = self.table.forest.logit(&bins);
        let inputs = self.table.inputs_with(&bins, forest);
        let (surface, english) = (features[SURFACE] > 0.5, features[ENGLISH] > 0.5);
        let logit = self.model.logit(&inputs, &bins, scope);
        Scored { bins, forest, scope, logit, surface, english }
    }

    /// Probability that the pair's answer is right, uncertainty included, and the standard deviation of
    /// its logit. Costs more than the score, so only the best candidate is asked for it.
    pub fn estimate(&self, scored: &Scored) -> (f32, f32) {
        let deviation = self.model.deviation(&self.table.inputs_with(&scored.bins, scored.forest));
        (self.model.probability(self.model.doubted(scored.logit, scored.english), deviation), deviation)
    }

    /// Counts the request and decides it. `budget` is the namespace's, or a caller's stricter one;
    /// `audit_rate` the least share of the hits that is checked.
    pub fn decide(&mut self, candidates: &[Scored], budget: &Budget, audit_rate: f32) -> Verdict {
        self.requests += 1;
        self.sharing.count_request();
        let best = Scored::best(candidates);
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(best.map(|b| Recent::of(&candidates[b])));
        let Some(candidate) = best else { return Verdict::Nothing };
        let scored = &candidates[candidate];
        let (probability, _) = self.estimate(scored);
        if self.is_blown(budget) {
            self.audits.rest();
            return Verdict::Blown;
        }
        if !self.allows(scored, probability, budget) {
            let learning = self.labelled() < TRUST_AFTER;
            return if learning { Verdict::Learning { probability } } else { Verdict::Below { probability } };
        }
        let audit = self.audits.draw(self.requests, audit_rate);
        Verdict::Serve { candidate, probability, audit }
    }

    /// Whether the candidate would be served.
    pub fn would_serve(&self, scored: &Scored, budget: &Budget) -> bool {
        let (probability, _) = self.estimate(scored);
        !self.is_blown(budget) && self.allows(scored, probability, budget)
    }

    /// The probability that a candidate must reach, and why, for `Explain`; above 1 when none will do.
    pub fn bar(&self, budget: &Budget) -> (f32, String, Standing) {
        if self.is_blown(budget) {
            let found = self.wrong_hits();
            let (rate, low) = (100.0 * found.rate, 100.0 * found.low);
            let reason =
                format!("{rate:.0} % (at least {low:.0} %) of the checked hits were wrong: exact hits only");
            return (2.0, reason, Standing::Blown);
        }
        if self.labelled() < TRUST_AFTER {
            let reason = format!(
                "the namespace is young, {} of {TRUST_AFTER} answers compared: only texts that differ on the surface",
                self.labelled()
            );
            return (0.5, reason, Standing::Young);
        }
        let (threshold, reason) = (self.threshold.at(budget), self.threshold.reason(budget));
        let reason = if threshold > 1.0 { format!("nothing is sure enough: {reason}") } else { reason };
        (threshold, reason, Standing::Trusted)
    }

    fn is_blown(&self, budget: &Budget) -> bool {
        self.audits.is_blown(budget, self.model.noise.missed as f32)
    }

    fn allows(&self, scored: &Scored, probability: f32, budget: &Budget) -> bool {
        if self.labelled() < TRUST_AFTER {
            return scored.surface && scored.logit > 0.0;
        }
        probability >= self.threshold.at(budget)
    }

    /// Learns whether the pair's answers are the same.
    pub fn observe(&mut self, scored: &Scored, label: Label, origin: Origin) {
        let Label { same, mut weight } = label;
        let foreseen = match origin {
            Origin::Miss { best } => best.then_some((scored.logit, 1.0)),
            Origin::Audit { propensity } => {
                let (probability, _) = self.estimate(scored);
                self.audits.observe(probability, same, propensity);
                Some((scored.logit, 1.0 / propensity.max(0.02)))
            }
            Origin::Feedback => None,
        };
        self.count(origin);
        if self.is_plain(scored, same) {
            self.plain += 1;
            if !self.plain.is_multiple_of(PLAIN_KEPT) {
                return;
            }
            weight *= PLAIN_KEPT as f32;
        }
        let &Scored { bins, forest, scope, english, .. } = scored;
        let (id, at) = (self.sharing.next_label(), self.requests);
        let example = Example { id, bins, forest, scope, english, same, weight, at, foreseen };
        self.sharing.keep(example);
        self.push(example);
    }

    fn push(&mut self, example: Example) {
        if self.examples.len() == EXAMPLES_MAX {
            self.examples.pop_front();
        }
        self.examples.push_back(example);
    }

    /// A difference that nobody doubted teaches little.
    fn is_plain(&self, scored: &Scored, same: f32) -> bool {
        same < 0.5 && scored.logit < PLAIN_LOGIT
    }

    fn count(&mut self, origin: Origin) {
        if matches!(origin, Origin::Miss { best: true } | Origin::Audit { .. }) {
            self.audits.count_labelled();
            self.sharing.set_news();
        }
    }

    /// Whether enough is new for another `Learner::fit`, counting what this process saw by itself.
    pub fn is_due(&self) -> bool {
        self.sharing.since_fit() >= FIT_EVERY && self.labelled() >= FIT_EVERY
    }

    /// What a fit needs. Cheap; the fit itself takes tens of milliseconds and belongs on another thread.
    pub fn snapshot(&mut self) -> Snapshot {
        self.fitted_at = self.requests;
        self.sharing.fitted();
        Snapshot {
            table: Arc::clone(&self.table),
            model: self.model.clone(),
            examples: self.examples.iter().copied().collect(),
            recent: self.recent.iter().copied().collect(),
            audits: self.audits.clone(),
            requests: self.requests,
            labelled: self.labelled().max(1),
        }
    }

    /// Decides by `fitted` from now on; an older one than the last is ignored.
    pub fn install(&mut self, fitted: Fitted) {
        if fitted.requests >= self.fitted_at {
            self.model = fitted.model;
            self.threshold = fitted.threshold;
        }
    }

    /// Requests that gave labels.
    fn labelled(&self) -> u64 {
        self.audits.labelled()
    }

    /// The live estimate of the share of wrong answers among semantic hits.
    pub fn wrong_hits(&self) -> WrongHits {
        self.audits.estimate(self.model.noise.missed as f32)
    }

    /// Probability that a pair's answers are the same, thought to be `before` and then labelled `same`.
    pub fn belief(&self, before: f32, same: f32) -> f32 {
        self.model.noise.posterior(before.into(), same.into()) as f32
    }

    /// What checks of served answers found.
    pub const fn audits(&self) -> &Audits {
        &self.audits
    }

    pub const fn table(&self) -> &Arc<Table> {
        &self.table
    }

    pub const fn threshold(&self) -> &Threshold {
        &self.threshold
    }

    pub const fn model(&self) -> &Model {
        &self.model
    }
}

// === impl Scored ===

impl Scored {
    /// Index of the surest candidate.
    pub fn best(candidates: &[Self]) -> Option<usize> {
        (0..candidates.len()).max_by(|a, b| candidates[*a].logit.total_cmp(&candidates[*b].logit))
    }
}

// === impl Recent ===

impl Recent {
    fn of(scored: &Scored) -> Self {
        let &Scored { bins, forest, scope, english, .. } = scored;
        Self { bins, forest, scope, english }
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// Fits the model to the labels and sets the threshold by the recent requests.
    pub fn fit(&self) -> Fitted {
        let model = self.model.fit(&self.table, &self.examples, self.requests);
        let estimates: Vec<f32> = self
            .recent
            .iter()
            .flatten()
            .map(|r| {
                let inputs = self.table.inputs_with(&r.bins, r.forest);
                let logit = model.doubted(model.logit(&inputs, &r.bins, r.scope), r.english);
                model.probability(logit, model.deviation(&inputs))
            })
            .collect();
        // What few labels promise is not yet believed.
        let young = 1.0 + YOUTH / self.labelled as f32;
        let surplus = Surplus::new(self.audits.surplus(model.noise.missed as f32), young);
        let threshold = Threshold::new(estimates, self.recent.len(), surplus);
        Fitted { model, threshold, requests: self.requests }
    }
}

#[cfg(test)]
mod tests;

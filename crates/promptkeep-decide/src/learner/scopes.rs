//! Scopes of one namespace differ: after one system prompt nearly every paraphrase has the same answer, after
//! another hardly any. Those with labels enough get a level of their own, on top of the namespace's weights.

use super::Noise;
use crate::logistic::sigmoid;

/// A short name of a scope within its namespace. Two that share one share a level.
pub type ScopeTag = u32;

/// Weight of the labels from which a scope has a level of its own, where a comparison of late counts one; and scopes
/// that have one, those of the most weight.
const WEIGHT_MIN: f64 = 100.0;
const SCOPES_MAX: usize = 64;
/// Share of all labels from which a scope is the namespace, whose own level will do.
const WHOLE: f64 = 0.9;
/// Precision of the belief that a scope is like its namespace: levels differ by about one logit.
const BELIEF: f64 = 1.0;
/// Farthest that a level goes.
const LEVEL_MAX: f64 = 6.0;
const STEPS: usize = 6;

/// Added to the logits of each scope.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Levels(Vec<(ScopeTag, f32)>);

/// A label of a scope, with the logit that the namespace's weights give its pair.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub scope: ScopeTag,
    pub logit: f64,
    pub same: f64,
    pub weight: f64,
}

// === impl Levels ===

impl Levels {
    /// Of `scope`; 0 while too little is known of it.
    pub fn of(&self, scope: ScopeTag) -> f32 {
        self.0.binary_search_by_key(&scope, |level| level.0).map_or(0.0, |found| self.0[found].1)
    }

    /// The most probable levels after `seen`, each by itself under a Gaussian prior around 0.
    pub fn fit(mut seen: Vec<Seen>, noise: &Noise) -> Self {
        seen.sort_by_key(|label| label.scope);
        let total: f64 = seen.iter().map(|label| label.weight).sum();
        let mut scopes: Vec<(&[Seen], f64)> = seen
            .chunk_by(|a, b| a.scope == b.scope)
            .map(|labels| (labels, labels.iter().map(|label| label.weight).sum()))
            .filter(|(_, weight)| *weight >= WEIGHT_MIN && *weight < WHOLE * total)
            .collect();
        scopes.sort_by(|a, b| b.1.total_cmp(&a.1));
        scopes.truncate(SCOPES_MAX);
        let mut levels: Vec<_> =
            scopes.into_iter().map(|(labels, _)| (labels[0].scope, level(labels, noise) as f32)).collect();
        levels.sort_by_key(|level| level.0);
        Self(levels)
    }
}

/// By Newton's method, with the truth of each label as probable as the level so far makes it.
fn level(labels: &[Seen], noise: &Noise) -> f64 {
    let mut level = 0.0;
    for _ in 0..STEPS {
        let (mut slope, mut curve) = (-BELIEF * level, BELIEF);
        for label in labels {
            let p = sigmoid(level + label.logit);
            slope += label.weight * (noise.posterior(p, label.same) - p);
            curve += label.weight * p * (1.0 - p);
        }
        level = (level + (slope / curve).clamp(-1.0, 1.0)).clamp(-LEVEL_MAX, LEVEL_MAX);
    }
    level
}

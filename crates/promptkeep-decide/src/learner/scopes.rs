//! Logit offsets of scopes. After one system prompt nearly every paraphrase has the same answer, after another hardly
//! any, so a scope with enough labels gets an offset on top of the namespace's weights.

use crate::logistic::{posterior, sigmoid};

/// A short hash of a scope. Scopes of a namespace that collide share a level.
pub type ScopeTag = u32;

/// Weight of labels from which a scope gets a level; a recent comparison counts one.
const WEIGHT_MIN: f64 = 100.0;
/// Scopes with a level: those with the most weight.
const SCOPES_MAX: usize = 64;
/// Share of all labels from which a scope dominates its namespace and needs no level.
const WHOLE: f64 = 0.9;
/// Precision of the prior that a scope is like its namespace: levels differ by about one logit.
const BELIEF: f64 = 1.0;
/// Largest absolute level.
const LEVEL_MAX: f64 = 6.0;
const STEPS: usize = 6;

/// Logit offset of each scope, sorted by tag.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Levels(Vec<(ScopeTag, f32)>);

/// A label, with the logit that the namespace's weights give its pair.
#[derive(Clone, Copy, Debug)]
pub struct ScopeLabel {
    pub scope: ScopeTag,
    pub logit: f64,
    /// Log-likelihood ratio.
    pub evidence: f64,
    pub weight: f64,
}

impl Levels {
    /// Level of `scope`; 0 while it has too few labels.
    pub fn of(&self, scope: ScopeTag) -> f32 {
        self.0.binary_search_by_key(&scope, |level| level.0).map_or(0.0, |found| self.0[found].1)
    }

    /// Fits each level by itself, under a Gaussian prior around 0.
    pub fn fit(mut labels: Vec<ScopeLabel>) -> Self {
        labels.sort_by_key(|label| label.scope);
        let total: f64 = labels.iter().map(|label| label.weight).sum();
        let mut scopes: Vec<(&[ScopeLabel], f64)> = labels
            .chunk_by(|a, b| a.scope == b.scope)
            .map(|labels| (labels, labels.iter().map(|label| label.weight).sum()))
            .filter(|(_, weight)| *weight >= WEIGHT_MIN && *weight < WHOLE * total)
            .collect();
        scopes.sort_by(|a, b| b.1.total_cmp(&a.1));
        scopes.truncate(SCOPES_MAX);
        let mut levels: Vec<_> =
            scopes.into_iter().map(|(labels, _)| (labels[0].scope, level(labels) as f32)).collect();
        levels.sort_by_key(|level| level.0);
        Self(levels)
    }
}

/// Newton's method.
fn level(labels: &[ScopeLabel]) -> f64 {
    let mut level = 0.0;
    for _ in 0..STEPS {
        let (mut slope, mut curve) = (-BELIEF * level, BELIEF);
        for label in labels {
            let p = sigmoid(level + label.logit);
            slope += label.weight * (posterior(level + label.logit, label.evidence) - p);
            curve += label.weight * p * (1.0 - p);
        }
        level = (level + (slope / curve).clamp(-1.0, 1.0)).clamp(-LEVEL_MAX, LEVEL_MAX);
    }
    level
}

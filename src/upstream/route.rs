//! Router: the models a prompt is sent to, and their order. It must not call a model; `classify` asks the
//! classifier.

mod local;

use std::sync::Arc;

use super::catalog::{Catalog, Model};
use crate::{
    config::{NamespaceRouting, RoutingConfig},
    embed::Embedding,
    error::{Error, MODEL_FIELD},
    model::{AUTO, Difficulty, RouteReason, Tier},
    prompt::Prompt,
};

/// Models to try, best first, and why the first is first.
#[derive(Debug)]
pub(super) struct Plan {
    pub models: Vec<Arc<Model>>,
    pub reason: RouteReason,
}

/// What decides a prompt's route.
pub(super) enum Wanted<'a> {
    /// A model id or a tier, from the prompt or the namespace's setting.
    Name { name: &'a str, reason: RouteReason },
    /// The prompt's difficulty class.
    ByDifficulty,
}

// === impl Wanted ===

impl<'a> Wanted<'a> {
    pub fn of(catalog: &'a Catalog, prompt: &'a Prompt) -> Self {
        if prompt.model != AUTO {
            let is_model = catalog.model(&prompt.model).is_some();
            let reason = if is_model { RouteReason::Named } else { RouteReason::Tier };
            return Self::Name { name: &prompt.model, reason };
        }
        match namespace(&catalog.routing, &prompt.namespace).and_then(|own| own.auto.as_deref()) {
            Some(name) => Self::Name { name, reason: RouteReason::Namespace },
            None => Self::ByDifficulty,
        }
    }
}

/// The plan for a model id or a tier; `None` when `name` is neither.
pub(super) fn plan_for_name(
    catalog: &Catalog,
    prompt: &Prompt,
    name: &str,
    reason: RouteReason,
) -> Option<Plan> {
    let mut models: Vec<_> = catalog.models.iter().filter(|model| model.config.id == name).cloned().collect();
    let tier = models.first().map(|model| model.tier()).or_else(|| Tier::parse(name))?;
    models.sort_by_key(|model| model.rank());
    if models.is_empty() || catalog.routing.fallback_named {
        extend_by_tiers(&mut models, catalog, prompt, tier);
    }
    Some(Plan { models, reason })
}

/// The plan for an `auto` prompt of this difficulty.
pub(super) fn plan_for_difficulty(
    catalog: &Catalog,
    prompt: &Prompt,
    difficulty: Difficulty,
    reason: RouteReason,
) -> Plan {
    let mut models = Vec::new();
    extend_by_tiers(&mut models, catalog, prompt, tier_for(&catalog.routing, difficulty));
    Plan { models, reason }
}

/// The tier of an `auto` prompt of this difficulty.
pub(super) fn tier_for(routing: &RoutingConfig, difficulty: Difficulty) -> Tier {
    match difficulty {
        Difficulty::Easy => routing.easy,
        Difficulty::Moderate => routing.moderate,
        Difficulty::Hard => routing.hard,
    }
}

/// The difficulty class computed from the prompt alone, in microseconds.
pub(super) fn classify_locally(
    catalog: &Catalog,
    prompt: &Prompt,
    embedding: Option<&Embedding>,
) -> Difficulty {
    local::classify(prompt, embedding.filter(|_| catalog.can_route_by_embedding))
}

/// Whether the local weights were fitted to this embedder's vectors.
pub(super) fn is_fitted_to(embedder: &str) -> bool {
    local::is_fitted_to(embedder)
}

/// The error for a name that has no plan.
pub(super) fn unknown_model() -> Error {
    Error::invalid(MODEL_FIELD, "is not a model id, a tier or `auto`")
}

/// Adds the models of `tier` and of the tiers it falls back to. Models that are not available come
/// last: they are tried only when nothing else is left.
fn extend_by_tiers(models: &mut Vec<Arc<Model>>, catalog: &Catalog, prompt: &Prompt, tier: Tier) {
    let own = namespace(&catalog.routing, &prompt.namespace).and_then(|own| own.fallback.as_deref());
    for tier in tiers_from(tier, own.unwrap_or(&catalog.routing.fallback)) {
        let mut of_tier: Vec<_> = catalog.models.iter().filter(|model| model.tier() == tier).collect();
        // The sort is stable: models of equal rank stay in the order of the configuration.
        of_tier.sort_by_key(|model| model.rank());
        for model in of_tier {
            if !models.iter().any(|known| Arc::ptr_eq(known, model)) {
                models.push(Arc::clone(model));
            }
        }
    }
    models.sort_by_key(|model| !model.is_available());
}

/// The tier itself, then those after it in the fallback order, then those before it, nearest first.
fn tiers_from(tier: Tier, fallback: &[Tier]) -> Vec<Tier> {
    let at = fallback.iter().position(|other| *other == tier);
    let (before, after) = at.map_or((&fallback[..0], fallback), |at| (&fallback[..at], &fallback[at + 1..]));
    let mut tiers = vec![tier];
    tiers.extend(after);
    tiers.extend(before.iter().rev());
    tiers
}

fn namespace<'a>(routing: &'a RoutingConfig, name: &str) -> Option<&'a NamespaceRouting> {
    routing.namespaces.iter().find(|own| own.namespace == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fallback_goes_forward_through_the_order_and_then_back() {
        use Tier::{Cold, Economy, Hot, Warm};
        let fallback = [Cold, Warm, Hot];
        assert_eq!(tiers_from(Cold, &fallback), [Cold, Warm, Hot]);
        assert_eq!(tiers_from(Warm, &fallback), [Warm, Hot, Cold]);
        assert_eq!(tiers_from(Hot, &fallback), [Hot, Warm, Cold]);
        assert_eq!(tiers_from(Economy, &fallback), [Economy, Cold, Warm, Hot]);
        assert_eq!(tiers_from(Hot, &[]), [Hot]);
    }
}

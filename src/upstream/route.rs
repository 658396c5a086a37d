//! Which models a prompt is sent to, and in which order. Knows no socket: where a model is asked for
//! its judgement, that happens in `classify`.

mod local;

use std::sync::Arc;

use super::{
    AUTO, Difficulty, RouteReason, Tier,
    catalog::{Catalog, Model},
};
use crate::{
    config::{NamespaceRouting, RoutingConfig},
    embed::Embedding,
    prompt::Prompt,
};

/// Models to try, best first, and why the first is first.
#[derive(Debug)]
pub(super) struct Plan {
    pub models: Vec<Arc<Model>>,
    pub reason: RouteReason,
}

/// What a prompt asks for, once namespaces and names are settled.
pub(super) enum Wanted<'a> {
    /// A model id or a tier.
    Name { name: &'a str, reason: RouteReason },
    /// Whatever fits its difficulty.
    Judgement,
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
            None => Self::Judgement,
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
    let named: Vec<_> = catalog.models.iter().filter(|model| model.config.id == name).cloned().collect();
    let tier = named.first().map(|model| model.tier()).or_else(|| Tier::parse(name))?;
    let may_fall_back = named.is_empty() || catalog.routing.fallback_named;
    let mut models = named;
    models.sort_by_key(|model| model.rank());
    if may_fall_back {
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
    let tier = tier_for(&catalog.routing, difficulty);
    let mut models = Vec::new();
    extend_by_tiers(&mut models, catalog, prompt, tier);
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

/// Judges without asking anybody; takes no time to speak of.
pub(super) fn judge(catalog: &Catalog, prompt: &Prompt, embedding: Option<&Embedding>) -> Difficulty {
    local::judge(prompt, embedding.filter(|_| catalog.understands_embeddings))
}

/// Whether the vectors of this embedder help to judge.
pub(super) fn understands(embedder: &str) -> bool {
    local::understands(embedder)
}

/// Adds the models of `tier` and of the tiers it falls back to. Models of providers that are down come
/// after all others: they are tried only when nothing else is left.
fn extend_by_tiers(models: &mut Vec<Arc<Model>>, catalog: &Catalog, prompt: &Prompt, tier: Tier) {
    let own = namespace(&catalog.routing, &prompt.namespace).and_then(|own| own.fallback.as_deref());
    for tier in tiers_from(tier, own.unwrap_or(&catalog.routing.fallback)) {
        let mut alike: Vec<_> = catalog.models.iter().filter(|model| model.tier() == tier).collect();
        // Stable: otherwise the order of the file counts.
        alike.sort_by_key(|model| model.rank());
        for model in alike {
            if !models.iter().any(|have| Arc::ptr_eq(have, model)) {
                models.push(Arc::clone(model));
            }
        }
    }
    models.sort_by_key(|model| !model.provider.health.is_up());
}

/// The tier itself, those after it in the order of fallback, then those before it, nearest first.
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
    fn fallback_goes_on_in_order_and_then_back() {
        use Tier::{Cold, Economy, Hot, Warm};
        let fallback = [Cold, Warm, Hot];
        assert_eq!(tiers_from(Cold, &fallback), [Cold, Warm, Hot]);
        assert_eq!(tiers_from(Warm, &fallback), [Warm, Hot, Cold]);
        assert_eq!(tiers_from(Hot, &fallback), [Hot, Warm, Cold]);
        assert_eq!(tiers_from(Economy, &fallback), [Economy, Cold, Warm, Hot]);
        assert_eq!(tiers_from(Hot, &[]), [Hot]);
    }
}

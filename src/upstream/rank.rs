//! Whether a kept answer's tier is good enough for where its prompt would be sent now.

use super::{
    BreakerState, Difficulty, RouteReason, Tier, Upstreams,
    catalog::{Catalog, Model},
    route::{self, Plan, Wanted},
    tokens,
};
use crate::{
    embed::Embedding,
    prompt::{Completion, Prompt},
};

// === impl Upstreams ===

impl Upstreams {
    /// How hard the router judges the prompt to be; `None` where that does not decide its tier. Asks no
    /// model.
    pub fn difficulty(&self, prompt: &Prompt, embedding: Option<&Embedding>) -> Option<Difficulty> {
        self.plan_without_asking(&self.catalog.load(), prompt, embedding)?.reason.difficulty()
    }

    /// Whether the prompt, judged `difficulty`, would now be sent to a higher tier than the one that gave
    /// `answer`. Not when either is unknown; nor while no model of a higher tier could be called, so that an
    /// outage of the best models does not take away what the cache has.
    pub fn outranks(&self, prompt: &Prompt, difficulty: Option<Difficulty>, answer: &Completion) -> bool {
        let catalog = self.catalog.load();
        let by_model = || catalog.model(&answer.model).map(|model| model.tier());
        let Some(answered) = Tier::parse(&answer.tier).or_else(by_model) else { return false };
        let wanted = Wanted::of(&catalog, prompt);
        // Most answers are of the tier that is wanted, and this is all that is done for them.
        tier(&catalog, &wanted, difficulty).is_some_and(|tier| tier.is_above(answered))
            && callable_tier(&catalog, prompt, &wanted, difficulty)
                .is_some_and(|tier| tier.is_above(answered))
    }
}

/// The tier that is wanted, whatever the catalog has of it.
fn tier(catalog: &Catalog, wanted: &Wanted<'_>, difficulty: Option<Difficulty>) -> Option<Tier> {
    match wanted {
        Wanted::Name { name, .. } => {
            catalog.model(name).map(|model| model.tier()).or_else(|| Tier::parse(name))
        }
        Wanted::Judgement => difficulty.map(|difficulty| route::tier_for(&catalog.routing, difficulty)),
    }
}

/// The tier of the first model that would be called.
fn callable_tier(
    catalog: &Catalog,
    prompt: &Prompt,
    wanted: &Wanted<'_>,
    difficulty: Option<Difficulty>,
) -> Option<Tier> {
    let Plan { models, .. } = match wanted {
        Wanted::Name { name, reason } => route::plan_for_name(catalog, prompt, name, *reason)?,
        Wanted::Judgement => {
            let difficulty = difficulty?;
            route::plan_for_difficulty(catalog, prompt, difficulty, RouteReason::Local(difficulty))
        }
    };
    let tokens = tokens::wanted(prompt, tokens::estimate_prompt(prompt));
    let is_callable = |model: &Model| {
        tokens <= model.config.context_window && model.state.breaker.state() != BreakerState::Open
    };
    models.iter().find(|model| is_callable(model)).map(|model| model.tier())
}

//! Tier check of cached answers: whether an answer's tier is good enough for where its prompt would be sent
//! now.

use super::{
    Upstreams,
    catalog::{Catalog, Model},
    route::{self, Plan, Wanted},
    tokens,
};
use crate::{
    embed::Embedding,
    model::{BreakerState, Difficulty, RouteReason, Tier},
    prompt::{Completion, Prompt},
};

impl Upstreams {
    /// The prompt's difficulty class; `None` where it does not decide the tier. It calls no model.
    pub fn difficulty(&self, prompt: &Prompt, embedding: Option<&Embedding>) -> Option<Difficulty> {
        self.plan_without_asking(&self.catalog.load(), prompt, embedding)?.reason.difficulty()
    }

    /// Whether a prompt of this `difficulty` would now be sent to a higher tier than the one that gave
    /// `answer`. False when either tier is unknown, and while no model of a higher tier can be called: an
    /// outage of the best models must not empty the cache.
    pub fn wants_higher_tier(
        &self,
        prompt: &Prompt,
        difficulty: Option<Difficulty>,
        answer: &Completion,
    ) -> bool {
        let catalog = self.catalog.load();
        let by_model = || catalog.model(&answer.model).map(|model| model.tier());
        let Some(answered) = Tier::parse(&answer.tier).or_else(by_model) else { return false };
        let wanted = Wanted::of(&catalog, prompt);
        let is_above = |tier: Tier| tier.is_above(answered);
        // The first check is cheap, and enough for most answers.
        wanted_tier(&catalog, &wanted, difficulty).is_some_and(is_above)
            && callable_tier(&catalog, prompt, &wanted, difficulty).is_some_and(is_above)
    }
}

/// The tier that the prompt asks for, whether or not the catalog has a model of it.
fn wanted_tier(catalog: &Catalog, wanted: &Wanted<'_>, difficulty: Option<Difficulty>) -> Option<Tier> {
    match wanted {
        Wanted::Name { name, .. } => {
            catalog.model(name).map(|model| model.tier()).or_else(|| Tier::parse(name))
        }
        Wanted::ByDifficulty => difficulty.map(|difficulty| route::tier_for(&catalog.routing, difficulty)),
    }
}

/// The tier of the first model that can be called.
fn callable_tier(
    catalog: &Catalog,
    prompt: &Prompt,
    wanted: &Wanted<'_>,
    difficulty: Option<Difficulty>,
) -> Option<Tier> {
    let Plan { models, .. } = match wanted {
        Wanted::Name { name, reason } => route::plan_for_name(catalog, prompt, name, *reason)?,
        Wanted::ByDifficulty => {
            let difficulty = difficulty?;
            route::plan_for_difficulty(catalog, prompt, difficulty, RouteReason::Local(difficulty))
        }
    };
    let tokens = tokens::needed(prompt, tokens::estimate_prompt(prompt));
    let is_callable = |model: &Model| {
        tokens <= model.config.context_window && model.state.breaker.state() != BreakerState::Open
    };
    models.iter().find(|model| is_callable(model)).map(|model| model.tier())
}

//! What follows an answer that was bought, when nobody waits any more: learning from it, and the checking of
//! hits.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Asked, Bought, CANDIDATES_BOUNDED, Missed, Pipeline};
use crate::{
    decide::Policy, embed::Embedding, entry::Entry, error::Error, key::CacheKey, learn::Near, model::Tier,
    outcome::MissReason, prompt::Completion, store::Durability, upstream::Ask,
};

/// What a flight leaves to be done after it has landed.
pub(super) enum Rest {
    Nothing,
    /// A model answered: its answer says what the near entries were worth.
    Learn(Near, Option<Embedding>, Arc<Bought>),
    /// The cache answered, and whether rightly is to be found out.
    Check(Near, Embedding),
}

// === impl Rest ===

impl Rest {
    pub(super) fn of_hit(check: Option<(Near, Embedding)>) -> Self {
        check.map_or(Self::Nothing, |(near, embedding)| Self::Check(near, embedding))
    }

    pub(super) fn of_purchase(near: Option<Near>, embedding: Option<Embedding>, bought: Arc<Bought>) -> Self {
        match near {
            Some(near) if !near.candidates.is_empty() => Self::Learn(near, embedding, bought),
            _ => Self::Nothing,
        }
    }
}

// === impl Pipeline ===

impl Pipeline {
    /// Does what a flight left.
    pub(super) async fn do_rest(&self, asked: &Asked, rest: Rest) {
        match rest {
            Rest::Nothing => {}
            Rest::Learn(near, embedding, bought) => {
                self.learn(asked, near, embedding, &bought.completion).await;
            }
            Rest::Check(near, embedding) => {
                // A check that fails is one fewer; its calls are counted like any other.
                let _ = self.check(asked, near, embedding).await;
            }
        }
    }

    /// Learns from an answer. When it says what a near entry says, the prompt becomes another name of that
    /// entry.
    pub(super) async fn learn(
        &self,
        asked: &Asked,
        near: Near,
        embedding: Option<Embedding>,
        completion: &Completion,
    ) {
        if !completion.is_complete() {
            return;
        }
        let same_as = self.learn_same(asked, near, completion).await;
        if let (Some(target), false) = (same_as, asked.cache.no_store) {
            self.alias(asked, target, embedding, completion).await;
        }
    }

    /// Learns from an answer that a caller brought. Every word of it stays: that was promised.
    pub(super) async fn learn_stored(
        &self,
        asked: &Asked,
        near: Near,
        embedding: Option<Embedding>,
        completion: &Completion,
    ) {
        let Some(target) = self.learn_same(asked, near, completion).await else { return };
        let is_equal = |Entry { completion: kept, .. }: &Entry| {
            kept.content == completion.content && kept.tool_calls == completion.tool_calls
        };
        if self.cache.get(target).await.is_some_and(|entry| is_equal(&entry)) {
            self.alias(asked, target, embedding, completion).await;
        }
    }

    /// Compares, asks for a second opinion where that is drawn, and learns. Returns the entry whose answer says
    /// the same.
    async fn learn_same(&self, asked: &Asked, near: Near, completion: &Completion) -> Option<CacheKey> {
        let mut compared = self.learning.compare(near, completion).await?;
        self.second_opinion(asked, completion, &mut compared).await;
        self.learning.learn(compared).await
    }

    /// What the answer that a caller brings is to be compared with: after a lookup that missed, the entries
    /// which that lookup saw.
    pub(super) async fn near_of_stored(&self, asked: &Asked, embedding: Option<&Embedding>) -> Option<Near> {
        let Policy::Bounded(bounds) = asked.policy() else { return None };
        let candidates = self.search(asked, embedding?, CANDIDATES_BOUNDED).await.ok()?;
        let mut near = self.near(asked, &bounds, candidates).await;
        near.check = self.learning.take_check(asked.key);
        (!near.candidates.is_empty()).then_some(near)
    }

    /// Buys the answer to a prompt that was answered by a near entry. It is kept: the next who asks just this
    /// has an answer to just this.
    async fn check(&self, asked: &Asked, near: Near, embedding: Embedding) -> Result<(), Error> {
        self.check_budget(asked)?;
        let ask = Ask::new(&asked.prompt, Instant::now() + asked.settings.timeout)
            .embedding(Some(&embedding))
            .headers(asked.trace.headers())
            .on_attempt(self.bookkeeper_of_checks(asked));
        let mut answer = self.upstreams.open(ask).await?;
        while answer.next().await?.is_some() {}
        let (completion, attempts) = answer.finish();
        let bought = Bought { completion, attempts, missed: Missed::without_candidate(MissReason::Audit) };
        let is_free = self.cache.under(asked.key).await.is_none_or(|entry| entry.alias_of.is_some());
        if is_free && bought.completion.is_complete() && !asked.cache.no_store {
            let kept = bought.to_keep(Some(embedding.clone()));
            // The store's failure is counted there.
            let _ = self.keep(asked, kept, Durability::Queued).await;
        }
        self.learn(asked, near, Some(embedding), &bought.completion).await;
        Ok(())
    }

    /// Makes the prompt another name of the entry under `target`, instead of an entry of its own with the answer
    /// `own`. Not where that would take away something better, or what somebody put there meanwhile.
    async fn alias(&self, asked: &Asked, target: CacheKey, embedding: Option<Embedding>, own: &Completion) {
        let Some(target) = self.cache.get(target).await else { return };
        let kept = self.cache.under(asked.key).await;
        let is_own = kept.is_none_or(|kept| kept.completion == *own);
        if !asked.may_alias() || !is_own || is_better(own, &target.completion) {
            return;
        }
        if let Some(alias) = asked.alias(&target, embedding, self.embedder_name()) {
            // The store's failure is counted there.
            let _ = self.cache.keep(alias, Durability::Queued, asked.epoch).await;
        }
    }
}

/// Whether one answer is of a higher tier than the other.
fn is_better(own: &Completion, other: &Completion) -> bool {
    let tiers = Tier::parse(&own.tier).zip(Tier::parse(&other.tier));
    tiers.is_some_and(|(own, other)| own.is_above(other))
}

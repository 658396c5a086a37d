//! A paraphrase of a prompt that a model is answering at this moment joins its stream, when what was learned
//! says that it would be served the answer once it is there.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Asked, CANDIDATES_BOUNDED, FlightKey, Known, Landing, Piece, Pipeline, asked::ToKeep};
use crate::{
    cache::Epoch,
    decide::Policy,
    entry::{Candidate, Entry},
    error::Error,
    flight::{Event, Follower, Leader},
    key::{CacheKey, Scope},
    model::Usage,
    prompt::{Completion, FinishReason},
};

/// Prompts of one scope that are compared; further ones are bought without looking.
const COMPARED_MAX: usize = 64;

/// The prompts that models are answering, by scope.
#[derive(Clone, Default)]
pub(super) struct UnderWay {
    /// A std mutex: held for one map operation or a few products, never across an await.
    by_scope: Arc<Mutex<HashMap<Scope, Vec<Asking>>>>,
}

/// One prompt whose answer has no entry yet: this one has everything but the answer.
#[derive(Clone)]
struct Asking {
    flight: FlightKey,
    epoch: Epoch,
    entry: Arc<Entry>,
}

/// Takes the prompt away again when its answer has landed, or failed.
pub(super) struct Place {
    under_way: UnderWay,
    scope: Scope,
    flight: FlightKey,
}

// === impl UnderWay ===

impl UnderWay {
    fn enter(&self, flight: FlightKey, epoch: Epoch, entry: Entry) -> Option<Place> {
        let scope = entry.scope;
        let mut by_scope = self.lock();
        let asking = by_scope.entry(scope).or_default();
        (asking.len() < COMPARED_MAX).then(|| {
            asking.push(Asking { flight, epoch, entry: Arc::new(entry) });
            Place { under_way: self.clone(), scope, flight }
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Scope, Vec<Asking>>> {
        self.by_scope.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_scope = self.under_way.lock();
        if let Some(asking) = by_scope.get_mut(&self.scope) {
            asking.retain(|asking| asking.flight != self.flight);
            if asking.is_empty() {
                by_scope.remove(&self.scope);
            }
        }
    }
}

// === impl Pipeline ===

impl Pipeline {
    /// Lets paraphrases of this prompt join, until the place is dropped.
    pub(super) fn let_join(&self, asked: &Asked, known: &Known) -> Option<Place> {
        let Policy::Bounded(_) = asked.policy() else { return None };
        known.near.as_ref().filter(|_| !asked.cache.no_store)?;
        let completion = Completion {
            content: String::new(),
            tool_calls: None,
            finish_reason: FinishReason::Stop,
            model: String::new(),
            tier: String::new(),
            usage: Usage::default(),
        };
        let difficulty = self.upstreams.difficulty(&asked.prompt, known.embedding.as_ref());
        let answer = ToKeep { completion, embedding: known.embedding.clone(), difficulty };
        let entry = asked.entry(answer, "")?;
        self.under_way.enter(FlightKey(asked.key, asked.flight_salt()), asked.epoch, entry)
    }

    /// The flight of a paraphrase, if one is under way that may answer this prompt too.
    pub(super) fn paraphrase(
        &self,
        asked: &Asked,
        known: &Known,
    ) -> Option<(CacheKey, Follower<Piece, Landing>)> {
        let Policy::Bounded(bounds) = asked.policy() else { return None };
        if bounds.shadow {
            return None;
        }
        let (near, embedding) = (known.near.as_ref()?, known.embedding.as_ref()?);
        let mut asking: Vec<(f32, Asking)> = {
            let by_scope = self.under_way.lock();
            let similar = |asking: &Asking| {
                Some((asking.entry.embedding.as_ref()?.similarity(embedding), asking.clone()))
            };
            by_scope.get(&asked.scope)?.iter().filter_map(similar).collect()
        };
        // One that is harder wants a better model than the one that is answering.
        let judged = self.upstreams.difficulty(&asked.prompt, Some(embedding));
        let is_fit = |asking: &Asking| {
            judged <= asking.entry.difficulty && !self.cache.is_invalidated(asking.epoch, &asking.entry)
        };
        asking.retain(|(similarity, asking)| *similarity >= bounds.min_similarity && is_fit(asking));
        asking.sort_by(|a, b| b.0.total_cmp(&a.0));
        asking.truncate(CANDIDATES_BOUNDED);
        let candidate = |(similarity, asking): &(f32, Asking)| Candidate {
            entry: Arc::clone(&asking.entry),
            alias: None,
            similarity: *similarity,
        };
        let candidates = asking.iter().map(candidate).collect();
        let namespace = near.namespace();
        let near = namespace.near((asked.key, asked.scope), asked.prompt.fuzzy_text()?, candidates);
        let best = near.best().filter(|best| namespace.would_serve(&near, *best, &bounds.budget))?;
        let key = near.candidates[best].entry.key;
        let flight = asking.iter().find(|(_, asking)| asking.entry.key == key)?.1.flight;
        Some((key, self.flights.follow(&flight)?))
    }

    /// Hands on what another flight brings. `None` when it failed before it said anything: then this prompt
    /// is bought by itself.
    pub(super) async fn share(
        (key, mut other): (CacheKey, Follower<Piece, Landing>),
        leader: &Leader<FlightKey, Piece, Landing>,
    ) -> Option<Result<Landing, Error>> {
        let mut spoke = false;
        loop {
            match other.next().await {
                Event::Piece(Piece::Started { model, tier, is_shared: _ }) => {
                    leader.push(Piece::Started { model, tier, is_shared: true });
                    spoke = true;
                }
                Event::Piece(piece) => leader.push(piece),
                Event::End(Ok(Landing::Bought { bought, shared_with })) => {
                    let shared_with = shared_with.or(Some(key));
                    return Some(Ok(Landing::Bought { bought, shared_with }));
                }
                Event::End(Ok(Landing::Hit(hit))) => return Some(Ok(Landing::Hit(hit))),
                Event::End(Err(error)) => return spoke.then_some(Err(error)),
            }
        }
    }
}

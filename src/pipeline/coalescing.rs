//! The step that joins requests for one answer: identical prompts share a flight, and a paraphrase of a prompt that a
//! model is answering follows its stream when the learner would serve it that answer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    AdmittedRequest, Hit, NewAnswer, UpstreamCompletion,
    flight::{self, Event, Flights, Follower, Leader},
    semantic::{CANDIDATES_BOUNDED, SemanticContext},
};
use crate::{
    cache::{Cache, Epoch},
    decide::{Bounds, Policy},
    embed::Embedding,
    entry::{Candidate, Entry},
    error::Error,
    key::{CacheKey, Scope},
    prompt::{Completion, Delta},
    upstream::Upstreams,
};

/// Prompts of one scope that paraphrases are compared with; further ones are not announced.
const ANNOUNCED_MAX: usize = 64;

pub(super) type FlightLeader = Leader<FlightKey, Piece, FlightResult>;
pub(super) type FlightFollower = Follower<Piece, FlightResult>;
pub(super) type Join = flight::Joined<FlightKey, Piece, FlightResult>;

/// Key of a flight: the prompt's key and a hash of the cache directives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FlightKey(CacheKey, u64);

/// A piece of an answer being produced.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    Started {
        model: String,
        tier: &'static str,
        /// The answer is that of a paraphrase.
        is_shared: bool,
    },
    Delta(Delta),
}

/// Successful result of a flight.
#[derive(Clone, Debug)]
pub(super) enum FlightResult {
    /// The cache answered after all.
    Hit(Hit),
    /// A model answered this prompt, or the paraphrase `shared_with`.
    Completed { completed: Arc<UpstreamCompletion>, shared_with: Option<CacheKey> },
}

/// The flights, and the prompts that paraphrases may follow.
pub(super) struct Coalescing {
    flights: Arc<Flights<FlightKey, Piece, FlightResult>>,
    announced: AnnouncedPrompts,
    cache: Arc<Cache>,
    upstreams: Upstreams,
}

/// The flight of a paraphrase, which this request follows.
pub(super) struct Paraphrase {
    key: CacheKey,
    follower: FlightFollower,
}

/// Prompts that models are answering, by scope.
#[derive(Clone, Default)]
struct AnnouncedPrompts {
    /// A std mutex: held for one map operation or a few dot products, never across an await.
    by_scope: Arc<Mutex<HashMap<Scope, Vec<Announced>>>>,
}

/// A prompt that a model is answering.
#[derive(Clone)]
struct Announced {
    flight: FlightKey,
    epoch: Epoch,
    /// The entry that the answer will become; its completion is still empty.
    entry: Arc<Entry>,
}

/// Withdraws an announcement when it is dropped.
pub(super) struct Announcement {
    announced: AnnouncedPrompts,
    scope: Scope,
    flight: FlightKey,
}

impl Coalescing {
    pub(super) fn new(cache: Arc<Cache>, upstreams: Upstreams) -> Self {
        Self { flights: Arc::default(), announced: AnnouncedPrompts::default(), cache, upstreams }
    }

    /// Joins the flight of an identical prompt, or opens one that the caller must lead.
    pub(super) fn join(&self, request: &AdmittedRequest) -> Join {
        self.flights.join(FlightKey::of(request))
    }

    /// Lets paraphrases of this prompt follow its flight until the announcement is dropped.
    pub(super) fn announce(
        &self,
        request: &AdmittedRequest,
        context: &SemanticContext,
    ) -> Option<Announcement> {
        let Policy::Bounded(_) = request.policy() else { return None };
        context.scored.as_ref().filter(|_| !request.cache.no_store)?;
        let difficulty = self.upstreams.difficulty(&request.prompt, context.embedding.as_ref());
        let answer =
            NewAnswer { completion: Completion::default(), embedding: context.embedding.clone(), difficulty };
        let entry = Arc::new(answer.into_entry(request, "")?);
        self.announced.add(Announced { flight: FlightKey::of(request), epoch: request.epoch, entry })
    }

    /// The flight of a paraphrase whose answer the learner would serve to this prompt.
    pub(super) fn find_paraphrase(
        &self,
        request: &AdmittedRequest,
        context: &SemanticContext,
    ) -> Option<Paraphrase> {
        let Policy::Bounded(bounds @ Bounds { shadow: false, .. }) = request.policy() else { return None };
        let (scored, embedding) = (context.scored.as_ref()?, context.embedding.as_ref()?);
        let announced = self.similar(request, embedding, bounds.min_similarity);
        if announced.is_empty() {
            return None;
        }
        let candidates = announced.iter().map(|(similarity, announced)| Candidate {
            entry: Arc::clone(&announced.entry),
            similarity: *similarity,
        });
        let text = request.prompt.fuzzy_text()?;
        let namespace = scored.namespace();
        let scored = namespace.score(request.key, request.scope, text, candidates.collect());
        let best = scored.best().filter(|best| namespace.would_serve(&scored, *best, &bounds.budget))?;
        let key = scored.candidates[best].entry.key;
        let (_, announced) = announced.iter().find(|(_, announced)| announced.entry.key == key)?;
        Some(Paraphrase { key, follower: self.flights.follow(&announced.flight)? })
    }

    /// The announced prompts nearest to `embedding`, nearest first. A prompt that is harder than an announced one
    /// needs a better model than the one that is answering.
    fn similar(
        &self,
        request: &AdmittedRequest,
        embedding: &Embedding,
        min_similarity: f32,
    ) -> Vec<(f32, Announced)> {
        let mut found = self.announced.in_scope(request.scope, embedding);
        if found.is_empty() {
            return found;
        }
        let difficulty = self.upstreams.difficulty(&request.prompt, Some(embedding));
        found.retain(|(similarity, Announced { entry, epoch, .. })| {
            *similarity >= min_similarity
                && difficulty <= entry.difficulty
                && !self.cache.tiers.is_invalidated(*epoch, entry)
        });
        found.sort_by(|a, b| b.0.total_cmp(&a.0));
        found.truncate(CANDIDATES_BOUNDED);
        found
    }
}

impl FlightKey {
    fn of(request: &AdmittedRequest) -> Self {
        Self(request.key, request.flight_salt())
    }
}

impl Paraphrase {
    /// Relays the other flight to this one's followers. `None` when it failed before its first token: then this
    /// prompt needs a model call of its own.
    pub(super) async fn relay_to(self, leader: &FlightLeader) -> Option<Result<FlightResult, Error>> {
        let Self { key, mut follower } = self;
        let mut has_streamed = false;
        loop {
            match follower.next().await {
                Event::Piece(Piece::Started { model, tier, is_shared: _ }) => {
                    leader.push(Piece::Started { model, tier, is_shared: true });
                    has_streamed = true;
                }
                Event::Piece(piece) => leader.push(piece),
                Event::End(Ok(FlightResult::Completed { completed, shared_with })) => {
                    let shared_with = shared_with.or(Some(key));
                    return Some(Ok(FlightResult::Completed { completed, shared_with }));
                }
                Event::End(Ok(hit @ FlightResult::Hit(_))) => return Some(Ok(hit)),
                Event::End(Err(error)) => return has_streamed.then_some(Err(error)),
            }
        }
    }
}

impl AnnouncedPrompts {
    fn add(&self, prompt: Announced) -> Option<Announcement> {
        let (scope, flight) = (prompt.entry.scope, prompt.flight);
        let mut by_scope = self.lock();
        let announced = by_scope.entry(scope).or_default();
        (announced.len() < ANNOUNCED_MAX).then(|| {
            announced.push(prompt);
            Announcement { announced: self.clone(), scope, flight }
        })
    }

    /// The announced prompts of a scope, with their similarity to `embedding`.
    fn in_scope(&self, scope: Scope, embedding: &Embedding) -> Vec<(f32, Announced)> {
        let by_scope = self.lock();
        let announced = by_scope.get(&scope).into_iter().flatten();
        announced
            .filter_map(|prompt| {
                Some((prompt.entry.embedding.as_ref()?.similarity(embedding), prompt.clone()))
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Scope, Vec<Announced>>> {
        self.by_scope.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        let mut by_scope = self.announced.lock();
        if let Some(announced) = by_scope.get_mut(&self.scope) {
            announced.retain(|prompt| prompt.flight != self.flight);
            if announced.is_empty() {
                by_scope.remove(&self.scope);
            }
        }
    }
}

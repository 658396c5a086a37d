//! The step that keeps a complete answer: in memory, in the index and in the store.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{AdmittedRequest, UpstreamCompletion};
use crate::{
    cache::Cache,
    decide::reuse::NoReuse,
    embed::{Embedder, Embedding},
    entry::Entry,
    model::Difficulty,
    prompt::Completion,
    store::{Durability, StoreError},
};

/// Keeps answers under the prompts that they answer.
pub(super) struct Keeping {
    cache: Arc<Cache>,
    /// Name of the embedder; empty when there is none.
    embedder: String,
}

/// An answer with its prompt's embedding and difficulty class.
pub(super) struct NewAnswer {
    pub completion: Completion,
    /// Vector of the last user text, when it was embedded.
    pub embedding: Option<Embedding>,
    /// Difficulty class, when the router chose the model.
    pub difficulty: Option<Difficulty>,
}

impl Keeping {
    pub(super) fn new(cache: Arc<Cache>, embedder: Option<&dyn Embedder>) -> Self {
        Self { cache, embedder: embedder.map_or_else(String::new, |embedder| embedder.name().to_owned()) }
    }

    /// Keeps an answer; other callers find it from here on.
    ///
    /// # Errors
    /// When the store fails at this durability.
    pub(super) async fn keep(
        &self,
        request: &AdmittedRequest,
        answer: NewAnswer,
        durability: Durability,
    ) -> Result<(), StoreError> {
        match answer.into_entry(request, &self.embedder) {
            Some(entry) => self.cache.keep(entry, durability, request.epoch).await,
            None => Ok(()),
        }
    }
}

impl NewAnswer {
    /// The answer of a model call, with the difficulty class that chose the model.
    pub(super) fn of(completed: &UpstreamCompletion, embedding: Option<Embedding>) -> Self {
        let difficulty = completed.attempts.iter().find_map(|attempt| attempt.reason.difficulty());
        Self { completion: completed.completion.clone(), embedding, difficulty }
    }

    /// The entry that keeps this answer; `None` when it must not be kept.
    pub(super) fn into_entry(self, request: &AdmittedRequest, embedder: &str) -> Option<Entry> {
        let Self { completion, embedding, difficulty } = self;
        let no_reuse = request.no_reuse();
        if no_reuse == Some(NoReuse::Variety) {
            return None;
        }
        let ttl = ttl(request);
        let ttl = if no_reuse.is_some() { ttl.min(request.settings.cache.careful_ttl) } else { ttl };
        let created = SystemTime::now();
        Some(Entry {
            key: request.key,
            scope: request.scope,
            owner: request.owner.clone(),
            namespace: request.prompt.namespace.clone(),
            requested_model: request.prompt.model.clone(),
            text: request.prompt.fuzzy_text().map(str::to_owned),
            embedding,
            embedder: embedder.to_owned(),
            completion,
            tags: request.cache.tags.clone(),
            created,
            expires: created + ttl,
            stale_for: request.stale_for(),
            difficulty,
        })
    }
}

/// TTL of a new entry. A caller may shorten `cache.ttl`, never lengthen it. Jitter shortens it further; it is
/// computed from the key, so that all replicas agree.
fn ttl(request: &AdmittedRequest) -> Duration {
    let config = &request.settings.cache;
    let whole = request.cache.ttl.map_or(config.ttl, |ttl| ttl.min(config.ttl));
    whole.mul_f64(1.0 - config.ttl_jitter * request.key.share())
}

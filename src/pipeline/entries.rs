//! Storing the answers that callers bring, and invalidating entries.

mod stated_usage;

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::{
    Admission, FollowUps, Keeping, NewAnswer, Recording, Request, SemanticLookup, request::fill_defaults,
    within,
};
use crate::{
    cache::Cache,
    entry::{EntryId, Selector},
    error::Error,
    key,
    outcome::Outcome,
    prompt::{Completion, Prompt},
    store::{Durability, StoreError},
    telemetry::metrics::Rpc,
    tenant::Tenant,
    upstream::Upstreams,
};

/// Changes to entries that callers ask for. A change goes on when its caller leaves, so that none is half done.
pub struct Entries {
    pub(super) admission: Arc<Admission>,
    pub(super) cache: Arc<Cache>,
    pub(super) semantic: Arc<SemanticLookup>,
    pub(super) keeping: Arc<Keeping>,
    pub(super) follow_ups: Arc<FollowUps>,
    pub(super) upstreams: Upstreams,
    pub(super) recording: Arc<Recording>,
    pub(super) tasks: TaskTracker,
}

impl Entries {
    /// Stores a completion that the caller got from its own model. It is durable when this returns.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an invalid prompt, an incomplete answer or impossible usage, [`Error::Exhausted`] for an exceeded
    /// limit, [`Error::StoreUnavailable`] when the entry is not durable, [`Error::DeadlineExceeded`].
    pub async fn store(&self, mut request: Request, completion: Completion) -> Result<EntryId, Error> {
        let mut record = self.recording.start(Rpc::Store, &mut request);
        let request = Arc::new(self.admission.admit(request)?);
        if !completion.is_complete() {
            return Err(Error::invalid(
                "completion",
                "only complete answers are kept: not empty, finish_reason stop or tool_calls",
            ));
        }
        stated_usage::check(&completion, &self.upstreams)?;
        let (id, deadline) = (request.key.into(), request.deadline);
        let (semantic, keeping) = (Arc::clone(&self.semantic), Arc::clone(&self.keeping));
        let (follow_ups, tasks) = (Arc::clone(&self.follow_ups), self.tasks.clone());
        let store = async move {
            let context = semantic.for_stored_answer(&request).await;
            // The caller chose the model, so the router gives the prompt no difficulty class.
            let answer = NewAnswer {
                completion: completion.clone(),
                embedding: context.embedding.clone(),
                difficulty: None,
            };
            keeping.keep(&request, answer, Durability::Durable).await?;
            tasks.spawn(async move {
                follow_ups.learn_from_stored(&request, context, &completion).await;
            });
            Ok::<_, StoreError>(())
        };
        self.run_to_completion(deadline, store).await?.map_err(|_| Error::StoreUnavailable)?;
        record.finish(Outcome::Stored, None, 0.0);
        Ok(id)
    }

    /// Removes entries that the tenant may see; with `dry_run` only counts them.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] when the removal is not durable, [`Error::DeadlineExceeded`].
    pub async fn invalidate(
        &self,
        tenant: &Tenant,
        mut selector: Selector,
        dry_run: bool,
        deadline: Option<Instant>,
    ) -> Result<u64, Error> {
        let deadline = self.admission.deadline(deadline);
        if let Some(id) = selector.id.filter(|_| selector.namespace.is_none()) {
            // An id alone does not say whether the entry is in a namespace that the tenant shares.
            let entry = within(deadline, self.cache.find(id)).await?;
            let visible = entry.filter(|entry| tenant.can_access(&entry.owner, &entry.namespace));
            selector.namespace = visible.map(|entry| entry.namespace.clone());
        }
        selector.owners = tenant.owners_visible(selector.namespace.as_deref());
        let cache = Arc::clone(&self.cache);
        let remove = async move { cache.invalidate(&selector, dry_run).await };
        self.run_to_completion(deadline, remove).await?.map_err(|_| Error::StoreUnavailable)
    }

    /// `selector`, narrowed to the entry that answers `prompt` when `tenant` asks it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an invalid prompt.
    pub fn select_prompt(
        &self,
        tenant: &Tenant,
        mut prompt: Prompt,
        selector: Selector,
    ) -> Result<Selector, Error> {
        prompt.validate()?;
        fill_defaults(&self.admission.settings(), &mut prompt);
        let (key, _) = key::of(&tenant.owner(&prompt.namespace), &prompt);
        let namespace = selector.namespace.or(Some(prompt.namespace));
        Ok(Selector { key: Some(key), namespace, ..selector })
    }

    /// Runs `work`, which must not stop half-way: waits for it until `deadline`, but lets it go on after that, and
    /// also when the caller leaves. A shutdown waits for it.
    async fn run_to_completion<T: Send + 'static>(
        &self,
        deadline: Instant,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Error> {
        let done = within(deadline, self.tasks.spawn(work)).await?;
        // The panic's own message may quote a prompt.
        done.map_err(|_| Error::internal("a change of entries panicked"))
    }
}

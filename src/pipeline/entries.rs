//! Calls about entries by themselves: keeping what a caller bought elsewhere, removing, judging.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::{
    Pipeline, Request,
    asked::{ToKeep, fill_defaults},
    record::Recorder,
};
use crate::{
    cache::entry::{EntryId, Selector},
    error::Error,
    feedback::{RequestId, Served, Subject},
    key,
    metrics::{Rpc, Shed},
    outcome::{Outcome, Verdict},
    prompt::{Completion, Prompt, Usage},
    store::{Durability, StoreError},
    tenant::Tenant,
};

// === impl Pipeline ===

impl Pipeline {
    /// Keeps a completion that the caller got by itself. It is durable when this returns. A caller that
    /// leaves does not stop it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an incomplete answer, [`Error::StoreUnavailable`] when it could not
    /// be made durable.
    pub async fn store(
        self: &Arc<Self>,
        mut request: Request,
        completion: Completion,
    ) -> Result<EntryId, Error> {
        let mut record = Recorder::start(self, Rpc::Store, &mut request);
        let asked = self.admit(request)?;
        if !completion.is_complete() {
            return Err(Error::invalid(
                "completion",
                "only complete answers are kept: not empty, finish_reason stop or tool_calls",
            ));
        }
        let (id, deadline, pipeline) = (asked.key.into(), asked.deadline, Arc::clone(self));
        let keep = async move {
            let embedding = pipeline.embed(&asked).await.ok();
            let near = pipeline.near_of_stored(&asked, embedding.as_ref()).await;
            // Its caller chose the model, so nobody judges the prompt.
            let (kept, vector) = (completion.clone(), embedding.clone());
            let answer = ToKeep { completion: kept, embedding: vector, difficulty: None };
            pipeline.keep(&asked, answer, Durability::Durable).await?;
            if let Some(near) = near {
                let learning = Arc::clone(&pipeline);
                pipeline.tasks.spawn(async move {
                    learning.learn_stored(&asked, near, embedding, &completion).await;
                });
            }
            Ok::<_, StoreError>(())
        };
        self.to_its_end(deadline, keep).await?.map_err(|_| Error::StoreUnavailable)?;
        record.finish(Outcome::Stored, None, 0.0);
        Ok(id)
    }

    /// Removes entries that the tenant may see; with `dry_run` only counts them. A caller that leaves does
    /// not stop it.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] when the removal is not durable.
    pub async fn invalidate(
        &self,
        tenant: &Tenant,
        mut selector: Selector,
        dry_run: bool,
        deadline: Option<Instant>,
    ) -> Result<u64, Error> {
        let deadline = self.deadline(deadline);
        if let Some(id) = selector.id.filter(|_| selector.namespace.is_none()) {
            // An id alone does not say whether the entry is in a namespace that the tenant shares.
            let entry = within(deadline, self.cache.find(id)).await?;
            let seen = entry.filter(|entry| tenant.sees(&entry.owner, &entry.namespace));
            selector.namespace = seen.map(|entry| entry.namespace.clone());
        }
        selector.owners = tenant.owners_visible(selector.namespace.as_deref());
        let cache = Arc::clone(&self.cache);
        let remove = async move { cache.invalidate(&selector, dry_run).await };
        self.to_its_end(deadline, remove).await?.map_err(|_| Error::StoreUnavailable)
    }

    /// `selector`, narrowed to the entry that answers `prompt` when `tenant` asks it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] as for a request.
    pub fn select_prompt(
        &self,
        tenant: &Tenant,
        mut prompt: Prompt,
        selector: Selector,
    ) -> Result<Selector, Error> {
        prompt.validate()?;
        fill_defaults(&self.settings(), &mut prompt);
        let (key, _) = key::of(&tenant.owner(&prompt.namespace), &prompt);
        let namespace = selector.namespace.or(Some(prompt.namespace));
        Ok(Selector { key: Some(key), namespace, ..selector })
    }

    /// Records what a caller says of an answer, which it names by the reply or else by the entry; whether it
    /// is news.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the tenant was served no such answer.
    pub async fn feedback(
        &self,
        tenant: &Tenant,
        subjects: &[Subject],
        verdict: Verdict,
        deadline: Option<Instant>,
    ) -> Result<bool, Error> {
        tenant.check_rate(std::time::Instant::now()).inspect_err(|_| self.metrics.shed(Shed::Rate))?;
        let deadline = self.deadline(deadline);
        for subject in subjects {
            let served = within(deadline, self.served(*subject)).await?;
            let Some(served) = served.filter(|served| tenant.sees(&served.owner, &served.namespace)) else {
                continue;
            };
            let contradicted = self.replies.is_contradicted(tenant.name(), *subject, verdict);
            let news = self.replies.record(tenant.name(), *subject, verdict);
            if news {
                // Whoever stores an answer may call its model anything.
                let is_known = self.upstreams.price(&served.model, Usage::default()).is_some();
                let model = is_known.then_some((&*served.model, &*served.tier));
                self.metrics.feedback(verdict, served.outcome, model);
                self.ledger.feedback(tenant.name(), verdict);
                self.heed(&served, verdict, contradicted).await;
            }
            return Ok(news);
        }
        Err(Error::NotFound("request_id or entry_id"))
    }

    /// Records that a recent semantic hit was wrong, as the tenant that was served it would; whether it is
    /// news.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the hit is not among the recent ones, or its tenant is gone.
    pub async fn report_wrong_hit(&self, id: RequestId) -> Result<bool, Error> {
        let gone = || Error::NotFound("this hit");
        let hit = self.recent_semantic().into_iter().find(|hit| hit.id == id).ok_or_else(gone)?;
        let settings = self.settings();
        let mut tenants = settings.tenants.iter();
        let tenant = tenants.find(|tenant| tenant.sees(&hit.owner, &hit.namespace)).ok_or_else(gone)?;
        // The reply says how it was served; the entry outlives it.
        self.feedback(tenant, &[Subject::Reply(id), Subject::Entry(hit.entry)], Verdict::WrongHit, None).await
    }

    /// An answer that is said to belong to another question is not served to this one again, at once. The
    /// namespace learns from it, unless the same caller has said the opposite.
    async fn heed(&self, served: &Served, verdict: Verdict, contradicted: bool) {
        let right = match verdict {
            Verdict::Up => true,
            Verdict::Down | Verdict::WrongHit => false,
            Verdict::Escalated => return,
        };
        if let Some(pair) = served.pair.as_ref().filter(|_| !contradicted) {
            self.learning.hear(pair, right).await;
        }
        let Some(prompt) = served.prompt.filter(|_| !right) else { return };
        if let Some(entry) = served.entry.filter(|entry| *entry != prompt) {
            let namespace = self.learning.namespace(&served.owner, &served.namespace).await;
            self.learning.part(&namespace, prompt, entry);
        }
        // The store's failure is counted there.
        let _ = self.cache.part(prompt).await;
    }

    async fn served(&self, subject: Subject) -> Option<Served> {
        match subject {
            Subject::Reply(id) => self.replies.get(id),
            Subject::Entry(id) => self.cache.find(id).await.map(|entry| Served::entry(&entry)),
        }
    }

    fn deadline(&self, of_caller: Option<Instant>) -> Instant {
        of_caller.unwrap_or_else(|| Instant::now() + self.settings().timeout)
    }

    /// Runs `work`, of which half must not be done: waits for it until `deadline`, but lets it go on then,
    /// and also when the caller leaves. A shutdown waits for it.
    async fn to_its_end<T: Send + 'static>(
        &self,
        deadline: Instant,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Error> {
        let done = within(deadline, self.tasks.spawn(work)).await?;
        // A panic's own text may be a piece of a prompt.
        done.map_err(|_| Error::internal("a task about an entry panicked"))
    }
}

/// Waits for `work` until the caller's deadline.
pub(super) async fn within<T>(deadline: Instant, work: impl Future<Output = T>) -> Result<T, Error> {
    timeout_at(deadline, work).await.map_err(|_| Error::DeadlineExceeded { attempts: Vec::new() })
}

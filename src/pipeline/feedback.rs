//! Feedback on served answers: counts it, teaches the learner, and takes wrong pairings out of service.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    Admission, Recording,
    replies::{RecentHit, RequestId, Served, Subject},
    within,
};
use crate::{
    cache::Cache,
    error::Error,
    learn::Learning,
    model::Usage,
    outcome::Verdict,
    telemetry::{metrics::Metrics, stats::Ledger},
    tenant::Tenant,
    upstream::Upstreams,
};

/// Takes in what callers and operators say of answers.
pub struct FeedbackIntake {
    pub(super) admission: Arc<Admission>,
    pub(super) learning: Arc<Learning>,
    pub(super) cache: Arc<Cache>,
    pub(super) upstreams: Upstreams,
    pub(super) recording: Arc<Recording>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) ledger: Arc<Ledger>,
}

impl FeedbackIntake {
    /// Records a caller's verdict on an answer, named by the first of `subjects` that the tenant was served.
    /// Returns `false` for feedback that was given before.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the tenant was served none of them.
    pub async fn give(
        &self,
        tenant: &Tenant,
        subjects: &[Subject],
        verdict: Verdict,
        deadline: Option<Instant>,
    ) -> Result<bool, Error> {
        self.admission.check_rate(tenant)?;
        let deadline = self.admission.deadline(deadline);
        for subject in subjects {
            let served = within(deadline, self.served(*subject)).await?;
            if let Some(served) = served.filter(|served| tenant.can_access(&served.owner, &served.namespace))
            {
                return Ok(self.record(tenant, *subject, &served, verdict).await);
            }
        }
        Err(Error::NotFound("request_id or entry_id"))
    }

    /// Records, in the name of the tenant that was served it, that a recent semantic hit was wrong. Returns `false`
    /// when that was reported before.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the hit is not among the recent ones, or its tenant is gone.
    pub async fn report_wrong_hit(&self, id: RequestId) -> Result<bool, Error> {
        let gone = || Error::NotFound("this hit");
        let hit = self.recent_semantic().into_iter().find(|hit| hit.id == id).ok_or_else(gone)?;
        let settings = self.admission.settings();
        let mut tenants = settings.tenants.iter();
        let tenant = tenants.find(|tenant| tenant.can_access(&hit.owner, &hit.namespace)).ok_or_else(gone)?;
        // The reply says how the answer was served, but the entry is remembered longer.
        self.give(tenant, &[Subject::Reply(id), Subject::Entry(hit.entry)], Verdict::WrongHit, None).await
    }

    /// The last semantic hits, newest first.
    pub fn recent_semantic(&self) -> Vec<RecentHit> {
        self.recording.replies().semantic()
    }

    async fn record(&self, tenant: &Tenant, subject: Subject, served: &Served, verdict: Verdict) -> bool {
        let replies = self.recording.replies();
        let contradicted = replies.is_contradicted(tenant.name(), subject, verdict);
        let is_new = replies.record(tenant.name(), subject, verdict);
        if is_new {
            // The model of a stored answer is whatever its caller wrote, so only catalog names become labels.
            let is_in_catalog = self.upstreams.price(&served.model, Usage::default()).is_some();
            let model = is_in_catalog.then_some((&*served.model, &*served.tier));
            self.metrics.feedback(verdict, served.outcome, model);
            self.ledger.feedback(tenant.name(), verdict);
            self.apply(tenant, served, verdict, contradicted).await;
        }
        is_new
    }

    /// Stops serving an answer to the question that it was reported wrong for, at once. The namespace learns from
    /// the verdict, unless the same caller has said the opposite. A bad answer may still be the answer to the question
    /// ([`Verdict::Down`]), so it says nothing about the pair.
    async fn apply(&self, tenant: &Tenant, served: &Served, verdict: Verdict, contradicted: bool) {
        let right = match verdict {
            Verdict::Up => true,
            Verdict::WrongHit => false,
            Verdict::Down | Verdict::Escalated => return,
        };
        if let Some(pair) = served.pair.as_ref().filter(|_| !contradicted) {
            self.learning.learn_from_feedback(tenant.name(), pair, right).await;
        }
        let Some(prompt) = served.prompt.filter(|_| !right) else { return };
        if let Some(entry) = served.entry.filter(|entry| *entry != prompt) {
            let namespace = self.learning.namespace(&served.owner, &served.namespace).await;
            self.learning.reject(&namespace, prompt, entry);
        }
    }

    async fn served(&self, subject: Subject) -> Option<Served> {
        match subject {
            Subject::Reply(id) => self.recording.replies().get(id),
            Subject::Entry(id) => self.cache.find(id).await.map(|entry| Served::entry(&entry)),
        }
    }
}

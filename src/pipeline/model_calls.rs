//! The step that asks a model. Replicas that share a store let one of them call: it holds a lease on the prompt.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use super::{
    Admission, AdmittedRequest, Eligibility, Hit, Missed, Recording, UpstreamCompletion,
    coalescing::{FlightLeader, Piece},
};
use crate::{
    cache::Cache,
    embed::Embedding,
    error::Error,
    outcome::MissReason,
    store,
    upstream::{self, UpstreamRequest, Upstreams},
};

/// Polling interval while another replica answers: the first, doubling up to the maximum.
const POLL_PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));

/// Calls models within the caller's deadline and budget.
pub(super) struct ModelCalls {
    pub admission: Arc<Admission>,
    pub cache: Arc<Cache>,
    pub eligibility: Eligibility,
    pub upstreams: Upstreams,
    pub recording: Arc<Recording>,
}

/// Whether to call a model.
pub(super) enum LeaseOutcome {
    /// No other replica calls while the lease lives.
    Granted(store::Lease),
    /// Another replica has kept the answer.
    AlreadyAnswered(Hit),
}

impl ModelCalls {
    /// Takes the lease on the prompt, or waits, within the caller's deadline, for the replica that holds it to
    /// answer, fail or die. A failing store grants the lease.
    pub(super) async fn lease(&self, request: &AdmittedRequest) -> LeaseOutcome {
        if request.cache.no_cache || request.cache.no_store {
            return LeaseOutcome::Granted(store::Lease::default());
        }
        let (mut pause, longest) = POLL_PAUSES;
        loop {
            let claim = self.cache.claim(request.key).await;
            if let Some(entry) = claim.kept.filter(|entry| self.eligibility.serves(request, entry)) {
                return LeaseOutcome::AlreadyAnswered(Hit::exact(entry));
            }
            if let Some(lease) = claim.lease {
                return LeaseOutcome::Granted(lease);
            }
            let next = Instant::now() + pause;
            if next >= request.deadline {
                // The model call will report that the deadline has passed.
                return LeaseOutcome::Granted(store::Lease::default());
            }
            sleep_until(next).await;
            pause = (pause * 2).min(longest);
        }
    }

    /// Calls the models until one begins to answer.
    pub(super) async fn open(
        &self,
        request: &AdmittedRequest,
        embedding: Option<&Embedding>,
    ) -> Result<upstream::Answer, Error> {
        self.admission.check_budget(&request.tenant)?;
        let attempts =
            self.recording.attempt_listener(&request.tenant, &request.prompt.namespace, &request.trace);
        self.upstreams.open(ask(request, request.deadline, embedding).on_attempt(attempts)).await
    }

    /// [`Self::open`] in a race against a verifier. The cost of a call that ends after it `is_lost` comes off the savings.
    pub(super) async fn open_racing(
        &self,
        request: &AdmittedRequest,
        embedding: &Embedding,
        is_lost: Arc<AtomicBool>,
    ) -> Result<upstream::Answer, Error> {
        self.admission.check_budget(&request.tenant)?;
        let attempts = self.recording.race_listener(request, is_lost);
        self.upstreams.open(ask(request, request.deadline, Some(embedding)).on_attempt(attempts)).await
    }

    /// Relays the answer to the flight as it comes. Nothing delays the first token.
    pub(super) async fn relay(
        &self,
        request: &AdmittedRequest,
        mut answer: upstream::Answer,
        missed: Missed,
        leader: &FlightLeader,
    ) -> Result<UpstreamCompletion, Error> {
        // Callers that joined may have more time than the first one. Each minds its own deadline, and when all
        // have left the call is cancelled.
        answer.extend_deadline(Instant::now() + request.settings.timeout);
        let (model, tier) = (answer.model().to_owned(), answer.tier().as_str());
        leader.push(Piece::Started { model, tier, is_shared: false });
        while let Some(delta) = answer.next().await? {
            leader.push(Piece::Delta(delta));
        }
        let (completion, attempts) = answer.finish();
        Ok(UpstreamCompletion { completion, attempts, missed })
    }

    /// A new answer to a prompt that a near entry answered. Its cost comes off the savings.
    pub(super) async fn audit(
        &self,
        request: &AdmittedRequest,
        embedding: &Embedding,
    ) -> Result<UpstreamCompletion, Error> {
        self.admission.check_budget(&request.tenant)?;
        let deadline = Instant::now() + request.settings.timeout;
        let ask = ask(request, deadline, Some(embedding)).on_attempt(self.recording.audit_listener(request));
        let mut answer = self.upstreams.open(ask).await?;
        while answer.next().await?.is_some() {}
        let (completion, attempts) = answer.finish();
        Ok(UpstreamCompletion { completion, attempts, missed: Missed::without_candidate(MissReason::Audit) })
    }
}

fn ask<'a>(
    request: &'a AdmittedRequest,
    deadline: Instant,
    embedding: Option<&'a Embedding>,
) -> UpstreamRequest<'a> {
    UpstreamRequest::new(&request.prompt, deadline).embedding(embedding).headers(request.trace.headers())
}

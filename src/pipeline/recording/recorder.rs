//! Counts one request, once, however it ends.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use opentelemetry::KeyValue;

use super::{Recording, savings::Savings, without_cache::WithoutCache};
use crate::{
    model::VerifierReply,
    outcome::{Approval, MissReason, Outcome},
    pipeline::Request,
    telemetry::{
        metrics::{Metrics, Rpc},
        request_log::{Line, RequestLog},
        stats::{Ledger, Observation},
        trace::Trace,
    },
    tenant::Tenant,
};

/// Counts its request when it is closed or dropped. A request that ends without [`Recorder::finish`], by failing or
/// because its caller left, counts as an error.
pub(in crate::pipeline) struct Recorder {
    metrics: Arc<Metrics>,
    ledger: Arc<Ledger>,
    log: Arc<RequestLog>,
    savings: Savings,
    without_cache: WithoutCache,
    rpc: Rpc,
    tenant: Arc<Tenant>,
    namespace: String,
    trace: Trace,
    /// Model that wrote the answer.
    model: String,
    started: Instant,
    first_token: Option<Duration>,
    outcome: Outcome,
    reason: Option<MissReason>,
    saved_usd: f64,
    hot_tier_usd: f64,
    is_stale: bool,
    approval: Option<Approval>,
    /// What a verifier replied.
    verified: Option<VerifierReply>,
    /// Time until the answer was complete; delivering it is the caller's time.
    elapsed: Option<Duration>,
    is_closed: bool,
}

impl Recorder {
    pub(super) fn new(recording: &Recording, rpc: Rpc, request: &Request) -> Self {
        Self {
            metrics: Arc::clone(&recording.metrics),
            ledger: Arc::clone(&recording.ledger),
            log: Arc::clone(&recording.log),
            savings: recording.savings.clone(),
            without_cache: recording.without_cache.clone(),
            rpc,
            tenant: Arc::clone(&request.tenant),
            namespace: request.namespace().to_owned(),
            trace: request.trace.clone(),
            model: String::new(),
            started: Instant::now(),
            first_token: None,
            outcome: Outcome::Error,
            reason: None,
            saved_usd: 0.0,
            hot_tier_usd: 0.0,
            is_stale: false,
            approval: None,
            verified: None,
            elapsed: None,
            is_closed: false,
        }
    }

    /// Records the time to the first token. Later calls change nothing.
    pub(in crate::pipeline) fn first_token(&mut self) {
        self.first_token.get_or_insert_with(|| self.started.elapsed());
    }

    /// Records which model wrote the answer, and what it would have cost at the hot tier.
    pub(in crate::pipeline) fn answered(&mut self, model: &str, hot_tier_usd: f64) {
        model.clone_into(&mut self.model);
        self.hot_tier_usd = hot_tier_usd;
    }

    /// Records the outcome, and the time until now.
    pub(in crate::pipeline) fn finish(
        &mut self,
        outcome: Outcome,
        reason: Option<MissReason>,
        saved_usd: f64,
    ) {
        self.elapsed = Some(self.started.elapsed());
        self.outcome = outcome;
        self.reason = reason;
        self.saved_usd = saved_usd;
    }

    /// Records that the answer was past its TTL.
    pub(in crate::pipeline) fn stale(&mut self) {
        self.is_stale = true;
    }

    /// Records why a semantic hit was served.
    pub(in crate::pipeline) fn approved(&mut self, approval: Option<Approval>) {
        self.approval = approval;
    }

    /// Records what a verifier replied about the prompt.
    pub(in crate::pipeline) fn verified(&mut self, reply: Option<VerifierReply>) {
        self.verified = reply;
    }

    /// Counts the request now. A caller that has read the end of its stream must find it counted, and a server
    /// drops a stream only some time later.
    pub(in crate::pipeline) fn close(&mut self) {
        if std::mem::replace(&mut self.is_closed, true) {
            return;
        }
        let elapsed = self.elapsed.unwrap_or_else(|| self.started.elapsed());
        if self.rpc == Rpc::Embed {
            return self.close_embedding(elapsed);
        }
        self.without_cache.add(self.saved_usd);
        let saved_usd = self.savings.net(self.tenant.name(), self.saved_usd);
        let observation = Observation {
            tenant: self.tenant.name(),
            namespace: &self.namespace,
            outcome: self.outcome,
            reason: self.reason,
            elapsed,
            first_token: self.first_token,
            saved_usd,
            gross_usd: self.saved_usd,
            approval: self.approval,
            is_stale: self.is_stale,
            hot_tier_usd: self.hot_tier_usd,
        };
        self.count(&observation);
        self.ledger.request(&observation);
        self.end_trace(elapsed);
    }

    /// Embeddings have metrics of their own: beside answers they would hide how the answers fare.
    fn close_embedding(&self, elapsed: Duration) {
        self.metrics.request(self.rpc, self.outcome, elapsed);
        self.end_trace(elapsed);
    }

    fn count(&self, observation: &Observation<'_>) {
        let (metrics, outcome) = (&self.metrics, self.outcome);
        metrics.request(self.rpc, outcome, observation.elapsed);
        if let Some(first_token) = self.first_token {
            metrics.first_token(outcome, first_token);
        }
        if let Some(reason) = self.reason {
            metrics.semantic_miss(reason);
        }
        if outcome.is_hit() {
            metrics.saved(outcome, observation.saved_usd);
        }
        if self.approval == Some(Approval::Verified) {
            metrics.verified_hit(observation.gross_usd);
        }
        metrics.at_hot_tier(self.hot_tier_usd);
        metrics.late_answer(observation, self.ledger.objective());
    }

    /// Writes the request's log line and ends its span.
    fn end_trace(&self, elapsed: Duration) {
        let Self { rpc, outcome, reason, model, trace, saved_usd, .. } = self;
        let verified = self.verified.map(VerifierReply::as_str);
        if RequestLog::is_wanted() {
            self.log.push(Line {
                at: SystemTime::now(),
                rpc: rpc.as_str(),
                outcome: *outcome,
                reason: *reason,
                verified,
                model: model.clone(),
                elapsed,
                trace: trace.id(),
            });
        }
        if !trace.is_recorded() {
            return;
        }
        let attributes = [
            Some(KeyValue::new("promptkeep.outcome", outcome.as_str())),
            reason.map(|reason| KeyValue::new("promptkeep.reason", reason.as_str())),
            verified.map(|verified| KeyValue::new("promptkeep.verified", verified)),
            (!model.is_empty()).then(|| KeyValue::new("gen_ai.response.model", model.clone())),
            Some(KeyValue::new("promptkeep.saved_usd", *saved_usd)),
        ];
        trace.end(attributes.into_iter().flatten(), *outcome == Outcome::Error);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.close();
    }
}

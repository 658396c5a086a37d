//! Counts what requests and model calls did: metrics, ledger, request log, spans, savings, and the recent replies
//! that feedback may name.

mod recorder;
mod savings;
mod without_cache;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use self::{savings::Savings, without_cache::WithoutCache};
use super::{
    AdmittedRequest, Hit, Request,
    replies::{RecentHit, Replies, RequestId, Served, Texts},
};
use crate::{
    model::{Attempt, AttemptResult, Usage, VerifierReply},
    outcome::Outcome,
    prompt::Completion,
    telemetry::{
        metrics::{Metrics, Rpc},
        request_log::RequestLog,
        stats::{CallPurpose, Ledger},
        trace::{Trace, Tracing},
    },
    tenant::Tenant,
    upstream::Upstreams,
};

pub(super) use self::recorder::Recorder;

/// The sinks of request and attempt counts.
pub(super) struct Recording {
    metrics: Arc<Metrics>,
    ledger: Arc<Ledger>,
    tracing: Option<Tracing>,
    log: Arc<RequestLog>,
    upstreams: Upstreams,
    savings: Savings,
    replies: Replies,
    without_cache: WithoutCache,
}

impl Recording {
    pub(super) fn new(
        metrics: Arc<Metrics>,
        ledger: Arc<Ledger>,
        tracing: Option<Tracing>,
        log: RequestLog,
        upstreams: Upstreams,
    ) -> Arc<Self> {
        let log = Arc::new(log);
        Arc::new(Self {
            metrics,
            ledger,
            tracing,
            log,
            upstreams,
            savings: Savings::default(),
            replies: Replies::default(),
            without_cache: WithoutCache::default(),
        })
    }

    /// Starts the clock of a request, and its span where spans are made.
    pub(super) fn start(&self, rpc: Rpc, request: &mut Request) -> Recorder {
        if let Some(tracing) = &self.tracing {
            request.trace = tracing.begin(rpc.as_str(), &request.trace);
        }
        Recorder::new(self, rpc, request)
    }

    /// The listener that counts every model call of one request, however it ends.
    pub(super) fn attempt_listener(
        &self,
        tenant: &Arc<Tenant>,
        namespace: &str,
        trace: &Trace,
    ) -> impl Fn(&Attempt) + Send + Sync + use<> + 'static {
        let count = self.call_counter(tenant, namespace, trace);
        move |attempt| count(attempt, CallPurpose::Answer)
    }

    /// [`Self::attempt_listener`] for audits and verifications.
    pub(super) fn audit_listener(
        &self,
        request: &AdmittedRequest,
    ) -> impl Fn(&Attempt) + Send + Sync + use<> + 'static {
        let count = self.call_counter(&request.tenant, &request.prompt.namespace, &request.trace);
        move |attempt| count(attempt, CallPurpose::Check)
    }

    /// [`Self::attempt_listener`] for a call that races a verifier. It is lost when a kept answer is served instead.
    pub(super) fn race_listener(
        &self,
        request: &AdmittedRequest,
        is_lost: Arc<AtomicBool>,
    ) -> impl Fn(&Attempt) + Send + Sync + use<> + 'static {
        let count = self.call_counter(&request.tenant, &request.prompt.namespace, &request.trace);
        move |attempt| {
            let is_lost = is_lost.load(Ordering::Relaxed);
            count(attempt, if is_lost { CallPurpose::Check } else { CallPurpose::Answer });
        }
    }

    /// Counts model calls. The cost of a check comes off the savings.
    fn call_counter(
        &self,
        tenant: &Arc<Tenant>,
        namespace: &str,
        trace: &Trace,
    ) -> impl Fn(&Attempt, CallPurpose) + Send + Sync + use<> + 'static {
        let (metrics, ledger) = (Arc::clone(&self.metrics), Arc::clone(&self.ledger));
        let (tenant, namespace) = (Arc::clone(tenant), namespace.to_owned());
        let (trace, without_cache) = (trace.clone(), self.without_cache.clone());
        let savings = self.savings.clone();
        move |attempt, purpose| {
            let usd = attempt.usage.cost_usd;
            match purpose {
                CallPurpose::Answer => without_cache.add(usd),
                CallPurpose::Check => savings.spend(tenant.name(), usd),
            }
            metrics.attempt(tenant.name(), attempt);
            ledger.attempt(tenant.name(), &namespace, attempt, purpose);
            trace.attempt(attempt);
            tenant.spend(SystemTime::now(), usd);
        }
    }

    /// [`Self::audit_listener`] for verifications.
    pub(super) fn verification_listener(
        &self,
        request: &AdmittedRequest,
    ) -> impl Fn(&Attempt) + Send + Sync + use<> + 'static {
        let (count, metrics) = (self.audit_listener(request), Arc::clone(&self.metrics));
        move |attempt| {
            count(attempt);
            metrics.verification_cost(attempt.usage.cost_usd);
            if attempt.result.is_call() {
                metrics.verification_took(attempt.elapsed);
            }
        }
    }

    /// Counts a verification. Its cost is counted with its call.
    pub(super) fn verification(&self, request: &AdmittedRequest, reply: VerifierReply) {
        self.metrics.verification(reply);
        self.ledger.verification(request.tenant.name(), &request.prompt.namespace, reply);
    }

    /// [`Self::attempt_listener`] for forwarded requests. Nobody reads their answer here, so its cost at the hot tier is
    /// known only when the call ends.
    pub(super) fn forward_listener(
        &self,
        tenant: &Arc<Tenant>,
        namespace: &str,
        trace: &Trace,
    ) -> impl Fn(&Attempt) + Send + Sync + use<> + 'static {
        let count = self.attempt_listener(tenant, namespace, trace);
        let (metrics, ledger) = (Arc::clone(&self.metrics), Arc::clone(&self.ledger));
        let (upstreams, namespace) = (self.upstreams.clone(), namespace.to_owned());
        let tenant = tenant.name().to_owned();
        move |attempt| {
            count(attempt);
            if attempt.result == AttemptResult::Ok {
                let usd = upstreams.at_hot_tier(attempt.usage);
                metrics.at_hot_tier(usd);
                ledger.at_hot_tier(&tenant, &namespace, usd);
            }
        }
    }

    /// US dollars that a hit saves: its tokens at the price of the model that the router would ask, or of the hot
    /// tier where it would ask none. An exact repeat is priced at the model that answered it first if the catalog has
    /// it, since routing it again took a third of the call's CPU time. A stale answer saves nothing: it is replaced.
    /// The cost in the entry is not used: a caller may have stated it. Tokens that the provider of the entry's call read
    /// from its own cache are priced as such, since the avoided call would have found them there too.
    pub(super) fn saved(&self, request: &AdmittedRequest, hit: &Hit) -> f64 {
        if hit.is_stale {
            return 0.0;
        }
        let Completion { model, usage, .. } = &hit.entry.completion;
        let is_exact = hit.outcome == Outcome::Exact;
        let first = || self.upstreams.price(model, *usage).filter(|_| is_exact);
        first().map_or_else(|| self.price_at_route(request, *usage), |usage| usage.cost_usd)
    }

    /// Cost of an answer with this usage in US dollars, at the model that the router would ask, or at the hot tier where
    /// it would ask none.
    pub(super) fn price_at_route(&self, request: &AdmittedRequest, usage: Usage) -> f64 {
        let route = self.upstreams.route(&request.prompt, None);
        let priced = route.and_then(|route| self.upstreams.price(&route.model, usage));
        priced.map_or_else(|| self.upstreams.at_hot_tier(usage), |usage| usage.cost_usd)
    }

    /// What the requests so far would have cost without a cache, in US dollars.
    pub(super) fn usd_without_cache(&self) -> f64 {
        self.without_cache.usd()
    }

    /// Counts a hit that a `Lookup` returns.
    pub(super) fn finish_lookup(&self, record: &mut Recorder, request: &AdmittedRequest, hit: &Hit) {
        let saved_usd = self.saved(request, hit);
        self.remember_semantic(request, hit, saved_usd);
        let completion = &hit.entry.completion;
        self.answered(record, completion);
        record.approved(hit.approval);
        record.finish(hit.outcome, None, saved_usd);
        let served = request.served(hit.outcome, completion, Some(hit.entry.key), hit.pair.clone());
        self.remember(request.id, served);
    }

    /// Records which model wrote the answer, and what it would have cost at the hot tier.
    pub(super) fn answered(&self, record: &mut Recorder, completion: &Completion) {
        record.answered(&completion.model, self.upstreams.at_hot_tier(completion.usage));
    }

    /// Remembers a reply, so that feedback can name it.
    pub(super) fn remember(&self, id: RequestId, served: Served) {
        self.replies.remember(id, served);
    }

    /// Remembers a semantic hit for operators; does nothing for other hits.
    pub(super) fn remember_semantic(&self, request: &AdmittedRequest, hit: &Hit, saved_usd: f64) {
        if hit.outcome != Outcome::Semantic {
            return;
        }
        let texts = request.settings.show_prompts.then(|| {
            let prompt = request.prompt.fuzzy_text().unwrap_or_default();
            Texts::new(prompt, hit.entry.text.as_deref().unwrap_or_default())
        });
        self.replies.remember_semantic(RecentHit {
            id: request.id,
            at: SystemTime::now(),
            owner: request.owner.clone(),
            namespace: request.prompt.namespace.clone(),
            entry: hit.entry.id(),
            similarity: hit.similarity,
            confidence: hit.confidence,
            saved_usd,
            texts,
            verdict: None,
        });
    }

    /// The recent replies and the feedback on them.
    pub(super) fn replies(&self) -> &Replies {
        &self.replies
    }

    /// Counts the refresh of a stale entry.
    pub(super) fn refreshed(&self, is_replaced: bool) {
        self.metrics.refresh(is_replaced);
        if !is_replaced {
            // The attempts' own log lines say why.
            tracing::warn!("a stale answer could not be replaced");
        }
    }

    /// Writes the last lines of the request log and sends the last spans.
    pub(super) async fn shutdown(&self) {
        let log = Arc::clone(&self.log);
        // It fails only by a panic, which has been logged.
        let _ = tokio::task::spawn_blocking(move || log.shutdown()).await;
        if let Some(tracing) = &self.tracing {
            tracing.shutdown().await;
        }
    }
}

//! The one place where a request is counted: when its recorder is dropped, however it ended.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use opentelemetry::KeyValue;

use super::{Asked, Hit, Pipeline, Request};
use crate::{
    feedback::{RecentHit, Texts},
    metrics::{Metrics, Rpc},
    outcome::{MissReason, Outcome},
    prompt::Completion,
    request_log::{Line, RequestLog},
    stats::{Ledger, Observation},
    tenant::Tenant,
    trace::Trace,
    upstream::{Attempt, Upstreams},
};

/// Counts one request, when it is closed or dropped. A request that ends without [`Recorder::finish`], by failing or because its
/// caller left, counts as an error.
pub(super) struct Recorder {
    metrics: Arc<Metrics>,
    ledger: Arc<Ledger>,
    log: Arc<RequestLog>,
    savings: Savings,
    rpc: Rpc,
    tenant: Arc<Tenant>,
    namespace: String,
    trace: Trace,
    /// That wrote the answer.
    model: String,
    started: Instant,
    first_token: Option<Duration>,
    outcome: Outcome,
    reason: Option<MissReason>,
    saved_usd: f64,
    hot_tier_usd: f64,
    is_stale: bool,
    /// When the answer was complete; handing it over is the caller's time.
    elapsed: Option<Duration>,
    /// It has been counted.
    is_closed: bool,
}

/// What is spent to keep the cache honest comes off the savings, so that these are net. Counters cannot fall,
/// so it comes off those that follow.
#[derive(Clone, Debug, Default)]
pub(super) struct Savings {
    /// US dollars spent and not yet taken off, by tenant.
    owed: Arc<Mutex<HashMap<String, f64>>>,
}

// === impl Savings ===

impl Savings {
    pub(super) fn spend(&self, tenant: &str, usd: f64) {
        let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        *owed.entry(tenant.to_owned()).or_default() += usd;
    }

    /// What is left of a saving of `usd`.
    fn net(&self, tenant: &str, usd: f64) -> f64 {
        if usd <= 0.0 {
            return 0.0;
        }
        let mut all = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(owed) = all.get_mut(tenant) else { return usd };
        let paid = owed.min(usd);
        *owed -= paid;
        usd - paid
    }
}

// === impl Recorder ===

impl Recorder {
    /// Starts the clock, and the request's span where spans are made.
    pub(super) fn start(pipeline: &Pipeline, rpc: Rpc, request: &mut Request) -> Self {
        if let Some(tracing) = &pipeline.tracing {
            request.trace = tracing.begin(rpc.as_str(), &request.trace);
        }
        Self {
            metrics: Arc::clone(&pipeline.metrics),
            ledger: Arc::clone(&pipeline.ledger),
            log: Arc::clone(&pipeline.log),
            savings: pipeline.savings.clone(),
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
            elapsed: None,
            is_closed: false,
        }
    }

    /// The first token of a stream is on its way. Later calls change nothing.
    pub(super) fn first_token(&mut self) {
        self.first_token.get_or_insert_with(|| self.started.elapsed());
    }

    /// Who wrote the answer, and what it would have cost at the hot tier.
    pub(super) fn answered(&mut self, upstreams: &Upstreams, completion: &Completion) {
        self.model.clone_from(&completion.model);
        self.hot_tier_usd = upstreams.at_hot_tier(completion.usage);
    }

    pub(super) fn finish(&mut self, outcome: Outcome, reason: Option<MissReason>, saved_usd: f64) {
        self.elapsed = Some(self.started.elapsed());
        self.outcome = outcome;
        self.reason = reason;
        self.saved_usd = saved_usd;
    }

    /// The answer was past its TTL.
    pub(super) fn stale(&mut self) {
        self.is_stale = true;
    }

    /// Counts it now. A stream's caller that has seen the end must find it counted, and a server drops a
    /// stream only some time after.
    pub(super) fn close(&mut self) {
        if std::mem::replace(&mut self.is_closed, true) {
            return;
        }
        let Self {
            rpc,
            tenant,
            namespace,
            is_stale,
            started,
            first_token,
            outcome,
            reason,
            saved_usd,
            hot_tier_usd,
            elapsed,
            ..
        } = self;
        let elapsed = elapsed.unwrap_or_else(|| started.elapsed());
        self.metrics.request(*rpc, *outcome, elapsed);
        if let Some(first_token) = first_token {
            self.metrics.first_token(*outcome, *first_token);
        }
        if let Some(reason) = reason {
            self.metrics.semantic_miss(*reason);
        }
        let saved_usd = self.savings.net(tenant.name(), *saved_usd);
        if outcome.is_hit() {
            self.metrics.saved(*outcome, saved_usd);
        }
        let seen = Observation {
            tenant: tenant.name(),
            namespace,
            outcome: *outcome,
            reason: *reason,
            elapsed,
            first_token: *first_token,
            saved_usd,
            is_stale: *is_stale,
            hot_tier_usd: *hot_tier_usd,
        };
        self.metrics.at_hot_tier(*hot_tier_usd);
        self.metrics.began(&seen, self.ledger.objective());
        self.ledger.request(&seen);
        self.end_trace(elapsed);
    }

    /// One line in the log, and the end of the span.
    fn end_trace(&self, elapsed: Duration) {
        let Self { rpc, outcome, reason, model, trace, saved_usd, .. } = self;
        if RequestLog::is_wanted() {
            self.log.push(Line {
                at: SystemTime::now(),
                rpc: rpc.as_str(),
                outcome: *outcome,
                reason: *reason,
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

// === impl Pipeline ===

impl Pipeline {
    /// Counts every model call made for one request, however it ends and whoever reads its answer.
    pub(super) fn bookkeeper(
        &self,
        tenant: &Arc<Tenant>,
        namespace: &str,
        trace: &Trace,
    ) -> impl Fn(&Attempt) + Send + Sync + use<> + 'static {
        let (metrics, ledger) = (Arc::clone(&self.metrics), Arc::clone(&self.ledger));
        let (tenant, namespace) = (Arc::clone(tenant), namespace.to_owned());
        let trace = trace.clone();
        move |attempt| {
            metrics.attempt(tenant.name(), attempt);
            ledger.attempt(tenant.name(), &namespace, attempt);
            trace.attempt(attempt);
            tenant.spend(SystemTime::now(), attempt.usage.cost_usd);
        }
    }

    /// The same for calls that keep the cache honest: they come off the savings.
    pub(super) fn bookkeeper_of_checks(
        &self,
        asked: &Asked,
    ) -> impl Fn(&Attempt) + Send + Sync + use<> + 'static {
        let count = self.bookkeeper(&asked.tenant, &asked.prompt.namespace, &asked.trace);
        let (savings, tenant) = (self.savings.clone(), asked.tenant.name().to_owned());
        move |attempt| {
            count(attempt);
            savings.spend(&tenant, attempt.usage.cost_usd);
        }
    }

    /// Remembers a semantic hit for those who look over them.
    pub(super) fn note_semantic(&self, asked: &Asked, hit: &Hit, saved_usd: f64) {
        if hit.outcome != Outcome::Semantic {
            return;
        }
        let texts = asked.settings.show_prompts.then(|| {
            let asked = asked.prompt.fuzzy_text().unwrap_or_default();
            Texts::new(asked, hit.entry.text.as_deref().unwrap_or_default())
        });
        self.replies.remember_semantic(RecentHit {
            id: asked.id,
            at: SystemTime::now(),
            owner: asked.owner.clone(),
            namespace: asked.prompt.namespace.clone(),
            entry: hit.entry.id(),
            similarity: hit.similarity,
            confidence: hit.confidence,
            saved_usd,
            texts,
            verdict: None,
        });
    }

    /// What a hit saves: its tokens at the price of the model that would have been asked, or at its own
    /// where none would. For an exact repeat that is the model that answered the first time; judging the
    /// prompt again took a third of the whole call's CPU. A stale answer saves nothing: it is bought again.
    pub(super) fn saved(&self, asked: &Asked, hit: &Hit) -> f64 {
        if hit.is_stale {
            return 0.0;
        }
        let Completion { model, usage, .. } = &hit.entry.completion;
        let priced = match hit.outcome {
            Outcome::Exact => self.upstreams.price(model, *usage),
            _ => {
                let route = self.upstreams.route(&asked.prompt, None);
                route.and_then(|route| self.upstreams.price(&route.model, *usage))
            }
        };
        priced.unwrap_or(*usage).cost_usd
    }
}

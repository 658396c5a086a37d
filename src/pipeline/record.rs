//! The one place where a request is counted: when its recorder is dropped, however it ended.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use super::{Asked, Hit, Pipeline};
use crate::{
    metrics::{Metrics, Rpc},
    outcome::{MissReason, Outcome},
    prompt::Completion,
    stats::{Ledger, Observation},
    tenant::Tenant,
    upstream::Attempt,
};

/// Counts one request, when it is closed or dropped. A request that ends without [`Recorder::finish`], by failing or because its
/// caller left, counts as an error.
pub(super) struct Recorder {
    metrics: Arc<Metrics>,
    ledger: Arc<Ledger>,
    savings: Savings,
    rpc: Rpc,
    tenant: Arc<Tenant>,
    namespace: String,
    started: Instant,
    first_token: Option<Duration>,
    outcome: Outcome,
    reason: Option<MissReason>,
    saved_usd: f64,
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
    /// US dollars spent and not yet taken off.
    owed: Arc<Mutex<f64>>,
}

// === impl Savings ===

impl Savings {
    pub(super) fn spend(&self, usd: f64) {
        *self.owed.lock().unwrap_or_else(PoisonError::into_inner) += usd;
    }

    /// What is left of a saving of `usd`.
    fn net(&self, usd: f64) -> f64 {
        if usd <= 0.0 {
            return 0.0;
        }
        let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        let paid = owed.min(usd);
        *owed -= paid;
        usd - paid
    }
}

// === impl Recorder ===

impl Recorder {
    pub(super) fn start(pipeline: &Pipeline, rpc: Rpc, tenant: &Arc<Tenant>, namespace: &str) -> Self {
        Self {
            metrics: Arc::clone(&pipeline.metrics),
            ledger: Arc::clone(&pipeline.ledger),
            savings: pipeline.savings.clone(),
            rpc,
            tenant: Arc::clone(tenant),
            namespace: namespace.to_owned(),
            started: Instant::now(),
            first_token: None,
            outcome: Outcome::Error,
            reason: None,
            saved_usd: 0.0,
            is_stale: false,
            elapsed: None,
            is_closed: false,
        }
    }

    /// The first token of a stream is on its way. Later calls change nothing.
    pub(super) fn first_token(&mut self) {
        self.first_token.get_or_insert_with(|| self.started.elapsed());
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
        let saved_usd = self.savings.net(*saved_usd);
        if outcome.is_hit() {
            self.metrics.saved(*outcome, saved_usd);
        }
        self.ledger.request(&Observation {
            tenant: tenant.name(),
            namespace,
            outcome: *outcome,
            reason: *reason,
            elapsed,
            first_token: *first_token,
            saved_usd,
            is_stale: *is_stale,
        });
        tracing::debug!(
            rpc = rpc.as_str(),
            outcome = outcome.as_str(),
            reason = reason.map(MissReason::as_str),
            elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
            "request"
        );
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
    ) -> impl Fn(&Attempt) + Send + Sync + use<> + 'static {
        let (metrics, ledger) = (Arc::clone(&self.metrics), Arc::clone(&self.ledger));
        let (tenant, namespace) = (Arc::clone(tenant), namespace.to_owned());
        move |attempt| {
            metrics.attempt(tenant.name(), attempt);
            ledger.attempt(tenant.name(), &namespace, attempt);
            tenant.spend(SystemTime::now(), attempt.usage.cost_usd);
        }
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

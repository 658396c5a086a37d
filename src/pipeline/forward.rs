//! Requests that the cache cannot hold: admitted and counted like any other, then passed on.

use std::{sync::Arc, time::SystemTime};

use axum::http::HeaderValue;
use bytes::Bytes;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::{
    Pipeline, Request,
    asked::{Place, fill_defaults},
    record::Recorder,
};
use crate::{
    error::Error,
    feedback::RequestId,
    metrics::{Rpc, Shed},
    model::{Attempt, AttemptResult},
    outcome::{MissReason, Outcome},
    tenant::Tenant,
    trace::Trace,
    upstream::{Endpoint, Forwarded, Passed},
};

/// A request to pass on.
pub struct Forward {
    /// Who asks, and by its prompt which model.
    pub request: Request,
    pub endpoint: Endpoint,
    pub body: Map<String, Value>,
}

/// A reply that is passed back.
pub struct Forwarding {
    id: RequestId,
    reply: Forwarded,
    record: Recorder,
    _place: Place,
}

// === impl Pipeline ===

impl Pipeline {
    /// Passes a request on to a model, past the cache. Dropping the reply cancels the call.
    ///
    /// # Errors
    /// As [`Pipeline::complete`]; what the provider says against the request is a reply.
    pub async fn forward(&self, forward: Forward) -> Result<Forwarding, Error> {
        let Forward { mut request, endpoint, body } = forward;
        let record = Recorder::start(self, Rpc::Forward, &mut request);
        let Request { tenant, mut prompt, cache: _, deadline, trace } = request;
        let settings = self.settings();
        let place = self.enter(&tenant, &settings)?;
        tenant.check_budget(SystemTime::now()).inspect_err(|_| self.metrics.shed(Shed::Budget))?;
        fill_defaults(&settings, &mut prompt);
        let passed = Passed {
            endpoint,
            route: &prompt,
            body,
            headers: trace.headers(),
            deadline: deadline.unwrap_or_else(|| Instant::now() + settings.timeout),
            on_attempt: Some(Arc::new(self.forward_bookkeeper(&tenant, &prompt.namespace, &trace))),
        };
        let reply = self.upstreams.forward(passed).await?;
        Ok(Forwarding { id: RequestId::random(), reply, record, _place: place })
    }

    /// Nobody reads the answer here, so what it would have cost at the hot tier is known with its call only.
    fn forward_bookkeeper(
        &self,
        tenant: &Arc<Tenant>,
        namespace: &str,
        trace: &Trace,
    ) -> impl Fn(&Attempt) + Send + Sync + use<> + 'static {
        let count = self.bookkeeper(tenant, namespace, trace);
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
}

// === impl Forwarding ===

impl Forwarding {
    pub fn id(&self) -> RequestId {
        self.id
    }

    /// Of the provider's reply.
    pub fn status(&self) -> u16 {
        self.reply.status
    }

    pub fn take_content_type(&mut self) -> Option<HeaderValue> {
        self.reply.content_type.take()
    }

    pub fn take_retry_after(&mut self) -> Option<HeaderValue> {
        self.reply.retry_after.take()
    }

    /// The next bytes of the body; `None` after the last.
    ///
    /// # Errors
    /// When the body broke off.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let bytes = self.reply.next().await?;
        if bytes.is_none() && self.reply.status < 400 {
            self.record.finish(Outcome::Bypass, Some(MissReason::NotKept), 0.0);
        }
        Ok(bytes)
    }
}

//! Requests that the cache cannot hold: admitted and counted like all others, then forwarded to a model.

use std::sync::Arc;

use axum::http::HeaderValue;
use bytes::Bytes;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::{
    Admission, Recording, Request, admission::Permit, recording::Recorder, replies::RequestId,
    request::fill_defaults,
};
use crate::{
    error::Error,
    outcome::{MissReason, Outcome},
    telemetry::metrics::Rpc,
    upstream::{Endpoint, ForwardRequest, Forwarded, Upstreams},
};

/// Forwards requests past the cache.
pub struct Forwarder {
    pub(super) admission: Arc<Admission>,
    pub(super) upstreams: Upstreams,
    pub(super) recording: Arc<Recording>,
}

/// A request to forward.
pub struct Forward {
    /// The caller, and in its prompt the model that it names.
    pub request: Request,
    pub endpoint: Endpoint,
    pub body: Map<String, Value>,
}

/// A provider's reply on its way back to the caller.
pub struct Forwarding {
    id: RequestId,
    reply: Forwarded,
    record: Recorder,
    _permit: Permit,
}

impl Forwarder {
    /// Forwards a request to a model. Dropping the reply cancels the call.
    ///
    /// # Errors
    /// The errors of [`Pipeline::complete`](super::Pipeline::complete). A provider's refusal is a reply.
    pub async fn forward(&self, forward: Forward) -> Result<Forwarding, Error> {
        let Forward { mut request, endpoint, body } = forward;
        let record = self.recording.start(Rpc::Forward, &mut request);
        let Request { tenant, mut prompt, cache: _, deadline, trace } = request;
        let settings = self.admission.settings();
        let permit = self.admission.enter(&tenant, &settings)?;
        self.admission.check_budget(&tenant)?;
        fill_defaults(&settings, &mut prompt);
        let attempts = self.recording.forward_listener(&tenant, &prompt.namespace, &trace);
        let passed = ForwardRequest {
            endpoint,
            route: &prompt,
            body,
            headers: trace.headers(),
            deadline: deadline.unwrap_or_else(|| Instant::now() + settings.timeout),
            on_attempt: Some(Arc::new(attempts)),
        };
        let reply = self.upstreams.forward(passed).await?;
        Ok(Forwarding { id: RequestId::random(), reply, record, _permit: permit })
    }
}

impl Forwarding {
    pub fn id(&self) -> RequestId {
        self.id
    }

    /// Status of the provider's reply.
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
            self.record.finish(Outcome::Bypass, Some(MissReason::NotReusable), 0.0);
        }
        Ok(bytes)
    }
}

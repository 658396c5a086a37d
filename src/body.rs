//! Bodies of requests and replies on both ports, limited in time and in memory. Knows no protocol: each server turns a
//! [`BodyError`] into its own.

mod reply;
mod request;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body::Body;

use self::reply::UnreadReplies;
pub use self::{reply::ReplyBody, request::RequestBody};
use crate::{
    config::LimitsConfig,
    error::Error,
    telemetry::metrics::{Metrics, Shed},
};

/// Retry delay of a request that found no memory.
const MEMORY_RETRY_AFTER: Duration = Duration::from_millis(100);

/// The limits that all bodies of a server share.
#[derive(Clone)]
pub struct BodyLimits(Arc<Shared>);

struct Shared {
    /// `server.limits.body_timeout`
    body_timeout: Duration,
    /// `server.limits.request_memory`
    memory_max: usize,
    /// Bytes of requests in flight.
    memory: AtomicUsize,
    replies: UnreadReplies,
    metrics: Arc<Metrics>,
}

/// Bytes that one request occupies, until it is dropped.
pub struct RequestMemory {
    limits: BodyLimits,
    bytes: AtomicUsize,
}

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The request did not arrive within `server.limits.body_timeout`.
    #[error("the request did not arrive in time")]
    Slow,
    /// The requests in flight occupy `server.limits.request_memory`.
    #[error("no memory for the request")]
    NoMemory,
    /// The peer read nothing of the reply for `server.limits.write_timeout`.
    #[error("the reply was not read in time")]
    Unread,
    /// The connection broke, or the body itself failed.
    #[error("the body ended early")]
    Broken,
}

// === impl BodyLimits ===

impl BodyLimits {
    pub fn new(config: &LimitsConfig, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Shared {
            body_timeout: config.body_timeout,
            memory_max: config.request_memory,
            memory: AtomicUsize::new(0),
            replies: UnreadReplies::new(config.write_timeout),
            metrics,
        }))
    }

    /// Limits the body of a request whose headers have arrived. The memory stays occupied until the reply, which takes
    /// it over, has been sent.
    pub fn request<B, E>(
        &self,
        body: B,
        error: fn(BodyError) -> E,
    ) -> (RequestBody<B, E>, Arc<RequestMemory>) {
        let memory = Arc::new(RequestMemory { limits: self.clone(), bytes: AtomicUsize::new(0) });
        (RequestBody::new(body, error, Arc::clone(&memory), self.0.body_timeout), memory)
    }

    /// Limits the body of a reply. It is dropped, with everything that it holds, once the peer has read nothing of it
    /// for `server.limits.write_timeout`.
    pub fn reply<B>(&self, body: B, memory: Arc<RequestMemory>) -> ReplyBody<B>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
    {
        self.0.replies.watch(body, memory)
    }

    /// Drops the replies that nobody reads, for ever.
    pub async fn drop_unread_replies(&self) {
        self.0.replies.drop_unread(|| self.0.metrics.shed(Shed::UnreadReply)).await;
    }
}

// === impl RequestMemory ===

impl RequestMemory {
    /// Occupies `bytes` more.
    fn occupy(&self, bytes: usize) -> Result<(), BodyError> {
        let Shared { memory, memory_max, metrics, .. } = &*self.limits.0;
        // Relaxed: the counter guards no other memory.
        if memory.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > *memory_max {
            memory.fetch_sub(bytes, Ordering::Relaxed);
            metrics.shed(Shed::Memory);
            return Err(BodyError::NoMemory);
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn count_slow(&self) {
        self.limits.0.metrics.shed(Shed::SlowRequest);
    }
}

impl Drop for RequestMemory {
    fn drop(&mut self) {
        self.limits.0.memory.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

impl From<BodyError> for Error {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Slow => Self::SlowRequest,
            BodyError::NoMemory => {
                Self::Exhausted { limit: "memory for requests", retry_after: MEMORY_RETRY_AFTER }
            }
            BodyError::Unread | BodyError::Broken => Self::invalid("body", "ended early"),
        }
    }
}

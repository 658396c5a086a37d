//! Reader of a provider's reply: chunks until the answer is complete. It must not know about other attempts
//! or the catalog.

use std::{mem, time::Duration};

use reqwest::Response;
use tokio::time::{Instant, timeout_at};

use super::{
    call::{Fault, Limits},
    openai::{self, Chunk, Event},
    sse,
};
use crate::model::AttemptResult;

/// A reply that is being read.
#[derive(Debug)]
pub(super) struct Reply {
    body: Body,
    limits: Limits,
    /// The finish reason has arrived; only the usage block may follow.
    finished: bool,
}

#[derive(Debug)]
pub(super) enum Body {
    Stream(Box<Stream>),
    /// The complete reply of a provider that does not stream.
    Whole(Box<Chunk>),
    Ended,
}

#[derive(Debug)]
pub(super) struct Stream {
    response: Response,
    decoder: sse::Decoder,
    /// The connection has ended; the decoder may still hold events.
    closed: bool,
}

/// Longest wait for usage after the finish reason, and for the end of the body after `[DONE]`.
const TRAILER_TIMEOUT: Duration = Duration::from_secs(1);

// === impl Reply ===

impl Reply {
    pub fn new(body: Body, limits: Limits) -> Self {
        Self { body, limits, finished: false }
    }

    /// Moves the request's deadline, never to an earlier time.
    pub fn extend_deadline(&mut self, deadline: Instant) {
        self.limits.deadline = self.limits.deadline.max(deadline);
    }

    /// The next chunk, or `None` once the answer is complete. Fails with `timeout` when `until` passes before
    /// the deadline does.
    pub async fn next_until(
        &mut self,
        until: Instant,
        timeout: AttemptResult,
    ) -> Result<Option<Chunk>, Fault> {
        let deadline = self.limits.deadline;
        if self.finished {
            // The answer is complete: a fault now only costs the usage block.
            let until = deadline.min(Instant::now() + TRAILER_TIMEOUT);
            return Ok(timeout_at(until, self.read()).await.unwrap_or(Ok(None)).unwrap_or(None));
        }
        match timeout_at(until.min(deadline), self.read()).await {
            Ok(result) => result,
            Err(_) => Err(Fault::timed_out(deadline, timeout)),
        }
    }

    /// The next chunk after the first token, within the idle timeout.
    pub async fn next(&mut self) -> Result<Option<Chunk>, Fault> {
        let until = Instant::now() + self.limits.idle_timeout;
        self.next_until(until, AttemptResult::IdleTimeout).await
    }

    async fn read(&mut self) -> Result<Option<Chunk>, Fault> {
        loop {
            match &mut self.body {
                Body::Ended => return Ok(None),
                Body::Whole(chunk) => {
                    let chunk = mem::take(&mut **chunk);
                    self.body = Body::Ended;
                    return Ok(Some(chunk));
                }
                Body::Stream(stream) => match stream.next_event().await? {
                    Some(Event::Chunk(chunk)) => {
                        self.finished |= chunk.finish.is_some();
                        return Ok(Some(*chunk));
                    }
                    Some(Event::Done) => mem::replace(&mut self.body, Body::Ended).drain(),
                    None if self.finished => self.body = Body::Ended,
                    None => return Err(Fault::broken()),
                },
            }
        }
    }
}

// === impl Body ===

impl Body {
    pub fn stream(response: Response, event_max: usize) -> Self {
        Self::Stream(Box::new(Stream { response, decoder: sse::Decoder::new(event_max), closed: false }))
    }

    /// Reads the rest of the body after `[DONE]`, since only then can the connection be reused. A task does
    /// it, so that the caller need not wait; it ends within [`TRAILER_TIMEOUT`].
    fn drain(self) {
        if let Self::Stream(mut stream) = self {
            tokio::spawn(async move {
                let end = Instant::now() + TRAILER_TIMEOUT;
                while let Ok(Ok(Some(_))) = timeout_at(end, stream.response.chunk()).await {}
            });
        }
    }
}

// === impl Stream ===

impl Stream {
    /// The next event, or `None` once the connection is closed.
    async fn next_event(&mut self) -> Result<Option<Event>, Fault> {
        loop {
            if let Some(data) = self.decoder.next_event() {
                return match openai::decode_event(&data) {
                    Ok(event) => Ok(Some(event)),
                    Err(_) => Err(Fault::next_model(AttemptResult::Malformed)),
                };
            }
            if self.closed {
                return Ok(None);
            }
            match self.response.chunk().await.map_err(|error| Fault::transport(&error))? {
                Some(bytes) => {
                    self.decoder.push(&bytes).map_err(|_| Fault::next_model(AttemptResult::TooLarge))?;
                }
                None => {
                    self.closed = true;
                    self.decoder.finish();
                }
            }
        }
    }
}

//! A reply as it is read: chunks until the provider says that the answer is whole. Knows no other
//! attempt and no catalog.

use std::{mem, time::Duration};

use reqwest::Response;
use tokio::time::{Instant, timeout_at};

use super::{
    AttemptResult,
    call::{Fault, Limits},
    openai::{self, Chunk, Event},
    sse,
};

/// A reply that is being read.
#[derive(Debug)]
pub(super) struct Reply {
    body: Body,
    limits: Limits,
    /// The provider said that the answer is whole; what may follow is only usage.
    finished: bool,
}

#[derive(Debug)]
pub(super) enum Body {
    Stream(Box<Stream>),
    /// A provider that does not stream: all is there.
    Whole(Box<Chunk>),
    Ended,
}

#[derive(Debug)]
pub(super) struct Stream {
    response: Response,
    decoder: sse::Decoder,
    /// The connection has nothing more; the decoder may.
    closed: bool,
}

/// Usage follows the finish reason at once, or not at all.
const TRAILER_TIMEOUT: Duration = Duration::from_secs(1);

// === impl Reply ===

impl Reply {
    pub fn new(body: Body, limits: Limits) -> Self {
        Self { body, limits, finished: false }
    }

    /// The next chunk before `until`; `None` when the provider has said that the answer is whole. Being
    /// late is reported as `late`.
    pub async fn next_until(&mut self, until: Instant, late: AttemptResult) -> Result<Option<Chunk>, Fault> {
        let deadline = self.limits.deadline;
        if self.finished {
            // The answer is whole already: whatever goes wrong now only costs the usage block.
            let until = deadline.min(Instant::now() + TRAILER_TIMEOUT);
            return Ok(timeout_at(until, self.read()).await.unwrap_or(Ok(None)).unwrap_or(None));
        }
        match timeout_at(until.min(deadline), self.read()).await {
            Ok(result) => result,
            Err(_) => Err(Fault::late(deadline, late)),
        }
    }

    /// The next chunk after the first token.
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
                        return Ok(Some(chunk));
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

    /// Reads the end of the body that follows `[DONE]`, since only then can the connection be used
    /// again. The caller must not wait for it; the task ends by itself within a second.
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
    /// `None`: the connection was closed.
    async fn next_event(&mut self) -> Result<Option<Event>, Fault> {
        loop {
            if let Some(data) = self.decoder.next_event() {
                let event = openai::decode_event(&data).map_err(|_| Fault::next(AttemptResult::Malformed))?;
                return Ok(Some(event));
            }
            if self.closed {
                return Ok(None);
            }
            match self.response.chunk().await {
                Ok(Some(bytes)) => {
                    self.decoder.push(&bytes).map_err(|_| Fault::next(AttemptResult::TooLarge))?
                }
                Ok(None) => {
                    self.closed = true;
                    self.decoder.finish();
                }
                Err(error) => return Err(Fault::transport(&error)),
            }
        }
    }
}

//! Answers as server-sent events, sent piece by piece as the model produces them. Knows no API's JSON: each
//! [`Dialect`] writes its own events.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    http::{
        HeaderValue,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse as _, Response},
};
use futures_util::Stream;
use serde_json::Value;
use tokio::time::timeout;

use super::{
    failure::Failure,
    reply::{Answered, Facts, is_from_entry},
};
use crate::{
    error::Error,
    pipeline::{AnswerStream, Chunk, RequestId, Started, deltas},
    prompt::Delta,
};

/// Silence after which a comment is sent, so that no proxy closes the connection as idle. Half of the shortest idle
/// timeout that proxies and load balancers have by default.
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(15);
const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// An API's encoding of answers: as one object, or as events written to a buffer.
pub(super) trait Dialect: Send + Sized + 'static {
    /// Fields of the request that shape the answer.
    type Options: Send;

    /// The whole answer as one object.
    fn whole(options: &Self::Options, id: RequestId, answer: &Answered<'_>) -> Value;

    /// A writer of one answer's events.
    fn new(options: Self::Options, started: &Started) -> Self;

    /// Writes the events before the first delta.
    fn started(&mut self, out: &mut Vec<u8>);

    fn delta(&mut self, out: &mut Vec<u8>, delta: &Delta);

    /// Writes the events after the last delta, with the stream's end mark.
    fn finished(&mut self, out: &mut Vec<u8>, answer: &Answered<'_>);

    /// Writes an error as an event, since the status was sent already. The stream ends without its end mark.
    fn failed(&mut self, out: &mut Vec<u8>, failure: &Failure);
}

/// A stream in flight.
struct Events<D> {
    answer: AnswerStream,
    dialect: D,
    /// `cache.zero_hit_usage`
    zero_hit_usage: bool,
    /// Written and not yet sent.
    ready: Vec<u8>,
    ended: bool,
}

/// Streams `answer`. The status is sent with the first token, so that earlier errors have their own status.
pub(super) async fn reply<D: Dialect>(
    mut answer: AnswerStream,
    zero_hit_usage: bool,
    dialect: impl FnOnce(&Started) -> D,
) -> Result<Response, Failure> {
    let Some(Chunk::Started(started)) = answer.next().await? else {
        return Err(Error::internal("a stream without a beginning").into());
    };
    let mut facts = Facts::of_started(&started);
    let mut events =
        Events { answer, dialect: dialect(&started), zero_hit_usage, ready: Vec::new(), ended: false };
    events.dialect.started(&mut events.ready);
    // An entry's answer is complete, so it is sent in one piece, and the headers can include what it saved.
    while is_from_entry(started.outcome) && !events.ended {
        if let Some(saved_usd) = events.advance().await? {
            facts.saved_usd = Some(saved_usd);
        }
    }
    Ok(event_stream(&facts, Body::from_stream(events.into_stream())))
}

/// Streams a cached answer.
pub(super) fn replay(answer: &Answered<'_>, mut dialect: impl Dialect) -> Response {
    let mut out = Vec::new();
    dialect.started(&mut out);
    for delta in deltas(answer.completion) {
        dialect.delta(&mut out, &delta);
    }
    dialect.finished(&mut out, answer);
    event_stream(answer.facts, Body::from(out))
}

fn event_stream(facts: &Facts, body: Body) -> Response {
    let mut response = (facts.headers(), body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Keeps nginx from buffering the events.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

impl<D: Dialect> Events<D> {
    /// Writes the next event; at the end, returns what the answer saved, in US dollars.
    async fn advance(&mut self) -> Result<Option<f64>, Error> {
        match self.answer.next().await? {
            Some(Chunk::Delta(delta)) => self.dialect.delta(&mut self.ready, &delta),
            Some(Chunk::Finished(reply)) => {
                let facts = Facts::of_reply(&reply);
                let answer = Answered {
                    facts: &facts,
                    completion: reply.completion(),
                    zero_hit_usage: self.zero_hit_usage,
                };
                self.dialect.finished(&mut self.ready, &answer);
                self.ended = true;
                return Ok(Some(reply.saved_usd));
            }
            Some(Chunk::Started(_)) => {}
            None => self.ended = true,
        }
        Ok(None)
    }

    fn into_stream(self) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> {
        futures_util::stream::unfold(self, |mut events| async move {
            let bytes = events.next_bytes().await?;
            Some((Ok(bytes), events))
        })
    }

    /// The bytes to send next; `None` after the end. Cancel-safe: dropping the future loses nothing.
    async fn next_bytes(&mut self) -> Option<Bytes> {
        while self.ready.is_empty() {
            if self.ended {
                return None;
            }
            match timeout(KEEP_ALIVE_AFTER, self.advance()).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    self.ended = true;
                    self.dialect.failed(&mut self.ready, &Failure::from(error));
                }
                Err(_) => return Some(Bytes::from_static(KEEP_ALIVE)),
            }
        }
        Some(std::mem::take(&mut self.ready).into())
    }
}

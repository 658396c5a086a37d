//! Answers as server-sent events: every piece goes out as it comes.

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
use tokio::time::timeout;

use super::{
    chat::ChatEvents,
    failure::Failure,
    reply::{Facts, is_from_entry},
    responses::ResponseEvents,
};
use crate::{
    error::Error,
    pipeline::{AnswerStream, Chunk, Started, deltas},
    prompt::{Completion, Delta},
};

/// Silence after which a comment goes out, so that nothing on the way takes the connection for dead. Half
/// of the shortest idle timeout that proxies and load balancers come with.
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(15);
const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// Which API the events are of.
#[derive(Debug)]
pub(super) enum Dialect {
    Chat(ChatEvents),
    Responses(Box<ResponseEvents>),
}

/// A stream under way.
struct Events {
    answering: AnswerStream,
    dialect: Dialect,
    /// Written but not yet handed over.
    ready: Vec<u8>,
    ended: bool,
}

/// The answer as a reply. Its head waits for the first token, so that what goes wrong before it still
/// gets a status of its own.
pub(super) async fn reply(
    mut answering: AnswerStream,
    dialect: impl FnOnce(&Started) -> Dialect,
) -> Result<Response, Failure> {
    let Some(Chunk::Started(started)) = answering.next().await? else {
        return Err(Error::internal("a stream without a beginning").into());
    };
    let mut facts = Facts::of_started(&started);
    let mut events = Events { answering, dialect: dialect(&started), ready: Vec::new(), ended: false };
    events.dialect.started(&mut events.ready);
    // What an entry answers is all there, so it goes out in one piece, and its head can say everything.
    while is_from_entry(started.outcome) && !events.ended {
        if let Some(finished) = events.advance().await? {
            facts.saved_usd = Some(finished);
        }
    }
    Ok(event_stream(&facts, Body::from_stream(events.into_stream())))
}

/// A kept answer as a reply.
pub(super) fn replay(facts: &Facts, mut dialect: Dialect, completion: &Completion) -> Response {
    let mut out = Vec::new();
    dialect.started(&mut out);
    for delta in deltas(completion) {
        dialect.delta(&mut out, &delta);
    }
    dialect.finished(&mut out, completion);
    event_stream(facts, Body::from(out))
}

fn event_stream(facts: &Facts, body: Body) -> Response {
    let mut response = (facts.headers(), body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx would gather the events otherwise.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

// === impl Events ===

impl Events {
    /// Writes the next event; at the end, returns what the answer saved, in US dollars.
    async fn advance(&mut self) -> Result<Option<f64>, Error> {
        match self.answering.next().await? {
            Some(Chunk::Delta(delta)) => self.dialect.delta(&mut self.ready, &delta),
            Some(Chunk::Finished(reply)) => {
                self.dialect.finished(&mut self.ready, reply.completion());
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

    /// What goes out next; `None` after the end. Dropping it in between loses nothing.
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

// === impl Dialect ===

impl Dialect {
    fn started(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Chat(events) => events.started(out),
            Self::Responses(events) => events.started(out),
        }
    }

    fn delta(&mut self, out: &mut Vec<u8>, delta: &Delta) {
        match self {
            Self::Chat(events) => events.delta(out, delta),
            Self::Responses(events) => events.delta(out, delta),
        }
    }

    fn finished(&mut self, out: &mut Vec<u8>, completion: &Completion) {
        match self {
            Self::Chat(events) => events.finished(out, completion),
            Self::Responses(events) => events.finished(out, completion),
        }
    }

    /// The status is out already, so the error comes as an event, and the stream ends without its mark.
    fn failed(&mut self, out: &mut Vec<u8>, failure: &Failure) {
        match self {
            Self::Chat(_) => out.extend_from_slice(format!("data: {}\n\n", failure.body()).as_bytes()),
            Self::Responses(events) => events.failed(out, failure),
        }
    }
}

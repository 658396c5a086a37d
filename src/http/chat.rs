//! `POST /v1/chat/completions`: decoded into a prompt where the cache can answer it, passed on as it is
//! where it cannot.

mod decode;
mod encode;
mod stream;

use axum::{
    body::Body,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse as _, Response},
};
use serde_json::{Map, Value};

use self::decode::Decoded;
pub(super) use self::{decode::text_or_null, stream::ChatEvents};
use super::{
    Door,
    caller::Caller,
    failure::Failure,
    forward::pass_on,
    reply::{self, Facts},
    sse::{self, Dialect},
};
use crate::{error::Error, metrics::Rpc, pipeline::Request, prompt::Prompt, upstream::Endpoint};

/// How the caller wants the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Shape {
    pub stream: bool,
    /// `stream_options.include_usage`
    pub include_usage: bool,
}

/// The prompt of a request's body, as this door would ask it; `None` where it would pass the body on.
///
/// # Errors
/// The caller's mistake.
pub(crate) fn prompt_of_chat(body: Map<String, Value>) -> Result<Option<Prompt>, Error> {
    match decode::decode(body)? {
        Decoded::Prompt { prompt, .. } => Ok(Some(*prompt)),
        Decoded::Beyond { .. } => Ok(None),
    }
}

/// The whole endpoint. A caller that leaves drops the answer, and with it the model call when nobody
/// else waits for it.
pub(super) async fn completions(
    State(door): State<Door>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let caller = door.caller(&headers)?;
    let body: Map<String, Value> = door.json(body).await?;
    match decode::decode(body)? {
        Decoded::Prompt { prompt, shape } => {
            let only_if_cached = caller.only_if_cached;
            let request = caller.request(*prompt);
            match (only_if_cached, shape.stream) {
                (true, _) => from_cache(&door, request, shape).await,
                (false, true) => streamed(&door, request, shape).await,
                (false, false) => whole(&door, request).await,
            }
        }
        Decoded::Beyond { route, body } => beyond(&door, caller, *route, body).await,
    }
}

async fn whole(door: &Door, request: Request) -> Result<Response, Failure> {
    let reply = door.pipeline.complete(Rpc::Complete, request).await?.whole().await?;
    let body = encode::completion(&encode::Head::new(reply.id, reply.completion()), reply.completion());
    Ok((Facts::of_reply(&reply).headers(), reply::json(&body)).into_response())
}

async fn streamed(door: &Door, request: Request, shape: Shape) -> Result<Response, Failure> {
    let answering = door.pipeline.complete(Rpc::CompleteStream, request).await?;
    sse::reply(answering, |started| Dialect::Chat(ChatEvents::new(started, shape.include_usage))).await
}

async fn from_cache(door: &Door, request: Request, shape: Shape) -> Result<Response, Failure> {
    let (_, Ok(hit)) = door.pipeline.lookup(request).await? else { return Err(Failure::not_cached()) };
    let completion = &hit.entry.completion;
    let facts = Facts::of_hit(&hit);
    if shape.stream {
        let events = ChatEvents::new(&reply::started(&hit), shape.include_usage);
        return Ok(sse::replay(&facts, Dialect::Chat(events), completion));
    }
    let body = encode::completion(&encode::Head::new(reply::id(), completion), completion);
    Ok((facts.headers(), reply::json(&body)).into_response())
}

async fn beyond(
    door: &Door,
    caller: Caller,
    route: crate::prompt::Prompt,
    body: Map<String, Value>,
) -> Result<Response, Failure> {
    if caller.only_if_cached {
        return Err(Failure::not_cached());
    }
    if route.messages.is_empty() {
        return Err(Error::invalid("messages", "must not be empty").into());
    }
    pass_on(door, caller, Endpoint::Chat, route, body).await
}

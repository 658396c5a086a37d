//! `POST /v1/responses`. What is plain text in and plain text out is the same prompt as in a chat, and is
//! cached and answered as one; everything else is passed on to the provider's own endpoint.

mod decode;
mod events;

use axum::{
    body::Body,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse as _, Response},
};
use serde_json::{Map, Value};

pub(super) use self::events::ResponseEvents;
use self::{decode::Decoded, events::Echo};
use super::{
    Door,
    failure::Failure,
    forward::pass_on,
    reply::{self, Facts},
    sse::{self, Dialect},
};
use crate::{metrics::Rpc, pipeline::Request, upstream::Endpoint};

/// The whole endpoint.
pub(super) async fn create(
    State(door): State<Door>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let caller = door.caller(&headers)?;
    let body: Map<String, Value> = door.json(body).await?;
    let only_if_cached = caller.only_if_cached;
    match decode::decode(body)? {
        Decoded::Prompt { prompt, echo, stream } => {
            let request = caller.request(*prompt);
            match (only_if_cached, stream) {
                (true, _) => from_cache(&door, request, echo, stream).await,
                (false, true) => streamed(&door, request, echo).await,
                (false, false) => whole(&door, request, &echo).await,
            }
        }
        Decoded::Beyond { .. } if only_if_cached => Err(Failure::not_cached()),
        Decoded::Beyond { route, body } => pass_on(&door, caller, Endpoint::Responses, *route, body).await,
    }
}

async fn whole(door: &Door, request: Request, echo: &Echo) -> Result<Response, Failure> {
    let reply = door.pipeline.complete(Rpc::Complete, request).await?.whole().await?;
    let body = events::response(&events::Head::new(reply.id), echo, reply.completion());
    Ok((Facts::of_reply(&reply).headers(), reply::json(&body)).into_response())
}

async fn streamed(door: &Door, request: Request, echo: Echo) -> Result<Response, Failure> {
    let answering = door.pipeline.complete(Rpc::CompleteStream, request).await?;
    sse::reply(answering, |started| Dialect::Responses(Box::new(ResponseEvents::new(started, echo)))).await
}

async fn from_cache(door: &Door, request: Request, echo: Echo, stream: bool) -> Result<Response, Failure> {
    let (_, Ok(hit)) = door.pipeline.lookup(request).await? else { return Err(Failure::not_cached()) };
    let (facts, completion) = (Facts::of_hit(&hit), &hit.entry.completion);
    if stream {
        let events = ResponseEvents::new(&reply::started(&hit), echo);
        return Ok(sse::replay(&facts, Dialect::Responses(Box::new(events)), completion));
    }
    let body = events::response(&events::Head::new(reply::id()), &echo, completion);
    Ok((facts.headers(), reply::json(&body)).into_response())
}

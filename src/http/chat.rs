//! `POST /v1/chat/completions`. A request that the cache can answer is decoded into a prompt; any other is passed on
//! to the provider unchanged.

mod decode;
mod dialect;

use axum::{body::Body, extract::State, http::HeaderMap, response::Response};
use serde_json::{Map, Value};

pub(super) use self::decode::text_or_null;
use self::{decode::Decoded, dialect::ChatDialect};
use super::{
    Api,
    answer::{Delivery, answer},
    failure::Failure,
    forward::pass_on,
};
use crate::{error::Error, prompt::Prompt, upstream::Endpoint};

/// Decodes a request body as the endpoint does; `None` where the endpoint would pass the body on.
///
/// # Errors
/// For an invalid field.
pub(crate) fn prompt_of_chat(body: Map<String, Value>) -> Result<Option<Prompt>, Error> {
    match decode::decode(body)? {
        Decoded::Prompt { prompt, .. } => Ok(Some(*prompt)),
        Decoded::Uncacheable { .. } => Ok(None),
    }
}

pub(super) async fn completions(
    State(api): State<Api>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let caller = api.caller(&headers)?;
    let body: Map<String, Value> = api.json(body).await?;
    match decode::decode(body)? {
        Decoded::Prompt { prompt, shape } => {
            let delivery = Delivery { is_streamed: shape.stream, only_if_cached: caller.only_if_cached };
            answer::<ChatDialect>(&api, caller.request(*prompt), delivery, shape).await
        }
        Decoded::Uncacheable { .. } if caller.only_if_cached => Err(Failure::not_cached()),
        Decoded::Uncacheable { route, .. } if route.messages.is_empty() => {
            Err(Error::invalid("messages", "must not be empty").into())
        }
        Decoded::Uncacheable { route, body } => pass_on(&api, caller, Endpoint::Chat, *route, body).await,
    }
}

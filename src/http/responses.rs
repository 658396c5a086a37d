//! `POST /v1/responses`. A plain-text request is decoded into the prompt that a chat request would have, and is cached
//! and answered like it; any other is passed on to the provider's own endpoint.

mod decode;
mod dialect;

use axum::{body::Body, extract::State, http::HeaderMap, response::Response};
use serde_json::{Map, Value};

use self::{decode::Decoded, dialect::ResponsesDialect};
use super::{
    Api,
    answer::{Delivery, answer},
    failure::Failure,
    forward::pass_on,
};
use crate::upstream::Endpoint;

pub(super) async fn create(
    State(api): State<Api>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let caller = api.caller(&headers)?;
    let body: Map<String, Value> = api.json(body).await?;
    match decode::decode(body)? {
        Decoded::Prompt { prompt, echo, stream } => {
            let delivery = Delivery { is_streamed: stream, only_if_cached: caller.only_if_cached };
            answer::<ResponsesDialect>(&api, caller.request(*prompt), delivery, echo).await
        }
        Decoded::Uncacheable { .. } if caller.only_if_cached => Err(Failure::not_cached()),
        Decoded::Uncacheable { route, body } => {
            pass_on(&api, caller, Endpoint::Responses, *route, body).await
        }
    }
}

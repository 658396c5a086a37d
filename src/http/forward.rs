//! Requests passed on to a provider, whose replies return unchanged.

use axum::{
    body::{Body, Bytes},
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse as _, Response},
};
use futures_util::Stream;
use serde_json::{Map, Value};

use super::{Api, caller::Caller, failure::Failure, reply::Facts};
use crate::{
    error::Error,
    pipeline::{Forward, Forwarding},
    prompt::Prompt,
    upstream::Endpoint,
};

/// Sends `body` to the model that `route` selects.
pub(super) async fn pass_on(
    api: &Api,
    caller: Caller,
    endpoint: Endpoint,
    route: Prompt,
    body: Map<String, Value>,
) -> Result<Response, Failure> {
    let request = caller.request(route);
    let mut forwarding = api.pipeline.forwarder.forward(Forward { request, endpoint, body }).await?;
    let mut response = (Facts::of_bypass(forwarding.id()).headers(), ()).into_response();
    *response.status_mut() = StatusCode::from_u16(forwarding.status()).unwrap_or(StatusCode::BAD_GATEWAY);
    copy(forwarding.take_content_type(), CONTENT_TYPE.as_str(), &mut response);
    copy(forwarding.take_retry_after(), RETRY_AFTER.as_str(), &mut response);
    *response.body_mut() = Body::from_stream(bytes(forwarding));
    Ok(response)
}

pub(super) fn copy(value: Option<HeaderValue>, name: &'static str, response: &mut Response) {
    if let Some(value) = value {
        response.headers_mut().insert(name, value);
    }
}

/// The provider's body. An error closes the connection, so that the caller sees the body as incomplete.
fn bytes(forwarding: Forwarding) -> impl Stream<Item = Result<Bytes, Error>> {
    futures_util::stream::unfold(forwarding, |mut forwarding| async move {
        let bytes = forwarding.next().await.transpose()?;
        Some((bytes, forwarding))
    })
}

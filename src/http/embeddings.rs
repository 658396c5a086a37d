//! `POST /v1/embeddings`: each input is kept by itself.

use std::fmt::Write as _;

use axum::{
    body::Body,
    extract::State,
    http::{
        HeaderMap, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse as _, Response},
};
use serde_json::{Map, Value, json};

use super::{
    Api,
    failure::Failure,
    forward::{copy, pass_on},
    reply::Facts,
};
use crate::{
    error::Error,
    pipeline::{Embedded, EmbeddingRequest, INPUTS_MAX, PassedReply, Vectors},
    prompt::Prompt,
    upstream::Endpoint,
};

pub(super) async fn embeddings(
    State(api): State<Api>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let caller = api.caller(&headers)?;
    let mut body: Map<String, Value> = api.json(body).await?;
    body.retain(|_, value| !value.is_null());
    let Some(model) = body.get("model").and_then(Value::as_str) else {
        return Err(Error::invalid("model", "is required").into());
    };
    let route = Prompt { model: model.to_owned(), ..Prompt::default() };
    let only_if_cached = caller.only_if_cached;
    let Some(inputs) = inputs(body.get("input")) else {
        // The provider knows best what is wrong with it.
        if only_if_cached {
            return Err(Failure::not_cached());
        }
        return pass_on(&api, caller, Endpoint::Embeddings, route, body).await;
    };
    let ask = EmbeddingRequest { request: caller.request(route), body, inputs, only_if_cached };
    match api.pipeline.embeddings.embed(ask).await? {
        Embedded::Vectors(vectors) => Ok(whole(&api, &vectors)),
        Embedded::Passed(reply) => Ok(passed(reply)),
        Embedded::NotCached => Err(Failure::not_cached()),
    }
}

/// The inputs of a request: one text, one list of token ids, or a list of either. `None` for anything else.
fn inputs(input: Option<&Value>) -> Option<Vec<Value>> {
    let is_ids =
        |value: &Value| value.as_array().is_some_and(|ids| !ids.is_empty() && ids.iter().all(Value::is_u64));
    let is_input = |value: &Value| value.is_string() || is_ids(value);
    match input? {
        input if is_input(input) => Some(vec![input.clone()]),
        Value::Array(inputs) if (1..=INPUTS_MAX).contains(&inputs.len()) && inputs.iter().all(is_input) => {
            Some(inputs.clone())
        }
        _ => None,
    }
}

fn whole(api: &Api, vectors: &Vectors) -> Response {
    let Vectors { id, outcome, saved_usd, .. } = vectors;
    let facts =
        Facts { outcome: *outcome, id: Some(*id), hit: None, saved_usd: Some(*saved_usd), reason: None };
    let zero_hit_usage = api.pipeline.settings().cache.zero_hit_usage;
    let mut response = (facts.headers(), Body::from(list(vectors, zero_hit_usage))).into_response();
    response.headers_mut().insert(CONTENT_TYPE, axum::http::HeaderValue::from_static("application/json"));
    response
}

/// The list of vectors, which are JSON already.
fn list(vectors: &Vectors, zero_hit_usage: bool) -> String {
    let mut out = String::from(r#"{"object":"list","data":["#);
    for (index, entry) in vectors.vectors.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let embedding = &entry.completion.content;
        // Writing to a string cannot fail.
        let _ = write!(out, r#"{comma}{{"object":"embedding","index":{index},"embedding":{embedding}}}"#);
    }
    let model = vectors.vectors.first().map_or("", |entry| entry.completion.model.as_str());
    let _ = write!(out, r#"],"model":{},"usage":{}}}"#, Value::from(model), usage(vectors, zero_hit_usage));
    out
}

fn usage(vectors: &Vectors, zero_hit_usage: bool) -> Value {
    let Vectors { outcome, vectors, hits, new_tokens, kept_tokens, saved_usd, .. } = vectors;
    let tokens = if zero_hit_usage { *new_tokens } else { new_tokens + kept_tokens };
    let mut usage = json!({ "prompt_tokens": tokens, "total_tokens": tokens });
    if *hits > 0 {
        usage["promptkeep"] = json!({ "outcome": outcome.as_str(), "inputs": vectors.len(), "hits": hits,
            "kept_tokens": kept_tokens, "saved_usd": saved_usd });
    }
    usage
}

/// A provider's reply as it came.
fn passed(reply: PassedReply) -> Response {
    let PassedReply { id, status, content_type, retry_after, body } = reply;
    let mut response = (Facts::of_bypass(id).headers(), Body::from(body)).into_response();
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    copy(content_type, CONTENT_TYPE.as_str(), &mut response);
    copy(retry_after, RETRY_AFTER.as_str(), &mut response);
    response
}

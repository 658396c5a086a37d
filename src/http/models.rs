//! `GET /v1/models`: the model names that a request may use.

use axum::{
    extract::{Path, State},
    http::HeaderMap,
    response::Response,
};
use serde_json::{Value, json};

use super::{Api, failure::Failure, reply};
use crate::{
    error::{Error, MODEL_FIELD},
    model::{AUTO, Tier},
};

/// Lists the catalog, then the tiers that have a model, then `auto`.
pub(super) async fn list(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Failure> {
    api.caller(&headers)?;
    Ok(reply::json(&json!({ "object": "list", "data": all(&api) })))
}

pub(super) async fn one(
    State(api): State<Api>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    api.caller(&headers)?;
    let found = all(&api).into_iter().find(|model| model["id"] == id.as_str());
    found
        .map(|model| reply::json(&model))
        .ok_or_else(|| Error::invalid(MODEL_FIELD, "is no model, no tier and not auto").into())
}

fn all(api: &Api) -> Vec<Value> {
    let models = api.upstreams.models();
    let mut all: Vec<Value> = Vec::with_capacity(models.len() + Tier::ALL.len() + 1);
    for line in &models {
        // A model may be offered by several providers.
        if !all.iter().any(|have| have["id"] == line.id.as_str()) {
            all.push(model(&line.id, &line.provider));
        }
    }
    let served = Tier::ALL.into_iter().filter(|tier| models.iter().any(|line| line.tier == *tier));
    all.extend(served.map(|tier| model(tier.as_str(), "promptkeep")));
    all.push(model(AUTO, "promptkeep"));
    all
}

fn model(id: &str, owner: &str) -> Value {
    // The dialect requires a creation time, which the catalog does not have.
    json!({ "id": id, "object": "model", "created": 0, "owned_by": owner })
}

//! `GET /v1/models`: the names that a request may ask for.

use axum::{
    extract::{Path, State},
    http::HeaderMap,
    response::Response,
};
use serde_json::{Value, json};

use super::{Door, failure::Failure, reply};
use crate::{
    error::{Error, MODEL_FIELD},
    model::{AUTO, Tier},
};

/// The catalog, then the tiers that have a model, then `auto`.
pub(super) async fn list(State(door): State<Door>, headers: HeaderMap) -> Result<Response, Failure> {
    door.caller(&headers)?;
    Ok(reply::json(&json!({ "object": "list", "data": all(&door) })))
}

pub(super) async fn one(
    State(door): State<Door>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    door.caller(&headers)?;
    let found = all(&door).into_iter().find(|model| model["id"] == id.as_str());
    found
        .map(|model| reply::json(&model))
        .ok_or_else(|| Error::invalid(MODEL_FIELD, "is no model, no tier and not auto").into())
}

fn all(door: &Door) -> Vec<Value> {
    let models = door.upstreams.models();
    let mut all: Vec<Value> = Vec::with_capacity(models.len() + Tier::ALL.len() + 1);
    for line in &models {
        // One model at several providers is one name.
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
    // When a model was made is not in the catalog; the dialect wants a number.
    json!({ "id": id, "object": "model", "created": 0, "owned_by": owner })
}

//! The HTTP door: `/metrics`, `/healthz`, `/readyz`.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};

use crate::{cache::Cache, metrics::Metrics};

/// The media type of the text format that `/metrics` answers in.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone)]
struct Door {
    cache: Arc<Cache>,
    metrics: Arc<Metrics>,
}

/// Every route of the HTTP port.
pub fn router(cache: Arc<Cache>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .with_state(Door { cache, metrics })
}

/// 503 until the index is loaded: exact hits are served before, semantic ones only in part.
async fn ready(State(door): State<Door>) -> impl IntoResponse {
    let (entries, vectors) = door.cache.sizes();
    if door.cache.loaded() {
        return (StatusCode::OK, format!("ready: {entries} entries, {vectors} vectors\n"));
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("loading the index: {vectors} vectors of {entries} entries\n"))
}

async fn scrape(State(door): State<Door>) -> impl IntoResponse {
    door.cache.report_sizes();
    ([(CONTENT_TYPE, OPENMETRICS)], door.metrics.encode())
}

//! What operators and orchestrators ask: `/healthz`, `/readyz`, `/metrics`.

use axum::{
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
};

use super::Door;

/// The media type of the text format that `/metrics` answers in.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The process runs.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// 503 until the index is loaded: exact hits are served before, semantic ones only in part.
pub(super) async fn ready(State(door): State<Door>) -> impl IntoResponse {
    let (entries, vectors) = door.cache.sizes();
    if door.cache.loaded() {
        return (StatusCode::OK, format!("ready: {entries} entries, {vectors} vectors\n"));
    }
    let percent = door.cache.loaded_share() * 100.0;
    let loading = format!("loading the index: {percent:.0} % of {entries} entries, {vectors} vectors\n");
    (StatusCode::SERVICE_UNAVAILABLE, loading)
}

/// Every metric, for Prometheus.
pub(super) async fn metrics(State(door): State<Door>) -> impl IntoResponse {
    door.cache.report();
    door.metrics.wrong_hits(door.pipeline.wrong_hits(None));
    door.metrics.states(&door.upstreams.model_states(), &door.upstreams.provider_states());
    ([(CONTENT_TYPE, OPENMETRICS)], door.metrics.encode())
}

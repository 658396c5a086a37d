//! What operators and orchestrators ask: `/healthz`, `/readyz`, `/metrics`.

use axum::{
    extract::State,
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, CONTENT_TYPE},
    },
    response::IntoResponse,
};

use super::Door;

/// The media types of the text formats.
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";
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

/// Every metric, for Prometheus: OpenMetrics where it is asked for, else the older text format.
pub(super) async fn metrics(State(door): State<Door>, headers: HeaderMap) -> impl IntoResponse {
    door.cache.report();
    let settings = door.pipeline.settings();
    door.metrics.objectives(door.pipeline.statistics.ledger().objective(), settings.cache.max_wrong_hits);
    door.metrics.wrong_hits(door.pipeline.statistics.wrong_hits(None));
    door.metrics.states(&door.upstreams.model_states(), &door.upstreams.provider_states());
    door.metrics.budgets(settings.tenants.iter());
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accepted.contains("application/openmetrics-text") {
        return ([(CONTENT_TYPE, OPENMETRICS)], door.metrics.encode());
    }
    ([(CONTENT_TYPE, PLAIN)], door.metrics.encode_plain())
}

//! What operators and orchestrators ask: `/healthz`, `/readyz`, `/metrics`.

use axum::{
    extract::State,
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, CONTENT_TYPE},
    },
    response::IntoResponse,
};

use super::Api;

/// The media types of the text formats.
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The process runs.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// 503 until the index is loaded: exact hits are served before, semantic ones only in part.
pub(super) async fn ready(State(api): State<Api>) -> impl IntoResponse {
    let (entries, vectors) = api.cache.sizes();
    if api.cache.loaded() {
        return (StatusCode::OK, format!("ready: {entries} entries, {vectors} vectors\n"));
    }
    let percent = api.cache.loaded_share() * 100.0;
    let loading = format!("loading the index: {percent:.0} % of {entries} entries, {vectors} vectors\n");
    (StatusCode::SERVICE_UNAVAILABLE, loading)
}

/// Every metric, for Prometheus: OpenMetrics where it is asked for, else the older text format.
pub(super) async fn metrics(State(api): State<Api>, headers: HeaderMap) -> impl IntoResponse {
    api.cache.report();
    let settings = api.pipeline.settings();
    api.metrics.objectives(api.pipeline.ledger().objective(), settings.cache.max_wrong_hits);
    api.metrics.wrong_hits(api.pipeline.wrong_hits(None));
    api.metrics.states(&api.upstreams.model_states(), &api.upstreams.provider_states());
    api.metrics.budgets(settings.tenants.iter());
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accepted.contains("application/openmetrics-text") {
        return ([(CONTENT_TYPE, OPENMETRICS)], api.metrics.encode());
    }
    ([(CONTENT_TYPE, PLAIN)], api.metrics.encode_plain())
}

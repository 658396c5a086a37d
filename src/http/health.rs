//! `/healthz`, `/readyz` and `/metrics`, for operators and orchestrators.

use std::time::SystemTime;

use axum::{
    extract::State,
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, CONTENT_TYPE},
    },
    response::IntoResponse,
};

use super::Api;
use crate::{pipeline::DifferingField, telemetry::metrics::TenantBudget};

/// Media types of the two text formats.
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers while the process runs.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// Answers 503 until the index is loaded. Until then exact hits are served, but only some of the semantic ones.
pub(super) async fn ready(State(api): State<Api>) -> impl IntoResponse {
    let (entries, vectors) = api.cache.sizes();
    if api.cache.maintenance.is_loaded() {
        let problems = quarantines(&api);
        return (StatusCode::OK, format!("ready: {entries} entries, {vectors} vectors\n{problems}"));
    }
    let percent = api.cache.maintenance.loaded_share() * 100.0;
    let loading = format!("loading the index: {percent:.0} % of {entries} entries, {vectors} vectors\n");
    (StatusCode::SERVICE_UNAVAILABLE, loading)
}

/// One line for each provider and model in quarantine, which an operator has to correct.
fn quarantines(api: &Api) -> String {
    let mut lines = String::new();
    for provider in api.upstreams.provider_states() {
        if let Some(status) = provider.quarantined {
            lines +=
                &format!("provider {} is in quarantine: it replied with status {status}\n", provider.name);
        }
    }
    for model in api.upstreams.model_states() {
        if let Some(status) = model.quarantined {
            let (model, provider) = (model.model, model.provider);
            lines += &format!("model {model} of provider {provider} is in quarantine: status {status}\n");
        }
    }
    lines
}

/// Every metric, for Prometheus: in OpenMetrics if the caller accepts it, else in the older text format.
pub(super) async fn metrics(State(api): State<Api>, headers: HeaderMap) -> impl IntoResponse {
    refresh(&api);
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accepted.contains("application/openmetrics-text") {
        return ([(CONTENT_TYPE, OPENMETRICS)], api.metrics.encode());
    }
    ([(CONTENT_TYPE, PLAIN)], api.metrics.encode_plain())
}

/// Sets the gauges.
fn refresh(api: &Api) {
    let settings = api.pipeline.settings();
    api.cache.maintenance.report();
    api.metrics.stats(&api.pipeline.statistics.of_server(None, None), settings.cache.max_wrong_hits);
    let fresh = api.pipeline.statistics.fresh_scopes();
    let namespaces = |label: &'static str| {
        (label, fresh.iter().filter(|namespace| namespace.field.label() == label).count())
    };
    api.metrics.fresh_scopes(DifferingField::LABELS.into_iter().map(namespaces));
    api.metrics.states(&api.upstreams.model_states(), &api.upstreams.provider_states());
    let now = SystemTime::now();
    let budgets = settings.tenants.iter().filter_map(|tenant| {
        let budget_usd = tenant.budget_usd_per_day()?;
        Some(TenantBudget { tenant: tenant.name(), budget_usd, spent_today_usd: tenant.spent_today(now) })
    });
    api.metrics.budgets(budgets);
}

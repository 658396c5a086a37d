//! Metrics of upstream calls: results, times, tokens, money, and the state of models and providers.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{
    Metrics,
    register::{Dollars, FloatGauge, Seconds, family, seconds_by},
};
use crate::model::{Attempt, AttemptReason, ModelState, ProviderState, Usage};

const DIRECTIONS: [&str; 2] = ["input", "output"];
const TOKEN_DETAILS: [&str; 3] = ["cached_input", "cache_write", "reasoning"];

pub(super) struct Calls {
    routes: Family<RouteLabels, Counter>,
    requests: Family<AttemptLabels, Counter>,
    seconds: Seconds<ModelLabel>,
    first_token_seconds: Seconds<ModelLabel>,
    tokens: Family<TokenLabels, Counter>,
    token_details: Family<TokenDetailLabels, Counter>,
    cost_usd: Family<ModelLabel, Dollars>,
    tenant_tokens: Family<TenantTokenLabels, Counter>,
    tenant_cost_usd: Family<TenantLabel, Dollars>,
    tenant_budget_usd: Family<TenantLabel, FloatGauge>,
    tenant_spent_today_usd: Family<TenantLabel, FloatGauge>,
    breaker_state: Family<BreakerLabels, Gauge>,
    provider_up: Family<ProviderLabels, Gauge>,
    provider_quarantined: Family<ProviderLabels, Gauge>,
    model_quarantined: Family<BreakerLabels, Gauge>,
}

/// A tenant's daily budget, in US dollars.
#[derive(Clone, Copy, Debug)]
pub struct TenantBudget<'a> {
    pub tenant: &'a str,
    pub budget_usd: f64,
    pub spent_today_usd: f64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    tier: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    model: String,
    tier: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabel {
    model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    model: String,
    direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenDetailLabels {
    model: String,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TenantLabel {
    tenant: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TenantTokenLabels {
    tenant: String,
    direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BreakerLabels {
    model: String,
    provider: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProviderLabels {
    provider: String,
    region: String,
}

impl Calls {
    pub fn register(to: &mut Registry) -> Self {
        Self {
            routes: family(
                to,
                "routes",
                "Requests sent to a model, by its tier and the reason for the choice",
            ),
            requests: family(to, "upstream_requests", "Upstream calls by model and result"),
            seconds: seconds_by(to, "upstream_seconds", "Time of a complete upstream call"),
            first_token_seconds: seconds_by(
                to,
                "upstream_first_token_seconds",
                "Time to the first token of an upstream call",
            ),
            tokens: family(to, "tokens", "Tokens of upstream calls, by direction"),
            token_details: family(
                to,
                "token_details",
                "Tokens that promptkeep_tokens_total contains too: input read from the provider's cache or written to it, and reasoning",
            ),
            cost_usd: family(to, "cost_usd", "US dollars spent on upstream calls"),
            tenant_tokens: family(to, "tenant_tokens", "Tokens of a tenant's upstream calls"),
            tenant_cost_usd: family(to, "tenant_cost_usd", "US dollars spent on a tenant's upstream calls"),
            tenant_budget_usd: family(to, "tenant_budget_usd", "Budget of a tenant for one UTC day"),
            tenant_spent_today_usd: family(
                to,
                "tenant_spent_today_usd",
                "US dollars that a tenant with a budget has spent on this UTC day",
            ),
            breaker_state: family(to, "breaker_state", "Circuit breaker: 0 closed, 1 half-open, 2 open"),
            provider_up: family(to, "provider_up", "1 while health checks pass"),
            provider_quarantined: family(
                to,
                "provider_quarantined",
                "1 while the provider is tried last, because it refused the server's key or account",
            ),
            model_quarantined: family(
                to,
                "model_quarantined",
                "1 while the model is tried last, because its provider does not have it",
            ),
        }
    }

    /// Creates a model's counters before they count: a counter that appears with its first event hides that event
    /// from every rate.
    fn announce(&self, model: &str) {
        let label = ModelLabel { model: model.to_owned() };
        drop(self.seconds.get_or_create(&label));
        drop(self.first_token_seconds.get_or_create(&label));
        drop(self.cost_usd.get_or_create(&label));
        for direction in DIRECTIONS {
            drop(self.tokens.get_or_create(&TokenLabels { model: model.to_owned(), direction }));
        }
        for kind in TOKEN_DETAILS {
            drop(self.token_details.get_or_create(&TokenDetailLabels { model: model.to_owned(), kind }));
        }
    }
}

impl Metrics {
    /// Counts an upstream call made for `tenant`.
    pub fn attempt(&self, tenant: &str, attempt: &Attempt) {
        let calls = &self.calls;
        if let AttemptReason::Routed(reason) = attempt.reason
            && attempt.result.is_call()
        {
            let labels = RouteLabels { tier: attempt.tier.clone(), reason: reason.as_str() };
            calls.routes.get_or_create(&labels).inc();
        }
        let labels = AttemptLabels {
            model: attempt.model.clone(),
            tier: attempt.tier.clone(),
            result: attempt.result.as_str(),
        };
        calls.requests.get_or_create(&labels).inc();
        let model = ModelLabel { model: attempt.model.clone() };
        calls.seconds.get_or_create(&model).observe(attempt.elapsed.as_secs_f64());
        if let Some(first_token) = attempt.first_token {
            calls.first_token_seconds.get_or_create(&model).observe(first_token.as_secs_f64());
        }
        let Usage { prompt_tokens, completion_tokens, cost_usd, .. } = attempt.usage;
        for (direction, n) in DIRECTIONS.into_iter().zip([prompt_tokens, completion_tokens]) {
            calls.tokens.get_or_create(&TokenLabels { model: attempt.model.clone(), direction }).inc_by(n);
            let labels = TenantTokenLabels { tenant: tenant.to_owned(), direction };
            calls.tenant_tokens.get_or_create(&labels).inc_by(n);
        }
        let Usage { cached_prompt_tokens, cache_write_tokens, reasoning_tokens, .. } = attempt.usage;
        let details = [cached_prompt_tokens, cache_write_tokens, reasoning_tokens];
        for (kind, n) in TOKEN_DETAILS.into_iter().zip(details).filter(|(_, n)| *n > 0) {
            let labels = TokenDetailLabels { model: attempt.model.clone(), kind };
            calls.token_details.get_or_create(&labels).inc_by(n);
        }
        calls.cost_usd.get_or_create(&model).inc_by(cost_usd);
        calls.tenant_cost_usd.get_or_create(&TenantLabel { tenant: tenant.to_owned() }).inc_by(cost_usd);
    }

    /// Sets the tenants' budgets; called before each scrape.
    pub fn budgets<'a>(&self, budgets: impl Iterator<Item = TenantBudget<'a>>) {
        self.calls.tenant_budget_usd.clear();
        self.calls.tenant_spent_today_usd.clear();
        for TenantBudget { tenant, budget_usd, spent_today_usd } in budgets {
            let label = TenantLabel { tenant: tenant.to_owned() };
            self.calls.tenant_budget_usd.get_or_create(&label).set(budget_usd);
            self.calls.tenant_spent_today_usd.get_or_create(&label).set(spent_today_usd);
        }
    }

    /// Sets the state of models and providers; called before each scrape. Those that a reload removed disappear.
    pub fn states(&self, models: &[ModelState], providers: &[ProviderState]) {
        self.calls.breaker_state.clear();
        self.calls.provider_up.clear();
        self.calls.provider_quarantined.clear();
        self.calls.model_quarantined.clear();
        for ModelState { model, provider, breaker, quarantined } in models {
            self.calls.announce(model);
            let labels = BreakerLabels { model: model.clone(), provider: provider.clone() };
            self.calls.breaker_state.get_or_create(&labels).set(*breaker as i64);
            self.calls.model_quarantined.get_or_create(&labels).set(quarantined.is_some().into());
        }
        for ProviderState { name, region, is_up, quarantined } in providers {
            let labels = ProviderLabels { provider: name.clone(), region: region.clone() };
            self.calls.provider_up.get_or_create(&labels).set((*is_up).into());
            self.calls.provider_quarantined.get_or_create(&labels).set(quarantined.is_some().into());
        }
    }
}

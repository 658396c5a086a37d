//! Prometheus metrics: one value, passed in, with labels resolved once. Labels come from enums and the
//! catalog, never from a caller's text.

mod labels;
mod register;

use std::{
    collections::HashSet,
    fmt::Write as _,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant, SystemTime},
};

use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

pub use self::labels::{LabelOrigin, LabelWay, Rpc, Shed, StoreOp};
use self::{
    labels::*,
    register::{Seconds, counter, family, gauge, seconds, seconds_by},
};
use crate::{
    decide::{keep::Bound, learner::WrongHits},
    feedback::Verdict,
    model::{Attempt, AttemptReason, ModelState, ProviderState, Usage, VerifierReply},
    outcome::{MissReason, Outcome},
    stats::Observation,
    tenant::Tenant,
};

type Dollars = Counter<f64, AtomicU64>;
type Ratio = Gauge<f64, AtomicU64>;

/// Every metric of the server.
pub struct Metrics {
    registry: Registry,
    /// By [`Rpc`] and [`Outcome`]: no label lookup for a request.
    requests: [[Counter; Outcome::ALL.len()]; Rpc::ALL.len()],
    request_seconds: [[Histogram; Outcome::ALL.len()]; Rpc::ALL.len()],
    first_token_seconds: [Histogram; Outcome::ALL.len()],
    saved_usd: [Dollars; Outcome::ALL.len()],
    hot_tier_usd: Dollars,
    late_answers: Counter,
    slo_seconds: Gauge<f64, AtomicU64>,
    semantic_misses: Family<ReasonLabel, Counter>,
    routes: Family<RouteLabels, Counter>,
    upstream_requests: Family<AttemptLabels, Counter>,
    upstream_seconds: Seconds<ModelLabel>,
    upstream_first_token_seconds: Seconds<ModelLabel>,
    tokens: Family<TokenLabels, Counter>,
    cost_usd: Family<ModelLabel, Dollars>,
    tenant_tokens: Family<TenantTokenLabels, Counter>,
    tenant_cost_usd: Family<TenantLabel, Dollars>,
    refreshes: Family<ResultLabel, Counter>,
    feedback: Family<FeedbackLabels, Counter>,
    store_errors: Family<OpLabel, Counter>,
    store_seconds: Seconds<OpLabel>,
    shed: Family<ReasonLabel, Counter>,
    embed_seconds: Histogram,
    search_seconds: Histogram,
    entries: Gauge,
    index_vectors: Gauge,
    memory_bytes: Family<PartLabel, Gauge>,
    tenant_budget_usd: Family<TenantLabel, Gauge<f64, AtomicU64>>,
    tenant_spent_today_usd: Family<TenantLabel, Gauge<f64, AtomicU64>>,
    index_loaded: Gauge<f64, AtomicU64>,
    replication_lag_seconds: Family<PeerLabel, Gauge<f64, AtomicU64>>,
    labels: Family<LearnedLabels, Counter>,
    labels_dropped: Counter,
    labels_shared: Family<WayLabel, Counter>,
    judgements: Family<OpinionLabel, Counter>,
    bound_prompts: Family<ReasonLabel, Counter>,
    false_hit_rate: Ratio,
    false_hit_rate_low: Ratio,
    false_hit_rate_high: Ratio,
    false_hit_checks: Gauge,
    max_wrong_hits: Ratio,
    breaker_state: Family<BreakerLabels, Gauge>,
    provider_up: Family<ProviderLabels, Gauge>,
}

// === impl Metrics ===

impl Metrics {
    /// Registers every metric.
    pub fn new() -> Self {
        let mut to = Registry::with_prefix("promptkeep");
        let requests = family(&mut to, "requests", "Requests by call and outcome");
        let request_seconds = seconds_by(&mut to, "request_seconds", "Time to the whole answer");
        let first_token_seconds =
            seconds_by(&mut to, "first_token_seconds", "Time to the first token of a streamed answer");
        let saved_usd = family(&mut to, "saved_usd", "US dollars not spent, by the kind of hit");
        let (hot_tier_usd, late_answers, slo_seconds) =
            (Dollars::default(), Counter::default(), Gauge::default());
        to.register("hot_tier_usd", "US dollars that the hot tier would have cost", hot_tier_usd.clone());
        to.register("late_answers", "Answers that began later than slo_seconds", late_answers.clone());
        to.register("slo_seconds", "Time in which 99 of 100 answers are to begin", slo_seconds.clone());
        let label = |outcome: Outcome| OutcomeLabel { outcome: outcome.as_str() };
        let labels =
            |rpc: Rpc, outcome: Outcome| RequestLabels { rpc: rpc.as_str(), outcome: outcome.as_str() };
        let store_errors: Family<OpLabel, Counter> =
            family(&mut to, "store_errors", "Failed operations of the store");
        let shed: Family<ReasonLabel, Counter> = family(&mut to, "shed", "Requests turned away");
        // As `announce` does for those of models.
        for op in StoreOp::ALL {
            drop(store_errors.get_or_create(&OpLabel { op: op.as_str() }));
        }
        for why in Shed::ALL {
            drop(shed.get_or_create(&ReasonLabel { reason: why.as_str() }));
        }
        Self {
            requests: Rpc::ALL.map(|rpc| Outcome::ALL.map(|o| requests.get_or_create_owned(&labels(rpc, o)))),
            request_seconds: Rpc::ALL
                .map(|rpc| Outcome::ALL.map(|o| request_seconds.get_or_create_owned(&labels(rpc, o)))),
            first_token_seconds: Outcome::ALL.map(|o| first_token_seconds.get_or_create_owned(&label(o))),
            saved_usd: Outcome::ALL.map(|o| saved_usd.get_or_create_owned(&label(o))),
            hot_tier_usd,
            late_answers,
            slo_seconds,
            semantic_misses: family(&mut to, "semantic_misses", "Why a request was not a semantic hit"),
            routes: family(&mut to, "routes", "Requests sent to a model, by its tier and why it was chosen"),
            upstream_requests: family(&mut to, "upstream_requests", "Model calls by result"),
            upstream_seconds: seconds_by(&mut to, "upstream_seconds", "Time of a whole model call"),
            upstream_first_token_seconds: seconds_by(
                &mut to,
                "upstream_first_token_seconds",
                "Time to the first token of a model call",
            ),
            tokens: family(&mut to, "tokens", "Tokens of model calls, by direction"),
            cost_usd: family(&mut to, "cost_usd", "US dollars spent on model calls"),
            tenant_tokens: family(&mut to, "tenant_tokens", "Tokens of the model calls of a tenant"),
            tenant_cost_usd: family(
                &mut to,
                "tenant_cost_usd",
                "US dollars spent on the model calls of a tenant",
            ),
            refreshes: family(&mut to, "refreshes", "Answers served past their TTL and then bought again"),
            feedback: family(&mut to, "feedback", "Feedback on served answers"),
            store_errors,
            store_seconds: seconds_by(&mut to, "store_seconds", "Time of operations of the store"),
            shed,
            embed_seconds: seconds(&mut to, "embed_seconds", "Time to embed one text, waiting included"),
            search_seconds: seconds(&mut to, "search_seconds", "Time to find the nearest entries"),
            entries: gauge(&mut to, "entries", "Entries in the store"),
            index_vectors: gauge(&mut to, "index_vectors", "Vectors in the index"),
            index_loaded: gauge(
                &mut to,
                "index_loaded",
                "Share of the entries that the index was built from",
            ),
            replication_lag_seconds: family(
                &mut to,
                "replication_lag_seconds",
                "Time since everything that a region told had been read; 0 while in step",
            ),
            memory_bytes: family(&mut to, "memory_bytes", "Memory held, by part"),
            tenant_budget_usd: family(&mut to, "tenant_budget_usd", "Budget of a tenant for a UTC day"),
            tenant_spent_today_usd: family(
                &mut to,
                "tenant_spent_today_usd",
                "US dollars that a tenant with a budget has spent today",
            ),
            labels: family(&mut to, "labels", "Pairs of prompts whose answers were compared or judged"),
            labels_dropped: counter(
                &mut to,
                "labels_dropped",
                "Pairs that were not compared for want of time",
            ),
            labels_shared: family(
                &mut to,
                "labels_shared",
                "Labels told to other replicas, and heard of them",
            ),
            judgements: family(
                &mut to,
                "judgements",
                "Times that a model was asked whether an answer fits another prompt too",
            ),
            bound_prompts: family(&mut to, "bound_prompts", "Prompts that are kept with care or not at all"),
            false_hit_rate: gauge(&mut to, "false_hit_rate", "Share of wrong answers among semantic hits"),
            false_hit_rate_low: gauge(&mut to, "false_hit_rate_low", "Lower end of its 95 % interval"),
            false_hit_rate_high: gauge(&mut to, "false_hit_rate_high", "Upper end of its 95 % interval"),
            false_hit_checks: gauge(&mut to, "false_hit_checks", "Semantic hits that were checked for it"),
            max_wrong_hits: gauge(&mut to, "max_wrong_hits", "The share that cache.max_wrong_hits allows"),
            breaker_state: family(&mut to, "breaker_state", "Circuit breaker: 0 closed, 1 half-open, 2 open"),
            provider_up: family(&mut to, "provider_up", "1 while health checks pass"),
            registry: to,
        }
    }

    /// Counts one finished request.
    pub fn request(&self, rpc: Rpc, outcome: Outcome, elapsed: Duration) {
        self.requests[rpc as usize][outcome as usize].inc();
        self.request_seconds[rpc as usize][outcome as usize].observe(elapsed.as_secs_f64());
    }

    /// Counts the first token of a streamed answer.
    pub fn first_token(&self, outcome: Outcome, elapsed: Duration) {
        self.first_token_seconds[outcome as usize].observe(elapsed.as_secs_f64());
    }

    /// Counts what a hit did not spend.
    pub fn saved(&self, outcome: Outcome, usd: f64) {
        self.saved_usd[outcome as usize].inc_by(usd);
    }

    /// Counts what an answer would have cost at the hot tier.
    pub fn at_hot_tier(&self, usd: f64) {
        self.hot_tier_usd.inc_by(usd);
    }

    /// Counts an answer that began later than `objective` allows.
    pub fn began(&self, seen: &Observation<'_>, objective: Duration) {
        if seen.outcome.counts_for_hit_ratio() && seen.wait() > objective {
            self.late_answers.inc();
        }
    }

    /// Says what is too late, and too often wrong.
    pub fn objectives(&self, late: Duration, max_wrong_hits: f32) {
        self.slo_seconds.set(late.as_secs_f64());
        self.max_wrong_hits.set(max_wrong_hits.into());
    }

    /// Counts why the cache did not answer semantically.
    pub fn semantic_miss(&self, reason: MissReason) {
        self.semantic_misses.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc();
    }

    /// Counts one call of one model, made for `tenant`.
    pub fn attempt(&self, tenant: &str, attempt: &Attempt) {
        if let AttemptReason::Routed(reason) = attempt.reason
            && attempt.result.is_call()
        {
            let labels = RouteLabels { tier: attempt.tier.clone(), reason: reason.as_str() };
            self.routes.get_or_create(&labels).inc();
        }
        let labels = AttemptLabels {
            model: attempt.model.clone(),
            tier: attempt.tier.clone(),
            result: attempt.result.to_string(),
        };
        let model = ModelLabel { model: attempt.model.clone() };
        self.upstream_requests.get_or_create(&labels).inc();
        self.upstream_seconds.get_or_create(&model).observe(attempt.elapsed.as_secs_f64());
        if let Some(first_token) = attempt.first_token {
            self.upstream_first_token_seconds.get_or_create(&model).observe(first_token.as_secs_f64());
        }
        let Usage { prompt_tokens, completion_tokens, cost_usd, .. } = attempt.usage;
        for (direction, n) in [("input", prompt_tokens), ("output", completion_tokens)] {
            self.tokens.get_or_create(&TokenLabels { model: attempt.model.clone(), direction }).inc_by(n);
            let labels = TenantTokenLabels { tenant: tenant.to_owned(), direction };
            self.tenant_tokens.get_or_create(&labels).inc_by(n);
        }
        self.cost_usd.get_or_create(&model).inc_by(cost_usd);
        self.tenant_cost_usd.get_or_create(&TenantLabel { tenant: tenant.to_owned() }).inc_by(cost_usd);
    }

    /// Counts an answer that was served past its TTL, when the call that was to replace it has ended.
    pub fn refresh(&self, is_replaced: bool) {
        let result = if is_replaced { "ok" } else { "failed" };
        self.refreshes.get_or_create(&ResultLabel { result }).inc();
    }

    /// Counts feedback on an answer. `model`: the id and the tier of the model that wrote it, when it is in the
    /// catalog.
    pub fn feedback(&self, verdict: Verdict, outcome: Option<Outcome>, model: Option<(&str, &str)>) {
        let outcome = outcome.map_or("unknown", Outcome::as_str);
        let (model, tier) = model.unwrap_or_default();
        let (model, tier) = (model.to_owned(), tier.to_owned());
        self.feedback
            .get_or_create(&FeedbackLabels { verdict: verdict.as_str(), outcome, model, tier })
            .inc();
    }

    /// Counts a pair whose answers say the same with probability `same`.
    pub fn label(&self, origin: LabelOrigin, same: f32) {
        let says = match same {
            s if s > 0.9 => "same",
            s if s < 0.1 => "different",
            _ => "unsure",
        };
        self.labels.get_or_create(&LearnedLabels { origin: origin.as_str(), says }).inc();
    }

    /// Counts pairs that nobody had time to compare.
    pub fn labels_dropped(&self, pairs: usize) {
        self.labels_dropped.inc_by(pairs as u64);
    }

    /// Counts labels that went one of the ways between processes.
    pub fn labels_shared(&self, way: LabelWay, labels: usize) {
        if labels > 0 {
            self.labels_shared.get_or_create(&WayLabel { way: way.as_str() }).inc_by(labels as u64);
        }
    }

    /// Counts what came of asking a model about two answers.
    pub fn judgement(&self, opinion: VerifierReply) {
        self.judgements.get_or_create(&OpinionLabel { opinion: opinion.as_str() }).inc();
    }

    /// Counts a prompt that is kept with care.
    pub fn bound(&self, bound: Bound) {
        self.bound_prompts.get_or_create(&ReasonLabel { reason: bound.as_str() }).inc();
    }

    /// Sets the estimate of wrong hits, read when the metrics are.
    pub fn wrong_hits(&self, estimate: WrongHits) {
        self.false_hit_rate.set(estimate.rate.into());
        self.false_hit_rate_low.set(estimate.low.into());
        self.false_hit_rate_high.set(estimate.high.into());
        self.false_hit_checks.set(estimate.checks.cast_signed());
    }

    /// Counts one operation of the store.
    pub fn store(&self, op: StoreOp, started: Instant, failed: bool) {
        let label = OpLabel { op: op.as_str() };
        self.store_seconds.get_or_create(&label).observe(started.elapsed().as_secs_f64());
        if failed {
            self.store_errors.get_or_create(&label).inc();
        }
    }

    /// Counts a request that was turned away.
    pub fn shed(&self, why: Shed) {
        self.shed.get_or_create(&ReasonLabel { reason: why.as_str() }).inc();
    }

    /// Counts one embedding.
    pub fn embed(&self, started: Instant) {
        self.embed_seconds.observe(started.elapsed().as_secs_f64());
    }

    /// Counts one search.
    pub fn search(&self, started: Instant) {
        self.search_seconds.observe(started.elapsed().as_secs_f64());
    }

    /// Sets the sizes, read when the metrics are.
    pub fn sizes(&self, entries: u64, index_vectors: usize, memory_tier: u64, index: usize) {
        self.entries.set(entries.cast_signed());
        self.index_vectors.set(index_vectors as i64);
        for (part, bytes) in [("memory_tier", memory_tier.cast_signed()), ("index", index as i64)] {
            self.memory_bytes.get_or_create(&PartLabel { part }).set(bytes);
        }
    }

    /// Sets the budgets of those tenants that have one, read when the metrics are.
    pub fn budgets<'t>(&self, tenants: impl Iterator<Item = &'t Arc<Tenant>>) {
        self.tenant_budget_usd.clear();
        self.tenant_spent_today_usd.clear();
        for tenant in tenants {
            let Some(budget) = tenant.budget_usd_per_day() else { continue };
            let label = TenantLabel { tenant: tenant.name().to_owned() };
            self.tenant_budget_usd.get_or_create(&label).set(budget);
            let spent = tenant.spent_today(SystemTime::now());
            self.tenant_spent_today_usd.get_or_create(&label).set(spent);
        }
    }

    /// Sets how far the index is, and how far this replica is behind each region. Regions that another
    /// replica reads now are gone.
    pub fn replication(&self, loaded: f64, lags: &[(String, Duration)]) {
        self.index_loaded.set(loaded);
        self.replication_lag_seconds.clear();
        for (peer, lag) in lags {
            let label = PeerLabel { peer: peer.clone() };
            self.replication_lag_seconds.get_or_create(&label).set(lag.as_secs_f64());
        }
    }

    /// Sets the states of models and providers, read when the metrics are. Those that a reload removed
    /// are gone.
    pub fn states(&self, models: &[ModelState], providers: &[ProviderState]) {
        self.breaker_state.clear();
        self.provider_up.clear();
        for ModelState { model, provider, breaker } in models {
            self.announce(model);
            let labels = BreakerLabels { model: model.clone(), provider: provider.clone() };
            self.breaker_state.get_or_create(&labels).set(*breaker as i64);
        }
        for ProviderState { name, region, is_up } in providers {
            let labels = ProviderLabels { provider: name.clone(), region: region.clone() };
            self.provider_up.get_or_create(&labels).set((*is_up).into());
        }
    }

    /// Makes a model's counters before they count: one that appears with its first event hides that event
    /// from every rate.
    fn announce(&self, model: &str) {
        let label = ModelLabel { model: model.to_owned() };
        drop(self.upstream_seconds.get_or_create(&label));
        drop(self.upstream_first_token_seconds.get_or_create(&label));
        drop(self.cost_usd.get_or_create(&label));
        for direction in ["input", "output"] {
            drop(self.tokens.get_or_create(&TokenLabels { model: model.to_owned(), direction }));
        }
    }

    /// Everything in Prometheus' own text format, in which a counter's name has its `_total` everywhere.
    pub fn encode_plain(&self) -> String {
        let mut out = String::new();
        let mut counters = HashSet::new();
        let encoded = self.encode();
        for line in encoded.lines() {
            if let Some(name) = line.strip_prefix("# TYPE ").and_then(|rest| rest.strip_suffix(" counter")) {
                counters.insert(name);
            }
        }
        for line in encoded.lines().filter(|line| *line != "# EOF") {
            let mut words = line.splitn(4, ' ');
            match (words.next(), words.next(), words.next(), words.next()) {
                (Some("#"), Some(keyword), Some(name), Some(rest)) if counters.contains(name) => {
                    // Writing to a string cannot fail.
                    let _ = writeln!(out, "# {keyword} {name}_total {rest}");
                }
                _ => {
                    let _ = writeln!(out, "{line}");
                }
            }
        }
        out
    }

    /// Everything in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail, and our labels encode.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_that_another_replica_reads_now_has_no_lag_here() {
        let metrics = Metrics::new();
        let us = r#"promptkeep_replication_lag_seconds{peer="us"}"#;
        metrics.replication(1.0, &[("us".to_owned(), Duration::from_secs(3))]);
        assert!(metrics.encode().contains(us));
        metrics.replication(1.0, &[]);
        assert!(!metrics.encode().contains(us));
    }
}

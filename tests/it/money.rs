//! Tokens and money over thousands of calls: the script of the providers, `GetStats` of each tenant, `/metrics` and the
//! log must agree.

use std::{collections::BTreeMap, time::Duration};

use promptkeep::{
    config::{Config, HedgeAfter},
    grpc::proto::{CompleteRequest, GetStatsRequest, GetStatsResponse, Outcome, Prompt},
};
use serde_json::Value;
use tonic::Request;
use tracing::Level;

use crate::common::{
    events::Events,
    fake_upstream::{FakeUpstream, Reply},
    log::Log,
    metrics,
    test_server::{Client, TestServer, exact_config, prompt, tenant, with_key},
};

const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
const TIERS: [&str; 3] = ["cold", "warm", "hot"];
/// Prices of each tier in US cents per million tokens, for input and output.
const CENTS: [(u64, u64); 3] = [(27, 110), (55, 220), (250, 1000)];
/// Tier that answers when each tier fails, by the default order of fallback.
const STANDS_IN: [usize; 3] = [1, 2, 1];
const CALLS: u64 = 3000;
const HEDGED_CALLS: usize = 20;

/// Usage in exact numbers: a token at one cent per million tokens costs one millionth of a cent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sum {
    calls: u64,
    input: u64,
    output: u64,
    micro_cents: u64,
}

/// Usage by tenant and tier.
type Sums = BTreeMap<(usize, usize), Sum>;

struct Run {
    fakes: [FakeUpstream; 3],
    client: Client,
    random: fastrand::Rng,
    spent: Sums,
    /// Number of requests routed to each tier.
    routed: [u64; 3],
    saved_micro_cents: BTreeMap<usize, u64>,
    /// Cached answers: tenant, tier, text of the prompt, and the cost that a repeat saves.
    cached: Vec<(usize, usize, String, u64)>,
}

fn config(fakes: &[FakeUpstream; 3]) -> Config {
    let mut config = exact_config(&fakes.each_ref());
    for (model, (input, output)) in config.models.iter_mut().zip(CENTS) {
        model.input_usd_per_mtok = input as f64 / 100.0;
        model.output_usd_per_mtok = output as f64 / 100.0;
    }
    config.tenants = TENANTS.map(tenant).to_vec();
    config.upstream.breaker_failures = u32::MAX;
    config.upstream.hedge_budget = 1.0;
    config
}

fn from_tenant<T>(tenant: usize, message: T) -> Request<T> {
    with_key(TENANTS[tenant], message)
}

fn request_to(tier: usize, text: &str) -> CompleteRequest {
    let prompt = Prompt { model: TIERS[tier].to_owned(), namespace: format!("ns-{tier}"), ..prompt(text) };
    CompleteRequest { prompt: Some(prompt), cache: None }
}

/// Estimates tokens as the server does, at four bytes each.
fn estimated(text: &str) -> u64 {
    (text.len() as u64).div_ceil(4)
}

fn estimated_prompt(text: &str) -> u64 {
    4 + estimated(text)
}

impl Run {
    fn count(&mut self, tenant: usize, tier: usize, input: u64, output: u64) -> u64 {
        let micro_cents = input * CENTS[tier].0 + output * CENTS[tier].1;
        let sum = self.spent.entry((tenant, tier)).or_default();
        sum.calls += 1;
        sum.input += input;
        sum.output += output;
        sum.micro_cents += micro_cents;
        micro_cents
    }

    /// Makes one random request.
    async fn step(&mut self, n: u64) {
        if !self.cached.is_empty() && self.random.f64() < 0.3 {
            return self.repeat().await;
        }
        let (tenant, tier) = (self.random.usize(..3), self.random.usize(..3));
        let text = format!("Question number {n}?");
        self.routed[tier] += 1;
        match self.random.f64() {
            x if x < 0.1 => self.fall_back(tenant, tier, &text).await,
            x if x < 0.2 => self.without_usage(tenant, tier, &text).await,
            x if x < 0.25 => self.fail(tenant, tier, &text).await,
            x if x < 0.3 => self.break_off(tenant, tier, &text).await,
            _ => self.succeed(tenant, tier, &text).await,
        }
    }

    async fn repeat(&mut self) {
        let (tenant, tier, text, micro_cents) = self.cached[self.random.usize(..self.cached.len())].clone();
        self.ask(tenant, tier, &text, Outcome::Exact).await;
        *self.saved_micro_cents.entry(tenant).or_default() += micro_cents;
    }

    async fn succeed(&mut self, tenant: usize, tier: usize, text: &str) {
        let (input, output, reply) = self.reply();
        self.fakes[tier].script([reply]);
        self.ask(tenant, tier, text, Outcome::Upstream).await;
        let micro_cents = self.count(tenant, tier, input, output);
        self.cached.push((tenant, tier, text.to_owned(), micro_cents));
    }

    async fn fall_back(&mut self, tenant: usize, tier: usize, text: &str) {
        let (input, output, reply) = self.reply();
        self.fakes[tier].script([Reply::status(500)]);
        self.fakes[STANDS_IN[tier]].script([reply]);
        self.ask(tenant, tier, text, Outcome::Upstream).await;
        self.count(tenant, tier, 0, 0);
        self.count(tenant, STANDS_IN[tier], input, output);
    }

    async fn without_usage(&mut self, tenant: usize, tier: usize, text: &str) {
        self.fakes[tier].script([Reply::text("four words of text").without("\"usage\"")]);
        self.ask(tenant, tier, text, Outcome::Upstream).await;
        let (input, output) = (estimated_prompt(text), estimated("four words of text"));
        let micro_cents = self.count(tenant, tier, input, output);
        self.cached.push((tenant, tier, text.to_owned(), micro_cents));
    }

    /// The provider rejects the request, so no other provider is tried.
    async fn fail(&mut self, tenant: usize, tier: usize, text: &str) {
        self.fakes[tier].script([Reply::status(400)]);
        self.client.complete(from_tenant(tenant, request_to(tier, text))).await.unwrap_err();
        self.count(tenant, tier, 0, 0);
    }

    /// The part that arrived is paid for.
    async fn break_off(&mut self, tenant: usize, tier: usize, text: &str) {
        self.fakes[tier].script([Reply::text("never whole").close_after(2)]);
        let mut client = self.client.clone();
        let streamed =
            Events::open(&mut client, from_tenant(tenant, request_to(tier, text))).await.rest().await;
        assert!(streamed.error.is_some() && !streamed.text.is_empty());
        self.count(tenant, tier, estimated_prompt(text), estimated(&streamed.text));
    }

    /// The first model stalls and the hedge answers. The prompt that the first model has read is paid for.
    async fn hedge(&mut self, n: usize) {
        let (tenant, text) = (n % 3, format!("Question to two, number {n}?"));
        self.routed[0] += 1;
        let (input, output, reply) = self.reply();
        self.fakes[1].script([reply]);
        self.ask(tenant, 0, &text, Outcome::Upstream).await;
        self.count(tenant, 0, estimated_prompt(&text), 0);
        self.count(tenant, 1, input, output);
    }

    fn reply(&mut self) -> (u64, u64, Reply) {
        let (input, output) = (self.random.u64(1..5000), self.random.u64(1..2000));
        let answer = Reply::text("An answer.").without("\"usage\"").without("[DONE]");
        (input, output, answer.usage(input, output).done())
    }

    /// Sends the request as a unary call or as a stream, at random.
    async fn ask(&mut self, tenant: usize, tier: usize, text: &str, expected: Outcome) {
        let request = from_tenant(tenant, request_to(tier, text));
        let outcome = if self.random.bool() {
            let mut client = self.client.clone();
            Events::open(&mut client, request).await.rest().await.outcome()
        } else {
            self.client.complete(request).await.unwrap().into_inner().outcome()
        };
        assert_eq!(outcome, expected);
    }

    fn total(&self, of: impl Fn(usize, usize) -> bool) -> Sum {
        let mut total = Sum::default();
        for (_, sum) in self.spent.iter().filter(|((tenant, tier), _)| of(*tenant, *tier)) {
            total.calls += sum.calls;
            total.input += sum.input;
            total.output += sum.output;
            total.micro_cents += sum.micro_cents;
        }
        total
    }
}

/// Compares amounts to a ten-thousandth of a cent.
#[track_caller]
fn assert_usd(what: &str, usd: f64, micro_cents: u64) {
    let expected = micro_cents as f64 / 1e8;
    assert!((usd - expected).abs() < 1e-6, "{what}: {usd} is not {expected}");
}

async fn stats(client: &mut Client, tenant: usize, namespace: &str) -> GetStatsResponse {
    let request = GetStatsRequest { namespace: namespace.to_owned(), ..GetStatsRequest::default() };
    client.get_stats(from_tenant(tenant, request)).await.unwrap().into_inner()
}

fn label(name: &str, value: &str) -> String {
    format!("{name}=\"{value}\"")
}

/// Returns the fields of every logged model call.
fn logged_calls(log: &Log) -> Vec<Value> {
    let text = log.text();
    for content in ["Question", "An answer", "four words"] {
        assert!(!text.contains(content), "prompts and answers are not logged");
    }
    let mut events = log.events();
    events.retain(|event| event["message"].as_str().unwrap_or_default().starts_with("inference_"));
    events
}

#[tokio::test]
async fn tokens_and_money_agree_everywhere_over_thousands_of_calls() {
    // The server runs on this thread, so its events are captured.
    let log = Log::capture(Level::INFO);
    let fakes = [FakeUpstream::start().await, FakeUpstream::start().await, FakeUpstream::start().await];
    let server = TestServer::start(config(&fakes)).await;
    let mut run = Run {
        client: server.client().await,
        random: fastrand::Rng::with_seed(7),
        spent: Sums::new(),
        routed: [0; 3],
        saved_micro_cents: BTreeMap::new(),
        cached: Vec::new(),
        fakes,
    };
    for n in 0..CALLS {
        run.step(n).await;
    }
    let mut hedging = config(&run.fakes);
    hedging.upstream.hedge_after = HedgeAfter::Fixed(Duration::from_millis(1));
    server.server.reload(hedging).unwrap();
    run.fakes[0].always(Reply::stall());
    for n in 0..HEDGED_CALLS {
        run.hedge(n).await;
    }

    check_stats(&mut run).await;
    check_metrics(&run, &server.get("/metrics").await.1);
    check_log(&run, &logged_calls(&log));
}

/// Each tenant sees its own numbers only, by model and by namespace.
async fn check_stats(run: &mut Run) {
    for (tenant, name) in TENANTS.into_iter().enumerate() {
        let reply = stats(&mut run.client, tenant, "").await;
        assert_usd(name, reply.cost_usd, run.total(|t, _| t == tenant).micro_cents);
        assert_usd(name, reply.saved_usd, run.saved_micro_cents[&tenant]);
        for (tier, tier_name) in TIERS.into_iter().enumerate() {
            let sum = run.spent[&(tenant, tier)];
            let model = reply.models.iter().find(|model| model.tier == tier_name).unwrap();
            let tokens = (model.calls, model.prompt_tokens, model.completion_tokens);
            assert_eq!(tokens, (sum.calls, sum.input, sum.output), "{name} {tier_name}");
            assert_usd(tier_name, model.cost_usd, sum.micro_cents);
        }
        let mut in_namespaces = 0.0;
        for tier in 0..TIERS.len() {
            in_namespaces += stats(&mut run.client, tenant, &format!("ns-{tier}")).await.cost_usd;
        }
        assert!((in_namespaces - reply.cost_usd).abs() < 1e-6);
        assert_eq!((reply.entries, reply.index_vectors), (0, 0), "tenants do not see the size of the cache");
    }
}

fn check_metrics(run: &Run, page: &str) {
    let all = run.total(|_, _| true);
    assert_usd("all", metrics::sum(page, "promptkeep_cost_usd_total", &[]), all.micro_cents);
    let saved = metrics::sum(page, "promptkeep_saved_usd_total", &[]);
    assert_usd("saved", saved, run.saved_micro_cents.values().sum());
    for (tier, name) in TIERS.into_iter().enumerate() {
        let (sum, model) = (run.total(|_, t| t == tier), label("model", &format!("model-{name}")));
        check_labels(page, "promptkeep_", &model, sum);
        let calls = metrics::sum(page, "promptkeep_upstream_requests_total", &[&model, &label("tier", name)]);
        assert_eq!(calls as u64, sum.calls, "{name}");
        let routed =
            metrics::sum(page, "promptkeep_routes_total", &[&label("tier", name), &label("reason", "tier")]);
        assert_eq!(routed as u64, run.routed[tier], "{name}");
    }
    for (tenant, name) in TENANTS.into_iter().enumerate() {
        let sum = run.total(|t, _| t == tenant);
        check_labels(page, "promptkeep_tenant_", &label("tenant", name), sum);
    }
    assert!(!page.contains("ns-"), "namespaces are text of callers");
}

fn check_labels(page: &str, prefix: &str, of: &str, sum: Sum) {
    assert_usd(of, metrics::sum(page, &format!("{prefix}cost_usd_total"), &[of]), sum.micro_cents);
    for (direction, tokens) in [("input", sum.input), ("output", sum.output)] {
        let labels = [of, &label("direction", direction)];
        assert_eq!(
            metrics::sum(page, &format!("{prefix}tokens_total"), &labels) as u64,
            tokens,
            "{of} {direction}"
        );
    }
}

fn check_log(run: &Run, calls: &[Value]) {
    for (tier, name) in TIERS.into_iter().enumerate() {
        let (mut logged, mut usd) = (Sum::default(), 0.0);
        for call in calls.iter().filter(|call| call["tier"] == name) {
            logged.calls += 1;
            logged.input += call["prompt_tokens"].as_u64().unwrap();
            logged.output += call["completion_tokens"].as_u64().unwrap();
            usd += call["cost_usd"].as_f64().unwrap();
        }
        let sum = run.total(|_, t| t == tier);
        assert_eq!((logged.calls, logged.input, logged.output), (sum.calls, sum.input, sum.output), "{name}");
        assert_usd(name, usd, sum.micro_cents);
    }
}

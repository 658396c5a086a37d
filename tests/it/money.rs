//! Tokens and money over thousands of calls: what the script of the providers says, what `GetStats` tells each
//! tenant, what `/metrics` shows and what the log says add up to the same.

use std::{collections::BTreeMap, time::Duration};

use promptkeep::{
    config::{Config, HedgeAfter, TenantConfig},
    grpc::proto::{CompleteRequest, GetStatsRequest, GetStatsResponse, Outcome, Prompt},
    tenant::ApiKeyHash,
};
use serde_json::Value;
use tonic::Request;
use tracing::Level;

use crate::common::{
    events::Events,
    fake_upstream::{FakeUpstream, Reply},
    log::Log,
    test_server::{Client, TestServer, exact_config, prompt},
};

const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
const TIERS: [&str; 3] = ["cold", "warm", "hot"];
/// US dollars per million tokens, in cents: those of the configuration below.
const CENTS: [(u64, u64); 3] = [(27, 110), (55, 220), (250, 1000)];
/// Where each tier's requests go when it fails, by the default order of fallback.
const STANDS_IN: [usize; 3] = [1, 2, 1];
const CALLS: u64 = 3000;
const HEDGED_CALLS: usize = 20;

/// What was bought, in exact numbers: a token at one cent per million tokens costs one millionth of a cent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sum {
    calls: u64,
    input: u64,
    output: u64,
    micro_cents: u64,
}

/// By tenant and by tier.
type Sums = BTreeMap<(usize, usize), Sum>;

struct Run {
    fakes: [FakeUpstream; 3],
    client: Client,
    random: fastrand::Rng,
    bought: Sums,
    /// Requests that were sent to a tier, by tier.
    routed: [u64; 3],
    saved_micro_cents: BTreeMap<usize, u64>,
    /// What a repeat would save: tenant, tier, text and the answer's cost.
    kept: Vec<(usize, usize, String, u64)>,
}

fn config(fakes: &[FakeUpstream; 3]) -> Config {
    let mut config = exact_config(&fakes.each_ref());
    for (model, (input, output)) in config.models.iter_mut().zip(CENTS) {
        model.input_usd_per_mtok = input as f64 / 100.0;
        model.output_usd_per_mtok = output as f64 / 100.0;
    }
    config.tenants = TENANTS
        .map(|name| TenantConfig {
            name: name.to_owned(),
            api_key_sha256: Some(ApiKeyHash::of(name)),
            ..TenantConfig::default()
        })
        .to_vec();
    config.upstream.breaker_failures = u32::MAX;
    config.upstream.hedge_budget = 1.0;
    config
}

fn of<T>(tenant: usize, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {}", TENANTS[tenant]).parse().unwrap());
    request
}

fn asking(tier: usize, text: &str) -> CompleteRequest {
    let prompt = Prompt { model: TIERS[tier].to_owned(), namespace: format!("ns-{tier}"), ..prompt(text) };
    CompleteRequest { prompt: Some(prompt), cache: None }
}

/// As the server estimates it: four bytes a token.
fn estimated(text: &str) -> u64 {
    (text.len() as u64).div_ceil(4)
}

fn estimated_prompt(text: &str) -> u64 {
    4 + estimated(text)
}

// === impl Run ===

impl Run {
    fn count(&mut self, tenant: usize, tier: usize, input: u64, output: u64) -> u64 {
        let micro_cents = input * CENTS[tier].0 + output * CENTS[tier].1;
        let sum = self.bought.entry((tenant, tier)).or_default();
        sum.calls += 1;
        sum.input += input;
        sum.output += output;
        sum.micro_cents += micro_cents;
        micro_cents
    }

    /// One request of any kind.
    async fn step(&mut self, n: u64) {
        if !self.kept.is_empty() && self.random.f64() < 0.3 {
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
            _ => self.buy(tenant, tier, &text).await,
        }
    }

    async fn repeat(&mut self) {
        let (tenant, tier, text, micro_cents) = self.kept[self.random.usize(..self.kept.len())].clone();
        self.ask(tenant, tier, &text, Outcome::Exact).await;
        *self.saved_micro_cents.entry(tenant).or_default() += micro_cents;
    }

    async fn buy(&mut self, tenant: usize, tier: usize, text: &str) {
        let (input, output, reply) = self.reply();
        self.fakes[tier].script([reply]);
        self.ask(tenant, tier, text, Outcome::Upstream).await;
        let micro_cents = self.count(tenant, tier, input, output);
        self.kept.push((tenant, tier, text.to_owned(), micro_cents));
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
        self.kept.push((tenant, tier, text.to_owned(), micro_cents));
    }

    /// The provider says that the request is wrong: no other is asked.
    async fn fail(&mut self, tenant: usize, tier: usize, text: &str) {
        self.fakes[tier].script([Reply::status(400)]);
        self.client.complete(of(tenant, asking(tier, text))).await.unwrap_err();
        self.count(tenant, tier, 0, 0);
    }

    /// What came is paid for all the same.
    async fn break_off(&mut self, tenant: usize, tier: usize, text: &str) {
        self.fakes[tier].script([Reply::text("never whole").close_after(2)]);
        let mut client = self.client.clone();
        let said = Events::open(&mut client, of(tenant, asking(tier, text))).await.rest().await;
        assert!(said.error.is_some() && !said.text.is_empty());
        self.count(tenant, tier, estimated_prompt(text), estimated(&said.text));
    }

    /// The first model never begins; the second answers beside it. What the first has read is paid for.
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

    /// Unary or as a stream.
    async fn ask(&mut self, tenant: usize, tier: usize, text: &str, expected: Outcome) {
        let request = of(tenant, asking(tier, text));
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
        for (_, sum) in self.bought.iter().filter(|((tenant, tier), _)| of(*tenant, *tier)) {
            total.calls += sum.calls;
            total.input += sum.input;
            total.output += sum.output;
            total.micro_cents += sum.micro_cents;
        }
        total
    }
}

/// To a ten-thousandth of a cent.
#[track_caller]
fn assert_usd(what: &str, usd: f64, micro_cents: u64) {
    let expected = micro_cents as f64 / 1e8;
    assert!((usd - expected).abs() < 1e-6, "{what}: {usd} is not {expected}");
}

async fn stats(client: &mut Client, tenant: usize, namespace: &str) -> GetStatsResponse {
    let request = GetStatsRequest { namespace: namespace.to_owned(), ..GetStatsRequest::default() };
    client.get_stats(of(tenant, request)).await.unwrap().into_inner()
}

/// Adds up a metric over the lines with all of these labels.
fn metric(page: &str, name: &str, labels: &[String]) -> f64 {
    let lines = page.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label.as_str()))
    });
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

fn label(name: &str, value: &str) -> String {
    format!("{name}=\"{value}\"")
}

/// The fields of every model call that was logged.
fn calls(log: &Log) -> Vec<Value> {
    let text = log.text();
    for said in ["Question", "An answer", "four words"] {
        assert!(!text.contains(said), "prompts and answers are not logged");
    }
    let mut events = log.events();
    events.retain(|event| event["message"].as_str().unwrap_or_default().starts_with("inference_"));
    events
}

#[tokio::test]
async fn thousands_of_calls_add_up_everywhere() {
    // The server runs on this thread too.
    let log = Log::capture(Level::INFO);
    let fakes = [FakeUpstream::start().await, FakeUpstream::start().await, FakeUpstream::start().await];
    let server = TestServer::start(config(&fakes)).await;
    let mut run = Run {
        client: server.client().await,
        random: fastrand::Rng::with_seed(7),
        bought: Sums::new(),
        routed: [0; 3],
        saved_micro_cents: BTreeMap::new(),
        kept: Vec::new(),
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
    check_log(&run, &calls(&log));
}

/// Each tenant is told its own, by model and by namespace, and nobody else's.
async fn check_stats(run: &mut Run) {
    for (tenant, name) in TENANTS.into_iter().enumerate() {
        let told = stats(&mut run.client, tenant, "").await;
        assert_usd(name, told.cost_usd, run.total(|t, _| t == tenant).micro_cents);
        assert_usd(name, told.saved_usd, run.saved_micro_cents[&tenant]);
        for (tier, tier_name) in TIERS.into_iter().enumerate() {
            let sum = run.bought[&(tenant, tier)];
            let model = told.models.iter().find(|model| model.tier == tier_name).unwrap();
            let tokens = (model.calls, model.prompt_tokens, model.completion_tokens);
            assert_eq!(tokens, (sum.calls, sum.input, sum.output), "{name} {tier_name}");
            assert_usd(tier_name, model.cost_usd, sum.micro_cents);
        }
        let mut in_namespaces = 0.0;
        for tier in 0..TIERS.len() {
            in_namespaces += stats(&mut run.client, tenant, &format!("ns-{tier}")).await.cost_usd;
        }
        assert!((in_namespaces - told.cost_usd).abs() < 1e-6);
        assert_eq!((told.entries, told.index_vectors), (0, 0), "how much is kept is not a tenant's business");
    }
}

fn check_metrics(run: &Run, page: &str) {
    let all = run.total(|_, _| true);
    assert_usd("all", metric(page, "promptkeep_cost_usd_total", &[]), all.micro_cents);
    let saved = metric(page, "promptkeep_saved_usd_total", &[]);
    assert_usd("saved", saved, run.saved_micro_cents.values().sum());
    for (tier, name) in TIERS.into_iter().enumerate() {
        let (sum, model) = (run.total(|_, t| t == tier), label("model", &format!("model-{name}")));
        check_labels(page, "promptkeep_", &model, sum);
        let calls = metric(page, "promptkeep_upstream_requests_total", &[model, label("tier", name)]);
        assert_eq!(calls as u64, sum.calls, "{name}");
        let routed = metric(page, "promptkeep_routes_total", &[label("tier", name), label("reason", "tier")]);
        assert_eq!(routed as u64, run.routed[tier], "{name}");
    }
    for (tenant, name) in TENANTS.into_iter().enumerate() {
        let sum = run.total(|t, _| t == tenant);
        check_labels(page, "promptkeep_tenant_", &label("tenant", name), sum);
    }
    assert!(!page.contains("ns-"), "namespaces are callers' text");
}

fn check_labels(page: &str, prefix: &str, of: &str, sum: Sum) {
    assert_usd(of, metric(page, &format!("{prefix}cost_usd_total"), &[of.to_owned()]), sum.micro_cents);
    for (direction, tokens) in [("input", sum.input), ("output", sum.output)] {
        let labels = [of.to_owned(), label("direction", direction)];
        assert_eq!(
            metric(page, &format!("{prefix}tokens_total"), &labels) as u64,
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

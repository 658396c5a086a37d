//! What a verification adds to a request: a verified hit compared with an exact hit, a semantic hit that needs no verifier,
//! and a miss, all against a stand-in that takes 5 ms as a model and as a verifier.
//!
//! Run with `cargo bench --bench verify`. The kinds of calls alternate, one call at a time, so that other load affects all;
//! only figures of one run can be compared.

use std::{
    env,
    time::{Duration, Instant},
};

use axum::{Json, Router, routing::post};
use hdrhistogram::Histogram;
use promptkeep::{
    config::{Config, Mode, ModelConfig, ProviderConfig, StoreKind, VerifyMode},
    grpc::proto::{
        CacheControl, CompleteRequest, Completion, Message, Outcome, Prompt, StoreRequest, Usage,
        prompt_cache_client::PromptCacheClient,
    },
    model::Tier,
    offline::model_server::{LOOPBACK, ModelServer},
    server::{Server, transport},
};
use serde_json::{Value, json};
use tonic::transport::Channel;

/// Time that the stand-in takes to reply.
const REPLY_TIME: Duration = Duration::from_millis(5);
const RUN: Duration = Duration::from_secs(20);
const WARM_UP: usize = 20;

const CACHED: &str = "How do I reset my password?";
/// Differs from [`CACHED`] on the surface only.
const SURFACE: &str = "how do i reset my password";
/// Served only after a yes.
const PARAPHRASE: &str = "How can I reset my password?";
const OTHER: &str = "Which city is the capital of France?";

type Client = PromptCacheClient<Channel>;

/// Kind of a call.
#[derive(Clone, Copy, PartialEq)]
enum Case {
    /// HTTP call of the stand-in, without promptkeep.
    Direct,
    Exact,
    /// Semantic hit that no verifier is asked about.
    Semantic,
    Verified,
    Miss,
}

const CASES: [(Case, &str); 5] = [
    (Case::Direct, "stand-in, called directly"),
    (Case::Exact, "exact hit"),
    (Case::Semantic, "semantic hit, not asked about"),
    (Case::Verified, "semantic hit, verified"),
    (Case::Miss, "miss"),
];

#[tokio::main]
async fn main() {
    // `cargo test --benches` only checks that the program starts.
    if env::args().nth(1).as_deref() != Some("--test") {
        bench().await;
    }
}

async fn bench() {
    let router = Router::new().route("/v1/chat/completions", post(reply));
    let stand_in = ModelServer::start(LOOPBACK, router).await.expect("a port");
    let mut client = start_server(&stand_in.base_url()).await;
    let http = reqwest::Client::new();
    let mut times = CASES.map(|_| Histogram::new_with_bounds(1, 60_000_000, 3).expect("valid bounds"));
    let (mut round, mut end) = (0, Instant::now() + RUN);
    while Instant::now() < end {
        // Each round has a namespace of its own, which remembers no verdict and has learned nothing.
        let namespace = format!("round-{round}");
        fill(&mut client, &namespace).await;
        for ((case, _), times) in CASES.iter().zip(&mut times) {
            let started = Instant::now();
            match case {
                Case::Direct => call_directly(&http, &stand_in.base_url()).await,
                case => call(&mut client, &namespace, *case).await,
            }
            let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
            times.saturating_record(micros);
        }
        round += 1;
        if round == WARM_UP {
            times.iter_mut().for_each(Histogram::reset);
            end = Instant::now() + RUN;
        }
    }
    print(&times);
}

fn print(times: &[Histogram<u64>; CASES.len()]) {
    let ms = |case: Case, quantile: f64| {
        let at = CASES.iter().position(|(other, _)| *other == case).expect("one of the cases");
        times[at].value_at_quantile(quantile) as f64 / 1000.0
    };
    println!(
        "{:<32}{:>10}{:>10}{:>16}{:>16}",
        "one call at a time", "p50 ms", "p99 ms", "p50 to a miss", "p50 to exact"
    );
    for (case, name) in CASES {
        let [p50, p99] = [0.5, 0.99].map(|quantile| ms(case, quantile));
        let to = |other: Case| p50 / ms(other, 0.5);
        println!("{name:<32}{p50:>10.2}{p99:>10.2}{:>16.2}{:>16.1}", to(Case::Miss), to(Case::Exact));
    }
    let added = |quantile| ms(Case::Verified, quantile) - ms(Case::Semantic, quantile);
    let own = added(0.5) - ms(Case::Direct, 0.5);
    println!(
        "a verification adds {:.2} ms at p50 and {:.2} ms at p99 to a semantic hit; {own:.2} ms of the former are not the stand-in's ({} calls of each kind)",
        added(0.5),
        added(0.99),
        times[0].len(),
    );
}

// === Calls ===

async fn call(client: &mut Client, namespace: &str, case: Case) {
    let (text, outcome, approved_by) = match case {
        Case::Exact => (CACHED, Outcome::Exact, ""),
        Case::Semantic => (SURFACE, Outcome::Semantic, "surface"),
        Case::Verified => (PARAPHRASE, Outcome::Semantic, "verified"),
        Case::Miss | Case::Direct => (OTHER, Outcome::Upstream, ""),
    };
    let request = CompleteRequest { prompt: Some(prompt(namespace, text)), cache: None };
    let reply = client.complete(request).await.expect("an answer").into_inner();
    let approved = reply.r#match.as_ref().map_or("", |matched| matched.approved_by.as_str());
    assert_eq!((reply.outcome(), approved), (outcome, approved_by), "{text}: {}", reply.reason);
}

async fn call_directly(http: &reqwest::Client, base_url: &str) {
    let body = json!({ "model": "verifier", "messages": [{ "role": "user", "content": OTHER }] });
    let reply = http.post(format!("{base_url}/chat/completions")).json(&body).send().await.expect("a reply");
    reply.bytes().await.expect("a whole body");
}

async fn fill(client: &mut Client, namespace: &str) {
    // Dear enough to be worth a verification.
    let usage = Usage { prompt_tokens: 500, completion_tokens: 300, ..Usage::default() };
    let completion = Completion {
        content: "Open the settings, choose security, and follow the link.".to_owned(),
        finish_reason: "stop".to_owned(),
        usage: Some(usage),
        ..Completion::default()
    };
    let request = StoreRequest {
        prompt: Some(prompt(namespace, CACHED)),
        completion: Some(completion),
        cache: Some(CacheControl::default()),
    };
    client.store(request).await.expect("the answer is stored");
}

fn prompt(namespace: &str, text: &str) -> Prompt {
    let message = Message { role: "user".to_owned(), content: text.to_owned(), ..Message::default() };
    Prompt { namespace: namespace.to_owned(), messages: vec![message], ..Prompt::default() }
}

// === Servers ===

/// Replies after [`REPLY_TIME`] what approves the first kept answer, which is an answer like any other to a caller.
async fn reply() -> Json<Value> {
    tokio::time::sleep(REPLY_TIME).await;
    let message = json!({ "role": "assistant", "content": "1" });
    let choice = json!({ "index": 0, "message": message, "finish_reason": "stop" });
    let usage = json!({ "prompt_tokens": 900, "completion_tokens": 1, "total_tokens": 901 });
    Json(json!({ "object": "chat.completion", "choices": [choice], "usage": usage }))
}

async fn start_server(base_url: &str) -> Client {
    let server = Server::new(config(base_url)).await.expect("the embedding model");
    let any = "127.0.0.1:0".parse().expect("an address");
    let (grpc, http) =
        (transport::bind(any).await.expect("a port"), transport::bind(any).await.expect("a port"));
    let address = grpc.local_addr().expect("bound");
    tokio::spawn(async move { server.listen(grpc, http).await.expect("a listener") });
    Client::connect(format!("http://{address}")).await.expect("the server listens")
}

/// Asks before it serves, without limits of money and rate, and makes no other calls.
fn config(base_url: &str) -> Config {
    let mut config = Config::default();
    config.store.kind = StoreKind::Memory;
    config.cache.mode = Mode::Bounded;
    config.cache.audit_rate = 0.0;
    let verify = &mut config.cache.verify;
    verify.mode = VerifyMode::Before;
    verify.audit_rate = 0.0;
    verify.usd_per_second = 0.0;
    verify.start_usd = 1e6;
    verify.max_per_minute = usize::MAX;
    config.providers = vec![ProviderConfig {
        name: "stand-in".to_owned(),
        base_url: base_url.to_owned(),
        ..ProviderConfig::default()
    }];
    let model = |id: &str, tier, input_usd_per_mtok, output_usd_per_mtok| ModelConfig {
        id: id.to_owned(),
        provider: "stand-in".to_owned(),
        tier,
        input_usd_per_mtok,
        output_usd_per_mtok,
        context_window: 100_000,
        ..ModelConfig::default()
    };
    config.models = vec![model("model", Tier::Hot, 2.5, 10.0), model("verifier", Tier::Economy, 0.1, 0.4)];
    config
}

//! Cost of streaming over HTTP: a cached answer and one from a model, compared with a bare axum handler that sends equal
//! events, all over loopback in the same run.
//!
//! Prints for each the time to the first byte of the body, the time of the whole answer, and the time that each token
//! adds (the difference between a long and a short answer). The model sends its tokens without a pause, so the time of
//! a token is the cost of the path, not of a model.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
    routing::post,
    serve::ListenerExt as _,
};
use futures_util::StreamExt as _;
use promptkeep::{
    config::{Config, Mode, ModelConfig, ProviderConfig, StoreKind},
    model::Tier,
    server::Server,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const SHORT: usize = 20;
const LONG: usize = 220;
/// Enough for a stable median, and a few seconds on a slow machine.
const ROUNDS: usize = 300;
const WARM_UP: usize = 30;

/// Times of one answer.
#[derive(Clone, Copy)]
struct Times {
    first_byte: Duration,
    whole: Duration,
}

#[tokio::main]
async fn main() {
    let bare = serve(Router::new().route("/v1/chat/completions", post(echo)).with_state(())).await;
    let server = start_server(bare).await;
    println!("{:<26}{:>14}{:>14}{:>16}", "µs, median", "first byte", "whole", "for each token");
    for (name, address, control) in
        [("bare axum", bare, ""), ("cached", server, ""), ("model behind it", server, "no-cache")]
    {
        let short = median(address, control, SHORT).await;
        let long = median(address, control, LONG).await;
        let token = (micros(long.whole) - micros(short.whole)) / (LONG - SHORT) as f64;
        println!("{name:<26}{:>14.0}{:>14.0}{token:>16.2}", micros(long.first_byte), micros(long.whole));
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

async fn median(address: SocketAddr, control: &str, tokens: usize) -> Times {
    let client = reqwest::Client::new();
    let mut taken = Vec::with_capacity(ROUNDS);
    for round in 0..WARM_UP + ROUNDS {
        let one = ask(&client, address, control, tokens).await;
        if round >= WARM_UP {
            taken.push(one);
        }
    }
    let middle = |of: fn(&Times) -> Duration| {
        let mut times: Vec<_> = taken.iter().map(of).collect();
        times.sort_unstable();
        times[times.len() / 2]
    };
    Times { first_byte: middle(|one| one.first_byte), whole: middle(|one| one.whole) }
}

async fn ask(client: &reqwest::Client, address: SocketAddr, control: &str, tokens: usize) -> Times {
    let body = json!({ "model": "auto", "stream": true, "messages": [{ "role": "user", "content": tokens.to_string() }] });
    let url = format!("http://{address}/v1/chat/completions");
    let started = Instant::now();
    let reply =
        client.post(url).header("cache-control", control).json(&body).send().await.expect("an answer");
    let mut bytes = reply.bytes_stream();
    let mut first_byte = None;
    while let Some(part) = bytes.next().await {
        part.expect("a whole body");
        first_byte.get_or_insert_with(|| started.elapsed());
    }
    Times { first_byte: first_byte.expect("a body"), whole: started.elapsed() }
}

/// Answers with as many tokens as the last turn says, each in an event of its own.
async fn echo(State(()): State<()>, Json(body): Json<Value>) -> Response {
    let turns = body["messages"].as_array().expect("messages");
    let tokens: usize =
        turns[turns.len() - 1]["content"].as_str().and_then(|n| n.parse().ok()).expect("a number");
    let event = |choices: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{choices}]}}\n\n"
        )
    };
    let token = event(r#"{"index":0,"delta":{"content":"token "},"finish_reason":null}"#);
    let end = event(r#"{"index":0,"delta":{},"finish_reason":"stop"}"#) + "data: [DONE]\n\n";
    let events = (0..tokens).map(move |_| token.clone()).chain([end]);
    let events = events.map(|event| Ok::<_, Infallible>(Bytes::from(event)));
    let body = Body::from_stream(tokio_stream::iter(events));
    ([(CONTENT_TYPE, "text/event-stream")], body).into_response()
}

async fn serve(router: Router) -> SocketAddr {
    let listener = bind().await;
    let address = listener.local_addr().expect("bound");
    let listener = listener.tap_io(|socket| drop(socket.set_nodelay(true)));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

async fn start_server(upstream: SocketAddr) -> SocketAddr {
    let mut config = Config::default();
    config.store.kind = StoreKind::Memory;
    config.cache.mode = Mode::Exact;
    config.upstream.health_interval = Duration::ZERO;
    config.providers = vec![ProviderConfig {
        name: "bare".into(),
        base_url: format!("http://{upstream}/v1"),
        ..ProviderConfig::default()
    }];
    config.models = vec![ModelConfig {
        id: "m".into(),
        provider: "bare".into(),
        served_as: None,
        tier: Tier::Cold,
        input_usd_per_mtok: 1.0,
        output_usd_per_mtok: 1.0,
        context_window: 100_000,
        ..ModelConfig::default()
    }];
    let server = Arc::new(Server::new(config).await.expect("a valid configuration"));
    let (grpc, http) = (bind().await, bind().await);
    let address = http.local_addr().expect("bound");
    tokio::spawn(async move { server.listen(grpc, http).await });
    address
}

async fn bind() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

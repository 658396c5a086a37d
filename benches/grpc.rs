//! Cost of a hit over gRPC, compared with an empty call of a stock tonic server in the same run.
//!
//! Each server is a process of its own on one core, and the client runs on the other (by `taskset`, where it exists).
//! Run with `cargo bench --bench grpc`. Only figures of one run can be compared.

use std::{
    env,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use promptkeep::{
    config::{Config, StoreKind},
    grpc::proto::{
        CacheControl, CompleteRequest, Completion, LookupRequest, Message, Prompt, StoreRequest,
        prompt_cache_client::PromptCacheClient,
    },
    server::{Server, transport},
};
use tokio::{net::TcpListener, task::JoinSet};
use tonic::transport::Channel;

/// Size of a cached answer.
const ANSWER_BYTES: usize = 1024;
const CONNECTIONS: usize = 4;
const IN_FLIGHT: usize = 64;
const RUN: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;

const CACHED: &str = "How do I reset the password of my account?";
const PARAPHRASE: &str = "How can I reset the password of my account?";

type Client = PromptCacheClient<Channel>;

/// Kind of a call.
#[derive(Clone, Copy, PartialEq)]
enum Case {
    /// `Lookup` at a stock tonic server whose handlers do nothing.
    Empty,
    /// `Lookup` of an exact repeat.
    Lookup,
    /// `Complete` of an exact repeat.
    Complete,
    /// `Lookup` of a paraphrase.
    Semantic,
}

const CASES: [(Case, &str); 4] = [
    (Case::Empty, "stock tonic, empty call"),
    (Case::Lookup, "exact hit, Lookup"),
    (Case::Complete, "exact hit, Complete"),
    (Case::Semantic, "semantic hit, Lookup"),
];

struct Figures {
    per_second: f64,
    /// CPU time of the server for one call, in microseconds, without the client's share.
    server_us: f64,
    /// Latency in nanoseconds with one call at a time.
    latency: Histogram<u64>,
}

fn main() {
    match env::args().nth(1).as_deref() {
        Some("--serve-empty") => block_on(stock::serve()),
        Some("--serve") => block_on(serve()),
        // `cargo test --benches` only checks that the program starts.
        Some("--test") => {}
        _ => block_on(bench()),
    }
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(future);
}

// === Client ===

async fn bench() {
    pin_self();
    println!(
        "{:<26}{:>10}{:>15}{:>10}{:>10}{:>10}",
        "", "calls/s", "server µs/call", "to empty", "p50 µs", "p99 µs"
    );
    let (empty, full) = (ServerProcess::start("--serve-empty"), ServerProcess::start("--serve"));
    fill(&full).await;
    let mut empty_us = 0.0;
    for (case, name) in CASES {
        let server = if case == Case::Empty { &empty } else { &full };
        let Figures { per_second, server_us, latency } = measure(case, server).await;
        if case == Case::Empty {
            empty_us = server_us;
        }
        let [p50, p99] = [0.5, 0.99].map(|q| latency.value_at_quantile(q) as f64 / 1000.0);
        let ratio = server_us / empty_us;
        println!("{name:<26}{per_second:>10.0}{server_us:>15.1}{ratio:>10.2}{p50:>10.0}{p99:>10.0}");
    }
    println!(
        "calls/s: {CONNECTIONS} connections, {IN_FLIGHT} calls in flight on each; p50 and p99: one call at a time"
    );
}

/// Returns the best of several rounds, because other load can only make a round slower.
async fn measure(case: Case, server: &ServerProcess) -> Figures {
    let (mut per_second, mut server_us) = (0.0_f64, f64::INFINITY);
    for _ in 0..ROUNDS {
        let before = server.cpu_seconds();
        let rate = throughput(case, server).await;
        per_second = per_second.max(rate);
        server_us = server_us.min((server.cpu_seconds() - before) * 1e6 / (rate * RUN.as_secs_f64()));
    }
    Figures { per_second, server_us, latency: latency(case, server).await }
}

async fn throughput(case: Case, server: &ServerProcess) -> f64 {
    let mut callers = JoinSet::new();
    let end = Instant::now() + RUN;
    for _ in 0..CONNECTIONS {
        let client = server.client().await;
        for _ in 0..IN_FLIGHT {
            let mut client = client.clone();
            callers.spawn(async move {
                let mut calls = 0_u64;
                while Instant::now() < end {
                    call(case, &mut client).await;
                    calls += 1;
                }
                calls
            });
        }
    }
    callers.join_all().await.iter().sum::<u64>() as f64 / RUN.as_secs_f64()
}

async fn latency(case: Case, server: &ServerProcess) -> Histogram<u64> {
    let mut client = server.client().await;
    let mut nanos = Histogram::new_with_bounds(1, 10_000_000_000, 3).expect("valid bounds");
    let end = Instant::now() + RUN;
    while Instant::now() < end {
        let started = Instant::now();
        call(case, &mut client).await;
        nanos.saturating_record(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    nanos
}

async fn call(case: Case, client: &mut Client) {
    match case {
        Case::Empty => drop(client.lookup(LookupRequest::default()).await.expect("an empty reply")),
        Case::Lookup => look(client, CACHED).await,
        Case::Semantic => look(client, PARAPHRASE).await,
        Case::Complete => {
            let request = CompleteRequest { prompt: Some(prompt(CACHED)), cache: None };
            let reply = client.complete(request).await.expect("a hit").into_inner();
            assert!(reply.completion.is_some_and(|completion| completion.content.len() == ANSWER_BYTES));
        }
    }
}

async fn look(client: &mut Client, text: &str) {
    let reply = client.lookup(LookupRequest { prompt: Some(prompt(text)), cache: None }).await;
    let completion = reply.expect("a reply").into_inner().completion;
    assert!(completion.is_some_and(|completion| completion.content.len() == ANSWER_BYTES), "a miss: {text}");
}

async fn fill(server: &ServerProcess) {
    let completion = Completion {
        content: "x".repeat(ANSWER_BYTES),
        finish_reason: "stop".to_owned(),
        ..Completion::default()
    };
    let request = StoreRequest {
        prompt: Some(prompt(CACHED)),
        completion: Some(completion),
        cache: Some(CacheControl::default()),
    };
    server.client().await.store(request).await.expect("the answer is stored");
}

fn prompt(text: &str) -> Prompt {
    let message = |role: &str, content: &str| Message {
        role: role.to_owned(),
        content: content.to_owned(),
        ..Message::default()
    };
    Prompt {
        namespace: "bench".to_owned(),
        model: "auto".to_owned(),
        messages: vec![message("system", "Answer the customer briefly and kindly."), message("user", text)],
        ..Prompt::default()
    }
}

// === Servers ===

/// Child process that runs this program as a server, killed when it is dropped.
struct ServerProcess {
    child: Child,
    endpoint: String,
}

impl ServerProcess {
    fn start(mode: &str) -> Self {
        let program = env::current_exe().expect("a path to this program");
        let mut child = pinned("0", &program.display().to_string())
            .arg(mode)
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("the address");
        Self { child, endpoint: format!("http://{}", line.trim()) }
    }

    /// CPU time of the process so far; 0 on systems without /proc.
    fn cpu_seconds(&self) -> f64 {
        /// Unit of the kernel in /proc, equal on every Linux.
        const TICKS_PER_SECOND: f64 = 100.0;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // Fields 14 and 15 of the line, counted after the name in parentheses, which may contain spaces.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND
    }

    async fn client(&self) -> Client {
        Client::connect(self.endpoint.clone()).await.expect("the server listens")
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn has_taskset() -> bool {
    let two_cores = std::thread::available_parallelism().is_ok_and(|n| n.get() > 1);
    two_cores && Command::new("taskset").arg("--version").stdout(Stdio::null()).status().is_ok()
}

fn pinned(core: &str, program: &str) -> Command {
    if !has_taskset() {
        return Command::new(program);
    }
    let mut command = Command::new("taskset");
    command.args(["-c", core, program]);
    command
}

fn pin_self() {
    if has_taskset() {
        let id = std::process::id().to_string();
        let _ = Command::new("taskset").args(["-acp", "1", &id]).stdout(Stdio::null()).status();
    }
}

async fn serve() {
    let mut config = Config::default();
    config.store.kind = StoreKind::Memory;
    config.cache.min_similarity = 0.9;
    let server = Server::new(config).await.expect("the embedding model");
    let any = "127.0.0.1:0".parse().expect("an address");
    let (grpc, http) =
        (transport::bind(any).await.expect("a port"), transport::bind(any).await.expect("a port"));
    announce(&grpc);
    server.listen(grpc, http).await.expect("a listener");
}

fn announce(listener: &TcpListener) {
    println!("{}", listener.local_addr().expect("bound"));
}

/// Baseline: stock tonic with handlers that do nothing.
mod stock {
    use promptkeep::grpc::proto::{prompt_cache_server::*, *};
    use tokio_stream::{Empty, wrappers::TcpListenerStream};
    use tonic::{Request, Response, Status};

    struct EmptyService;

    macro_rules! empty_handlers {
        ($($name:ident: $request:ty => $reply:ty),*) => {
            #[tonic::async_trait]
            impl PromptCache for EmptyService {
                $(async fn $name(&self, _: Request<$request>) -> Result<Response<$reply>, Status> {
                    Ok(Response::new(<$reply>::default()))
                })*

                type CompleteStreamStream = Empty<Result<CompleteChunk, Status>>;

                async fn complete_stream(
                    &self,
                    _: Request<CompleteRequest>,
                ) -> Result<Response<Self::CompleteStreamStream>, Status> {
                    Ok(Response::new(tokio_stream::empty()))
                }
            }
        };
    }

    empty_handlers! {
        lookup: LookupRequest => LookupResponse,
        complete: CompleteRequest => CompleteResponse,
        store: StoreRequest => StoreResponse,
        invalidate: InvalidateRequest => InvalidateResponse,
        feedback: FeedbackRequest => FeedbackResponse,
        explain: LookupRequest => ExplainResponse,
        get_stats: GetStatsRequest => GetStatsResponse
    }

    pub async fn serve() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        super::announce(&listener);
        tonic::transport::Server::builder()
            .add_service(PromptCacheServer::new(EmptyService))
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
            .expect("a listener");
    }
}

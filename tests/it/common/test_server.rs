//! In-process server on free loopback ports, its configurations, and the requests that most tests send.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use promptkeep::{
    config::{Config, HedgeAfter, Mode, ModelConfig, ProviderConfig, StoreKind, TenantConfig},
    grpc::proto::{
        CacheControl, CompleteRequest, CompleteResponse, Completion, GetStatsRequest, GetStatsResponse,
        LookupRequest, LookupResponse, Message, Prompt, StoreRequest, prompt_cache_client::PromptCacheClient,
    },
    model::Tier,
    server::Server,
    store::Store,
    tenant::ApiKeyHash,
};
use tokio::task::JoinHandle;
use tonic::{IntoRequest, Request, Response, Status, transport::Channel};

use super::{fake_upstream::FakeUpstream, metrics, raw};

pub type Client = PromptCacheClient<Channel>;

/// Server that stops when it is dropped.
pub struct TestServer {
    pub server: Arc<Server>,
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    listening: JoinHandle<std::io::Result<()>>,
}

impl TestServer {
    /// Starts a server with this configuration.
    pub async fn start(config: Config) -> Self {
        Self::run(Server::new(config).await.expect("a valid configuration")).await
    }

    /// Starts a server on a store that the test controls.
    pub async fn with_store(config: Config, store: Arc<dyn Store>) -> Self {
        Self::run(Server::with_store(config, store).await.expect("a valid configuration")).await
    }

    async fn run(server: Server) -> Self {
        let server = Arc::new(server);
        let [grpc, http] = [bind().await, bind().await];
        let addresses = [&grpc, &http].map(|listener| listener.local_addr().expect("bound"));
        let listening = tokio::spawn({
            let server = Arc::clone(&server);
            async move { server.listen(grpc, http).await }
        });
        Self { server, grpc: addresses[0], http: addresses[1], listening }
    }

    /// Starts a server and connects a client.
    pub async fn with_client(config: Config) -> (Self, Client) {
        let server = Self::start(config).await;
        let client = server.client().await;
        (server, client)
    }

    pub async fn client(&self) -> Client {
        PromptCacheClient::connect(format!("http://{}", self.grpc)).await.expect("the server listens")
    }

    /// Waits until exactly this many requests are in flight.
    pub async fn wait_for_requests(&self, count: usize) {
        until(async || self.server.requests_in_flight() == count).await;
    }

    /// Waits until this many requests have failed or lost their caller.
    pub async fn wait_for_errors(&self, count: u64) {
        let client = self.client().await;
        until(async || stats(&mut client.clone()).await.requests["error"] == count).await;
    }

    /// Returns the status and the body of an HTTP page.
    pub async fn get(&self, path: &str) -> (u16, String) {
        raw::page(self.http, path).await
    }

    /// Sums a metric over its lines that contain all of `labels`.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        metrics::sum(&self.get("/metrics").await.1, name, labels)
    }

    /// Waits until a metric is at least `min`.
    pub async fn wait_for_metric(&self, name: &str, labels: &[&str], min: f64) {
        until(async || self.metric(name, labels).await >= min).await;
    }

    /// Shuts the server down as an operator would, so that all cached answers are durable.
    pub async fn stop(mut self) {
        let listening = async { (&mut self.listening).await.expect("no panic") };
        self.server.shutdown(listening).await.expect("a clean shutdown");
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Maximum wait for anything in a test, so that a hang is a failure.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Polls until the condition is true.
pub async fn until(condition: impl AsyncFn() -> bool) {
    let polling = async {
        while !condition().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, polling).await.expect("the condition never became true");
}

async fn bind() -> tokio::net::TcpListener {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

/// Configuration in memory and without an embedding model: exact hits only, quick to start.
pub fn exact_config(upstreams: &[&FakeUpstream]) -> Config {
    let mut config = semantic_config(upstreams);
    config.cache.mode = Mode::Exact;
    config
}

/// Configuration in memory with the real embedding model and one model at each upstream: the first is `cold`, the
/// second `warm`, the third `hot`.
pub fn semantic_config(upstreams: &[&FakeUpstream]) -> Config {
    let mut config = Config::default();
    // Static decisions are predictable; tests of learning choose `bounded`.
    config.cache.mode = Mode::Static;
    config.store.kind = StoreKind::Memory;
    // Tests that want retries or hedging turn them on.
    config.upstream.retries = 0;
    // Only tests of faults let the store time out.
    config.store.timeout = TIMEOUT;
    config.upstream.hedge_after = HedgeAfter::Never;
    for (upstream, tier) in upstreams.iter().zip([Tier::Cold, Tier::Warm, Tier::Hot]) {
        let name = format!("provider-{}", tier.as_str());
        config.models.push(ModelConfig {
            id: format!("model-{}", tier.as_str()),
            provider: name.clone(),
            served_as: None,
            tier,
            input_usd_per_mtok: 1.0,
            output_usd_per_mtok: 10.0,
            context_window: 100_000,
            ..ModelConfig::default()
        });
        config.providers.push(ProviderConfig {
            name,
            base_url: upstream.base_url(),
            ..ProviderConfig::default()
        });
    }
    config
}

/// Prompt of one user turn in the default namespace.
pub fn prompt(text: &str) -> Prompt {
    Prompt { messages: vec![message("user", text)], ..Prompt::default() }
}

pub fn message(role: &str, content: &str) -> Message {
    Message { role: role.to_owned(), content: content.to_owned(), ..Message::default() }
}

/// `Complete` request without directives.
pub fn ask(text: &str) -> CompleteRequest {
    CompleteRequest { prompt: Some(prompt(text)), cache: None }
}

/// `Lookup` request without directives.
pub fn look(text: &str) -> LookupRequest {
    LookupRequest { prompt: Some(prompt(text)), cache: None }
}

/// Sends `Complete`, which must succeed.
pub async fn complete(client: &mut Client, text: &str) -> CompleteResponse {
    client.complete(ask(text)).await.expect("an answer").into_inner()
}

/// `Complete` request with these directives.
pub fn ask_with(text: &str, cache: CacheControl) -> CompleteRequest {
    CompleteRequest { cache: Some(cache), ..ask(text) }
}

/// Sends `Lookup`, which must succeed.
pub async fn lookup(client: &mut Client, text: &str) -> LookupResponse {
    client.lookup(look(text)).await.expect("a lookup").into_inner()
}

/// Returns the statistics of all namespaces since the start.
pub async fn stats(client: &mut Client) -> GetStatsResponse {
    client.get_stats(GetStatsRequest::default()).await.expect("statistics").into_inner()
}

/// `Store` request for an answer to this prompt.
pub fn store_request(prompt_text: &str, answer: &str) -> StoreRequest {
    let completion =
        Completion { content: answer.to_owned(), finish_reason: "stop".to_owned(), ..Completion::default() };
    StoreRequest { prompt: Some(prompt(prompt_text)), completion: Some(completion), cache: None }
}

/// Sends `Complete` in a task.
pub fn spawn_complete(
    client: &Client,
    request: impl IntoRequest<CompleteRequest> + Send + 'static,
) -> JoinHandle<Result<CompleteResponse, Status>> {
    let mut client = client.clone();
    tokio::spawn(async move { client.complete(request).await.map(Response::into_inner) })
}

/// Request that carries this API key.
pub fn with_key<T>(key: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().expect("ASCII"));
    request
}

/// Tenant whose API key is its name.
pub fn tenant(name: &str) -> TenantConfig {
    TenantConfig {
        name: name.to_owned(),
        api_key_sha256: Some(ApiKeyHash::of(name)),
        ..TenantConfig::default()
    }
}

/// Returns the text of an answer.
pub fn text(reply: CompleteResponse) -> String {
    reply.completion.expect("an answer has a completion").content
}

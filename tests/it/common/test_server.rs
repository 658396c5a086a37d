//! A server on free loopback ports, in this process, stopped when it is dropped.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use promptkeep::{
    config::{Config, HedgeAfter, Mode, ModelConfig, ProviderConfig, StoreKind},
    grpc::proto::{
        CacheControl, CompleteRequest, CompleteResponse, GetStatsRequest, GetStatsResponse, LookupRequest,
        LookupResponse, Message, Prompt, prompt_cache_client::PromptCacheClient,
    },
    model::Tier,
    server::Server,
    store::Store,
};
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use super::{fake_upstream::FakeUpstream, raw};

pub type Client = PromptCacheClient<Channel>;

pub struct TestServer {
    pub server: Arc<Server>,
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    listening: JoinHandle<std::io::Result<()>>,
}

// === impl TestServer ===

impl TestServer {
    /// Serves `config` on ports of its own.
    pub async fn start(config: Config) -> Self {
        Self::run(Server::new(config).await.expect("a valid configuration")).await
    }

    /// The same on a store that the test controls.
    pub async fn with_store(config: Config, store: Arc<dyn Store>) -> Self {
        Self::run(Server::with_store(config, store).await.expect("a valid configuration")).await
    }

    async fn run(server: Server) -> Self {
        let server = Arc::new(server);
        let [grpc, http] = [free_port().await, free_port().await];
        let addresses = [&grpc, &http].map(|listener| listener.local_addr().expect("bound"));
        let listening = tokio::spawn({
            let server = Arc::clone(&server);
            async move { server.listen(grpc, http).await }
        });
        Self { server, grpc: addresses[0], http: addresses[1], listening }
    }

    pub async fn client(&self) -> Client {
        PromptCacheClient::connect(format!("http://{}", self.grpc)).await.expect("the server listens")
    }

    /// Waits until this many requests are under way.
    pub async fn wait_for_requests(&self, count: usize) {
        until(async || self.server.requests_under_way() == count).await;
    }

    /// Waits until this many requests have ended in an error, or with their caller gone.
    pub async fn wait_for_errors(&self, count: u64) {
        let client = self.client().await;
        until(async || stats(&mut client.clone()).await.requests["error"] == count).await;
    }

    /// The body of an HTTP page, with its status.
    pub async fn get(&self, path: &str) -> (u16, String) {
        raw::page(self.http, path).await
    }

    /// Stops it as an operator would, so that everything kept is durable.
    pub async fn stop(mut self) {
        let listening = async { (&mut self.listening).await.expect("no panic") };
        self.server.shutdown(listening).await.expect("a clean end");
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Longest wait for what must come, so that a hang is a failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again and again until `is_so`.
pub async fn until(is_so: impl AsyncFn() -> bool) {
    let asking = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("it never became so");
}

async fn free_port() -> tokio::net::TcpListener {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

/// A server without a file and without an embedding model: exact hits only, quick to start.
pub fn exact_config(upstreams: &[&FakeUpstream]) -> Config {
    let mut config = semantic_config(upstreams);
    config.cache.mode = Mode::Exact;
    config
}

/// A server without a file, with the real embedding model, and one model at each upstream: the first is
/// `cold`, the second `warm`.
pub fn semantic_config(upstreams: &[&FakeUpstream]) -> Config {
    let mut config = Config::default();
    // Its decisions can be foretold; tests of what is learned choose `bounded`.
    config.cache.mode = Mode::Static;
    config.store.kind = StoreKind::Memory;
    // A test that wants a retry or a hedge says so.
    config.upstream.retries = 0;
    // Only tests of faults give up on the store.
    config.store.timeout = PATIENCE;
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
        });
        config.providers.push(ProviderConfig {
            name,
            base_url: upstream.base_url(),
            ..ProviderConfig::default()
        });
    }
    config
}

/// One user turn in the default namespace.
pub fn prompt(text: &str) -> Prompt {
    Prompt { messages: vec![message("user", text)], ..Prompt::default() }
}

pub fn message(role: &str, content: &str) -> Message {
    Message { role: role.to_owned(), content: content.to_owned(), ..Message::default() }
}

pub fn ask(text: &str) -> CompleteRequest {
    CompleteRequest { prompt: Some(prompt(text)), cache: None }
}

pub fn look(text: &str) -> LookupRequest {
    LookupRequest { prompt: Some(prompt(text)), cache: None }
}

/// Asks and expects an answer.
pub async fn complete(client: &mut Client, text: &str) -> CompleteResponse {
    client.complete(ask(text)).await.expect("an answer").into_inner()
}

/// With these directives.
pub fn ask_with(text: &str, cache: CacheControl) -> CompleteRequest {
    CompleteRequest { cache: Some(cache), ..ask(text) }
}

/// Asks the cache alone.
pub async fn lookup(client: &mut Client, text: &str) -> LookupResponse {
    client.lookup(look(text)).await.expect("a lookup").into_inner()
}

/// The numbers since the start, of all namespaces.
pub async fn stats(client: &mut Client) -> GetStatsResponse {
    client.get_stats(GetStatsRequest::default()).await.expect("statistics").into_inner()
}

/// The text of an answer.
pub fn text(reply: CompleteResponse) -> String {
    reply.completion.expect("an answer has a completion").content
}

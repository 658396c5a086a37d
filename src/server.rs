//! A running promptkeep: [`Server::new`] puts the parts together, [`Server::listen`] serves on any pair of
//! listeners, [`Server::shutdown`] ends it.

use std::{future::IntoFuture as _, io, sync::Arc, time::Duration};

use axum::serve::ListenerExt as _;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{server::NamedService, transport::Server as GrpcServer};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    cache::{Cache, VectorSpace},
    config::{Config, Mode, changed_needs_restart},
    decide::table::TableError,
    embed::{self, Embedder},
    grpc, http,
    learn::Learning,
    metrics::Metrics,
    pipeline::{Parts, Pipeline, Settings},
    request_log::RequestLog,
    stats::Ledger,
    store::{self, Store, TimedStore},
    tenant::Tenants,
    trace::{self, Tracing},
    transport,
    upstream::{self, UpstreamSettings, Upstreams},
};

/// Longest that what was learned is kept at shutdown, after the requests have ended.
const SAVING_MAX: Duration = Duration::from_secs(10);

/// The parts of a deployment, and what runs them.
pub struct Server {
    pipeline: Arc<Pipeline>,
    cache: Arc<Cache>,
    learning: Arc<Learning>,
    upstreams: Upstreams,
    metrics: Arc<Metrics>,
    /// Name of the embedder; empty when there is none.
    embedder: String,
    /// The configuration that the parts were made of or last reloaded with.
    config: std::sync::Mutex<Config>,
    /// Every task of the server, joined at shutdown.
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Why a server cannot start. The text names the key, path or address.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] store::OpenError),
    #[error(transparent)]
    Embedder(#[from] embed::StartError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Upstreams(#[from] upstream::StartError),
    #[error(transparent)]
    Telemetry(#[from] trace::StartError),
}

// === impl Server ===

impl Server {
    /// Opens the store, starts the embedder, prepares the models. Nothing is served yet.
    ///
    /// # Errors
    /// When a part cannot start.
    pub async fn new(config: Config) -> Result<Self, StartError> {
        let store = store::open(&config.server.region, &config.store)?;
        Self::with_store(config, store).await
    }

    /// The same on a store of the caller's.
    ///
    /// # Errors
    /// When a part cannot start.
    pub async fn with_store(config: Config, store: Arc<dyn Store>) -> Result<Self, StartError> {
        let (metrics, ledger) = (Arc::new(Metrics::new()), Arc::new(Ledger::new(config.dashboard.slo_p99)));
        let store = TimedStore::new(store, config.store.timeout, Arc::clone(&metrics), Arc::clone(&ledger));
        let learning = Learning::new(&config.cache.learning, store.clone(), Arc::clone(&metrics))?;
        let learning = Arc::new(learning);
        let embedder = start_embedder(&config).await?;
        let embedder_name = embedder.as_ref().map_or_else(String::new, |embedder| embedder.name().to_owned());
        let upstreams = Upstreams::new(upstream_settings(&config, &embedder_name))?;
        let vectors = embedder
            .as_ref()
            .map(|embedder| VectorSpace { embedder: embedder.name(), dimensions: embedder.dimensions() });
        let cache = Arc::new(Cache::new(&config.cache, store, vectors, Arc::clone(&metrics)));
        let pipeline = Arc::new(Pipeline::new(Parts {
            settings: settings(&config, Tenants::new(&config.tenants)),
            cache: Arc::clone(&cache),
            embedder,
            learning: Arc::clone(&learning),
            upstreams: upstreams.clone(),
            metrics: Arc::clone(&metrics),
            ledger,
            tracing: Tracing::start(&config.telemetry, &config.server.region)?,
            log: RequestLog::new(config.telemetry.log_format),
        }));
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        Ok(Self {
            pipeline,
            cache,
            learning,
            upstreams,
            metrics,
            embedder: embedder_name,
            config: config.into(),
            tasks,
            stop,
        })
    }

    /// Serves until [`Server::shutdown`] is called, then drains. The index is built in the background;
    /// exact hits are served from the first moment.
    ///
    /// # Errors
    /// When a listener fails.
    pub async fn listen(&self, grpc: TcpListener, http: TcpListener) -> io::Result<()> {
        self.background(load_index(Arc::clone(&self.cache)));
        self.background(follow(Arc::clone(&self.cache)));
        self.background(share(Arc::clone(&self.learning)));
        self.background(sweep(Arc::clone(&self.cache)));
        self.background(watch_health(self.upstreams.clone()));
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<grpc::Service>().await;
        self.tasks.spawn(report_stop(self.stop.clone(), health));
        let config = self.config();
        let max_request = config.server.max_request;
        let grpc = GrpcServer::builder()
            .add_service(grpc::service(Arc::clone(&self.pipeline), max_request))
            .add_service(health_service)
            .add_service(grpc::reflection())
            .add_service(grpc::reflection_v1alpha())
            .serve_with_incoming_shutdown(transport::incoming(grpc), self.stop.clone().cancelled_owned());
        let router = http::router(self.http_door(&config));
        // Without it the kernel delays a token until the one before is acknowledged.
        let http = http.tap_io(|socket| drop(socket.set_nodelay(true)));
        let http = axum::serve(http, router).with_graceful_shutdown(self.stop.clone().cancelled_owned());
        let (grpc, http) = tokio::join!(grpc, http.into_future());
        grpc.map_err(io::Error::other).and(http)
    }

    /// Stops accepting, waits for what is under way up to `server.shutdown_grace`, and makes everything
    /// kept durable. `listening` is the future of [`Server::listen`].
    pub async fn shutdown(&self, listening: impl Future<Output = io::Result<()>>) -> io::Result<()> {
        let grace = self.config().server.shutdown_grace;
        self.stop.cancel();
        let drained = timeout(grace, async {
            let ended = listening.await;
            self.pipeline.drained().await;
            ended
        });
        let drained = drained.await;
        if drained.is_err() {
            tracing::warn!(?grace, "requests still under way were cut off");
        }
        self.tasks.close();
        self.tasks.wait().await;
        self.pipeline.end_tracing().await;
        if timeout(SAVING_MAX, self.pipeline.save_learned()).await.is_err() {
            tracing::warn!("what was learned last is not kept: the store takes too long");
        }
        if let Err(error) = self.cache.flush().await {
            tracing::error!(%error, "the last answers may not be durable");
        }
        drained.unwrap_or(Ok(()))
    }

    /// Takes what a reload can change from `new`: catalog, routing, tenants, thresholds. Returns the
    /// sections and keys that changed but need a restart; those stay as they were.
    ///
    /// # Errors
    /// When the catalog is wrong; then nothing has changed.
    pub fn reload(&self, new: Config) -> Result<Vec<&'static str>, StartError> {
        let mut config = self.config.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut need_restart = changed_needs_restart(&config, &new);
        let mut new = Config {
            server: config.server.clone(),
            store: config.store.clone(),
            embedding: config.embedding.clone(),
            dashboard: config.dashboard.clone(),
            telemetry: config.telemetry.clone(),
            ..new
        };
        (new.cache.max_memory, new.cache.max_entries) = (config.cache.max_memory, config.cache.max_entries);
        new.cache.index = config.cache.index.clone();
        new.cache.learning = config.cache.learning.clone();
        if self.embedder.is_empty() && !new.cache.is_exact() {
            new.cache.mode = Mode::Exact;
            new.cache.namespaces.iter_mut().for_each(|own| own.mode = None);
            need_restart.push("cache.mode");
        }
        self.upstreams.reload(upstream_settings(&new, &self.embedder))?;
        let tenants = self.pipeline.settings().tenants.reconfigured(&new.tenants);
        self.pipeline.reload(settings(&new, tenants));
        *config = new;
        Ok(need_restart)
    }

    /// The path of a request, for callers in this process.
    pub fn pipeline(&self) -> &Arc<Pipeline> {
        &self.pipeline
    }

    /// Requests that are being answered.
    pub fn requests_under_way(&self) -> usize {
        self.pipeline.requests_under_way()
    }

    /// Whether the index holds everything that the store does.
    pub fn is_ready(&self) -> bool {
        self.cache.loaded()
    }

    fn http_door(&self, config: &Config) -> http::Door {
        http::Door {
            pipeline: Arc::clone(&self.pipeline),
            upstreams: self.upstreams.clone(),
            cache: Arc::clone(&self.cache),
            metrics: Arc::clone(&self.metrics),
            max_request: config.server.max_request,
            dashboard: Arc::new(http::Dashboard::new(config, self.stop.clone())),
        }
    }

    fn config(&self) -> Config {
        self.config.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Runs `work` until it ends or the server stops.
    fn background(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = work => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

/// A cache of exact repeats needs no model.
async fn start_embedder(config: &Config) -> Result<Option<Arc<dyn Embedder>>, embed::StartError> {
    if config.cache.is_exact() {
        return Ok(None);
    }
    embed::start(&config.embedding).await.map(Some)
}

/// Builds the index, and builds it again whenever it went stale.
async fn load_index(cache: Arc<Cache>) {
    /// A store that cannot be read now may be later; nothing is lost meanwhile but semantic hits.
    const AGAIN_AFTER: Duration = Duration::from_secs(1);
    let mut started = std::time::Instant::now();
    loop {
        match cache.load().await {
            Ok(vectors) => {
                tracing::info!(vectors, elapsed = ?started.elapsed(), "index loaded");
                cache.stale().await;
                started = std::time::Instant::now();
            }
            Err(error) => {
                tracing::error!(%error, "index not loaded");
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
    }
}

async fn follow(cache: Arc<Cache>) {
    cache.follow().await;
}

async fn share(learning: Arc<Learning>) {
    learning.share().await;
}

/// Tells those who watch that the server stops, and ends their watching, which would hold it up.
async fn report_stop(stop: CancellationToken, mut health: HealthReporter) {
    stop.cancelled().await;
    for service in ["", <grpc::Service as NamedService>::NAME] {
        health.set_service_status(service, ServingStatus::NotServing).await;
        health.clear_service_status(service).await;
    }
}

async fn sweep(cache: Arc<Cache>) {
    cache.sweep().await;
}

async fn watch_health(upstreams: Upstreams) {
    upstreams.watch_health().await;
}

fn upstream_settings<'a>(config: &'a Config, embedder: &'a str) -> UpstreamSettings<'a> {
    UpstreamSettings {
        providers: &config.providers,
        models: &config.models,
        routing: &config.routing,
        upstream: &config.upstream,
        region: &config.server.region,
        embedder,
    }
}

fn settings(config: &Config, tenants: Tenants) -> Settings {
    Settings {
        tenants,
        cache: config.cache.clone(),
        default_model: config.routing.default.clone(),
        timeout: config.upstream.timeout,
        finish_abandoned: config.upstream.finish_abandoned,
        max_in_flight: config.server.max_in_flight,
        show_prompts: config.dashboard.show_prompts,
    }
}

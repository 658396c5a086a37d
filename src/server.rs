//! The server: [`Server::new`] builds its components, [`Server::listen`] serves on any pair of listeners, and
//! [`Server::shutdown`] drains and stops it.

mod connections;
mod http1;
pub mod transport;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{net::TcpListener, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{server::NamedService, transport::Server as GrpcServer};
use tonic_health::{ServingStatus, server::HealthReporter};

use self::{connections::Acceptor, http1::HttpPort};
use crate::{
    body::BodyLimits,
    cache::{Cache, VectorSpace},
    config::{Config, LimitsConfig, Mode, changed_needs_restart},
    decide::table::TableError,
    embed::{self, Embedder},
    grpc::{self, Limited},
    http,
    learn::Learning,
    pipeline::{Parts, Pipeline, Settings},
    store::{self, Store, TimedStore},
    telemetry::{
        metrics::Metrics,
        request_log::RequestLog,
        stats::Ledger,
        trace::{self, Tracing},
    },
    tenant::Tenants,
    upstream::{self, UpstreamSettings, Upstreams},
};

/// Maximum time spent saving learner snapshots at shutdown.
const SAVING_MAX: Duration = Duration::from_secs(10);

/// Pause before the index is loaded again after the store could not be read.
const RELOAD_PAUSE: Duration = Duration::from_secs(1);

/// HTTP/2: number of streams that a connection may reset before they are accepted, or by its own mistakes, before it is
/// closed.
const RESET_STREAMS_MAX: usize = 20;

/// All components of one process, and its background tasks.
pub struct Server {
    pipeline: Arc<Pipeline>,
    cache: Arc<Cache>,
    learning: Arc<Learning>,
    upstreams: Upstreams,
    metrics: Arc<Metrics>,
    /// Name of the embedder; empty when the cache serves exact hits only.
    embedder: String,
    /// Configuration in force. A std mutex: held for a clone or a whole reload, never across an await.
    config: Mutex<Config>,
    /// The server's background tasks, joined at shutdown.
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Error that prevents the server from starting. Its text names the key, path or address.
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
    /// Opens the store, starts the embedder and builds all components. Serves nothing yet.
    ///
    /// # Errors
    /// When a component cannot start.
    pub async fn new(config: Config) -> Result<Self, StartError> {
        let store = store::open(&config.server.region, &config.store)?;
        Self::with_store(config, store).await
    }

    /// Builds the server on an open store.
    ///
    /// # Errors
    /// When a component cannot start.
    pub async fn with_store(config: Config, store: Arc<dyn Store>) -> Result<Self, StartError> {
        let (metrics, ledger) = (Arc::new(Metrics::new()), Arc::new(Ledger::new(config.dashboard.slo_p99)));
        let store = TimedStore::new(store, config.store.timeout, Arc::clone(&metrics), Arc::clone(&ledger));
        let embedder = start_embedder(&config).await?;
        let learning =
            Learning::new(&config.cache.learning, embedder.clone(), store.clone(), Arc::clone(&metrics))?;
        let learning = Arc::new(learning);
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
        Ok(Self {
            pipeline,
            cache,
            learning,
            upstreams,
            metrics,
            embedder: embedder_name,
            config: config.into(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    /// Serves until [`Server::shutdown`] is called, then waits for the open connections. The index is loaded in the
    /// background, and exact hits do not wait for it.
    ///
    /// # Errors
    /// When a listener fails.
    pub async fn listen(&self, grpc: TcpListener, http: TcpListener) -> io::Result<()> {
        self.start_background_tasks();
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<grpc::Service>().await;
        self.tasks.spawn(report_stop(self.stop.clone(), health));
        let config = self.config();
        let limits = &config.server.limits;
        let bodies = BodyLimits::new(limits, Arc::clone(&self.metrics));
        let unread = bodies.clone();
        self.run_until_stopped(async move { unread.drop_unread_replies().await });
        let acceptor = |listener| Acceptor::new(listener, limits, Arc::clone(&self.metrics));
        let service = grpc::service(Arc::clone(&self.pipeline), config.server.max_request);
        let grpc = grpc_builder(limits)
            .add_service(Limited::new(service, bodies.clone()))
            .add_service(Limited::new(health_service, bodies.clone()))
            .add_service(Limited::new(grpc::reflection(), bodies.clone()))
            .add_service(Limited::new(grpc::reflection_v1alpha(), bodies.clone()))
            .serve_with_incoming_shutdown(
                transport::incoming(acceptor(grpc)),
                self.stop.clone().cancelled_owned(),
            );
        let is_loopback = http.local_addr()?.ip().is_loopback();
        let hosts = http::Hosts::new(&config.server.allowed_hosts, is_loopback);
        let http = HttpPort {
            acceptor: acceptor(http),
            router: http::router(self.http_api(&config, hosts)),
            bodies,
            limits: limits.clone(),
        };
        let (grpc, http) = tokio::join!(grpc, http.serve(self.stop.clone()));
        grpc.map_err(io::Error::other).and(http)
    }

    /// Stops accepting connections, waits up to `server.shutdown_grace` for requests in flight, saves the learners and
    /// makes every stored entry durable. `listening` is the future of [`Server::listen`].
    ///
    /// # Errors
    /// When a listener failed.
    pub async fn shutdown(&self, listening: impl Future<Output = io::Result<()>>) -> io::Result<()> {
        let grace = self.config().server.shutdown_grace;
        self.stop.cancel();
        let drain = async {
            let ended = listening.await;
            self.pipeline.drained().await;
            ended
        };
        let drained = timeout(grace, drain).await;
        if drained.is_err() {
            tracing::warn!(?grace, "requests in flight were cut off");
        }
        self.tasks.close();
        self.tasks.wait().await;
        self.pipeline.flush_telemetry().await;
        if timeout(SAVING_MAX, self.pipeline.save_learners()).await.is_err() {
            tracing::warn!("the latest learner snapshots are not saved: the store is too slow");
        }
        if let Err(error) = self.cache.maintenance.flush().await {
            tracing::error!(%error, "the latest entries may not be durable");
        }
        drained.unwrap_or(Ok(()))
    }

    /// Applies what a reload can change: the catalog, routing, tenants, upstream limits and the cache's thresholds.
    /// Returns the sections and keys that changed but need a restart; those keep their values.
    ///
    /// # Errors
    /// When the catalog is invalid. Nothing has changed then.
    pub fn reload(&self, new: Config) -> Result<Vec<&'static str>, StartError> {
        let mut config = self.lock_config();
        let mut need_restart = changed_needs_restart(&config, &new);
        let mut new = with_fixed_settings(new, &config);
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

    /// The request pipeline, for callers in this process.
    pub fn pipeline(&self) -> &Arc<Pipeline> {
        &self.pipeline
    }

    /// Number of requests in flight.
    pub fn requests_in_flight(&self) -> usize {
        self.pipeline.requests_in_flight()
    }

    /// Whether the index has been loaded from the store.
    pub fn is_ready(&self) -> bool {
        self.cache.maintenance.is_loaded()
    }

    fn http_api(&self, config: &Config, hosts: http::Hosts) -> http::Api {
        http::Api {
            pipeline: Arc::clone(&self.pipeline),
            upstreams: self.upstreams.clone(),
            cache: Arc::clone(&self.cache),
            metrics: Arc::clone(&self.metrics),
            max_request: config.server.max_request,
            dashboard: Arc::new(http::Dashboard::new(config, self.stop.clone())),
            hosts: Arc::new(hosts),
        }
    }

    fn config(&self) -> Config {
        self.lock_config().clone()
    }

    fn lock_config(&self) -> MutexGuard<'_, Config> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_background_tasks(&self) {
        let (cache, learning) = (&self.cache, Arc::clone(&self.learning));
        let (loading, following, sweeping) = (Arc::clone(cache), Arc::clone(cache), Arc::clone(cache));
        let upstreams = self.upstreams.clone();
        self.run_until_stopped(async move { load_index(&loading).await });
        self.run_until_stopped(async move { following.maintenance.follow().await });
        self.run_until_stopped(async move { sweeping.maintenance.sweep().await });
        self.run_until_stopped(async move { learning.share().await });
        self.run_until_stopped(async move { upstreams.watch_health().await });
    }

    /// Spawns `task`, which is cancelled when the server stops.
    fn run_until_stopped(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(task).await;
        });
    }
}

/// A gRPC server with the limits of connections.
fn grpc_builder(limits: &LimitsConfig) -> GrpcServer {
    GrpcServer::builder()
        .max_concurrent_streams(limits.streams)
        .http2_max_pending_accept_reset_streams(Some(RESET_STREAMS_MAX))
        .http2_max_local_error_reset_streams(Some(RESET_STREAMS_MAX))
        // Finds peers that are gone, and those that never complete their headers.
        .http2_keepalive_interval(Some(limits.idle_timeout))
        .http2_keepalive_timeout(Some(limits.header_timeout))
        .max_connection_age(limits.connection_age)
        .max_connection_age_grace(limits.connection_age)
}

/// Starts the embedder, unless the cache serves exact hits only.
async fn start_embedder(config: &Config) -> Result<Option<Arc<dyn Embedder>>, embed::StartError> {
    if config.cache.is_exact() {
        return Ok(None);
    }
    embed::start(&config.embedding).await.map(Some)
}

/// Loads the index, and loads it again whenever the cache reports it as stale. While the store cannot be read, the
/// server runs on without semantic hits.
async fn load_index(cache: &Cache) {
    let mut started = Instant::now();
    loop {
        match cache.maintenance.load().await {
            Ok(vectors) => {
                tracing::info!(vectors, elapsed = ?started.elapsed(), "index loaded");
                cache.maintenance.wait_until_stale().await;
                started = Instant::now();
            }
            Err(error) => {
                tracing::error!(%error, "index not loaded");
                tokio::time::sleep(RELOAD_PAUSE).await;
            }
        }
    }
}

/// Reports to health watchers that the server stops, and ends their streams, which would delay the shutdown.
async fn report_stop(stop: CancellationToken, mut health: HealthReporter) {
    stop.cancelled().await;
    for service in ["", <grpc::Service as NamedService>::NAME] {
        health.set_service_status(service, ServingStatus::NotServing).await;
        health.clear_service_status(service).await;
    }
}

/// Returns `new` with the settings of `old` that only a restart can change.
fn with_fixed_settings(new: Config, old: &Config) -> Config {
    let Config { server, store, embedding, dashboard, telemetry, .. } = old.clone();
    let mut new = Config { server, store, embedding, dashboard, telemetry, ..new };
    (new.cache.max_memory, new.cache.max_entries) = (old.cache.max_memory, old.cache.max_entries);
    new.cache.index = old.cache.index.clone();
    new.cache.learning = old.cache.learning.clone();
    new.routing.classifier_cache = old.routing.classifier_cache;
    new
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

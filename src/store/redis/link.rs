//! The connection to Redis. It is used only while Redis is known to answer: a Redis that hangs costs a few requests
//! `store.timeout` and the later ones nothing, until it answers again.
//!
//! One task connects, pings, reconnects when calls fail, and publishes the state that calls see. Knows commands and
//! faults, but not entries.

use std::{
    env, fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo as _, RedisError,
    RedisFuture, RedisResult, TlsCertificates, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};

use super::{keys::Partition, unreachable::Unreachable};
use crate::store::OpenError;

/// Consecutive calls without a reply after which a connection is replaced.
const FAILURES_MAX: u32 = 3;
/// Minimum pause between two connections to a cluster of which a part does not answer.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// Pause between two pings, which detect a Redis that hangs before requests do.
const PING_EVERY: Duration = Duration::from_millis(500);
/// Maximum wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// First and last pause between attempts to connect; it doubles in between.
const REDIAL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Maximum commands in flight on a connection.
const PIPELINE: usize = 1024;

/// Addresses of Redis and how to authenticate.
#[derive(Clone)]
pub struct Nodes {
    pub urls: Vec<String>,
    /// Name of the environment variable with the password; empty for none.
    pub password_env: String,
    /// PEM certificates trusted instead of the system's.
    pub ca: Option<Arc<[u8]>>,
}

/// A connection that all calls share.
#[derive(Clone)]
pub enum Conn {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// A call that failed. Carries no argument of the command, which may be an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not connected, or no reply in time. Redis may have executed the command.
    #[error("redis is unreachable: {0}")]
    Unreachable(String),
    /// Redis cannot execute the command now: it is read-only, full, loading or failing over.
    #[error("redis refuses: {0}")]
    Refused(String),
    /// Redis will never execute the command.
    #[error("redis rejects: {0}")]
    Rejected(String),
}

/// The connection and its state.
pub struct Link {
    nodes: Nodes,
    /// Timeout of calls of requests, and of pings.
    pub timeout: Duration,
    state: watch::Sender<State>,
    failures: AtomicU32,
    redial: Notify,
    unreachable: Unreachable,
}

enum State {
    /// The first attempt has not ended.
    Connecting,
    Up(Conn),
    Down(String),
}

/// A script that Redis runs atomically.
pub struct Script {
    code: &'static str,
    hash: String,
}

// === impl Link ===

impl Link {
    /// A link that [`Link::keep`] connects.
    pub fn new(nodes: Nodes, timeout: Duration) -> Arc<Self> {
        // Fails if another component has installed one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (state, _) = watch::channel(State::Connecting);
        Arc::new(Self {
            nodes,
            timeout,
            state,
            failures: AtomicU32::new(0),
            redial: Notify::new(),
            unreachable: Unreachable::new(),
        })
    }

    /// Connects and reconnects for ever.
    pub async fn keep(self: Arc<Self>) {
        let (first, last) = REDIAL;
        let mut pause = first;
        loop {
            match self.nodes.connect(self.timeout).await {
                Ok(conn) => {
                    self.failures.store(0, Ordering::Relaxed);
                    tracing::info!("connected to redis");
                    self.state.send_replace(State::Up(conn.clone()));
                    let cause = self.watch(conn).await;
                    tracing::warn!(cause, "redis is unreachable");
                    self.state.send_replace(State::Down(cause));
                    pause = first;
                }
                Err(fault) => self.set_down(&fault),
            }
            sleep(pause).await;
            pause = (pause * 2).min(last);
        }
    }

    /// Sends a request's command about a partition.
    pub async fn call<T: FromRedisValue>(&self, partition: Partition, command: &Cmd) -> Result<T, Fault> {
        if !self.is_cluster() {
            return self.call_within(self.timeout, command).await;
        }
        if !self.unreachable.may_try(partition) {
            return Err(Fault::Unreachable("this part of the cluster does not answer".to_owned()));
        }
        let reply = self.call_within(self.timeout, command).await;
        self.record_reply(partition, reply.as_ref().err());
        reply
    }

    /// Marks the partition as unreachable if a call for it had no reply, and as reachable otherwise.
    pub fn record_reply(&self, partition: Partition, fault: Option<&Fault>) {
        self.unreachable.record(partition, matches!(fault, Some(Fault::Unreachable(_))));
    }

    /// Whether calls for the partition have no reply, while calls for others may.
    pub fn is_unreachable(&self, partition: Partition) -> bool {
        self.is_cluster() && self.unreachable.has(partition)
    }

    /// Whether Redis is a cluster, of which a part may be unreachable.
    pub fn is_cluster(&self) -> bool {
        matches!(&*self.state.borrow(), State::Up(Conn::Cluster(_)))
    }

    /// Sends a command with a timeout of its own.
    pub async fn call_within<T: FromRedisValue>(&self, wait: Duration, command: &Cmd) -> Result<T, Fault> {
        let mut conn = self.conn().await?;
        let reply = within(wait, command.query_async(&mut conn)).await;
        self.count_failures(&conn, reply.as_ref().err());
        reply
    }

    /// Runs a script by its hash, or sends it if the node does not know it yet.
    pub async fn run<T: FromRedisValue>(
        &self,
        wait: Duration,
        script: &Script,
        keys: &[String],
        arguments: &[&[u8]],
    ) -> Result<T, Fault> {
        let by_hash = script.command("EVALSHA", &script.hash, keys, arguments);
        match self.call_within(wait, &by_hash).await {
            Err(Fault::Refused(code)) if code == "NOSCRIPT" => {
                self.call_within(wait, &script.command("EVAL", script.code, keys, arguments)).await
            }
            done => done,
        }
    }

    /// The connection. Waits for the first attempt to connect only.
    ///
    /// # Errors
    /// [`Fault::Unreachable`] at once while there is no connection.
    pub async fn conn(&self) -> Result<Conn, Fault> {
        if let Some(conn) = self.state.borrow().conn() {
            return conn;
        }
        let mut state = self.state.subscribe();
        let known = state.wait_for(|state| state.conn().is_some()).await;
        known
            .ok()
            .and_then(|state| state.conn())
            .unwrap_or_else(|| Err(Fault::Unreachable("stopped".to_owned())))
    }

    /// Returns once there is a connection.
    pub async fn up(&self) {
        // The sender lives as long as the link.
        let _ = self.state.subscribe().wait_for(|state| matches!(state, State::Up(_))).await;
    }

    /// A separate connection, whose commands may block.
    pub async fn dedicated(&self) -> Result<Conn, Fault> {
        self.nodes.connect(self.timeout).await
    }

    /// Counts calls without a reply and requests a reconnection.
    fn count_failures(&self, conn: &Conn, fault: Option<&Fault>) {
        let Some(Fault::Unreachable(_)) = fault else { return self.failures.store(0, Ordering::Relaxed) };
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if failures >= FAILURES_MAX || matches!(conn, Conn::Cluster(_)) {
            self.redial.notify_one();
        }
    }

    /// Returns the reason once the connection should no longer be used.
    async fn watch(&self, mut conn: Conn) -> String {
        if let Conn::Cluster(_) = conn {
            return self.renew().await;
        }
        loop {
            tokio::select! {
                () = self.redial.notified() => return "calls had no reply".to_owned(),
                () = sleep(PING_EVERY) => {}
            }
            let ping = redis::cmd("PING");
            if let Err(cause) = within(self.timeout, ping.query_async::<String>(&mut conn)).await {
                return cause.to_string();
            }
        }
    }

    /// Watches a cluster, whose client does not always find a returning master: while calls have no reply, replaces the
    /// connection. Returns the reason if that fails.
    async fn renew(&self) -> String {
        loop {
            sleep(RENEW_EVERY).await;
            self.redial.notified().await;
            match self.nodes.connect(self.timeout).await {
                Ok(conn) => drop(self.state.send_replace(State::Up(conn))),
                Err(fault) => return fault.to_string(),
            }
        }
    }

    /// Logs each cause once, not at every attempt.
    fn set_down(&self, fault: &Fault) {
        let cause = fault.to_string();
        let is_new = !matches!(&*self.state.borrow(), State::Down(known) if *known == cause);
        if is_new {
            tracing::warn!(cause, "cannot connect to redis");
            self.state.send_replace(State::Down(cause));
        }
    }
}

/// Fails a call that takes longer than `wait`.
pub async fn within<T>(wait: Duration, call: impl Future<Output = RedisResult<T>>) -> Result<T, Fault> {
    let late = |_| Err(Fault::Unreachable("no reply in time".to_owned()));
    timeout(wait, call).await.map_or_else(late, |reply| reply.map_err(Fault::from))
}

// === impl State ===

impl State {
    fn conn(&self) -> Option<Result<Conn, Fault>> {
        match self {
            Self::Connecting => None,
            Self::Up(conn) => Some(Ok(conn.clone())),
            Self::Down(cause) => Some(Err(Fault::Unreachable(cause.clone()))),
        }
    }
}

// === impl Nodes ===

impl Nodes {
    /// Connects to a single node, or to a cluster if several nodes are configured or the node belongs to one.
    async fn connect(&self, wait: Duration) -> Result<Conn, Fault> {
        if let [url] = self.urls.as_slice() {
            let mut conn = Conn::Single(self.connect_node(url).await?);
            // Connecting to a stopped process succeeds: the kernel accepts for it.
            let info = redis::cmd("INFO").arg("cluster").clone();
            let info: String = within(wait, info.query_async(&mut conn)).await?;
            if !info.contains("cluster_enabled:1") {
                return Ok(conn);
            }
        }
        self.connect_cluster(wait).await.map(Conn::Cluster)
    }

    async fn connect_node(&self, url: &str) -> Result<MultiplexedConnection, Fault> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            // Every call has its own timeout.
            .set_response_timeout(None)
            .set_pipeline_buffer_size(PIPELINE);
        let info = self.info(url)?;
        let client = match self.certificates(url) {
            Some(certificates) => Client::build_with_tls(info, certificates)?,
            None => Client::open(info)?,
        };
        within(CONNECT_TIMEOUT, client.get_multiplexed_async_connection_with_config(&config)).await
    }

    async fn connect_cluster(&self, wait: Duration) -> Result<ClusterConnection, Fault> {
        let nodes = self.urls.iter().map(|url| self.info(url)).collect::<Result<Vec<_>, _>>()?;
        let mut client = ClusterClient::builder(nodes);
        if let Some(certificates) = self.urls.iter().find_map(|url| self.certificates(url)) {
            client = client.certs(certificates);
        }
        let client = client
            .connection_timeout(CONNECT_TIMEOUT)
            .response_timeout(wait.max(CONNECT_TIMEOUT))
            .overall_response_timeout(None)
            .retries(2)
            .build()?;
        within(4 * CONNECT_TIMEOUT, client.get_async_connection()).await
    }

    /// Certificates to trust instead of the system's, with TLS.
    fn certificates(&self, url: &str) -> Option<TlsCertificates> {
        let ca = self.ca.as_ref().filter(|_| url.starts_with("rediss"))?;
        Some(TlsCertificates { client_tls: None, root_cert: Some(ca.to_vec()) })
    }

    fn info(&self, url: &str) -> Result<redis::ConnectionInfo, Fault> {
        let info = url.into_connection_info()?;
        if self.password_env.is_empty() {
            return Ok(info);
        }
        let password = env::var(&self.password_env)
            .map_err(|_| Fault::Rejected(format!("the variable {} is not set", self.password_env)))?;
        let settings = info.redis_settings().clone().set_password(password);
        Ok(info.set_redis_settings(settings))
    }
}

/// Reads a file of PEM certificates.
///
/// # Errors
/// [`OpenError::CaFile`] if it cannot be read or holds no certificate.
pub fn read_ca(path: &Path) -> Result<Arc<[u8]>, OpenError> {
    let unusable = |cause: String| OpenError::CaFile { path: path.to_owned(), cause };
    let bytes = fs::read(path).map_err(|cause| unusable(cause.to_string()))?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&bytes).collect();
    match certificates.iter().find_map(|certificate| certificate.as_ref().err()) {
        Some(cause) => Err(unusable(cause.to_string())),
        None if certificates.is_empty() => Err(unusable("it holds no PEM certificate".to_owned())),
        None => Ok(bytes.into()),
    }
}

// === impl Script ===

impl Script {
    pub fn new(code: &'static str) -> Self {
        Self { code, hash: redis::Script::new(code).get_hash().to_owned() }
    }

    fn command(&self, name: &str, code: &str, keys: &[String], arguments: &[&[u8]]) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(code).arg(keys.len()).arg(keys).arg(arguments);
        command
    }
}

// === impl Fault ===

impl From<RedisError> for Fault {
    /// Keeps only the error code, because some messages of Redis repeat arguments.
    fn from(error: RedisError) -> Self {
        /// Codes after which Redis may execute the command later.
        const TEMPORARY: [&str; 12] = [
            "READONLY",
            "OOM",
            "MISCONF",
            "LOADING",
            "BUSY",
            "NOREPLICAS",
            "CLUSTERDOWN",
            "MASTERDOWN",
            "TRYAGAIN",
            "NOAUTH",
            "NOPERM",
            "NOSCRIPT",
        ];
        let text = format!("{} {error}", error.code().unwrap_or_default());
        let code = error.code().unwrap_or("ERR").to_owned();
        // A slot is moving or its master is unreachable, and the client has stopped looking.
        if error.is_cluster_error() {
            return Self::Refused(code);
        }
        match error.kind() {
            ErrorKind::Server(_) | ErrorKind::Extension => {
                // In some versions an error in a script does not begin with the code.
                let temporary = TEMPORARY.iter().find(|code| text.contains(*code));
                temporary.map_or_else(|| Self::Rejected(code), |code| Self::Refused((*code).to_owned()))
            }
            ErrorKind::UnexpectedReturnType | ErrorKind::Parse => {
                Self::Rejected("unexpected reply".to_owned())
            }
            ErrorKind::AuthenticationFailed => Self::Unreachable("authentication failed".to_owned()),
            _ => Self::Unreachable(error.category().to_owned()),
        }
    }
}

// === impl Conn ===

impl ConnectionLike for Conn {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(conn) => conn.req_packed_command(command),
            Self::Cluster(conn) => conn.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a redis::Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(conn) => conn.req_packed_commands(commands, offset, count),
            Self::Cluster(conn) => conn.req_packed_commands(commands, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(conn) => conn.get_db(),
            Self::Cluster(conn) => conn.get_db(),
        }
    }
}

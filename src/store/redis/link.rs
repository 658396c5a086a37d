//! The connection to Redis, which is either known to answer or not used at all: a Redis that hangs costs a
//! few requests `store.timeout`, and from then on none of them anything, until it answers again.
//!
//! One task dials, asks for a sign of life now and then, and dials again when calls fail. What calls see is
//! the state that it publishes. Knows commands and faults, nothing of entries.

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
    RedisFuture, TlsCertificates, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};

use super::{keys::Partition, suspects::Suspects};
use crate::store::OpenError;

/// Calls in a row without a reply that end the use of a connection.
const FAILURES_MAX: u32 = 3;
/// Least pause between two new connections to a cluster that does not answer in part.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// Pause between two signs of life, so that a Redis that hangs is noticed before the requests come.
const PING_EVERY: Duration = Duration::from_millis(500);
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Pauses between two attempts to connect: the first, doubling up to the last.
const REDIAL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Commands in the hands of the client before it takes no more.
const PIPELINE: usize = 1024;

/// Where Redis is.
#[derive(Clone)]
pub struct Nodes {
    pub urls: Vec<String>,
    /// Name of the variable; empty: no password.
    pub password_env: String,
    /// Certificates in PEM that are trusted instead of the system's.
    pub ca: Option<Arc<[u8]>>,
}

/// A connection that all calls share.
#[derive(Clone)]
pub enum Conn {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// Why a call was not done. Carries no argument of a command, which may be an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not connected, or no reply in time: it may have been done all the same.
    #[error("redis is away: {0}")]
    Away(String),
    /// It says that it cannot now: read-only, full, loading, failing over.
    #[error("redis refuses: {0}")]
    Refused(String),
    /// It will not do it later either.
    #[error("redis cannot: {0}")]
    Wrong(String),
}

/// The connection and its state.
pub struct Link {
    nodes: Nodes,
    /// How long calls of requests wait, and signs of life.
    pub patience: Duration,
    state: watch::Sender<State>,
    failures: AtomicU32,
    redial: Notify,
    suspects: Suspects,
}

enum State {
    /// The first attempt is under way.
    Dialing,
    Up(Conn),
    Down(String),
}

/// A script that Redis runs as one step.
pub struct Script {
    code: &'static str,
    hash: String,
}

// === impl Link ===

impl Link {
    /// A link that [`Link::keep`] brings up.
    pub fn new(nodes: Nodes, patience: Duration) -> Arc<Self> {
        // Already chosen by another part, maybe.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (state, _) = watch::channel(State::Dialing);
        Arc::new(Self {
            nodes,
            patience,
            state,
            failures: AtomicU32::new(0),
            redial: Notify::new(),
            suspects: Suspects::new(),
        })
    }

    /// Connects, and connects again, for ever.
    pub async fn keep(self: Arc<Self>) {
        let (first, last) = REDIAL;
        let mut pause = first;
        loop {
            match self.nodes.dial(self.patience).await {
                Ok(conn) => {
                    self.failures.store(0, Ordering::Relaxed);
                    tracing::info!("connected to redis");
                    self.state.send_replace(State::Up(conn.clone()));
                    let cause = self.watch(conn).await;
                    tracing::warn!(cause, "redis is away");
                    self.state.send_replace(State::Down(cause));
                    pause = first;
                }
                Err(fault) => self.stay_down(&fault),
            }
            sleep(pause).await;
            pause = (pause * 2).min(last);
        }
    }

    /// Does one command about a partition for a request, within `patience`.
    pub async fn call<T: FromRedisValue>(&self, partition: Partition, command: &Cmd) -> Result<T, Fault> {
        if !self.is_cluster() {
            return self.call_within(self.patience, command).await;
        }
        if !self.suspects.may_try(partition) {
            return Err(Fault::Away("this part of the cluster does not answer".to_owned()));
        }
        let reply = self.call_within(self.patience, command).await;
        self.judge(partition, reply.as_ref().err());
        reply
    }

    /// Sets a part of a cluster aside when a call for it had no reply, and no longer when it had.
    pub fn judge(&self, partition: Partition, fault: Option<&Fault>) {
        match fault {
            Some(Fault::Away(_)) => self.suspects.suspect(partition),
            _ => self.suspects.clear(partition),
        }
    }

    /// Whether calls for the partition have no reply while others may.
    pub fn is_suspect(&self, partition: Partition) -> bool {
        self.is_cluster() && self.suspects.is_suspect(partition)
    }

    /// Whether there is a connection to a cluster, of which a part may answer and another not.
    pub fn is_cluster(&self) -> bool {
        matches!(&*self.state.borrow(), State::Up(Conn::Cluster(_)))
    }

    /// Does one command that may take longer than a request waits.
    pub async fn call_within<T: FromRedisValue>(&self, wait: Duration, command: &Cmd) -> Result<T, Fault> {
        let mut conn = self.conn().await?;
        let reply = timeout(wait, command.query_async(&mut conn)).await;
        let reply = reply
            .map_or_else(|_| Err(Fault::Away("no reply in time".to_owned())), |r| r.map_err(Fault::from));
        self.note(&conn, reply.as_ref().err());
        reply
    }

    /// Runs a script; one that a node does not know yet is sent whole.
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

    /// The connection; waits for the first attempt to connect only.
    ///
    /// # Errors
    /// [`Fault::Away`], at once, while there is none.
    pub async fn conn(&self) -> Result<Conn, Fault> {
        if let Some(conn) = self.state.borrow().conn() {
            return conn;
        }
        let mut state = self.state.subscribe();
        let known = state.wait_for(|state| state.conn().is_some()).await;
        known.ok().and_then(|state| state.conn()).unwrap_or_else(|| Err(Fault::Away("stopped".to_owned())))
    }

    /// Returns once there is a connection.
    pub async fn up(&self) {
        // The sender lives as long as the link.
        let _ = self.state.subscribe().wait_for(|state| matches!(state, State::Up(_))).await;
    }

    /// A connection for one caller alone, whose commands may block.
    pub async fn dedicated(&self) -> Result<Conn, Fault> {
        self.nodes.dial(self.patience).await
    }

    /// Counts how calls end.
    fn note(&self, conn: &Conn, fault: Option<&Fault>) {
        let Some(Fault::Away(_)) = fault else { return self.failures.store(0, Ordering::Relaxed) };
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if failures >= FAILURES_MAX || matches!(conn, Conn::Cluster(_)) {
            self.redial.notify_one();
        }
    }

    /// Returns once the connection should not be used any more, and why.
    async fn watch(&self, mut conn: Conn) -> String {
        if let Conn::Cluster(_) = conn {
            return self.renew().await;
        }
        loop {
            tokio::select! {
                () = self.redial.notified() => return "calls had no reply".to_owned(),
                () = sleep(PING_EVERY) => {}
            }
            if let Err(cause) = ping(&mut conn, self.patience).await {
                return cause.to_string();
            }
        }
    }

    /// The same for a cluster, whose client does not always find a master again that was away: as long as calls
    /// have no reply, a new connection takes the place of the old one. Returns when none can be made.
    async fn renew(&self) -> String {
        loop {
            sleep(RENEW_EVERY).await;
            self.redial.notified().await;
            match self.nodes.dial(self.patience).await {
                Ok(conn) => drop(self.state.send_replace(State::Up(conn))),
                Err(fault) => return fault.to_string(),
            }
        }
    }

    /// Says so once, not at every attempt.
    fn stay_down(&self, fault: &Fault) {
        let cause = fault.to_string();
        let news = !matches!(&*self.state.borrow(), State::Down(known) if *known == cause);
        if news {
            tracing::warn!(cause, "cannot connect to redis");
            self.state.send_replace(State::Down(cause));
        }
    }
}

async fn ping(conn: &mut Conn, patience: Duration) -> Result<(), Fault> {
    let command = redis::cmd("PING");
    let reply = timeout(patience, command.query_async::<String>(conn)).await;
    reply.map_err(|_| Fault::Away("no sign of life".to_owned()))?.map(drop).map_err(Fault::from)
}

// === impl State ===

impl State {
    fn conn(&self) -> Option<Result<Conn, Fault>> {
        match self {
            Self::Dialing => None,
            Self::Up(conn) => Some(Ok(conn.clone())),
            Self::Down(cause) => Some(Err(Fault::Away(cause.clone()))),
        }
    }
}

// === impl Nodes ===

impl Nodes {
    /// Connects: to the cluster when there are several nodes or the one says that it belongs to one.
    async fn dial(&self, patience: Duration) -> Result<Conn, Fault> {
        if let [url] = self.urls.as_slice() {
            let mut conn = Conn::Single(self.dial_node(url).await?);
            // Dialing succeeds with a process that is stopped: the kernel accepts for it.
            let asked = redis::cmd("INFO").arg("cluster").clone();
            let info = timeout(patience, asked.query_async::<String>(&mut conn)).await;
            let info = info.map_err(|_| Fault::Away("no sign of life".to_owned()))??;
            if !info.contains("cluster_enabled:1") {
                return Ok(conn);
            }
        }
        self.dial_cluster(patience).await.map(Conn::Cluster)
    }

    async fn dial_node(&self, url: &str) -> Result<MultiplexedConnection, Fault> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            // Every call has a timeout of its own.
            .set_response_timeout(None)
            .set_pipeline_buffer_size(PIPELINE);
        let info = self.info(url)?;
        let client = match self.certificates(url) {
            Some(certificates) => Client::build_with_tls(info, certificates)?,
            None => Client::open(info)?,
        };
        Ok(timeout(CONNECT_TIMEOUT, client.get_multiplexed_async_connection_with_config(&config))
            .await
            .map_err(|_| Fault::Away("no connection in time".to_owned()))??)
    }

    async fn dial_cluster(&self, patience: Duration) -> Result<ClusterConnection, Fault> {
        let nodes = self.urls.iter().map(|url| self.info(url)).collect::<Result<Vec<_>, _>>()?;
        let mut client = ClusterClient::builder(nodes);
        if let Some(certificates) = self.urls.iter().find_map(|url| self.certificates(url)) {
            client = client.certs(certificates);
        }
        let client = client
            .connection_timeout(CONNECT_TIMEOUT)
            .response_timeout(patience.max(CONNECT_TIMEOUT))
            .overall_response_timeout(None)
            .retries(2)
            .build()?;
        let connected = timeout(4 * CONNECT_TIMEOUT, client.get_async_connection()).await;
        Ok(connected.map_err(|_| Fault::Away("no connection in time".to_owned()))??)
    }

    /// What is trusted in place of the system's certificates, with TLS.
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
            .map_err(|_| Fault::Wrong(format!("the variable {} is not set", self.password_env)))?;
        let settings = info.redis_settings().clone().set_password(password);
        Ok(info.set_redis_settings(settings))
    }
}

/// The certificates in a file.
///
/// # Errors
/// [`OpenError::CaFile`], when it cannot be read or holds none.
pub fn read_ca(path: &Path) -> Result<Arc<[u8]>, OpenError> {
    let unusable = |cause: String| OpenError::CaFile { path: path.to_owned(), cause };
    let bytes = fs::read(path).map_err(|cause| unusable(cause.to_string()))?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&bytes).collect();
    match certificates.iter().find_map(|certificate| certificate.as_ref().err()) {
        Some(cause) => Err(unusable(cause.to_string())),
        None if certificates.is_empty() => Err(unusable("it holds no certificate in PEM".to_owned())),
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
    /// Redis repeats arguments in some messages, so only its error codes are told on.
    fn from(error: RedisError) -> Self {
        /// What passes: Redis may do the same command later.
        const PASSING: [&str; 12] = [
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
        // A slot that is being moved, or whose master is away: the client has given up looking for now.
        if error.is_cluster_error() {
            return Self::Refused(code);
        }
        match error.kind() {
            ErrorKind::Server(_) | ErrorKind::Extension => {
                // Within a script the code is not at the start of the message in every version.
                let passing = PASSING.iter().find(|code| text.contains(*code));
                passing.map_or_else(|| Self::Wrong(code), |code| Self::Refused((*code).to_owned()))
            }
            ErrorKind::UnexpectedReturnType | ErrorKind::Parse => Self::Wrong("unexpected reply".to_owned()),
            ErrorKind::AuthenticationFailed => Self::Away("authentication failed".to_owned()),
            _ => Self::Away(error.category().to_owned()),
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

//! Real redis-server on a free port, stopped when it is dropped. The environment variable REDIS_SERVER names another
//! program, such as valkey-server.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use promptkeep::config::{StoreConfig, StoreKind};
use redis::{FromRedisValue, aio::MultiplexedConnection};
use tokio::net::{TcpListener, TcpStream};

/// Maximum wait for a server to listen.
const START_TIMEOUT: Duration = Duration::from_secs(20);

pub struct RedisServer {
    /// `None` while it is down.
    child: Option<Child>,
    pub port: u16,
    folder: tempfile::TempDir,
    options: Vec<String>,
    is_tls: bool,
}

impl RedisServer {
    /// Starts a server without persistence: a restart comes back empty.
    pub async fn start() -> Self {
        Self::with(&["--save", "", "--appendonly", "no"]).await
    }

    /// Starts a server with these command-line options.
    pub async fn with(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        Self::start_on_free_port(Self { child: None, port: 0, folder, options, is_tls: false }).await
    }

    /// Starts a server that speaks TLS with this certificate; both files are PEM.
    pub async fn tls(certificate: &str, key: &str) -> Self {
        let options = [
            ("--tls-cert-file", certificate),
            ("--tls-key-file", key),
            // Redis requires a CA file even if it verifies no client.
            ("--tls-ca-cert-file", certificate),
            ("--tls-auth-clients", "no"),
        ];
        let options = options.iter().flat_map(|(name, value)| [*name, *value]).map(str::to_owned).collect();
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::start_on_free_port(Self { child: None, port: 0, folder, options, is_tls: true }).await
    }

    async fn start_on_free_port(mut server: Self) -> Self {
        // Another process may take the port before Redis binds it; then Redis exits and the next port is tried.
        while !server.try_start().await {}
        server
    }

    async fn try_start(&mut self) -> bool {
        let free = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        self.port = free.local_addr().expect("bound").port();
        drop(free);
        self.run().await
    }

    /// Starts the process and waits until it listens; returns false if it exits instead.
    async fn run(&mut self) -> bool {
        let port = self.port.to_string();
        let ports: &[&str] =
            if self.is_tls { &["--port", "0", "--tls-port", &port] } else { &["--port", &port] };
        let program = std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let mut child = Command::new(program)
            .args(ports)
            .args(["--bind", "127.0.0.1", "--dir"])
            .arg(self.folder.path())
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server starts; ./test installs it");
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            if child.try_wait().expect("our child").is_some() {
                return false;
            }
            assert!(Instant::now() < deadline, "redis-server does not listen");
            tokio::task::yield_now().await;
        }
        self.child = Some(child);
        true
    }

    /// Store configuration for replicas that share this server.
    pub fn store(&self) -> StoreConfig {
        StoreConfig { kind: StoreKind::Redis, url: vec![self.url()], ..StoreConfig::default() }
    }

    pub fn url(&self) -> String {
        let scheme = if self.is_tls { "rediss" } else { "redis" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// Kills the process, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("our child");
            child.wait().expect("our child");
        }
    }

    /// Starts the server again on the same port.
    pub async fn restart(&mut self) {
        self.kill();
        assert!(self.run().await, "the port is still free");
    }

    /// Sends a signal by name: STOP makes the server hang, CONT lets it continue.
    pub fn signal(&self, name: &str) {
        let id = self.child.as_ref().expect("the server runs").id();
        let kill = format!("kill -{name} {id}");
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success());
    }

    /// Opens a connection that no store uses.
    pub async fn connection(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url()).expect("a url");
        client.get_multiplexed_async_connection().await.expect("the server listens")
    }

    /// Returns the names of matching keys.
    pub async fn keys(&self, pattern: &str) -> Vec<String> {
        self.command(&format!("KEYS {pattern}")).await
    }

    /// Removes the password.
    pub async fn unlock(&self, password: &str) {
        let url = format!("redis://:{password}@127.0.0.1:{}", self.port);
        let client = redis::Client::open(url).expect("a url");
        let mut connection = client.get_multiplexed_async_connection().await.expect("the server listens");
        let open = redis::cmd("CONFIG").arg("SET").arg("requirepass").arg("").clone();
        open.query_async::<()>(&mut connection).await.expect("the command succeeds");
    }

    /// Runs a command written as for redis-cli without quotes; `|` stands for an empty argument.
    pub async fn command<T: FromRedisValue>(&self, command: &str) -> T {
        let mut words = command.split_whitespace().map(|word| if word == "|" { "" } else { word });
        let mut built = redis::cmd(words.next().expect("a command"));
        built.arg(words.collect::<Vec<_>>());
        built.query_async(&mut self.connection().await).await.expect("the command succeeds")
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

//! A scripted model provider on a real socket: answers, stalls, breaks, refuses and talks nonsense in
//! the order of its script. Speaks HTTP/1.1 by hand, since no HTTP library lets one break it.

mod reply;
mod serve;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
};

use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::Instant,
};

pub use self::reply::{Reply, delta};

/// Listens on a free loopback port until it is dropped.
pub struct FakeUpstream {
    address: SocketAddr,
    state: Arc<State>,
    listener: JoinHandle<()>,
}

/// One request to `/chat/completions`, as it arrived.
#[derive(Clone, Debug)]
pub struct SeenRequest {
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Value,
    pub at: Instant,
}

/// Holds a reply back until the test lets it go on.
#[derive(Clone)]
pub struct Gate(Arc<Semaphore>);

struct State {
    script: Mutex<VecDeque<Reply>>,
    /// When the script is used up.
    otherwise: Mutex<Reply>,
    requests: Mutex<Vec<SeenRequest>>,
    seen: watch::Sender<usize>,
    /// Clients that left while their reply was held back.
    left: watch::Sender<usize>,
    /// Status of `GET /models`, which health checks ask.
    health_status: AtomicU16,
    health_seen: watch::Sender<usize>,
    connections: AtomicUsize,
}

// === impl FakeUpstream ===

impl FakeUpstream {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(State {
            script: Mutex::default(),
            otherwise: Mutex::new(Reply::text("ok")),
            requests: Mutex::default(),
            seen: watch::Sender::new(0),
            left: watch::Sender::new(0),
            health_status: AtomicU16::new(200),
            health_seen: watch::Sender::new(0),
            connections: AtomicUsize::new(0),
        });
        let listener = tokio::spawn(serve::listen(listener, Arc::clone(&state)));
        Self { address, state, listener }
    }

    /// The API root, for a provider's `base_url`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Adds replies, one for each of the next requests.
    pub fn script(&self, replies: impl IntoIterator<Item = Reply>) -> &Self {
        self.state.script.lock().expect("not poisoned").extend(replies);
        self
    }

    /// The reply to every request after the script: at first the text `ok`.
    pub fn always(&self, reply: Reply) -> &Self {
        *self.state.otherwise.lock().expect("not poisoned") = reply;
        self
    }

    /// The status that health checks see from now on.
    pub fn health(&self, status: u16) {
        self.state.health_status.store(status, Ordering::Relaxed);
    }

    /// Every request to a model so far, in order of arrival.
    pub fn requests(&self) -> Vec<SeenRequest> {
        self.state.requests.lock().expect("not poisoned").clone()
    }

    /// Number of requests to a model so far.
    pub fn calls(&self) -> usize {
        *self.state.seen.borrow()
    }

    /// Number of connections so far.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Waits until `count` requests to a model have come since the start.
    pub async fn wait_for_calls(&self, count: usize) {
        wait_for(&self.state.seen, count).await;
    }

    /// Waits until `count` clients have left while their reply stalled.
    pub async fn wait_for_leavers(&self, count: usize) {
        wait_for(&self.state.left, count).await;
    }

    /// Waits until `count` more health checks have been answered.
    pub async fn wait_for_health_checks(&self, count: usize) {
        let now = *self.state.health_seen.borrow();
        wait_for(&self.state.health_seen, now + count).await;
    }
}

impl Drop for FakeUpstream {
    /// Connections end with their task's set, which the listener owns.
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn wait_for(counter: &watch::Sender<usize>, count: usize) {
    counter.subscribe().wait_for(|seen| *seen >= count).await.expect("the sender is borrowed");
}

// === impl SeenRequest ===

impl SeenRequest {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }
}

// === impl Gate ===

impl Gate {
    /// A closed one.
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Lets everyone through, now and later.
    pub fn open(&self) {
        self.0.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    async fn pass(&self) {
        drop(self.0.acquire().await.expect("never closed"));
    }
}

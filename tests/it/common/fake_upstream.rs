//! Scripted model provider on a real socket: it answers, stalls, breaks off, refuses or sends junk in the
//! order of its script. It speaks HTTP/1.1 by hand, because HTTP libraries cannot send broken replies.

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

/// Provider that listens on a free loopback port until it is dropped.
pub struct FakeUpstream {
    address: SocketAddr,
    state: Arc<State>,
    listener: JoinHandle<()>,
}

/// Request to `/chat/completions`, as it arrived.
#[derive(Clone, Debug)]
pub struct SeenRequest {
    pub path: String,
    /// Header names are in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Value,
    pub at: Instant,
}

/// Holds a reply back until the test opens it.
#[derive(Clone)]
pub struct Gate(Arc<Semaphore>);

struct State {
    script: Mutex<VecDeque<Reply>>,
    /// Reply to every request after the end of the script.
    default_reply: Mutex<Reply>,
    requests: Mutex<Vec<SeenRequest>>,
    /// Number of model requests so far.
    seen: watch::Sender<usize>,
    /// Number of clients that disconnected while their reply was held back.
    disconnects: watch::Sender<usize>,
    /// Status of `GET /models`, which health probes call.
    health_status: AtomicU16,
    probes: watch::Sender<usize>,
    connections: AtomicUsize,
}

impl FakeUpstream {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let state = Arc::new(State {
            script: Mutex::default(),
            default_reply: Mutex::new(Reply::text("ok")),
            requests: Mutex::default(),
            seen: watch::Sender::new(0),
            disconnects: watch::Sender::new(0),
            health_status: AtomicU16::new(200),
            probes: watch::Sender::new(0),
            connections: AtomicUsize::new(0),
        });
        let listener = tokio::spawn(serve::listen(listener, Arc::clone(&state)));
        Self { address, state, listener }
    }

    /// Root of the API, for a provider's `base_url`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Adds one reply for each of the next requests.
    pub fn script(&self, replies: impl IntoIterator<Item = Reply>) -> &Self {
        self.state.script.lock().expect("not poisoned").extend(replies);
        self
    }

    /// Sets the reply to every request after the end of the script; initially the text `ok`.
    pub fn always(&self, reply: Reply) -> &Self {
        *self.state.default_reply.lock().expect("not poisoned") = reply;
        self
    }

    /// Sets the status that health probes see from now on.
    pub fn health(&self, status: u16) {
        self.state.health_status.store(status, Ordering::Relaxed);
    }

    /// Returns all model requests so far, in order of arrival.
    pub fn requests(&self) -> Vec<SeenRequest> {
        self.state.requests.lock().expect("not poisoned").clone()
    }

    /// Number of model requests so far.
    pub fn calls(&self) -> usize {
        *self.state.seen.borrow()
    }

    /// Number of connections so far.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Waits until `count` model requests have arrived since the start.
    pub async fn wait_for_calls(&self, count: usize) {
        wait_for(&self.state.seen, count).await;
    }

    /// Waits until `count` clients have disconnected while their reply was held back.
    pub async fn wait_for_disconnects(&self, count: usize) {
        wait_for(&self.state.disconnects, count).await;
    }

    /// Waits until `count` more health probes have been answered.
    pub async fn wait_for_probes(&self, count: usize) {
        let now = *self.state.probes.borrow();
        wait_for(&self.state.probes, now + count).await;
    }
}

impl Drop for FakeUpstream {
    /// Aborting the listener closes its connections too, because it owns their tasks.
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn wait_for(counter: &watch::Sender<usize>, count: usize) {
    counter.subscribe().wait_for(|seen| *seen >= count).await.expect("the sender is alive");
}

impl SeenRequest {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }
}

impl Gate {
    /// Returns a closed gate.
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Lets every current and later reply through.
    pub fn open(&self) {
        self.0.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    async fn pass(&self) {
        drop(self.0.acquire().await.expect("never closed"));
    }
}

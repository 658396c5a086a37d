//! A TCP proxy before a server, with which a test stalls or cuts the network between.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Passes everything on.
    Whole,
    /// Accepts and keeps connections, and passes nothing on.
    Stalled,
    /// Ends every connection, and accepts none.
    Cut,
}

pub struct Proxy {
    pub address: SocketAddr,
    network: Arc<watch::Sender<Network>>,
    /// Where new connections lead.
    port: Arc<AtomicU16>,
    task: tokio::task::JoinHandle<()>,
}

// === impl Proxy ===

impl Proxy {
    /// Before the server on this loopback port.
    pub async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let network = Arc::new(watch::Sender::new(Network::Whole));
        let port = Arc::new(AtomicU16::new(port));
        let task = tokio::spawn({
            let (network, port) = (Arc::clone(&network), Arc::clone(&port));
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(pass(client, port.load(Ordering::Relaxed), network.subscribe()));
                }
            }
        });
        Self { address, network, port, task }
    }

    /// As a Redis.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Ends every connection, and leads new ones to another port.
    pub fn lead_to(&self, port: u16) {
        self.port.store(port, Ordering::Relaxed);
        self.set(Network::Cut);
        self.set(Network::Whole);
    }

    pub fn set(&self, network: Network) {
        self.network.send_replace(network);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.set(Network::Cut);
    }
}

/// One connection, for as long as the network lets it live.
async fn pass(mut client: TcpStream, port: u16, mut network: watch::Receiver<Network>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    loop {
        let now = *network.borrow_and_update();
        let changed = network.changed();
        match now {
            Network::Cut => return,
            Network::Stalled => drop(changed.await),
            // What it has read and not written is lost when it is stopped, so the connection is of no use
            // after a stall but to wait on.
            Network::Whole => tokio::select! {
                _ = copy_bidirectional(&mut client, &mut server) => return,
                _ = changed => {}
            },
        }
    }
}

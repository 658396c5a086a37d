//! TCP proxy in front of a server, with which a test stalls or cuts the network.

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

/// State of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Forwards everything.
    Up,
    /// Accepts and keeps connections, but forwards nothing.
    Stalled,
    /// Closes every connection, new ones included.
    Cut,
}

pub struct Proxy {
    pub address: SocketAddr,
    network: Arc<watch::Sender<Network>>,
    /// Port to which new connections are forwarded.
    port: Arc<AtomicU16>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy in front of the server on this loopback port.
    pub async fn in_front_of(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let network = Arc::new(watch::Sender::new(Network::Up));
        let port = Arc::new(AtomicU16::new(port));
        let task = tokio::spawn({
            let (network, port) = (Arc::clone(&network), Arc::clone(&port));
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(forward(client, port.load(Ordering::Relaxed), network.subscribe()));
                }
            }
        });
        Self { address, network, port, task }
    }

    /// URL of the Redis behind the proxy.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Closes every connection and forwards new ones to another port.
    pub fn redirect_to(&self, port: u16) {
        self.port.store(port, Ordering::Relaxed);
        self.set(Network::Cut);
        self.set(Network::Up);
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

/// Forwards one connection until it ends or the network is cut.
async fn forward(mut client: TcpStream, port: u16, mut network: watch::Receiver<Network>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    loop {
        let now = *network.borrow_and_update();
        let changed = network.changed();
        match now {
            Network::Cut => return,
            Network::Stalled => drop(changed.await),
            // Stopping the copy loses bytes that were read but not yet written, so after a stall the
            // connection can only hang.
            Network::Up => tokio::select! {
                _ = copy_bidirectional(&mut client, &mut server) => return,
                _ = changed => {}
            },
        }
    }
}

//! Accepts the connections of one port, within their limits: so many in total and of one peer, and timeouts at the
//! socket for peers that send no headers, send nothing, or read nothing.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Instant, Sleep, sleep, sleep_until},
};
use tonic::transport::server::Connected;

use crate::{
    config::LimitsConfig,
    telemetry::metrics::{Metrics, Shed},
};

/// Pause after a failed accept. Without free file descriptors every accept fails until a connection is closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Length of the preface that begins an HTTP/2 connection, in bytes.
const HTTP2_PREFACE: usize = 24;

/// A listener that closes surplus connections at once.
pub struct Acceptor {
    listener: TcpListener,
    open: Arc<OpenConnections>,
    limits: LimitsConfig,
    metrics: Arc<Metrics>,
}

/// An accepted connection and its place among the open ones.
pub struct Accepted {
    pub socket: TcpStream,
    place: Place,
}

/// The number of open connections by peer. A std mutex, held for one map operation and never across an await.
#[derive(Default)]
struct OpenConnections(Mutex<HashMap<IpAddr, usize>>);

/// Counts a connection as open until it is dropped.
struct Place {
    open: Arc<OpenConnections>,
    peer: IpAddr,
}

/// What the timeouts of a connection have to know about its protocol.
pub enum Protocol {
    /// One request at a time.
    Http1(Arc<Exchange>),
    /// Once the preface has arrived, pings find peers that are gone.
    Http2,
}

/// Whether an HTTP/1.1 connection is answering a request, whose own timeouts hold then.
#[derive(Default)]
pub struct Exchange {
    is_busy: AtomicBool,
    /// Wakes the connection, which would not read by itself after the reply, and so not notice that it idles.
    connection: AtomicWaker,
}

/// A socket with timeouts. After one, reads and writes fail.
pub struct TimedSocket<S> {
    socket: S,
    protocol: Protocol,
    limits: Timeouts,
    /// When the peer may begin its headers at the latest, or, once it has, complete them.
    read_until: Option<Instant>,
    /// Whether a part of a request's headers has arrived.
    in_headers: bool,
    /// Bytes of the HTTP/2 preface that are missing.
    preface_missing: usize,
    /// Since when the peer has read nothing of what is to be sent.
    write_until: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    _place: Place,
}

#[derive(Clone, Copy)]
struct Timeouts {
    header: Duration,
    idle: Duration,
    write: Duration,
}

// === impl Acceptor ===

impl Acceptor {
    pub fn new(listener: TcpListener, limits: &LimitsConfig, metrics: Arc<Metrics>) -> Self {
        Self { listener, open: Arc::default(), limits: limits.clone(), metrics }
    }

    /// The next connection within the limits. A failed accept is logged and skipped, so that the server stays up.
    /// Cancel-safe.
    pub async fn accept(&self) -> Accepted {
        loop {
            let (socket, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(place) = OpenConnections::take(&self.open, network(peer.ip()), &self.limits) else {
                self.metrics.shed(Shed::Connections);
                continue;
            };
            // Nagle's algorithm would delay a small reply, or a token, until the previous one is acknowledged.
            if socket.set_nodelay(true).is_ok() {
                return Accepted { socket, place };
            }
        }
    }

    /// `accepted` with the timeouts of this port.
    pub fn timed(&self, accepted: Accepted, protocol: Protocol) -> TimedSocket<TcpStream> {
        let Accepted { socket, place } = accepted;
        TimedSocket::new(socket, protocol, &self.limits, place)
    }
}

impl OpenConnections {
    /// A place for a connection of `peer`, unless too many are open.
    fn take(self: &Arc<Self>, peer: IpAddr, limits: &LimitsConfig) -> Option<Place> {
        let mut open = self.lock();
        let total: usize = open.values().sum();
        let of_peer = open.get(&peer).copied().unwrap_or_default();
        if total >= limits.connections || of_peer >= limits.connections_per_peer {
            return None;
        }
        open.insert(peer, of_peer + 1);
        drop(open);
        Some(Place { open: Arc::clone(self), peer })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // A panic cannot interrupt a map operation.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        match open.get_mut(&self.peer) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(open.remove(&self.peer)),
        }
    }
}

/// What counts as one peer: an IPv4 address, or an IPv6 network, since one machine has all addresses of a /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

// === impl Exchange ===

impl Exchange {
    /// A request is being answered.
    pub fn begin(&self) {
        self.is_busy.store(true, Ordering::Release);
    }

    /// The reply has been sent.
    pub fn end(&self) {
        self.is_busy.store(false, Ordering::Release);
        self.connection.wake();
    }
}

// === impl TimedSocket ===

impl<S> TimedSocket<S> {
    fn new(socket: S, protocol: Protocol, limits: &LimitsConfig, place: Place) -> Self {
        let limits = Timeouts {
            header: limits.header_timeout,
            idle: limits.idle_timeout,
            write: limits.write_timeout,
        };
        // The opening of a connection announces its first request.
        let until = Instant::now() + limits.header;
        Self {
            socket,
            protocol,
            limits,
            read_until: Some(until),
            in_headers: true,
            preface_missing: HTTP2_PREFACE,
            write_until: None,
            timer: Box::pin(sleep_until(until)),
            _place: place,
        }
    }

    /// Takes note that a request is being answered, or no longer is.
    fn before_read(&mut self, cx: &Context<'_>) {
        let Protocol::Http1(exchange) = &self.protocol else { return };
        exchange.connection.register(cx.waker());
        if exchange.is_busy.load(Ordering::Acquire) {
            self.read_until = None;
            self.in_headers = false;
        } else if self.read_until.is_none() {
            self.read_until = Some(Instant::now() + self.limits.idle);
        }
    }

    fn after_read(&mut self, bytes: usize) {
        match self.protocol {
            Protocol::Http1(_) if bytes > 0 && !self.in_headers && self.read_until.is_some() => {
                self.in_headers = true;
                self.read_until = Some(Instant::now() + self.limits.header);
            }
            Protocol::Http1(_) => {}
            Protocol::Http2 => {
                self.preface_missing = self.preface_missing.saturating_sub(bytes);
                if self.preface_missing == 0 {
                    self.read_until = None;
                }
            }
        }
    }

    /// Fails once a timeout has passed, else wakes the task for the next one.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let deadlines = [self.read_until, self.write_until].into_iter().flatten();
        let Some(deadline) = deadlines.min() else { return Ok(()) };
        loop {
            if Instant::now() >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            // An earlier timer is left as it is, so that most reads and writes do not touch it.
            if self.timer.deadline() > deadline {
                self.timer.as_mut().reset(deadline);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            self.timer.as_mut().reset(deadline);
        }
    }

    fn written(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match polled {
            Poll::Ready(_) => self.write_until = None,
            Poll::Pending => {
                let until = Instant::now() + self.limits.write;
                self.write_until.get_or_insert(until);
                self.check(cx)?;
            }
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.before_read(cx);
        let before = buf.filled().len();
        match Pin::new(&mut this.socket).poll_read(cx, buf) {
            Poll::Ready(read) => {
                this.after_read(buf.filled().len() - before);
                Poll::Ready(read)
            }
            Poll::Pending => {
                this.check(cx)?;
                Poll::Pending
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write(cx, data);
        self.written(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write_vectored(cx, parts);
        self.written(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl<S: Connected> Connected for TimedSocket<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> S::ConnectInfo {
        self.socket.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_one_ipv6_network_are_one_peer() {
        let of = |text: &str| network(text.parse().expect("an address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1:2:3"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }

    #[test]
    fn places_are_limited_in_total_and_by_peer_and_given_back() {
        let limits = LimitsConfig { connections: 3, connections_per_peer: 2, ..LimitsConfig::default() };
        let open = Arc::new(OpenConnections::default());
        let [a, b] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().expect("an address"));
        let first = open.take(a, &limits).expect("a place");
        let _second = open.take(a, &limits).expect("a place");
        assert!(open.take(a, &limits).is_none(), "too many of one peer");
        let _third = open.take(b, &limits).expect("a place");
        assert!(open.take(b, &limits).is_none(), "too many in total");
        drop(first);
        assert!(open.take(a, &limits).is_some());
    }
}

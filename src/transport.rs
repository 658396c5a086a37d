//! Accepted TCP connections whose writes are gathered.
//!
//! HTTP/2 issues one write for every data frame, and the system calls cost more than everything else
//! an exact hit does. [`Gathered`] collects what the connection writes while it is polled and sends it in
//! one call when it is polled next, which a flush schedules at once: replies of handlers that were ready
//! in the same turn share a packet, and nothing waits for a timer.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{self, Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_stream::{Stream, StreamExt as _, wrappers::TcpListenerStream};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// Gathered bytes above which a write waits for the socket: bounds the memory of a slow reader.
const GATHER_MAX: usize = 256 * 1024;

/// Pause after a failed accept. Without free file descriptors every accept fails at once, until a
/// connection ends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A connection whose writes are gathered; see the module.
pub struct Gathered<S> {
    socket: S,
    gathered: Vec<u8>,
    /// Bytes of `gathered` already sent.
    sent: usize,
    /// A flush has asked for another poll, which will send.
    scheduled: bool,
}

/// Connections accepted by `listener`, ready for tonic. A failed accept is skipped: it concerns one client.
pub fn incoming(listener: TcpListener) -> impl Stream<Item = io::Result<Gathered<TcpStream>>> {
    TcpListenerStream::new(listener).then(ready).filter_map(|ready| ready)
}

async fn ready(accepted: io::Result<TcpStream>) -> Option<io::Result<Gathered<TcpStream>>> {
    match accepted {
        Ok(socket) => {
            // Without it the kernel delays a small reply until the one before is acknowledged.
            socket.set_nodelay(true).ok()?;
            Some(Ok(Gathered::new(socket)))
        }
        Err(error) => {
            tracing::warn!(%error, "accept failed");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Binds `address`.
///
/// # Errors
/// The message names the address and, for a port in use, says so.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}

// === impl Gathered ===

impl<S> Gathered<S> {
    /// Wraps a connected socket.
    pub fn new(socket: S) -> Self {
        Self { socket, gathered: Vec::new(), sent: 0, scheduled: false }
    }
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.gathered.len() {
            let n = task::ready!(Pin::new(&mut self.socket).poll_write(cx, &self.gathered[self.sent..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += n;
        }
        self.gathered.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Makes room for more: only a reader slower than `GATHER_MAX` is waited for.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.gathered.len() < GATHER_MAX { Poll::Ready(Ok(())) } else { self.poll_send(cx) }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gathered<S> {
    /// A connection reads first whenever it is polled, so what the last turn gathered goes out here.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.scheduled = false;
        // Not ready: the socket wakes this task when it takes more; reading goes on meanwhile.
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        task::ready!(self.poll_room(cx))?;
        self.gathered.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        task::ready!(self.poll_room(cx))?;
        for part in parts {
            self.gathered.extend_from_slice(part);
        }
        Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.gathered.is_empty() && !self.scheduled {
            self.scheduled = true;
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        task::ready!(self.poll_send(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl Connected for Gathered<TcpStream> {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.socket.connect_info()
    }
}

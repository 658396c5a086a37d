//! TCP connections of the gRPC server, with batched writes.
//!
//! HTTP/2 issues one write per data frame, and these system calls cost more than the rest of an exact hit.
//! [`BatchedWrites`] buffers what the connection writes during a poll and sends it with one call at the next poll, which
//! a flush schedules immediately. So replies that are ready in the same poll share a packet, and no timer delays
//! them.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{self, Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_stream::Stream;
use tonic::transport::server::Connected;

use super::connections::{Acceptor, Protocol, TimedSocket};

/// Number of buffered bytes above which a write waits for the socket: bounds the memory of a slow reader.
const BUFFER_MAX: usize = 256 * 1024;

/// A connection with batched writes; see the module.
pub struct BatchedWrites<S> {
    socket: S,
    buffer: Vec<u8>,
    /// Number of bytes of `buffer` already sent.
    sent: usize,
    /// Whether a flush has requested the poll that will send.
    scheduled: bool,
}

/// Connections accepted by `acceptor`, ready for tonic.
pub(super) fn incoming(
    acceptor: Acceptor,
) -> impl Stream<Item = io::Result<BatchedWrites<TimedSocket<TcpStream>>>> {
    futures_util::stream::unfold(acceptor, |acceptor| async move {
        let accepted = acceptor.accept().await;
        let socket = acceptor.timed(accepted, Protocol::Http2);
        Some((Ok(BatchedWrites::new(socket)), acceptor))
    })
}

/// Binds `address`.
///
/// # Errors
/// The message names the address and the cause, such as a port in use.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}

impl<S> BatchedWrites<S> {
    /// Wraps a connected socket.
    pub fn new(socket: S) -> Self {
        Self { socket, buffer: Vec::new(), sent: 0, scheduled: false }
    }
}

impl<S: AsyncWrite + Unpin> BatchedWrites<S> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.buffer.len() {
            let n = task::ready!(Pin::new(&mut self.socket).poll_write(cx, &self.buffer[self.sent..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += n;
        }
        self.buffer.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Waits for the socket only when the buffer is full.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.buffer.len() < BUFFER_MAX { Poll::Ready(Ok(())) } else { self.poll_send(cx) }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for BatchedWrites<S> {
    /// Sends the buffer first, because a connection reads at the start of every poll.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.scheduled = false;
        // A pending send does not stop reading: the socket wakes this task when it can take more.
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for BatchedWrites<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        task::ready!(self.poll_room(cx))?;
        self.buffer.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        task::ready!(self.poll_room(cx))?;
        for part in parts {
            self.buffer.extend_from_slice(part);
        }
        Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.buffer.is_empty() && !self.scheduled {
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

impl<S: Connected> Connected for BatchedWrites<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> S::ConnectInfo {
        self.socket.connect_info()
    }
}

//! Serves the HTTP port: HTTP/1.1 connections with limited headers, bodies and age.

use std::{
    convert::Infallible,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use axum::{Router, body::Body};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_service::Service as _;

use super::connections::{Accepted, Acceptor, Exchange, Protocol};
use crate::{
    body::{BodyError, BodyLimits, ReplyBody},
    config::LimitsConfig,
};

/// Size of a connection's read buffer in bytes, which the headers of a request must fit into.
const HEADERS_MAX: usize = 64 * 1024;

/// The HTTP port.
pub(super) struct HttpPort {
    pub acceptor: Acceptor,
    pub router: Router,
    pub bodies: BodyLimits,
    pub limits: LimitsConfig,
}

/// A reply's body. Once it has been sent the connection is idle.
struct LastOfRequest {
    body: ReplyBody<Body>,
    _answering: Answering,
}

/// A request is being answered until this is dropped.
struct Answering(Arc<Exchange>);

impl HttpPort {
    /// Accepts connections until `stop`, then waits for the open ones.
    pub async fn serve(self, stop: CancellationToken) -> io::Result<()> {
        let port = Arc::new(self);
        let connections = TaskTracker::new();
        while let Some(accepted) = stop.run_until_cancelled(port.acceptor.accept()).await {
            connections.spawn(Arc::clone(&port).serve_connection(accepted, stop.clone()));
        }
        connections.close();
        connections.wait().await;
        Ok(())
    }

    async fn serve_connection(self: Arc<Self>, accepted: Accepted, stop: CancellationToken) {
        let exchange = Arc::new(Exchange::default());
        let socket = self.acceptor.timed(accepted, Protocol::Http1(Arc::clone(&exchange)));
        let answer = |request| {
            let answering = Answering::begin(&exchange);
            let (router, bodies) = (self.router.clone(), self.bodies.clone());
            answer(router, bodies, request, answering)
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // The socket's own timeouts also know an idle connection.
            .header_read_timeout(None)
            .max_buf_size(HEADERS_MAX)
            .serve_connection(TokioIo::new(socket), service_fn(answer));
        let mut connection = pin!(connection);
        tokio::select! {
            // An error of a connection concerns its peer only.
            _ = connection.as_mut() => return,
            () = stop.cancelled() => {}
            () = sleep(self.limits.connection_age) => {}
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            _ = connection.as_mut() => {}
            () = sleep(self.limits.connection_age) => {}
        }
    }
}

async fn answer(
    mut router: Router,
    bodies: BodyLimits,
    request: hyper::Request<Incoming>,
    answering: Answering,
) -> Result<hyper::Response<LastOfRequest>, Infallible> {
    let (head, body) = request.into_parts();
    let (body, memory) = bodies.request(body, |error: BodyError| error);
    let reply = router.call(hyper::Request::from_parts(head, Body::new(body))).await?;
    Ok(reply.map(|body| LastOfRequest { body: bodies.reply(body, memory), _answering: answering }))
}

impl Answering {
    fn begin(exchange: &Arc<Exchange>) -> Self {
        exchange.begin();
        Self(Arc::clone(exchange))
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl http_body::Body for LastOfRequest {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

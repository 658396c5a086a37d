//! A gRPC service whose bodies are limited in time and memory.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use tonic::{body::Body, codegen::Service, server::NamedService};

use super::status;
use crate::body::{BodyError, BodyLimits};

/// `S` with limited bodies.
#[derive(Clone)]
pub struct Limited<S> {
    service: S,
    limits: BodyLimits,
}

type Reply = http::Response<Body>;

impl<S> Limited<S> {
    pub fn new(service: S, limits: BodyLimits) -> Self {
        Self { service, limits }
    }
}

impl<S: NamedService> NamedService for Limited<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<http::Request<Body>> for Limited<S>
where
    S: Service<http::Request<Body>, Response = http::Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<tonic::codegen::StdError>,
{
    type Response = Reply;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Reply, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (head, body) = request.into_parts();
        let (body, memory) = self.limits.request(body, |error: BodyError| status::of(&error.into()));
        let reply = self.service.call(http::Request::from_parts(head, Body::new(body)));
        let limits = self.limits.clone();
        Box::pin(async move {
            // A reply without a body has its status in the headers, which a wrapped one would lose.
            let limit = |body: B| match body.is_end_stream() {
                true => Body::new(body),
                false => Body::new(limits.reply(body, memory)),
            };
            Ok(reply.await?.map(limit))
        })
    }
}

//! The body of a request, which must arrive in time and within the memory for requests.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{BodyError, RequestMemory};

/// A body with a deadline, whose bytes count as memory of requests.
pub struct RequestBody<B, E> {
    body: B,
    /// Converts an error for the server that reads the body.
    error: fn(BodyError) -> E,
    memory: Arc<RequestMemory>,
    deadline: Instant,
    /// Set at the first wait: most requests arrive whole.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B, E> RequestBody<B, E> {
    pub(super) fn new(
        body: B,
        error: fn(BodyError) -> E,
        memory: Arc<RequestMemory>,
        timeout: Duration,
    ) -> Self {
        Self { body, error, memory, deadline: Instant::now() + timeout, timer: None }
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let deadline = self.deadline;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        timer.as_mut().poll(cx).map(|()| {
            self.memory.count_slow();
            BodyError::Slow
        })
    }
}

impl<B: Body<Data = Bytes> + Unpin, E> Body for RequestBody<B, E> {
    type Data = Bytes;
    type Error = E;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        let result = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.memory.occupy(bytes).map(|()| frame)
            }
            Poll::Ready(Some(Err(_))) => Err(BodyError::Broken),
            Poll::Pending => Err(std::task::ready!(self.poll_deadline(cx))),
        };
        Poll::Ready(Some(result.map_err(self.error)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

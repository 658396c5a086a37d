//! The body of a reply, which must be read in time. HTTP/2 does not poll a body while the peer's window is closed, so
//! the body cannot watch itself: [`UnreadReplies`] drops it from outside.

use std::{
    mem,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{BodyError, RequestMemory};

/// `waiting_since` while the peer waits for the server.
const PEER_WAITS: u64 = u64::MAX;

/// Bounds of the pause between two checks; it is a quarter of the timeout.
const CHECK_EVERY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Size of the list of replies below which no ended ones are removed from it.
const LIST_MIN: usize = 1024;

/// The replies being sent.
pub(super) struct UnreadReplies {
    timeout: Duration,
    /// Origin of the times of all replies.
    started: Instant,
    /// A std mutex, held for a push or a walk without an await.
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    replies: Vec<Weak<dyn Unread>>,
    /// Length at which ended replies are removed.
    prune_at: usize,
}

/// A body that is dropped when the peer does not read it.
pub struct ReplyBody<B>(Arc<Reply<B>>);

struct Reply<B> {
    /// A std mutex, held for one poll. Only a check competes for it.
    state: Mutex<State<B>>,
    /// Milliseconds since the origin at which the peer was last given something to read; [`PEER_WAITS`] if it has read
    /// everything.
    waiting_since: AtomicU64,
    started: Instant,
}

enum State<B> {
    Open {
        body: B,
        _memory: Arc<RequestMemory>,
    },
    Ended,
    /// Dropped unread.
    Dropped,
}

/// A reply of any body type.
trait Unread: Send + Sync {
    /// Drops the body if it has waited for its peer since `before`. Returns whether it did.
    fn drop_if_unread(&self, before: u64) -> bool;
}

// === impl UnreadReplies ===

impl UnreadReplies {
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, started: Instant::now(), list: Mutex::default() }
    }

    pub fn watch<B>(&self, body: B, memory: Arc<RequestMemory>) -> ReplyBody<B>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let reply = Arc::new(Reply {
            state: Mutex::new(State::Open { body, _memory: memory }),
            waiting_since: AtomicU64::new(millis_since(self.started)),
            started: self.started,
        });
        let unread: Weak<Reply<B>> = Arc::downgrade(&reply);
        self.lock().push(unread);
        ReplyBody(reply)
    }

    /// Drops replies that were not read for the timeout, for ever. Calls `count` for each.
    pub async fn drop_unread(&self, count: impl Fn()) {
        let (min, max) = CHECK_EVERY;
        let mut every = tokio::time::interval((self.timeout / 4).clamp(min, max));
        loop {
            every.tick().await;
            let Some(before) = self.started.elapsed().checked_sub(self.timeout) else { continue };
            let before = u64::try_from(before.as_millis()).unwrap_or(u64::MAX);
            let replies = self.lock().live();
            // Outside the lock: dropping a body cancels a model call.
            replies.iter().filter(|reply| reply.drop_if_unread(before)).for_each(|_| count());
        }
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl List {
    fn push(&mut self, reply: Weak<dyn Unread>) {
        if self.replies.len() >= self.prune_at.max(LIST_MIN) {
            self.live();
        }
        self.replies.push(reply);
    }

    /// Removes the ended replies and returns the others.
    fn live(&mut self) -> Vec<Arc<dyn Unread>> {
        let mut live = Vec::new();
        self.replies.retain(|reply| reply.upgrade().map(|reply| live.push(reply)).is_some());
        self.prune_at = 2 * self.replies.len();
        live
    }
}

// === impl Reply ===

impl<B> Reply<B> {
    fn lock(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Send> Unread for Reply<B> {
    fn drop_if_unread(&self, before: u64) -> bool {
        // A body that is being polled is being read.
        let Ok(mut state) = self.state.try_lock() else { return false };
        let is_unread = self.waiting_since.load(Ordering::Relaxed) < before;
        if !is_unread || !matches!(*state, State::Open { .. }) {
            return false;
        }
        let dropped = mem::replace(&mut *state, State::Dropped);
        drop(state);
        drop(dropped);
        true
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for ReplyBody<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Reply { state, waiting_since, started } = &*self.0;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let State::Open { body, .. } = &mut *state else {
            let is_dropped = matches!(*state, State::Dropped);
            return Poll::Ready(is_dropped.then_some(Err(BodyError::Unread)));
        };
        let polled = Pin::new(body).poll_frame(cx);
        match polled {
            Poll::Pending => {
                waiting_since.store(PEER_WAITS, Ordering::Relaxed);
                Poll::Pending
            }
            Poll::Ready(Some(Ok(frame))) => {
                waiting_since.store(millis_since(*started), Ordering::Relaxed);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(ended) => {
                *state = State::Ended;
                Poll::Ready(ended.map(|_| Err(BodyError::Broken)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &*self.0.lock() {
            State::Open { body, .. } => body.is_end_stream(),
            State::Ended => true,
            State::Dropped => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &*self.0.lock() {
            State::Open { body, .. } => body.size_hint(),
            State::Ended | State::Dropped => SizeHint::default(),
        }
    }
}

fn millis_since(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
}

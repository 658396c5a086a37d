//! Tests of the worker threads.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
    thread,
};

use super::{super::testing::model, *};
use crate::Precision;

const TEXT: &str = "How do I reset my password?";

/// Returns a text that keeps a worker busy for some milliseconds.
fn long_text() -> String {
    "word ".repeat(250)
}

fn vector(embedded: Embedded) -> super::super::Embedding {
    match embedded {
        Embedded::Vector { embedding, .. } => embedding,
        Embedded::OverWindow { tokens } => panic!("{tokens} tokens"),
    }
}

/// Polls a future once, which queues its text.
fn poll_once<T>(future: &mut Pin<Box<dyn Future<Output = T> + Send + '_>>) -> Poll<T> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn the_pool_returns_the_vectors_of_a_session() {
    let model = model(Precision::Int8);
    let pool = Pool::start(&model, 2, 8).unwrap();
    let expected = vector(Session::new(Arc::clone(&model)).embed(TEXT).unwrap());
    let (a, b) = tokio::join!(pool.embed(TEXT), pool.embed(TEXT));
    assert_eq!(vector(a.unwrap()), expected);
    assert_eq!(vector(b.unwrap()), expected);
    assert_eq!(pool.dimensions(), expected.as_slice().len());
    assert_eq!(pool.name(), "all-MiniLM-L6-v2/int8");
}

#[tokio::test]
async fn a_full_queue_refuses_a_text_at_once() {
    let pool = Pool::start(&model(Precision::F32), 1, 2).unwrap();
    let text = long_text();
    let mut pending: Vec<_> = (0..100).map(|_| pool.embed(&text)).collect();
    let overloaded = |answer| matches!(answer, Poll::Ready(Err(EmbedError::Overloaded)));
    assert!(pending.iter_mut().any(|future| overloaded(poll_once(future))));
}

#[tokio::test]
async fn callers_that_leave_do_not_disturb_others() {
    let pool = Pool::start(&model(Precision::Int8), 1, 8).unwrap();
    let text = long_text();
    for _ in 0..4 {
        let mut future = pool.embed(&text);
        assert!(poll_once(&mut future).is_pending());
    }
    vector(pool.embed(TEXT).await.unwrap());
}

#[tokio::test]
async fn the_threads_end_with_the_pool() {
    let model = model(Precision::Int8);
    let pool = Pool::start(&model, 2, 8).unwrap();
    vector(pool.embed(TEXT).await.unwrap());
    drop(pool);
    while Arc::strong_count(&model) > 1 {
        thread::yield_now();
    }
}

#[tokio::test]
async fn a_text_over_the_window_is_not_truncated() {
    let pool = Pool::start(&model(Precision::Int8), 1, 8).unwrap();
    let fits = pool.embed(&"word ".repeat(254)).await.unwrap();
    assert!(matches!(fits, Embedded::Vector { tokens: 256, .. }), "{fits:?}");
    let over = pool.embed(&"word ".repeat(255)).await.unwrap();
    assert!(matches!(over, Embedded::OverWindow { tokens: 257 }), "{over:?}");
}

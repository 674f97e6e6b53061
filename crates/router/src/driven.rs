//! A stream that is driven by a future, without a task of its own.
//!
//! Not an actor: nothing runs unless the reader polls. Invariant: dropping the stream drops the
//! work, and with it the connection.

use futures_util::Stream;
use futures_util::future::BoxFuture;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Items that `work` sends, until it is done.
pub struct Driven<T> {
    rx: mpsc::Receiver<T>,
    work: Option<BoxFuture<'static, ()>>,
}

impl<T> Driven<T> {
    /// Joins a receiver and the future that holds its only sender.
    pub const fn new(rx: mpsc::Receiver<T>, work: BoxFuture<'static, ()>) -> Self {
        Self { rx, work: Some(work) }
    }
}

impl<T> Stream for Driven<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if let Poll::Ready(item) = self.rx.poll_recv(cx) {
            return Poll::Ready(item);
        }
        if let Some(work) = self.work.as_mut()
            && work.as_mut().poll(cx).is_ready()
        {
            // The sender is gone with the work, so the next poll can not wait for ever.
            self.work = None;
        }
        self.rx.poll_recv(cx)
    }
}

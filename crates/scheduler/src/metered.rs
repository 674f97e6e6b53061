//! A future that counts the time it keeps its thread.
//!
//! Measured with the house's clock, in whole milliseconds: single short polls count as nothing or as
//! one, and over many of them the sum is right. Invariant: time in which it only waits is not counted.

use futures_util::future::BoxFuture;
use std::pin::Pin;
use std::task::{Context, Poll};
use tinkerbell_core::clock::Clock;

/// Polls the inner future and adds up how long that takes.
pub(crate) struct Metered<'a, T> {
    inner: BoxFuture<'a, T>,
    clock: &'a dyn Clock,
    busy_ms: u64,
}

impl<'a, T> Metered<'a, T> {
    pub(crate) fn new(inner: BoxFuture<'a, T>, clock: &'a dyn Clock) -> Self {
        Self { inner, clock, busy_ms: 0 }
    }

    /// The time so far, in milliseconds.
    pub(crate) const fn busy_ms(&self) -> u64 {
        self.busy_ms
    }
}

impl<T> Future for Metered<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<T> {
        let began = self.clock.now().mono_ms;
        let polled = self.inner.as_mut().poll(ctx);
        let took = self.clock.now().mono_ms.saturating_sub(began);
        self.busy_ms = self.busy_ms.saturating_add(took);
        polled
    }
}

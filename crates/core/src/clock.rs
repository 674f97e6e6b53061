//! Time and chance as ports, so that a replay or a simulation can give its own.
//!
//! Nothing in this crate reads a clock. Invariant: code that decides takes a [`Stamp`] or entropy
//! as a value and never asks for one itself.

use futures_core::future::BoxFuture;
use std::time::Duration;

/// A moment, as wall time and as monotonic time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Stamp {
    /// Milliseconds since 1970-01-01T00:00:00Z; may jump.
    pub wall_ms: u64,
    /// Milliseconds on a clock that counts suspend and never jumps; comparable within one boot.
    pub mono_ms: u64,
}

/// The clock of the house: real in the roof, simulated in tests.
pub trait Clock: Send + Sync {
    /// The present moment.
    fn now(&self) -> Stamp;
    /// Completes once `duration` has passed. Cancel safe: dropping it has no effect.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// The source of chance: real in the roof, seeded in tests.
pub trait Entropy: Send + Sync {
    /// 128 random bits, fit for an id.
    fn id(&self) -> u128;
}

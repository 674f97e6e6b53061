//! A clock that tests move by hand and chance that repeats by seed.
//!
//! Not a scheduler: tokio's own timers are not affected. Invariant: the same calls give the same
//! answers on every run, so that a failing test fails again.

use futures_util::future::BoxFuture;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tinkerbell_core::clock::{Clock, Entropy, Stamp};
use tokio::sync::watch;

/// Wall time at which a fresh [`FakeClock`] stands: 2026-01-01T00:00:00Z.
pub const START_WALL_MS: u64 = 1_767_225_600_000;

/// A clock that stands still until a test moves it.
#[derive(Debug, Clone)]
pub struct FakeClock {
    now: Arc<watch::Sender<Stamp>>,
    eager: bool,
}

impl Default for FakeClock {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeClock {
    /// A clock at [`START_WALL_MS`] and one second of monotonic time; sleepers wait for
    /// [`FakeClock::advance`].
    #[must_use]
    pub fn new() -> Self {
        let start = Stamp { wall_ms: START_WALL_MS, mono_ms: 1_000 };
        Self { now: Arc::new(watch::Sender::new(start)), eager: false }
    }

    /// A clock whose sleepers never wait: each sleep moves the clock by its own length.
    #[must_use]
    pub fn eager() -> Self {
        Self { eager: true, ..Self::new() }
    }

    /// Moves wall and monotonic time forward and wakes the sleepers that are due.
    pub fn advance(&self, by: Duration) {
        let ms = millis(by);
        self.now.send_modify(|now| {
            now.wall_ms = now.wall_ms.saturating_add(ms);
            now.mono_ms = now.mono_ms.saturating_add(ms);
        });
    }

    /// Sets the wall clock alone, as an administrator or NTP would; wakes nobody.
    pub fn set_wall(&self, wall_ms: u64) {
        self.now.send_modify(|now| now.wall_ms = wall_ms);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Stamp {
        *self.now.borrow()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let due = self.now().mono_ms.saturating_add(millis(duration));
        let (mut seen, own, eager) = (self.now.subscribe(), self.clone(), self.eager);
        Box::pin(async move {
            if eager {
                own.advance(duration);
            }
            // The sender lives in `own`, so waiting can not fail; if it did, the sleep is over.
            if seen.wait_for(|now| now.mono_ms >= due).await.is_err() {
                return;
            }
            drop(own);
        })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Chance from a seed: SplitMix64 (Steele, Lea, Flood 2014), two draws per id.
#[derive(Debug)]
pub struct SeedEntropy {
    state: Mutex<u64>,
    drawn: AtomicU64,
}

impl SeedEntropy {
    /// A source that gives the same ids for the same seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: Mutex::new(seed), drawn: AtomicU64::new(0) }
    }

    /// How many ids were drawn so far.
    #[must_use]
    pub fn drawn(&self) -> u64 {
        self.drawn.load(Ordering::Relaxed)
    }
}

impl Entropy for SeedEntropy {
    fn id(&self) -> u128 {
        self.drawn.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (u128::from(splitmix(&mut state)) << 64) | u128::from(splitmix(&mut state))
    }
}

const fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sleepers_wake_when_the_clock_reaches_them() {
        let clock = FakeClock::new();
        let sleeper = tokio::spawn(clock.sleep(Duration::from_secs(5)));
        clock.advance(Duration::from_secs(4));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.advance(Duration::from_secs(1));
        sleeper.await.unwrap();
        FakeClock::eager().sleep(Duration::from_secs(3600)).await;
    }

    #[test]
    fn wall_jumps_leave_monotonic_time_alone() {
        let clock = FakeClock::new();
        clock.set_wall(5);
        assert_eq!(clock.now(), Stamp { wall_ms: 5, mono_ms: 1_000 });
    }

    #[test]
    fn the_same_seed_gives_the_same_ids() {
        let (a, b, c) = (SeedEntropy::new(7), SeedEntropy::new(7), SeedEntropy::new(8));
        assert_eq!(a.id(), b.id());
        assert_ne!(a.id(), c.id());
        assert_eq!(a.drawn(), 2);
    }
}

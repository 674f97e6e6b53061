//! The real clock and the real source of chance.
//!
//! The only place in the house that asks the system for either. Invariant: monotonic time counts
//! suspend (`CLOCK_BOOTTIME`), so a lease or a deadline does not grow while a laptop sleeps.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tinkerbell_core::clock::{Clock, Entropy, Stamp};

/// The system's clocks.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Stamp {
        let mono = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let wall = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        Stamp { wall_ms: millis(wall), mono_ms: millis(mono) }
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + 'static>> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// The machine's present boot; 0 where the kernel does not tell it: then wall time decides alone.
#[must_use]
pub fn boot() -> u128 {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    u128::from_str_radix(&text.trim().replace('-', ""), 16).unwrap_or(0)
}

fn millis(time: rustix::time::Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000).saturating_add(nanos / 1_000_000)
}

/// The kernel's random numbers.
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn id(&self) -> u128 {
        let mut bytes = [0_u8; 16];
        if getrandom::fill(&mut bytes).is_err() {
            // Only kernels before 3.17 and sandboxes that forbid the call fail here. Ids must still
            // differ, and nothing secret is made of them, so clock and pid stand in.
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
            let salt = u128::from(std::process::id()) << 96;
            return salt ^ (u128::from(now.tv_sec.unsigned_abs()) << 32) ^ u128::from(now.tv_nsec.unsigned_abs());
        }
        u128::from_le_bytes(bytes)
    }
}

//! Whether a failed try is followed by another, and when.
//!
//! Plain functions over values: no clock, no chance. Invariant: for every failure the number of
//! tries is bounded, and a refused key is never tried twice.

use crate::classify::Failure;
use crate::fault;
use crate::options::Pacing;
use crate::provider::Target;
use std::time::Duration;
use tinkerbell_core::code::Fault;
use tinkerbell_core::model::ModelError;

/// Tries for answers that were whole but useless: the same question rarely gets better for long.
const MALFORMED_TRIES: u32 = 3;

/// What follows a failed try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Another try after this wait.
    Wait(Duration),
    /// No further try.
    Stop(ModelError),
}

/// Decides after try number `tried` (from 1) failed. `seed` spreads the waits of different tasks.
pub fn next(failure: &Failure, tried: u32, target: &Target, pacing: Pacing, seed: u64) -> Next {
    let most = if matches!(failure, Failure::Malformed(_)) { pacing.tries.min(MALFORMED_TRIES) } else { pacing.tries };
    let asked = match failure {
        Failure::Busy { after, .. } => *after,
        Failure::Unreachable(_) | Failure::Broken(_) | Failure::Malformed(_) => None,
        _ => return Next::Stop(give_up(failure, tried, target)),
    };
    if let Some(wait) = asked.filter(|wait| *wait > pacing.patience) {
        let spent = Failure::Quota(format!("it asks to wait {} minutes", wait.as_secs().div_ceil(60)), Some(wait));
        return Next::Stop(give_up(&spent, tried, target));
    }
    if tried >= most {
        return Next::Stop(give_up(failure, tried, target));
    }
    // A local server answers 503 while it reads its model from the disk, which takes half a minute.
    let loads = target.is_local && matches!(failure, Failure::Busy { status: 503, .. });
    let tried = if loads { tried + 2 } else { tried };
    Next::Wait(asked.unwrap_or_else(|| backoff(tried, pacing, seed)))
}

/// Doubles from the base, up to the cap, within a quarter around it.
fn backoff(tried: u32, pacing: Pacing, seed: u64) -> Duration {
    let full = pacing.base.saturating_mul(1_u32.checked_shl(tried.saturating_sub(1)).unwrap_or(u32::MAX)).min(pacing.cap);
    let spread = u32::try_from(mix(seed ^ u64::from(tried)) % 501).unwrap_or(0);
    (full * (750 + spread) / 1_000).min(pacing.cap)
}

/// The finaliser of splitmix64 (Steele, Lea, Flood 2014): enough to spread waits, no more.
const fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn give_up(failure: &Failure, tried: u32, target: &Target) -> ModelError {
    let host = if target.host.is_empty() { &target.provider } else { &target.host };
    ModelError::Fault(match failure {
        Failure::TooLong(limit) => return ModelError::TooLong { limit: *limit },
        Failure::Key(status) => fault::key_refused(host, *status, target.keys.first().map(String::as_str)),
        Failure::NoModel(detail) => fault::unknown_model(&target.model, host, detail),
        Failure::Request(status, detail) => fault::request_refused(host, *status, detail),
        Failure::Quota(detail, after) => later(fault::quota(host, detail), *after),
        Failure::Unreachable(detail) => fault::unreachable(host, tried, detail),
        Failure::Broken(detail) | Failure::Malformed(detail) => fault::broken(host, tried, detail),
        Failure::Busy { status, detail, after } => later(fault::overloaded(host, tried, (*status, detail)), *after),
    })
}

/// The fault with the time that the provider asks for: whoever holds the task waits as long.
fn later(fault: Fault, after: Option<Duration>) -> Fault {
    match after {
        Some(after) => fault.after_ms(u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
        None => fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use crate::provider::resolve;
    use std::sync::Arc;

    fn busy(status: u16, secs: Option<u64>) -> Failure {
        Failure::Busy { status, after: secs.map(Duration::from_secs), detail: String::new() }
    }

    fn decide(failure: &Failure, tried: u32) -> Next {
        let env: crate::provider::Environment = Arc::new(|_| None);
        let target = resolve("anthropic/claude-sonnet-5", &Options::default(), &env).unwrap();
        next(failure, tried, &target, Pacing::default(), 7)
    }

    fn code(failure: &Failure, tried: u32) -> String {
        match decide(failure, tried) {
            Next::Wait(wait) => format!("wait {}", wait.as_secs()),
            Next::Stop(ModelError::Fault(fault)) => fault.code.0.to_owned(),
            Next::Stop(other) => other.to_string(),
        }
    }

    #[test]
    fn each_failure_has_its_end() {
        let text = || "x".to_owned();
        for (failure, tried, what) in [
            (Failure::Key(401), 1, "TB-ROUTER-004"),
            (Failure::NoModel(text()), 1, "TB-ROUTER-003"),
            (Failure::Request(400, text()), 1, "TB-ROUTER-005"),
            (Failure::Quota(text(), None), 1, "TB-ROUTER-006"),
            (Failure::TooLong(Some(9)), 1, "the prompt does not fit into the model's context"),
            (busy(429, Some(90)), 1, "wait 90"),
            (busy(429, Some(301)), 1, "TB-ROUTER-006"),
            (busy(529, None), 5, "TB-ROUTER-009"),
            (Failure::Unreachable(text()), 5, "TB-ROUTER-007"),
            (Failure::Broken(text()), 5, "TB-ROUTER-008"),
            (Failure::Malformed(text()), 3, "TB-ROUTER-008"),
        ] {
            assert_eq!(code(&failure, tried), what, "{failure:?} after {tried}");
        }
    }

    #[test]
    fn a_wait_beyond_our_patience_goes_along_with_the_fault() {
        let Next::Stop(ModelError::Fault(fault)) = decide(&busy(429, Some(172_800)), 1) else { panic!("no fault") };
        assert_eq!((fault.code.0, fault.retry_after_ms, fault.retryable), ("TB-ROUTER-006", Some(172_800_000), true));
        let Next::Stop(ModelError::Fault(fault)) = decide(&busy(503, Some(20)), 5) else { panic!("no fault") };
        assert_eq!((fault.code.0, fault.retry_after_ms), ("TB-ROUTER-009", Some(20_000)));
    }

    #[test]
    fn waits_double_within_a_quarter_and_are_the_same_every_time() {
        for (tried, millis) in [(1, 500), (2, 1_000), (3, 2_000), (4, 4_000)] {
            let Next::Wait(wait) = decide(&busy(503, None), tried) else { panic!("no wait") };
            let near = (millis * 3 / 4)..=(millis * 5 / 4);
            assert!(near.contains(&u64::try_from(wait.as_millis()).unwrap()), "{tried}: {wait:?}");
            assert_eq!(decide(&busy(503, None), tried), Next::Wait(wait));
        }
        assert!(backoff(40, Pacing::default(), 1) <= Pacing::default().cap);
    }

    #[test]
    fn a_refused_key_names_its_variable() {
        let Next::Stop(ModelError::Fault(fault)) = decide(&Failure::Key(403), 1) else { panic!("no fault") };
        assert!(fault.hints.iter().any(|line| line.contains("ANTHROPIC_API_KEY")));
    }
}

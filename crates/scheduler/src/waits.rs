//! How long a task waits before it goes on by itself.
//!
//! Pure, but for the chance that is handed in. Invariant: the number of tries in a row without getting
//! further is bounded; after that a person lets it go on.

use tinkerbell_core::code::Fault;

/// The first wait for a provider; doubled after each further one in a row.
const FIRST_MS: u64 = 30_000;
/// The longest wait that we choose ourselves.
const LONGEST_MS: u64 = 15 * 60_000;
/// The longest wait that a provider may ask for: thirty-one days, the longest billing month.
const MOST_ASKED_MS: u64 = 31 * 86_400_000;
/// Tries in a row; at the longest waits they last about four hours.
pub(crate) const TRIES: u32 = 20;
/// What a wait that a provider asked for is lengthened by at most, so that not all come back at once.
const LATE_MS: u64 = 10_000;

/// How long to wait after the `tried`th fault in a row (from 1), in milliseconds; `None` when it is
/// time to ask a person. `chance` spreads tasks that failed together.
pub(crate) fn provider_wait_ms(fault: &Fault, tried: u32, chance: u64) -> Option<u64> {
    if tried > TRIES {
        return None;
    }
    let full = FIRST_MS.saturating_mul(1_u64.checked_shl(tried.saturating_sub(1)).unwrap_or(u64::MAX)).min(LONGEST_MS);
    // A quarter around it.
    let own = full / 4 * 3 + chance % (full / 2).max(1);
    // Short waits were tried within the call already; a provider that asks for them for ever would
    // otherwise be asked without end.
    let asked = fault.retry_after_ms.map_or(0, |asked| asked.min(MOST_ASKED_MS));
    let late = if asked == 0 { 0 } else { chance % (asked / 20).clamp(1, LATE_MS) };
    Some(own.max(asked.saturating_add(late)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_quarter_of_an_hour_and_end() {
        let fault = Fault::new("TB-ROUTER-009", 69, "busy").transient();
        for (tried, seconds) in [(1, 30), (2, 60), (3, 120), (5, 480), (6, 900), (20, 900)] {
            for chance in [0, 7, u64::MAX] {
                let wait = provider_wait_ms(&fault, tried, chance).unwrap();
                assert!((seconds * 750..=seconds * 1_250).contains(&wait), "{tried}: {wait}");
            }
        }
        assert_eq!(provider_wait_ms(&fault, 21, 0), None);
    }

    #[test]
    fn days_that_a_provider_asks_for_are_kept() {
        let asked = |ms| provider_wait_ms(&Fault::new("TB-ROUTER-006", 69, "spent").after_ms(ms), 1, u64::MAX).unwrap();
        let day = 86_400_000;
        assert!((2 * day..2 * day + LATE_MS).contains(&asked(2 * day)));
        assert!(asked(u64::MAX) <= MOST_ASKED_MS + LATE_MS);
        assert!(asked(0) >= 22_500 && asked(1_000) >= 22_500, "a provider that asks for nothing is not asked for ever");
    }
}

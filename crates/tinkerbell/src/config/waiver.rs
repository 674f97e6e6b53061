//! `[approvals] mode = "never"`: that nobody is asked, with a reason and an end.
//!
//! Invariant: without both it is a mistake, and after its end it says nothing.

use super::options::{Approvals, Asking};
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::event::Waiver;

/// What the configuration says about a task that is given at `now_ms` by user `owner`.
///
/// # Errors
/// `TB-POLICY-007` when reason or end are missing, or the end can not be read.
pub fn waiver(approvals: &Approvals, place: &str, owner: u32, now_ms: u64) -> Result<Option<Waiver>, Fault> {
    if approvals.mode == Asking::Policy {
        return Ok(None);
    }
    let bad = |what: &str| {
        Fault::new("TB-POLICY-007", exit::CONFIG, format!("{place}: `[approvals] mode = \"never\"` {what}"))
            .hint("reason = \"why\"")
            .hint("until = \"2026-12-01T07:00:00Z\"")
    };
    let reason = approvals.reason.clone().filter(|reason| !reason.trim().is_empty()).ok_or_else(|| bad("needs a `reason`"))?;
    let until = approvals.until.as_deref().ok_or_else(|| bad("needs an end, `until`"))?;
    let until_ms = tinkerbell_api::wire::millis(until).ok_or_else(|| bad(&format!("can not read `until = \"{until}\"`")))?;
    Ok((now_ms < until_ms).then(|| Waiver { owner, reason, source: place.to_owned(), until_ms }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_needs_a_reason_and_an_end_and_ends_by_itself() {
        let said = |mode, reason: Option<&str>, until: Option<&str>, now_ms| {
            let approvals = Approvals { mode, reason: reason.map(str::to_owned), until: until.map(str::to_owned), ..Approvals::default() };
            waiver(&approvals, "c.toml", 7, now_ms).map(|waiver| waiver.map(|waiver| waiver.until_ms)).map_err(|fault| fault.code.0)
        };
        let end = Some("1970-01-01T00:00:09Z");
        assert_eq!(said(Asking::Policy, None, None, 0), Ok(None));
        assert_eq!(said(Asking::Never, Some("ci"), end, 8_999), Ok(Some(9_000)));
        assert_eq!(said(Asking::Never, Some("ci"), end, 9_000), Ok(None));
        for (reason, until) in [(None, end), (Some(" "), end), (Some("ci"), None), (Some("ci"), Some("soon"))] {
            assert_eq!(said(Asking::Never, reason, until, 0), Err("TB-POLICY-007"), "{reason:?} {until:?}");
        }
    }
}

//! Exceptions from the laws: one file, each with a reason and the day it ends.
//!
//! Invariant: an exception that is expired, unused, unknown or without a reason is a finding, so
//! the list can only shrink by itself.

mod options;

use anyhow::{Context, Result};

use super::{Finding, NAMES};
use crate::date::Date;
pub use options::Exception;

/// Where the exceptions stand.
pub const PATH: &str = "xtask/tidy.toml";

/// Reads the list.
///
/// # Errors
/// The file is no list of exceptions, or has unknown keys.
pub fn parse(text: &str) -> Result<Vec<Exception>> {
    let list: options::List = toml::from_str(text).with_context(|| format!("cannot read {PATH}"))?;
    Ok(list.exception)
}

/// Takes the excepted findings off and adds a finding for each exception that may not stand.
pub fn apply(found: Vec<Finding>, exceptions: &[Exception], today: Date) -> Vec<Finding> {
    let excused = |finding: &Finding| exceptions.iter().any(|exception| covers(exception, finding));
    let faults = exceptions.iter().filter_map(|exception| fault(exception, &found, today));
    let faults: Vec<Finding> = faults.map(|(rule, message)| Finding::new(rule, PATH, 0, message)).collect();
    found.into_iter().filter(|finding| !excused(finding)).chain(faults).collect()
}

fn covers(exception: &Exception, finding: &Finding) -> bool {
    exception.rule == finding.rule
        && exception.path == finding.path
        && exception.item.as_ref().is_none_or(|item| finding.message.contains(&format!("`{item}`")))
}

fn fault(exception: &Exception, found: &[Finding], today: Date) -> Option<(&'static str, String)> {
    let Exception { rule, path, .. } = exception;
    let Some(name) = NAMES.iter().copied().find(|name| name == rule) else {
        return Some(("exception", format!("there is no rule `{rule}`; the rules are {}", NAMES.join(", "))));
    };
    let Some(expires) = Date::parse(&exception.expires) else {
        return Some((name, format!("exception for {path}: `{}` is no date YYYY-MM-DD", exception.expires)));
    };
    if exception.reason.trim().is_empty() {
        return Some((name, format!("exception for {path} gives no reason")));
    }
    if expires < today {
        return Some((name, format!("exception for {path} expired on {}: mend the file", exception.expires)));
    }
    if !found.iter().any(|finding| covers(exception, finding)) {
        return Some((name, format!("exception for {path} is not needed any more: remove it")));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Exception, apply, parse};
    use crate::date::Date;
    use crate::tidy::Finding;

    fn check(exception: &str) -> Vec<String> {
        let found = vec![Finding::new("parameters", "a.rs", 3, "`wide` takes 6"), Finding::new("parameters", "a.rs", 9, "`wider` takes 7")];
        let list: Vec<Exception> = parse(&format!("[[exception]]\n{exception}")).unwrap();
        let left = apply(found, &list, Date::parse("2026-11-21").unwrap());
        left.into_iter().map(|finding| format!("{}: {}", finding.path, finding.message)).collect()
    }

    #[test]
    fn a_valid_exception_excuses_what_it_names() {
        let valid = "rule = \"parameters\"\npath = \"a.rs\"\nreason = \"a wire format\"\nexpires = \"2026-11-21\"\n";
        assert!(check(valid).is_empty());
        assert_eq!(check(&format!("{valid}item = \"wide\"\n")), ["a.rs: `wider` takes 7"]);
    }

    #[test]
    fn expired_unused_unknown_and_unexplained_exceptions_are_findings() {
        let last = |rule: &str, path: &str, reason: &str, expires: &str| {
            let text = format!("rule = \"{rule}\"\npath = \"{path}\"\nreason = \"{reason}\"\nexpires = \"{expires}\"\n");
            check(&text).pop().unwrap()
        };
        assert!(last("parameters", "a.rs", "why", "2026-11-20").contains("expired on 2026-11-20"));
        assert!(last("parameters", "b.rs", "why", "2027-01-01").contains("not needed any more"));
        assert!(last("taste", "a.rs", "why", "2027-01-01").contains("no rule `taste`"));
        assert!(last("parameters", "a.rs", " ", "2027-01-01").contains("no reason"));
        assert!(last("parameters", "a.rs", "why", "some day").contains("no date"));
    }

    #[test]
    fn unknown_keys_and_missing_reasons_are_refused() {
        assert!(parse("[[exception]]\nrule = \"x\"\n").is_err());
        assert!(parse("[[exeption]]\n").is_err());
        assert!(parse("").unwrap().is_empty());
    }
}

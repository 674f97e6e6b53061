//! Problems: errors in the form of RFC 9457, with our code, hints and exit code.
//!
//! Invariant: a fault that crosses the socket arrives with the same code, exit, message and hints.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tinkerbell_core::code::{Fault, exit};

/// `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// Address of the error's page.
    #[serde(rename = "type")]
    pub kind: String,
    /// What failed.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// The stable code.
    pub code: String,
    /// What to do, one line each.
    #[serde(default)]
    pub hints: Vec<String>,
    /// Whether the same request may succeed later.
    #[serde(default)]
    pub retryable: bool,
    /// After how many milliseconds it may, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Exit code of the command line for it.
    #[serde(default = "failed")]
    pub exit: u8,
}

const fn failed() -> u8 {
    exit::FAILED
}

impl Problem {
    /// A fault as a problem, under the HTTP status that fits its exit code.
    #[must_use]
    pub fn new(fault: &Fault) -> Self {
        Self {
            kind: format!("urn:tinkerbell:error:{}", fault.code),
            title: fault.message.clone(),
            status: status(fault),
            code: fault.code.0.to_owned(),
            hints: fault.hints.clone(),
            retryable: fault.retryable,
            retry_after_ms: fault.retry_after_ms,
            exit: fault.exit,
        }
    }

    /// The fault again, on the other side.
    #[must_use]
    pub fn fault(self) -> Fault {
        let code = intern(&self.code);
        Fault {
            code: tinkerbell_core::code::Code(code),
            exit: self.exit,
            message: self.title,
            hints: self.hints,
            retryable: self.retryable,
            retry_after_ms: self.retry_after_ms,
        }
    }
}

/// The HTTP status for a fault.
fn status(fault: &Fault) -> u16 {
    match (fault.code.0, fault.exit) {
        ("TB-API-005" | "TB-TASK-001", _) => 404,
        ("TB-API-006", _) => 403,
        ("TB-API-007", _) => 503,
        ("TB-API-009", _) => 413,
        ("TB-API-010", _) => 405,
        ("TB-TASK-009", _) => 422,
        (_, exit::USAGE) => 400,
        (_, exit::GATE | exit::NEEDS_PERSON | exit::BUDGET | exit::CANCELLED | exit::CONFLICT) => 409,
        (_, exit::POLICY | exit::NO_AUTH) => 403,
        (_, exit::UNAVAILABLE) => 503,
        (_, exit::DEADLINE) => 504,
        (_, exit::CONFIG | exit::FAILED) => 422,
        _ => 500,
    }
}

/// A code as a static text, which `Code` wants.
///
/// Codes come from our own daemon; one process of the command line meets a handful. What does not
/// look like a code becomes ours for a garbled answer, so nothing unbounded is kept.
fn intern(code: &str) -> &'static str {
    let shaped = code.len() <= 20
        && code.strip_prefix("TB-").and_then(|rest| rest.rsplit_once('-')).is_some_and(|(area, number)| {
            area.bytes().all(|b| b.is_ascii_uppercase()) && number.len() == 3 && number.bytes().all(|b| b.is_ascii_digit())
        });
    if shaped { Box::leak(code.to_owned().into_boxed_str()) } else { "TB-API-008" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_survives_the_wire() {
        let fault = Fault::new("TB-ROUTER-001", exit::NO_AUTH, "no model provider is configured")
            .hint("export ANTHROPIC_API_KEY=…")
            .after_ms(1_500);
        let problem = Problem::new(&fault);
        assert_eq!(problem.status, 403);
        let text = serde_json::to_string(&problem).unwrap();
        assert_eq!(serde_json::from_str::<Problem>(&text).unwrap().fault(), fault);
    }

    #[test]
    fn a_garbled_code_becomes_our_own() {
        for code in ["", "TB-1", "TB-API-1", "tb-api-001", "TB-API-0001"] {
            assert_eq!(intern(code), "TB-API-008", "{code}");
        }
        assert_eq!(intern("TB-WAL-003"), "TB-WAL-003");
    }
}

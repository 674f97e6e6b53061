//! Stable codes for every failure that a user can meet.
//!
//! A code names a page, `docs/errors/<code>.md`, and an exit code; the text of the message belongs
//! to the error itself. Invariant: a published code never changes its meaning.

use std::fmt;

/// An error code such as `TB-WAL-003`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub &'static str);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Exit codes of the command line; scripts stand on them.
pub mod exit {
    /// Done.
    pub const DONE: u8 = 0;
    /// The task failed, or `doctor` found a fault.
    pub const FAILED: u8 = 1;
    /// Wrong usage of the command line.
    pub const USAGE: u8 = 2;
    /// Finished, but the verification gate failed.
    pub const GATE: u8 = 3;
    /// Needs an approval or an answer, and nobody can be asked.
    pub const NEEDS_PERSON: u8 = 4;
    /// The budget is exhausted; the task is paused.
    pub const BUDGET: u8 = 5;
    /// Cancelled by a user elsewhere.
    pub const CANCELLED: u8 = 6;
    /// Refused by policy.
    pub const POLICY: u8 = 7;
    /// The repository changed in between.
    pub const CONFLICT: u8 = 8;
    /// Daemon or provider unavailable.
    pub const UNAVAILABLE: u8 = 69;
    /// A defect of ours.
    pub const INTERNAL: u8 = 70;
    /// Not authenticated or authorised.
    pub const NO_AUTH: u8 = 77;
    /// Configuration error.
    pub const CONFIG: u8 = 78;
    /// A deadline passed.
    pub const DEADLINE: u8 = 124;
}

/// The code of everything that is refused while all effects are halted.
const HALTED: &str = "TB-HALT-001";

/// A failure in the form in which it crosses crates and doors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// The stable code, e.g. `TB-ROUTER-001`.
    pub code: Code,
    /// Exit code of the command line for it; see [`exit`].
    pub exit: u8,
    /// What failed, with which value; lower case, no final dot.
    pub message: String,
    /// What to do; one line each.
    pub hints: Vec<String>,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// After how many milliseconds it may, where that is known.
    pub retry_after_ms: Option<u64>,
}

impl Fault {
    /// A fault that will not go away by repeating the request.
    #[must_use]
    pub fn new(code: &'static str, exit: u8, message: impl Into<String>) -> Self {
        Self { code: Code(code), exit, message: message.into(), hints: Vec::new(), retryable: false, retry_after_ms: None }
    }

    /// All effects are halted; `message` says by whom, as far as that is known.
    #[must_use]
    pub fn halted(message: impl Into<String>) -> Self {
        Self::new(HALTED, exit::UNAVAILABLE, message).hint("tinkerbell halt --lift   lets tasks go on")
    }

    /// Whether it says that all effects are halted, wherever that was noticed.
    #[must_use]
    pub fn is_halt(&self) -> bool {
        self.code.0 == HALTED
    }

    /// Adds one line that says what to do.
    #[must_use]
    pub fn hint(mut self, line: impl Into<String>) -> Self {
        self.hints.push(line.into());
        self
    }

    /// Whether it came from a full disk or a used-up quota. Libraries hand such errors on as words
    /// only, so the words are read: Linux' numbers in them are fixed.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        ["(os error 28)", "(os error 122)"].iter().any(|mark| self.message.contains(mark))
    }

    /// Marks the fault as one that may pass.
    #[must_use]
    pub const fn transient(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// Marks the fault as one that may pass after this many milliseconds.
    #[must_use]
    pub const fn after_ms(mut self, wait_ms: u64) -> Self {
        self.retryable = true;
        self.retry_after_ms = Some(wait_ms);
        self
    }
}

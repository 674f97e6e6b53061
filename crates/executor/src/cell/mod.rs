//! The cell: the stages between keeper and command, each a blocking main of its own.
//!
//! `__enter` leaves the host's namespaces, `__init` builds the sandbox, waits at the gate, runs the
//! command and reaps. Invariant: the command is executed only after the gate byte was read, and
//! only if every step before it succeeded.

mod control;
mod enter;
mod filter;
mod init;
mod landlock;
mod mounts;

pub use enter::main as enter_main;
pub use init::main as init_main;
pub use landlock::abi as landlock_abi;

/// A step of building the sandbox that failed.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {why}")]
pub struct Broken {
    /// What was being done.
    pub step: String,
    /// Why it failed.
    pub why: String,
}

/// Names the step of an error.
pub(crate) trait At<T> {
    /// Says what was being done.
    fn at(self, step: impl Into<String>) -> Result<T, Broken>;
}

impl<T, E: std::fmt::Display> At<T> for Result<T, E> {
    fn at(self, step: impl Into<String>) -> Result<T, Broken> {
        self.map_err(|error| Broken { step: step.into(), why: error.to_string() })
    }
}

/// Lets go of the command's pipes, so that their end is the end of the command's processes.
pub(crate) fn close_standard() {
    let Ok(null) = std::fs::File::options().read(true).write(true).open("/dev/null") else { return };
    // Failing leaves a pipe open until we leave, which only delays the end by the drain's limit.
    rustix::stdio::dup2_stdin(&null).ok();
    rustix::stdio::dup2_stdout(&null).ok();
    rustix::stdio::dup2_stderr(&null).ok();
}

//! What can go wrong between asking for a command and having its outcome.
//!
//! Each variant has a code and a page; nothing here decides. Invariant: an error before the gate
//! opens means that nothing ran, and its text says so.

use std::path::PathBuf;
use tinkerbell_core::code::{Fault, exit};

/// Failures of sandbox and keeper.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The keeper did not come up.
    #[error("the keeper of run {run} could not be started: {why}; nothing ran")]
    Keeper {
        /// The run.
        run: String,
        /// Why.
        why: String,
    },
    /// The sandbox of one command could not be built.
    #[error("the sandbox of run {run} could not be built at `{step}`: {why}; nothing ran")]
    Cell {
        /// The run.
        run: String,
        /// The step that failed.
        step: String,
        /// Why.
        why: String,
    },
    /// What would run is not what was approved.
    #[error("run {run} was not started: {why}; nothing ran")]
    Approval {
        /// The run.
        run: String,
        /// What differs.
        why: String,
    },
    /// The keeper does not answer.
    #[error("run {run} does not answer on its socket: {why}")]
    Unreachable {
        /// The run.
        run: String,
        /// Why.
        why: String,
    },
    /// The keeper answered with a refusal.
    #[error("run {run} refused: {why}")]
    Refused {
        /// The run.
        run: String,
        /// Why.
        why: String,
    },
    /// Files of a run can not be read or written.
    #[error("the files of a run can not be used at `{}`: {source}", path.display())]
    Files {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// As many commands of the task run as may at once.
    #[error(
        "{0} commands of this task run in the background; wait for one, or end one with exec_send and signal KILL. Nothing was started"
    )]
    Crowded(usize),
    /// The working directory is not inside the workspace.
    #[error("`{0}` is not a directory inside the workspace; give a path relative to its root")]
    Workdir(String),
    /// No level passed its self-test.
    #[error("no sandbox level works on this host, so commands are refused: {0}")]
    NoLevel(String),
    /// The level that the operator pinned did not pass.
    #[error("sandbox level `{level}` is pinned and does not pass its self-test: {why}")]
    Pinned {
        /// The pinned level.
        level: &'static str,
        /// Why.
        why: String,
    },
    /// The network was granted and the level can not fence the rest.
    #[error("`sandbox.network = \"host\"` needs level `full`, and this host gives `{0}`")]
    Network(&'static str),
    /// All effects are halted.
    #[error("all effects are halted; nothing ran")]
    Halted,
    /// A way out was granted and the level can not keep commands to it.
    #[error(
        "`sandbox.network = \"proxy\"` needs level `full`, and this host gives `{0}`: there a command could reach any host at the proxy's port"
    )]
    Egress(&'static str),
    /// Layers were demanded and do not work here.
    #[error("`sandbox.workspace = \"overlay\"` can not be had: {0}")]
    Overlay(String),
    /// The self-test had a layer and this command could not be given one.
    #[error("no layer could be laid over the worktree of run {run}: {why}; nothing ran")]
    Layer {
        /// The run.
        run: String,
        /// The step that failed, and why.
        why: String,
    },
    /// A path has no spelling in a profile of macOS.
    #[error("no Seatbelt profile can be written: {0}")]
    Seatbelt(String),
    /// Not a Linux system, or a defect.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// A file error with its place.
    pub(crate) fn files(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Files { path, source }
    }

    /// The stable code; each has a page.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Keeper { .. } => "TB-EXEC-001",
            Self::Cell { .. } => "TB-EXEC-002",
            Self::Unreachable { .. } => "TB-EXEC-003",
            Self::Refused { .. } => "TB-EXEC-004",
            Self::Approval { .. } => "TB-APPROVE-004",
            Self::Workdir(_) => "TB-EXEC-005",
            Self::Files { .. } => "TB-EXEC-006",
            Self::Internal(_) => "TB-EXEC-007",
            Self::Crowded(_) => "TB-EXEC-008",
            Self::NoLevel(_) => "TB-SANDBOX-001",
            Self::Pinned { .. } => "TB-SANDBOX-002",
            Self::Network(_) => "TB-SANDBOX-003",
            Self::Halted => "TB-HALT-001",
            Self::Egress(_) => "TB-EGRESS-001",
            Self::Overlay(_) | Self::Layer { .. } => "TB-SANDBOX-004",
            Self::Seatbelt(_) => "TB-SANDBOX-005",
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let exit = match &error {
            Error::Halted => return Self::halted(error.to_string()),
            Error::NoLevel(_) | Error::Keeper { .. } | Error::Cell { .. } | Error::Unreachable { .. } => exit::UNAVAILABLE,
            Error::Pinned { .. } | Error::Network(_) | Error::Egress(_) | Error::Overlay(_) | Error::Layer { .. } => exit::CONFIG,
            Error::Workdir(_) | Error::Crowded(_) | Error::Refused { .. } | Error::Approval { .. } | Error::Seatbelt(_) => exit::FAILED,
            Error::Files { .. } | Error::Internal(_) => exit::INTERNAL,
        };
        let fault = Self::new(error.code(), exit, error.to_string());
        match &error {
            Error::NoLevel(_) => fault
                .hint("run `tinkerbell doctor` to see each check of the self-test")
                .hint("Ubuntu: `tinkerbell sandbox apparmor` prints the profile that allows user namespaces, and how to install it")
                .hint("container: start it with `--security-opt seccomp=unconfined`, or on a kernel with Landlock (6.7 or newer)"),
            Error::Pinned { .. } => fault.hint("set `[sandbox] level = \"auto\"` or repair what the self-test names"),
            Error::Network(_) => fault.hint("set `[sandbox] network = \"none\"`, or let the host give level `full`"),
            Error::Egress(_) => fault
                .hint("run `tinkerbell doctor`: it says what keeps level `full` from working here")
                .hint("or set `[sandbox] network = \"none\"`"),
            Error::Overlay(_) | Error::Layer { .. } => {
                fault.hint("set `[sandbox] workspace = \"auto\"`, or use a kernel with overlayfs in user namespaces (5.11 or newer)")
            }
            Error::Keeper { .. } | Error::Unreachable { .. } => fault.transient(),
            _ => fault,
        }
    }
}

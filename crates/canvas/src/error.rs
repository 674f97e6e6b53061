//! What can go wrong on the canvas, and the code, exit and advice each failure carries.
//!
//! No logic beyond wording. Invariant: every variant maps to exactly one page in `docs/errors`.

use std::path::{Path, PathBuf};
use tinkerbell_core::code::{Fault, exit};

/// A failure of the canvas.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No repository at or above the directory.
    #[error("{} is not inside a git repository", .0.display())]
    NoRepository(PathBuf),
    /// A repository without a working tree.
    #[error("{} is a bare repository: there is no working tree to start from", .0.display())]
    Bare(PathBuf),
    /// The revision to start from, or the branch to land on, does not exist.
    #[error("no commit is named `{0}`")]
    NoSuchRevision(String),
    /// The name `tinkerbell` is taken, so `tinkerbell/<task>` can not be made.
    #[error("branch `{0}` can not be made: {1}")]
    BranchBlocked(String, String),
    /// A micro-commit does not stand on the branch's tip.
    #[error("branch {branch} stands at {found}, not at {expected}: somebody else moved it")]
    Moved {
        /// The branch's full name.
        branch: String,
        /// Where it should stand.
        expected: String,
        /// Where it stands; `nothing` when it is gone.
        found: String,
    },
    /// A checkpoint is not in the store, or damaged.
    #[error("checkpoint {0} can not be read: {1}")]
    NoCheckpoint(String, String),
    /// The git library refused.
    #[error("git: {what}: {why}")]
    Git {
        /// What was tried.
        what: &'static str,
        /// The library's words.
        why: String,
    },
    /// The file system refused.
    #[error("{}: {what}: {why}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's words.
        why: std::io::Error,
    },
    /// Landing without a branch.
    #[error("HEAD of {} is detached: there is no branch to land on", .0.display())]
    Detached(PathBuf),
    /// The branch is checked out where we may not write.
    #[error("branch {} is checked out in {}", .0, .1.display())]
    CheckedOutElsewhere(String, PathBuf),
    /// Another git process works in the repository, or a merge or rebase is not finished.
    #[error("{} is busy: {}", .0.display(), .1)]
    Busy(PathBuf, String),
    /// The user's repository is no longer where it was.
    #[error("repository {} can not be opened: {}", .0.display(), .1)]
    Gone(PathBuf, String),
    /// The task's worktree is not where it was.
    #[error("the task's worktree {} is missing", .0.display())]
    WorktreeGone(PathBuf),
    /// The tree passes a limit.
    #[error("{}: {}", .0.display(), .1)]
    TooMuch(PathBuf, String),
    /// The tree is not what it should be after a restore.
    #[error("these paths are not as the checkpoint has them after restoring: {0}")]
    Unsettled(String),
    /// The repository's own files name places that do not belong to it.
    #[error("the repository at {} is not used: {why}", place.display())]
    Astray {
        /// Where it was found.
        place: PathBuf,
        /// What is wrong with it.
        why: String,
        /// What to do, one line each.
        hint: String,
    },
    /// The user's index has a form that is not written here.
    #[error("the index of {} {}", .0.display(), .1)]
    Index(PathBuf, &'static str),
}

/// The canvas' own result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Wraps a failure of the git library.
    pub(crate) fn git(what: &'static str) -> impl FnOnce(gix::Error) -> Self + use<> {
        move |error| Self::Git { what, why: words(&error) }
    }

    /// Wraps a failure of the file system.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |why| Self::Io { what, path, why }
    }
}

/// A library error with its causes, in one line.
pub(crate) fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text.replace('\n', " ")
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let fault = |code, exit| Self::new(code, exit, message);
        match error {
            Error::NoRepository(_) => fault("TB-CANVAS-001", exit::USAGE)
                .hint("make one: git init && git add -A && git commit -m start")
                .hint("or point at one with --cd DIR"),
            Error::Bare(_) => fault("TB-CANVAS-002", exit::USAGE).hint("make a working tree: git worktree add DIR BRANCH, then --cd DIR"),
            Error::NoSuchRevision(_) => fault("TB-CANVAS-003", exit::USAGE).hint("list what there is: git branch -a, git tag, git log"),
            Error::BranchBlocked(..) => {
                fault("TB-CANVAS-004", exit::CONFLICT).hint("a branch named `tinkerbell` must give way: git branch -m tinkerbell NEWNAME")
            }
            Error::Moved { .. } => fault("TB-CANVAS-005", exit::CONFLICT).hint("see what happened: git reflog show BRANCH"),
            Error::NoCheckpoint(..) => fault("TB-CANVAS-006", exit::FAILED).hint("list what can be restored: tinkerbell op log TASK"),
            Error::Git { .. } => fault("TB-CANVAS-007", exit::FAILED).hint("check the repository: git fsck"),
            Error::Io { ref why, .. } => io_fault(why, fault("TB-CANVAS-008", exit::FAILED)),
            Error::Detached(_) => fault("TB-CANVAS-009", exit::USAGE).hint("name a branch: tinkerbell land TASK --branch NAME"),
            Error::CheckedOutElsewhere(..) => {
                fault("TB-CANVAS-010", exit::CONFLICT).hint("switch that worktree to another branch, or land there")
            }
            Error::Busy(..) => {
                fault("TB-CANVAS-011", exit::CONFLICT).hint("finish or abort what is under way there, then try again").transient()
            }
            Error::Gone(..) => fault("TB-CANVAS-012", exit::FAILED).hint("put the repository back at its path, or remove the task"),
            Error::WorktreeGone(_) => fault("TB-CANVAS-013", exit::FAILED).hint("resume the task: its newest checkpoint is put back"),
            Error::TooMuch(..) => fault("TB-CANVAS-014", exit::FAILED).hint("add the directory to .gitignore, or remove it"),
            Error::Unsettled(_) => {
                fault("TB-CANVAS-015", exit::FAILED).hint("stop the task's background commands, then restore again").transient()
            }
            Error::Astray { hint, .. } => hint.lines().fold(fault("TB-CANVAS-018", exit::USAGE), Fault::hint),
            Error::Index(..) => {
                fault("TB-CANVAS-016", exit::CONFLICT).hint("land on a branch that is not checked out: land TASK --branch NAME")
            }
        }
    }
}

/// Adds advice for the failures of a file system that people meet.
fn io_fault(why: &std::io::Error, fault: Fault) -> Fault {
    match why.kind() {
        std::io::ErrorKind::StorageFull => fault.hint("free space on that disk").transient(),
        std::io::ErrorKind::ReadOnlyFilesystem => fault.hint("the file system is read-only: move the data directory or remount"),
        std::io::ErrorKind::PermissionDenied => fault.hint("check owner and mode of that path"),
        _ => fault,
    }
}

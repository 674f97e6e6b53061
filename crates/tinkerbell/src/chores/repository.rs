//! The repository around a directory, as far as a chore needs it.
//!
//! Finds the root by its `.git` and asks the user's own git for the rest, with optional locks and
//! the file system monitor off. Invariant: no answer of git is waited for longer than [`PATIENCE`].

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// Longest wait for git.
const PATIENCE: Duration = Duration::from_secs(5);

/// The root of the repository that holds a directory.
#[must_use]
pub fn root(cwd: &Path) -> Option<PathBuf> {
    cwd.ancestors().find(|dir| dir.join(".git").exists()).map(Path::to_owned)
}

/// What git prints; `None` when it is missing, fails or is silent for too long.
pub async fn git(dir: &Path, args: &[&str]) -> Option<String> {
    let mut command = tokio::process::Command::new("git");
    command
        .args(["-c", "core.fsmonitor=false"])
        .args(args)
        .current_dir(dir)
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.ok()?.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

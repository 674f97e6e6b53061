//! The repository around a directory, as far as a chore needs it.
//!
//! Finds the root by its `.git` and asks the user's own git for the rest, with optional locks and
//! the file system monitor and filters off. Invariant: nothing that the repository names is run, and no
//! answer of git is waited for longer than [`PATIENCE`].

use std::collections::BTreeSet;
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
    git_with(dir, args, &[]).await
}

/// How the repository stands, by `git status`: every filter that its configuration names is taken
/// out first, because git would run it to compare files.
pub async fn status(root: &Path) -> Option<String> {
    // No filter at all is a failure of this question, and no reason for one of the next.
    let named = git(root, &["config", "--null", "--name-only", "--get-regexp", "^filter\\."]).await.unwrap_or_default();
    let drivers: BTreeSet<&str> = named.split('\0').filter_map(|key| key.rsplit_once('.')).map(|(driver, _)| driver).collect();
    let off: Vec<(String, &str)> = drivers
        .iter()
        .flat_map(|driver| {
            [("clean", ""), ("smudge", ""), ("process", ""), ("required", "false")].map(|(key, off)| (format!("{driver}.{key}"), off))
        })
        .collect();
    git_with(root, &["status", "--porcelain=v2", "--branch", "--ignore-submodules=all"], &off).await
}

async fn git_with(dir: &Path, args: &[&str], config: &[(String, &str)]) -> Option<String> {
    let mut command = tokio::process::Command::new("git");
    for (at, (key, value)) in config.iter().enumerate() {
        command.env(format!("GIT_CONFIG_KEY_{at}"), key).env(format!("GIT_CONFIG_VALUE_{at}"), value);
    }
    command
        .args(["-c", "core.fsmonitor=false"])
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_COUNT", config.len().to_string())
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.ok()?.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

//! `cargo xtask crash`: real kills over all classes of effects, for us and for other agents.
//!
//! The harness is a test of the roof (`crates/tinkerbell/tests/crash`); this chore builds it, fetches
//! the peers from the npm registry when they are asked for, and passes the words on. Invariant: peers
//! are test equipment below `target/`, never a dependency.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::shell;

/// The packages that the table in `docs/benchmarks.md` was made with.
const PEERS: [&str; 3] = ["@openai/codex@0.169.0", "opencode-ai@1.18.33", "@aaif/goose@0.20.1"];

/// Runs the matrix with the words given.
///
/// # Errors
/// An option that is not known, or cargo cannot be started.
pub fn run(words: &[&str]) -> Result<ExitCode> {
    let mut passed: Vec<String> = Vec::new();
    let mut release = false;
    for word in words {
        match *word {
            "--release" => release = true,
            "--peers" => match peers()? {
                Some(dir) => passed.extend(["--peers".to_owned(), dir.display().to_string()]),
                None => println!("the peers are skipped: npm is not installed or could not fetch them"),
            },
            other => passed.push(other.to_owned()),
        }
    }
    let good = shell::succeeds(command(release).args(&passed))?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Deals so many kills with fresh seeds; for the suite.
///
/// # Errors
/// Cargo cannot be started.
pub fn kills(count: u64) -> Result<bool> {
    shell::succeeds(command(false).args(["--kills", &count.to_string()]))
}

fn command(release: bool) -> Command {
    let mut command = Command::new(shell::cargo());
    // The whole house, so that features are unified, and outputs shared, as in the other steps.
    command.args(["test", "--quiet", "--workspace", "--test", "crash"]);
    if release {
        command.arg("--release");
    }
    command.arg("--");
    command
}

/// Where the peers are installed; they are fetched once.
fn peers() -> Result<Option<PathBuf>> {
    let dir = shell::target_dir().join("peers");
    std::fs::create_dir_all(&dir)?;
    if dir.join("node_modules/.bin/codex").exists() {
        return Ok(Some(dir));
    }
    let words = ["install", "--no-audit", "--no-fund", "--loglevel=error"];
    let installed = Command::new("npm").args(words).args(PEERS).current_dir(&dir).status();
    match installed {
        Ok(status) if status.success() => Ok(Some(dir)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => bail!("npm can not be started: {error}"),
    }
}

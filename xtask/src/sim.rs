//! `cargo xtask sim`: builds the deterministic simulator and passes the words on.
//!
//! It is built with a profile of its own and with the flag that lets the runtime be seeded, so it
//! shares no outputs with other builds. Invariant: whoever runs it this way can repeat any seed.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::shell;

/// Lets `tokio` take a seed; the simulator says so when it is missing.
const FLAGS: &str = "--cfg tokio_unstable";

/// Runs the simulator with the words given.
///
/// # Errors
/// Cargo cannot be started.
pub fn run(words: &[&str]) -> Result<ExitCode> {
    Ok(if shell::succeeds(command().args(words))? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs known seeds, and fresh ones for so many seconds; for the suite.
///
/// # Errors
/// Cargo cannot be started.
pub fn fresh(seconds: u64) -> Result<bool> {
    shell::succeeds(command().args(["--seconds", &seconds.to_string()]))
}

fn command() -> Command {
    let mut command = Command::new(shell::cargo());
    let flags = std::env::var("RUSTFLAGS").map_or_else(|_| FLAGS.to_owned(), |given| format!("{given} {FLAGS}"));
    command.args(["run", "--quiet", "--profile", "sim", "--package", "tinkerbell-sim", "--"]).env("RUSTFLAGS", flags);
    command
}

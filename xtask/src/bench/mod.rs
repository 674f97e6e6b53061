//! `cargo xtask bench`: the figures of `docs/benchmarks.md`, each by one command.
//!
//! It measures the release binary from outside, as a user meets it. Invariant: a row is printed
//! only for something that ran and succeeded; a failed measurement is an error, not a zero.

mod child;
mod house;
mod safety;
mod storage;
mod turns;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::shell;

/// One line of the table.
pub struct Row {
    /// What was measured.
    what: String,
    /// The figure, with its unit.
    figure: String,
    /// The budget that it stands against; empty where there is none.
    budget: String,
}

struct Bench {
    name: &'static str,
    about: &'static str,
    measure: fn(&Path) -> Result<Vec<Row>>,
    /// Whether it needs the release binary; the others build what they measure.
    whole: bool,
}

const BENCHES: [Bench; 7] = [
    Bench { name: "cli", about: "CPU time and memory of --version and --help", measure: house::cli, whole: true },
    Bench { name: "daemon", about: "time to ready on an empty home, idle memory", measure: house::daemon, whole: true },
    Bench { name: "loop", about: "CPU per step without model and tools", measure: turns::measure, whole: true },
    Bench { name: "demo", about: "wall and CPU time of `demo --fast`", measure: house::demo, whole: true },
    Bench { name: "wal", about: "journal against the raw disk and SQLite", measure: storage::wal, whole: false },
    Bench { name: "scheduler", about: "turns, wake-ups, a million tasks at rest", measure: storage::scheduler, whole: false },
    Bench { name: "safety", about: "what sandbox, rules, redaction, proxy and layers cost", measure: safety::measure, whole: true },
];

/// Builds the release binary and runs the named benches, or all.
///
/// # Errors
/// The build, or a measurement, failed; or a bench has no such name.
pub fn run(words: &[&str]) -> Result<ExitCode> {
    let names: Vec<&str> = words.iter().copied().filter(|word| !word.starts_with("--")).collect();
    for flag in words.iter().filter(|word| word.starts_with("--")) {
        match *flag {
            "--no-build" => {}
            "--list" => return Ok(list()),
            other => bail!("`bench` does not know `{other}`; it takes names, --no-build and --list"),
        }
    }
    if let Some(unknown) = names.iter().find(|name| BENCHES.iter().all(|bench| bench.name != **name)) {
        bail!("there is no bench `{unknown}`; see cargo xtask bench --list");
    }
    let wanted = |bench: &&Bench| names.is_empty() || names.contains(&bench.name);
    let binary =
        if BENCHES.iter().filter(wanted).any(|bench| bench.whole) { binary(words.contains(&"--no-build"))? } else { PathBuf::new() };
    println!("| figure | measured | budget | command |\n|---|---|---|---|");
    for bench in BENCHES.iter().filter(wanted) {
        let rows = (bench.measure)(&binary).with_context(|| format!("bench `{}`", bench.name))?;
        for row in rows {
            println!("| {} | {} | {} | `cargo xtask bench {}` |", row.what, row.figure, row.budget, bench.name);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list() -> ExitCode {
    for bench in &BENCHES {
        println!("{:<8} {}", bench.name, bench.about);
    }
    ExitCode::SUCCESS
}

fn binary(built: bool) -> Result<PathBuf> {
    let path = shell::target_dir().join("release").join("tinkerbell");
    if !built {
        let mut build = Command::new(shell::cargo());
        if !shell::succeeds(build.args(["build", "--release", "--package", "tinkerbell"]))? {
            bail!("the release build failed");
        }
    }
    if !path.is_file() {
        bail!("{} is missing; leave out --no-build", path.display());
    }
    Ok(path)
}

/// Reads one value in kB, such as `VmRSS`, from the text of `/proc/PID/status`.
pub fn status_kb(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.split(':').next() == Some(key))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{run, status_kb};

    #[test]
    fn memory_is_read_from_the_right_line() {
        let status = "VmPeak:\t  900 kB\nVmHWM:\t  800 kB\nVmRSS:\t  700 kB\n";
        assert_eq!(status_kb(status, "VmRSS"), Some(700));
        assert_eq!(status_kb(status, "VmSwap"), None);
    }

    #[test]
    fn unknown_benches_are_refused_before_anything_is_built() {
        assert!(run(&["nothing"]).unwrap_err().to_string().contains("no bench `nothing`"));
        assert!(run(&["--quick"]).is_err());
    }
}

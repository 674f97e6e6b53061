//! Starting other programs, and where the project lies.
//!
//! Output of a step goes straight to the terminal: nothing is swallowed, nothing is prettified.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Returns the root of the project's tree.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Returns the folder for build outputs; `CARGO_TARGET_DIR` is honoured as cargo does it.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Returns the cargo that started this chore.
pub fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"))
}

/// Runs a program of the project to its end and says whether it succeeded.
///
/// # Errors
/// The program could not be started.
pub fn succeeds(command: &mut Command) -> Result<bool> {
    let shown = format!("{command:?}");
    let status = command.current_dir(root()).stdin(Stdio::null()).status();
    Ok(status.with_context(|| format!("cannot start {shown}"))?.success())
}

/// Waits for a program and says whether it succeeded; `None` when it took longer and was ended.
///
/// # Errors
/// It can not be waited for.
pub fn waited(child: &mut Child, longest: Duration) -> Result<Option<bool>> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if began.elapsed() > longest {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Runs a program silently; `None` where it cannot be started or fails.
pub fn quiet(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).current_dir(root()).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

//! Building the targets, after their lock file was brought to what the house depends on.
//!
//! The lock file of `fuzz/` is another one than the house's, so it goes stale with each dependency that a
//! crate of ours gains. It is mended here, crates of the house alone. Invariant: targets are skipped only
//! where there is no C++ compiler or a crate can not be fetched; everything else that hinders is a failure.

use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::dir;
use crate::shell;

/// What makes the compiler count edges and watch comparisons, as libFuzzer wants it.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";
/// Longest time of a build; on two busy processors it takes many minutes.
const BUILD: Duration = Duration::from_secs(3600);
/// The lock file, from the root.
const LOCK: &str = "fuzz/Cargo.lock";
/// How cargo says that the registry is out of reach.
const UNREACHED: [&str; 4] = ["failed to download", "download of ", "registry `", "registry index"];

/// What came of it.
pub enum Built {
    /// The directory of the targets.
    Stands(PathBuf),
    /// They can not be built here; why.
    Skipped(String),
    /// They do not build.
    Failed(String),
}

/// Builds all targets.
pub fn build() -> Result<Built> {
    let Some(host) = shell::quiet("rustc", &["-vV"]).and_then(|text| host_of(&text)) else {
        return Ok(Built::Failed("the host is unknown: `rustc -vV` says nothing".into()));
    };
    if shell::quiet("c++", &["--version"]).is_none() {
        return Ok(Built::Skipped("there is no C++ compiler, and libFuzzer is C++".into()));
    }
    if let Err(why) = locked()? {
        let is_far = UNREACHED.iter().any(|words| why.contains(words));
        let skipped = "a crate is not there and can not be fetched: cargo fetch --manifest-path fuzz/Cargo.toml";
        return Ok(if is_far {
            Built::Skipped(skipped.into())
        } else {
            Built::Failed(format!("{LOCK} does not fit, and can not be mended:\n{why}"))
        });
    }
    // With a target named, build scripts and macros are not instrumented.
    let words = ["build", "--quiet", "--locked", "--release", "--bins", "--target", &host];
    let mut child = cargo(&words).stdin(Stdio::null()).spawn().context("cannot start cargo")?;
    Ok(match shell::waited(&mut child, BUILD)? {
        Some(true) => Built::Stands(dir().join(host).join("release")),
        Some(false) => Built::Failed("the fuzz targets do not build".into()),
        None => Built::Failed(format!("the fuzz targets were not built within {} s", BUILD.as_secs())),
    })
}

fn host_of(text: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned)
}

fn cargo(words: &[&str]) -> Command {
    let mut command = Command::new(shell::cargo());
    command.args(words).args(["--manifest-path", "fuzz/Cargo.toml"]).current_dir(shell::root());
    // Its outputs are of no use to other builds.
    command.env("CARGO_BUILD_BUILD_DIR", dir()).env("CARGO_TARGET_DIR", dir()).env("RUSTFLAGS", FLAGS);
    command
}

/// Makes the lock file fit and fetches what it names; else what cargo said last.
fn locked() -> Result<Result<(), String>> {
    let path = shell::root().join(LOCK);
    let before = std::fs::read_to_string(&path).with_context(|| LOCK.to_owned())?;
    // Without the network as long as it can be done; an update without it keeps to versions that are there.
    let mut said = String::new();
    for words in [
        &["fetch", "--locked", "--offline"][..],
        &["update", "--workspace", "--offline"],
        &["fetch", "--locked"],
        &["update", "--workspace"],
    ] {
        let output = cargo(words).stdin(Stdio::null()).output().context("cannot start cargo")?;
        said = String::from_utf8_lossy(&output.stderr).into_owned();
        let is_fetched = output.status.success() && (words.first() == Some(&"fetch") || fetches()?);
        if is_fetched {
            if std::fs::read_to_string(&path)? != before {
                println!("{LOCK} did not fit what the house depends on, and was mended: commit it");
            }
            return Ok(Ok(()));
        }
    }
    // Half a mending is none.
    std::fs::write(&path, before)?;
    Ok(Err(said))
}

fn fetches() -> Result<bool> {
    let is_done = |words: &[&str]| Ok::<_, anyhow::Error>(cargo(words).stdin(Stdio::null()).output()?.status.success());
    Ok(is_done(&["fetch", "--locked", "--offline"])? || is_done(&["fetch", "--locked"])?)
}

#[cfg(test)]
mod tests {
    use super::host_of;

    #[test]
    fn the_host_is_read() {
        assert_eq!(host_of("rustc 1.95.0\nhost: x86_64-unknown-linux-gnu\n").as_deref(), Some("x86_64-unknown-linux-gnu"));
        assert_eq!(host_of(""), None);
    }
}

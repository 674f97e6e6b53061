//! `cargo xtask fuzz`: builds the fuzz targets with instrumentation and runs each for a while.
//!
//! The targets are a workspace of their own below `fuzz/`; the instrumentation is the compiler's, so any
//! toolchain will do. Inputs begin with the golden files, and grow below `target/`. Invariant: a target
//! that was not run is named with its reason, and a finding fails the chore and is kept.

mod build;
mod inputs;
mod tally;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::shell;
use tally::Tally;

/// Every target with the files that it begins with: whole files, or lines of hexadecimal in `.txt` and of
/// JSON in `.jsonl`; of a `hosts.txt` each line.
const TARGETS: [(&str, &[&str]); 14] = [
    ("shell", &["crates/tinkerbell/tests/it/halt.rs", ".ci/run", "crates/security/tests/seeds/commands"]),
    ("policy", &["crates/security/src/policy/default.toml", "crates/security/tests/golden/v1/grants.toml"]),
    ("patch", &["crates/canvas/src/edit/any.rs", "crates/canvas/tests/seeds/patches", "crates/canvas/tests/golden/v1/applied"]),
    ("text", &["crates/core/tests/seeds"]),
    ("host", &["crates/egress/tests/seeds/hosts.txt"]),
    ("door", &["crates/egress/tests/seeds/door"]),
    ("secret", &["crates/secret/tests/seeds"]),
    ("mcp", &["crates/plugins/tests/seeds"]),
    ("answers", &["crates/router/tests/seeds"]),
    ("api_wire", &["crates/api/tests/golden/v1"]),
    ("run", &["crates/executor/tests/golden/v1"]),
    ("courier", &["crates/router/tests/golden/v1"]),
    ("segment", &["crates/wal/tests/golden"]),
    ("event", &["crates/core/tests/golden/v1"]),
];

/// Seconds of each target, where nothing else is asked for.
const SECONDS: u64 = 60;
/// Seconds of each target among all tests, where nobody who fuzzes works: no nightly compiler is installed.
const FEW_SECONDS: u64 = 5;
/// Most targets at once, however many processors there are: each may take two gigabytes.
const MOST_AT_ONCE: usize = 4;
/// What libFuzzer may take longer than it was told: reading its inputs, and one that hangs.
const SLACK: Duration = Duration::from_secs(180);
/// Bounds of one input: its bytes, its seconds, and the memory of the process.
const BOUNDS: [&str; 3] = ["-max_len=32768", "-timeout=10", "-rss_limit_mb=2048"];
/// Last lines of a target's own words that are shown when it found something.
const SHOWN: usize = 60;

/// How a pass ended.
pub enum Ended {
    /// Nothing was found; what was done, a line for each target.
    Clean(Vec<String>),
    /// Something was found, or the targets do not build.
    Found(Vec<String>),
    /// Not run; why.
    Skipped(String),
}

/// Runs the chore with the words given.
///
/// # Errors
/// An option that is not known, or cargo can not be started.
pub fn run(words: &[&str]) -> Result<ExitCode> {
    let (mut seconds, mut only, mut rest) = (SECONDS, None, words.iter());
    while let Some(word) = rest.next() {
        match (*word, rest.next()) {
            ("--seconds", Some(given)) => seconds = given.parse().context("--seconds takes a number")?,
            ("--target", Some(given)) if TARGETS.iter().any(|(name, _)| name == given) => only = Some(*given),
            ("--target", Some(given)) => {
                bail!("there is no target `{given}`; there are {}", TARGETS.map(|(name, _)| name).join(", "))
            }
            (other, _) => bail!("`fuzz` does not know `{other}`; it takes --seconds N and --target NAME"),
        }
    }
    Ok(match pass(seconds, only)? {
        Ended::Clean(_) => ExitCode::SUCCESS,
        Ended::Found(_) => ExitCode::FAILURE,
        Ended::Skipped(why) => {
            println!("skipped: {why}");
            ExitCode::SUCCESS
        }
    })
}

/// Seconds of each target among all tests: a minute where a nightly compiler is installed.
pub fn usual_seconds() -> u64 {
    let is_own = || shell::quiet("rustc", &["-vV"]).is_some_and(|text| text.contains("-nightly"));
    let is_beside =
        || shell::quiet("rustup", &["toolchain", "list"]).is_some_and(|text| text.lines().any(|line| line.starts_with("nightly")));
    if is_own() || is_beside() { SECONDS } else { FEW_SECONDS }
}

/// Builds the targets and runs each, or one, for so many seconds; two at once for each processor.
///
/// # Errors
/// Cargo can not be started.
pub fn pass(seconds: u64, only: Option<&str>) -> Result<Ended> {
    let bins = match build::build()? {
        build::Built::Stands(bins) => bins,
        build::Built::Skipped(why) => return Ok(Ended::Skipped(why)),
        build::Built::Failed(why) => {
            println!("{why}");
            return Ok(Ended::Found(vec![why]));
        }
    };
    let wanted: Vec<_> = TARGETS.iter().filter(|(name, _)| only.is_none_or(|only| only == *name)).collect();
    // Two for each processor: their seconds are those of the clock, and who waits for the tests waits half as long.
    let workers = std::thread::available_parallelism().map_or(1, usize::from).saturating_mul(2).clamp(1, MOST_AT_ONCE).min(wanted.len());
    println!("{} targets for {seconds} s each, {workers} at a time", wanted.len());
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((name, seeds)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let told = one(&bins, name, seeds, seconds);
                    done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(told);
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let tallies = done.into_iter().collect::<Result<Vec<Tally>>>()?;
    let lines = tallies.iter().map(ToString::to_string).collect();
    Ok(if tallies.iter().all(|tally| tally.is_clean) { Ended::Clean(lines) } else { Ended::Found(lines) })
}

/// Where everything of this chore lies.
fn dir() -> PathBuf {
    shell::target_dir().join("fuzz")
}

/// Runs one target to its end. Its own words go to a file: several run at once.
fn one(bins: &Path, name: &str, seeds: &[&str], seconds: u64) -> Result<Tally> {
    let corpus = inputs::corpus(&dir(), name, seeds)?;
    let words = dir().join(format!("{name}.log"));
    let log = File::create(&words)?;
    let mut command = Command::new(bins.join(name));
    command.arg(&corpus).arg(format!("-artifact_prefix={}/", corpus.display())).arg(format!("-max_total_time={seconds}"));
    command.args(BOUNDS).arg("-print_final_stats=1").current_dir(shell::root());
    let mut child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn().context("cannot start a fuzz target")?;
    let ended = shell::waited(&mut child, Duration::from_secs(seconds) + SLACK)?;
    let said = String::from_utf8_lossy(&std::fs::read(&words)?).into_owned();
    let tally = Tally::read(name, ended == Some(true), &said);
    println!("{tally}");
    if !tally.is_clean {
        let lines: Vec<&str> = said.lines().collect();
        let last = lines.get(lines.len().saturating_sub(SHOWN)..).unwrap_or_default();
        println!("-- the last words of {name}; all of them: {} --\n{}", words.display(), last.join("\n"));
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::{TARGETS, run};
    use crate::shell;

    #[test]
    fn every_target_has_a_file_and_seeds_and_words_are_checked() {
        let manifest = std::fs::read_to_string(shell::root().join("fuzz/Cargo.toml")).unwrap();
        let page = std::fs::read_to_string(shell::root().join("docs/fuzzing.md")).unwrap();
        for (name, seeds) in TARGETS {
            assert!(shell::root().join(format!("fuzz/targets/{name}.rs")).exists(), "{name}");
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
            assert!(page.contains(&format!("| `{name}` |")), "docs/fuzzing.md has no row for {name}");
            assert!(seeds.iter().all(|seed| shell::root().join(seed).exists()), "{name}");
        }
        assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len(), "a target is not run");
        for words in [&["--seconds"][..], &["--seconds", "x"], &["--target", "nothing"], &["--fast"]] {
            assert!(run(words).is_err(), "{words:?}");
        }
    }
}

//! `cargo xtask fuzz`: builds the fuzz targets with instrumentation and runs each for a while.
//!
//! The targets are a workspace of their own below `fuzz/`; the instrumentation is the compiler's, so any
//! toolchain will do. Inputs begin with the golden files, and grow below `target/`. Invariant: a target
//! that was not run is named with its reason, and a finding fails the chore and is kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::shell;

/// What makes the compiler count edges and watch comparisons, as libFuzzer wants it.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";

/// Every target with the files that it begins with: whole files, or lines of hexadecimal in `.txt` and of
/// JSON in `.jsonl`.
const TARGETS: [(&str, &[&str]); 9] = [
    ("shell", &["crates/tinkerbell/tests/it/halt.rs", ".ci/run"]),
    ("policy", &["crates/security/src/policy/default.toml"]),
    ("patch", &["crates/canvas/src/edit/any.rs"]),
    ("api_wire", &["crates/api/tests/golden/v1"]),
    ("run_files", &["crates/executor/tests/golden/v1"]),
    ("run_wire", &["crates/executor/tests/golden/v1"]),
    ("courier", &["crates/router/tests/golden/v1"]),
    ("segment", &["crates/wal/tests/golden"]),
    ("event", &["crates/core/tests/golden/v1"]),
];

/// Seconds of each target, where nothing else is asked for.
const SECONDS: u64 = 60;
/// Longest time of a build that somebody waits for.
const BUILD: Duration = Duration::from_secs(900);
/// Longest input of a target in bytes.
const MAX_LEN: &str = "-max_len=32768";

/// How a pass ended.
pub enum Ended {
    /// Nothing was found.
    Clean,
    /// Something was found, or the targets do not build.
    Found,
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
        Ended::Clean => ExitCode::SUCCESS,
        Ended::Found => ExitCode::FAILURE,
        Ended::Skipped(why) => {
            println!("skipped: {why}");
            ExitCode::SUCCESS
        }
    })
}

/// Builds the targets and runs each, or one, for so many seconds.
///
/// # Errors
/// Cargo can not be started.
pub fn pass(seconds: u64, only: Option<&str>) -> Result<Ended> {
    let Some(host) = host() else { return Ok(Ended::Skipped("the host is unknown: `rustc -vV` says nothing".into())) };
    if shell::quiet("c++", &["--version"]).is_none() {
        return Ok(Ended::Skipped("there is no C++ compiler, and libFuzzer is C++".into()));
    }
    if let Some(ended) = build(&host)? {
        return Ok(ended);
    }
    let bins = dir().join(&host).join("release");
    let mut is_clean = true;
    for (name, seeds) in TARGETS.iter().filter(|(name, _)| only.is_none_or(|only| only == *name)) {
        let corpus = corpus(name, seeds)?;
        println!("\n-- {name}: {seconds} s, {} inputs to begin with --", fs::read_dir(&corpus)?.count());
        is_clean &= shell::succeeds(&mut fuzzer(&bins.join(name), &corpus, seconds))?;
    }
    Ok(if is_clean { Ended::Clean } else { Ended::Found })
}

/// Where everything of this chore lies.
fn dir() -> PathBuf {
    shell::target_dir().join("fuzz")
}

fn host() -> Option<String> {
    let text = shell::quiet("rustc", &["-vV"])?;
    text.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned)
}

fn cargo(words: &[&str]) -> Command {
    let mut command = Command::new(shell::cargo());
    command.args(words).args(["--manifest-path", "fuzz/Cargo.toml"]).current_dir(shell::root());
    // Its outputs are of no use to other builds.
    command.env("CARGO_BUILD_BUILD_DIR", dir()).env("CARGO_TARGET_DIR", dir()).env("RUSTFLAGS", FLAGS);
    command
}

/// `None` once the targets stand.
fn build(host: &str) -> Result<Option<Ended>> {
    let fetched = cargo(&["fetch", "--locked", "--offline"]).stdin(Stdio::null()).stderr(Stdio::null()).status()?.success();
    if !fetched && !cargo(&["fetch", "--locked"]).stdin(Stdio::null()).status()?.success() {
        return Ok(Some(Ended::Skipped("libfuzzer-sys is not there: cargo fetch --manifest-path fuzz/Cargo.toml".into())));
    }
    // With a target named, build scripts and macros are not instrumented.
    let words = ["build", "--quiet", "--locked", "--release", "--bins", "--target", host];
    let mut child = cargo(&words).stdin(Stdio::null()).spawn().context("cannot start cargo")?;
    Ok(match waited(&mut child)? {
        Some(true) => None,
        Some(false) => Some(Ended::Found),
        None => Some(Ended::Skipped(format!("the targets were not built within {} s", BUILD.as_secs()))),
    })
}

/// Whether the build succeeded; `None` when it took too long and was ended.
fn waited(child: &mut Child) -> Result<Option<bool>> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if began.elapsed() > BUILD {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn fuzzer(bin: &Path, corpus: &Path, seconds: u64) -> Command {
    let mut command = Command::new(bin);
    command.arg(corpus).arg(format!("-artifact_prefix={}/", corpus.display()));
    command.arg(format!("-max_total_time={seconds}"));
    command.args([MAX_LEN, "-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1", "-verbosity=0"]);
    command
}

/// The target's inputs, with the golden files among them. What earlier passes found stays.
fn corpus(name: &str, seeds: &[&str]) -> Result<PathBuf> {
    let corpus = dir().join("corpus").join(name);
    fs::create_dir_all(&corpus)?;
    let mut files = Vec::new();
    seeds.iter().try_for_each(|seed| gather(&shell::root().join(seed), &mut files))?;
    let pieces = files.iter().map(|file| Ok(pieces(file, fs::read(file)?))).collect::<Result<Vec<_>>>()?;
    for (at, piece) in pieces.concat().into_iter().enumerate() {
        fs::write(corpus.join(format!("golden-{at:03}")), piece)?;
    }
    Ok(corpus)
}

fn gather(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let mut below = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    below.sort();
    below.iter().try_for_each(|path| gather(path, files))
}

/// What a golden file holds: itself, or one input for each line.
fn pieces(path: &Path, bytes: Vec<u8>) -> Vec<Vec<u8>> {
    let text = String::from_utf8_lossy(&bytes).into_owned();
    match path.extension().and_then(|kind| kind.to_str()) {
        Some("txt") => text.lines().filter_map(hex).collect(),
        Some("jsonl") => text.lines().map(|line| line.as_bytes().to_vec()).collect(),
        _ => vec![bytes],
    }
}

/// The last word of a line, where it is hexadecimal.
fn hex(line: &str) -> Option<Vec<u8>> {
    let word = line.split_whitespace().next_back()?;
    (0..word.len()).step_by(2).map(|at| u8::from_str_radix(word.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::{TARGETS, hex, pieces, run};
    use crate::shell;
    use std::path::Path;

    #[test]
    fn every_target_has_a_file_and_seeds_and_words_are_checked() {
        let manifest = std::fs::read_to_string(shell::root().join("fuzz/Cargo.toml")).unwrap();
        for (name, seeds) in TARGETS {
            assert!(shell::root().join(format!("fuzz/targets/{name}.rs")).exists(), "{name}");
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
            assert!(seeds.iter().all(|seed| shell::root().join(seed).exists()), "{name}");
        }
        assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len(), "a target is not run");
        for words in [&["--seconds"][..], &["--seconds", "x"], &["--target", "nothing"], &["--fast"]] {
            assert!(run(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn golden_files_become_inputs() {
        assert_eq!(hex("17 submitted 08ff"), Some(vec![8, 255]));
        assert_eq!((hex(""), hex("1 xyz"), hex("1 080")), (None, None, None));
        assert_eq!(pieces(Path::new("a.txt"), b"1 a 01\nno\n".to_vec()), [[1]]);
        assert_eq!(pieces(Path::new("a.jsonl"), b"{}\n[]\n".to_vec()), [b"{}".to_vec(), b"[]".to_vec()]);
        assert_eq!(pieces(Path::new("a.wal"), b"x".to_vec()), [b"x".to_vec()]);
    }
}

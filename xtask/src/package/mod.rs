//! `cargo xtask package`: packages of the release for Debian's kin (deb) and Red Hat's (rpm).
//!
//! What they hold stands in `crates/tinkerbell/Cargo.toml`, and two tools of others read it there: cargo-deb and
//! cargo-generate-rpm. Here the release is built, asked for its manual pages and completions, and each package is
//! compared with a golden list. Invariant: a package that differs from its list is a failure; one that was not made
//! or not compared is named with the reason.

mod listing;
#[cfg(test)]
mod tests;
mod tools;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use crate::shell;

/// One kind of package.
pub struct Kind {
    /// Its name, which is also how its files end.
    name: &'static str,
    /// The tool that makes it.
    tool: tools::Tool,
    /// What the tool is told, besides where the package shall lie.
    words: &'static [&'static str],
}

const KINDS: [Kind; 2] = [
    Kind {
        name: "deb",
        tool: tools::Tool { name: "cargo-deb", version: "3.8.0" },
        // The release profile has stripped the binary already.
        words: &["deb", "--package", "tinkerbell", "--no-build", "--no-strip", "--locked"],
    },
    Kind {
        name: "rpm",
        tool: tools::Tool { name: "cargo-generate-rpm", version: "0.21.1" },
        // Needs no rpm on the machine that builds, and says the same with and without one.
        words: &["generate-rpm", "--package", "crates/tinkerbell", "--auto-req", "builtin"],
    },
];

/// Shells whose completions are packaged.
const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// How a pass ended.
pub enum Ended {
    /// What was made, a line for each package.
    Made(Vec<String>),
    /// A package is not what it should be, or can not be made; a line for each.
    Wrong(Vec<String>),
    /// Nothing was made; why.
    Skipped(String),
}

/// Runs the chore with the words given.
///
/// # Errors
/// A word that is not known, or what [`pass`] says.
pub fn run(words: &[&str]) -> Result<ExitCode> {
    let (options, names): (Vec<&str>, Vec<&str>) = words.iter().partition(|word| word.starts_with('-'));
    let is_known = |name: &&str| KINDS.iter().any(|kind| kind.name == *name);
    if let Some(other) = options.iter().find(|word| **word != "--no-build").or_else(|| names.iter().find(|name| !is_known(name))) {
        bail!("`package` does not know `{other}`; it takes deb, rpm and --no-build");
    }
    Ok(match pass(&names, options.is_empty())? {
        Ended::Made(lines) => {
            lines.iter().for_each(|line| println!("{line}"));
            // Who asks for a package and gets none was not served.
            if lines.iter().any(|line| line.starts_with("skipped")) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Ended::Wrong(lines) => {
            lines.iter().for_each(|line| println!("{line}"));
            ExitCode::FAILURE
        }
        Ended::Skipped(why) => {
            println!("skipped: {why}");
            ExitCode::FAILURE
        }
    })
}

/// Makes the packages of these kinds (none: of all) and compares them with their lists.
///
/// # Errors
/// The release does not build, or a file can not be read or written.
pub fn pass(names: &[&str], is_to_build: bool) -> Result<Ended> {
    let (mut can, mut skipped) = (Vec::new(), Vec::new());
    for kind in KINDS.iter().filter(|kind| names.is_empty() || names.contains(&kind.name)) {
        match kind.tool.ready()? {
            Ok(tool) => can.push((kind, tool)),
            Err(why) => skipped.push(format!("{}: {why}", kind.name)),
        }
    }
    if can.is_empty() {
        return Ok(Ended::Skipped(skipped.join("; ")));
    }
    let mut lines: Vec<String> = skipped.iter().map(|why| format!("skipped {why}")).collect();
    let binary = binary(is_to_build)?;
    let pages = print_pages(&binary)?;
    let mut is_right = true;
    for (kind, tool) in can {
        match made(kind, &tool)? {
            Some(file) => match listing::compared(kind.name, &file, pages)? {
                Ok(said) => lines.push(format!("{} {}; {said}", kind.name, told(&file, &binary)?)),
                Err(difference) => {
                    is_right = false;
                    lines.push(format!("{}: {difference}", file.display()));
                }
            },
            None => {
                is_right = false;
                lines.push(format!("{}: {} made no package", kind.name, kind.tool.name));
            }
        }
    }
    Ok(if is_right { Ended::Made(lines) } else { Ended::Wrong(lines) })
}

/// Where packages lie.
fn dir() -> PathBuf {
    shell::target_dir().join("package")
}

fn binary(is_to_build: bool) -> Result<PathBuf> {
    let path = shell::target_dir().join("release").join("tinkerbell");
    if is_to_build {
        let mut build = Command::new(shell::cargo());
        if !shell::succeeds(build.args(["build", "--release", "--locked", "--package", "tinkerbell"]))? {
            bail!("the release build failed");
        }
    }
    if !path.is_file() {
        bail!("{} is missing; leave out --no-build", path.display());
    }
    Ok(path)
}

/// Lets the binary print manual pages and completions to where the manifest looks for them; tells the number of pages.
fn print_pages(binary: &Path) -> Result<usize> {
    let home = shell::target_dir().join("release").join("packaged");
    if home.exists() {
        fs::remove_dir_all(&home)?;
    }
    let (man, completion) = (home.join("man"), home.join("completion"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completion)?;
    printed(Command::new(binary).args(["--quiet", "man"]).arg(&man))?;
    let pages = fs::read_dir(&man)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    // Without names and times, so that the same page is the same file.
    printed(Command::new("gzip").args(["-9", "--no-name"]).args(&pages))?;
    for shell in SHELLS {
        fs::write(completion.join(shell), printed(Command::new(binary).args(["completion", shell]))?)?;
    }
    Ok(pages.len())
}

fn printed(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed");
    }
    Ok(output.stdout)
}

/// Makes a package; `None` where the tool failed, whose words say why.
fn made(kind: &Kind, tool: &Path) -> Result<Option<PathBuf>> {
    fs::create_dir_all(dir())?;
    for old in packages(kind)? {
        fs::remove_file(old)?;
    }
    let is_done = shell::succeeds(Command::new(tool).args(kind.words).arg("--output").arg(dir()))?;
    Ok(if is_done { packages(kind)?.pop() } else { None })
}

fn packages(kind: &Kind) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir())? {
        found.push(entry?.path());
    }
    found.retain(|path| path.extension().is_some_and(|ending| ending == kind.name));
    Ok(found)
}

fn told(file: &Path, binary: &Path) -> Result<String> {
    let megabytes = |path: &Path| Ok::<_, anyhow::Error>(fs::metadata(path)?.len() as f64 / 1e6);
    Ok(format!("{} ({:.1} MB; the binary in it {:.1} MB)", file.display(), megabytes(file)?, megabytes(binary)?))
}

//! The house laws that a machine can check, as pure functions over (path, text).
//!
//! Each rule gets files and returns findings; none touches the disk. This module reads the tree,
//! runs all rules and takes off the exceptions of `xtask/tidy.toml`. Invariant: nothing outside
//! that file can silence a rule, and an exception that is expired or unused is itself a finding.

mod doors;
mod exceptions;
mod formats;
mod functions;
mod links;
mod map;
mod pages;
mod source;
mod tree;
mod walls;
mod words;

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::date::Date;
use crate::shell;

/// One file of the project: path from the root with `/`, and its text.
#[derive(Debug, Clone)]
pub struct File {
    /// Path from the root of the project.
    pub path: String,
    /// The whole text; invalid UTF-8 is replaced.
    pub text: String,
}

/// A broken law.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file that breaks it.
    pub path: String,
    /// Line number, from 1; 0 for the file as a whole.
    pub line: usize,
    /// Name of the rule, as exceptions spell it.
    pub rule: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

impl Finding {
    fn new(rule: &'static str, path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, rule, message: message.into() }
    }
}

type Rule = fn(&[File]) -> Vec<Finding>;

/// All rules; each one sees the whole tree and picks what concerns it.
const RULES: [Rule; 10] = [
    map::check,
    doors::check,
    walls::check,
    functions::check,
    formats::check,
    pages::error_pages,
    pages::decisions,
    pages::openings,
    links::check,
    words::check,
];

/// The names that an exception may take.
const NAMES: [&str; 18] = [
    "adr",
    "arrows",
    "core-is-pure",
    "crate-length",
    "derive-in-format",
    "environment",
    "error-page",
    "file-length",
    "folder-is-name",
    "function-length",
    "link",
    "one-door",
    "opening-comment",
    "parameters",
    "port-size",
    "single-writer",
    "unsafe",
    "words",
];

/// Checks the real tree and prints what is wrong.
///
/// # Errors
/// The tree or the exceptions cannot be read.
pub fn run() -> Result<ExitCode> {
    let findings = examine()?;
    for finding in &findings {
        println!("{}:{}: [{}] {}", finding.path, finding.line, finding.rule, finding.message);
    }
    if findings.is_empty() {
        println!("the house laws hold");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} findings", findings.len());
    Ok(ExitCode::FAILURE)
}

/// Reads the tree of this project and returns what is left after the exceptions.
fn examine() -> Result<Vec<Finding>> {
    let root = shell::root();
    let files = tree::read(&root)?;
    let list = files.iter().find(|file| file.path == exceptions::PATH).context("xtask/tidy.toml is missing")?;
    let exceptions = exceptions::parse(&list.text)?;
    let found = RULES.iter().flat_map(|rule| rule(&files)).collect();
    let mut left = exceptions::apply(found, &exceptions, Date::today());
    left.sort();
    Ok(left)
}

/// Returns the folder of a crate, `crates/<name>`, that a path lies in.
fn crate_of(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("crates/")?;
    rest.split_once('/').map(|(name, _)| name)
}

/// Whether a file holds only tests: walls and formats do not bind it.
fn is_test_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name == "tests.rs" || path.split('/').any(|part| part == "tests" || part == "benches")
}

/// Whether a file is Rust of ours, and no sample or golden file that tests read.
fn is_own_rust(path: &str) -> bool {
    let own = path.starts_with("crates/") || path.starts_with("xtask/");
    let sample = path.split('/').any(|part| matches!(part, "golden" | "fixtures" | "assets" | "samples"));
    own && path.ends_with(".rs") && !sample
}

#[cfg(test)]
mod tests;

//! `bench safety`: what walls, rules, redaction, proxy and layers cost.
//!
//! Policy and redaction are examples of their crates. The others are tests, built in release, which print
//! lines that begin with `cost:`. Invariant: a line is taken as it was printed.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Row;
use super::storage::example;
use crate::shell;

/// Tests that print costs: package, which of its test programs, name, budget.
const TESTS: [(&str, &[&str], &str, &str); 3] = [
    ("tinkerbell-executor", &["--test", "it"], "cost::a_start", "≤ 15 ms"),
    ("tinkerbell-egress", &["--lib"], "cost::a_connection", "≤ 1 ms"),
    ("tinkerbell-canvas", &["--lib"], "a_thousand_changed_files", "≤ 50 ms"),
];

/// Figures of everything that stands between a command and the world.
pub fn measure(binary: &Path) -> Result<Vec<Row>> {
    let mut rows = printed("tinkerbell-security", "policy_bench", "≤ 100 us a decision")?;
    rows.extend(printed("tinkerbell-secret", "redact_bench", "")?);
    for (package, which, name, budget) in TESTS {
        let mut command = Command::new(shell::cargo());
        command.args(["test", "--release", "--package", package]).args(which).args(["--", name, "--nocapture", "--test-threads=1"]);
        let output = command.env("TINKERBELL_EXE", binary).output().with_context(|| format!("start the tests of {package}"))?;
        let text = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            bail!("the tests of {package} failed:\n{text}");
        }
        let before = rows.len();
        rows.extend(text.lines().filter_map(|line| line.split_once("cost: ")).map(|(_, line)| row(line, ": ", budget)));
        if rows.len() == before {
            bail!("the tests of {package} printed no cost:\n{text}");
        }
    }
    Ok(rows)
}

/// The lines of an example that hold a figure.
fn printed(package: &str, name: &str, budget: &str) -> Result<Vec<Row>> {
    let program = example(package, name)?;
    let output = Command::new(&program).output().with_context(|| format!("start {name}"))?;
    if !output.status.success() {
        bail!("{name} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().filter(|line| !line.trim().is_empty()).map(|line| row(line.trim(), "  ", budget)).collect())
}

/// What was measured, and the figure behind the last separator of the first kind.
fn row(line: &str, between: &str, budget: &str) -> Row {
    let (what, figure) = if between == "  " { line.split_once(between) } else { line.rsplit_once(between) }.unwrap_or((line, ""));
    Row { what: what.trim().into(), figure: figure.trim().into(), budget: budget.into() }
}

//! The tools that make packages: installed by pinned version below the target directory.
//!
//! Nothing is put into the developer's own cargo home. Invariant: a tool is used only at its pinned version, and where
//! it can not be installed the reason is told.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::shell;

/// A tool, and the one version of it that is used.
pub struct Tool {
    /// The name of its crate and of its program.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
}

impl Tool {
    /// The program, installed where it is not there yet; or why it can not be had.
    ///
    /// # Errors
    /// Cargo can not be started, or a directory not be written.
    pub fn ready(&self) -> Result<Result<PathBuf, String>> {
        let home = shell::target_dir().join("tools");
        let program = home.join("bin").join(self.name);
        if program.is_file() && self.is_listed(&home) {
            return Ok(Ok(program));
        }
        println!("installing {} {} below {}", self.name, self.version, home.display());
        let build = home.join("build");
        let mut command = Command::new(shell::cargo());
        command.args(["install", "--quiet", "--locked", "--force", "--version", &format!("={}", self.version), self.name]);
        command.arg("--root").arg(&home).current_dir(shell::root()).stdin(Stdio::null());
        // Its outputs are of no use to other builds.
        command.env("CARGO_TARGET_DIR", &build).env("CARGO_BUILD_BUILD_DIR", &build);
        let output = command.output().context("cannot start cargo")?;
        if build.exists() {
            fs::remove_dir_all(build)?;
        }
        if output.status.success() {
            return Ok(Ok(program));
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let why = said.lines().find(|line| line.starts_with("error")).unwrap_or("cargo says nothing");
        Ok(Err(format!("{} {} can not be installed: {why}", self.name, self.version)))
    }

    /// Whether cargo wrote down that it installed this very version.
    fn is_listed(&self, home: &Path) -> bool {
        fs::read_to_string(home.join(".crates.toml")).is_ok_and(|text| names(&text, self.name, self.version))
    }
}

fn names(text: &str, name: &str, version: &str) -> bool {
    text.lines().any(|line| line.starts_with(&format!("\"{name} {version} (")))
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn only_the_pinned_version_counts() {
        let text = "[v1]\n\"cargo-deb 3.8.0 (registry+https://index)\" = [\"cargo-deb\"]\n";
        for (name, version, is_there) in
            [("cargo-deb", "3.8.0", true), ("cargo-deb", "3.8", false), ("cargo-deb", "3.8.1", false), ("cargo", "3.8.0", false)]
        {
            assert_eq!(names(text, name, version), is_there, "{name} {version}");
        }
    }
}

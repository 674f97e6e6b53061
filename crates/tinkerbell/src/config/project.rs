//! A project's own file, `.tinkerbell/config.toml`: it may name the check and lower the limits.
//!
//! The repository is written by strangers, so nothing else is read from it until projects can be
//! trusted. Invariant: whatever the file says, a task gets no right that it would not have without.

use super::load::{Layer, check, mistake};
use super::options::{Config, PROJECT_KEYS};
use std::path::Path;
use tinkerbell_core::code::{Fault, exit};

/// What a project's file says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProjectFile {
    /// The parts that it may set.
    pub config: Config,
    /// Whether there is one.
    pub exists: bool,
}

/// The most that is read of it.
const MOST_BYTES: u64 = 64 * 1024;

/// Reads the project's file below `root`; none is no error.
///
/// # Errors
/// `TB-CONFIG-002` for mistakes, `TB-CONFIG-006` for keys that a project must not set.
pub fn read_project(root: &Path) -> Result<ProjectFile, Fault> {
    let path = root.join(".tinkerbell/config.toml");
    let Ok(meta) = std::fs::symlink_metadata(&path) else { return Ok(ProjectFile::default()) };
    if !meta.is_file() || meta.len() > MOST_BYTES {
        return Err(Fault::new("TB-CONFIG-006", exit::CONFIG, format!("{} is not a small plain file", path.display()))
            .hint("a project's file is a plain file of at most 64 KiB"));
    }
    let text = std::fs::read_to_string(&path).map_err(|error| {
        Fault::new("TB-CONFIG-001", exit::CONFIG, format!("{} can not be read: {error}", path.display()))
            .hint("make it readable, or remove it")
    })?;
    parse(Layer { name: path.display().to_string(), text, is_file: true })
}

pub(super) fn parse(layer: Layer) -> Result<ProjectFile, Fault> {
    let leaves = check(&layer, false, &mut Vec::new())?;
    if let Some((key, place, _)) = leaves.iter().find(|(key, _, _)| !PROJECT_KEYS.contains(&key.as_str())) {
        return Err(Fault::new("TB-CONFIG-006", exit::CONFIG, format!("{place}: a project must not set `{key}`"))
            .hint(format!("it may set: {}", PROJECT_KEYS.join(", ")))
            .hint("move the key to your own configuration: tinkerbell config path"));
    }
    let config = toml::from_str(&layer.text).map_err(|error| mistake(&layer, error.span(), error.message(), None))?;
    Ok(ProjectFile { config, exists: true })
}

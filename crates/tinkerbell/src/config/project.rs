//! A project's own file, `.tinkerbell/config.toml`: it may name the check and lower the limits.
//!
//! The repository is written by strangers: lower limits count at once, the check only once its bytes are
//! trusted (`crate::project`). Invariant: whatever the file says, a task gets no right that it would not
//! have without, and what is judged are the very bytes that were read.

use super::load::{Layer, check, mistake};
use super::options::{Config, PROJECT_KEYS};
use std::path::Path;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_security::trust::{Part, read_part};

/// Its path from the repository's root.
pub const PROJECT_FILE: &str = ".tinkerbell/config.toml";

/// What a project's file says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProjectFile {
    /// The parts that it may set.
    pub config: Config,
    /// The file as it was read; `None` where there is none.
    pub part: Option<Part>,
}

/// The most that is read of it.
const MOST_BYTES: u64 = 64 * 1024;

/// Reads the project's file below `root`, once; none is no error.
///
/// # Errors
/// `TB-CONFIG-002` for mistakes, `TB-CONFIG-006` for keys that a project must not set and for what is no
/// small plain file.
pub fn read_project(root: &Path) -> Result<ProjectFile, Fault> {
    let odd = |fault: Fault| {
        Fault::new("TB-CONFIG-006", exit::CONFIG, fault.message).hint("a project's file is a plain file of at most 64 KiB, and no link")
    };
    let Some(part) = read_part(root, PROJECT_FILE, MOST_BYTES).map_err(odd)? else { return Ok(ProjectFile::default()) };
    let name = root.join(PROJECT_FILE).display().to_string();
    let Ok(text) = String::from_utf8(part.bytes.clone()) else {
        return Err(Fault::new("TB-CONFIG-001", exit::CONFIG, format!("{name} can not be read: it is no UTF-8")).hint("mend or remove it"));
    };
    Ok(ProjectFile { part: Some(part), ..parse(Layer { name, text, is_file: true })? })
}

pub(super) fn parse(layer: Layer) -> Result<ProjectFile, Fault> {
    let leaves = check(&layer, false, &mut Vec::new())?;
    if let Some((key, place, _)) = leaves.iter().find(|(key, _, _)| !PROJECT_KEYS.contains(&key.as_str())) {
        return Err(Fault::new("TB-CONFIG-006", exit::CONFIG, format!("{place}: a project must not set `{key}`"))
            .hint(format!("it may set: {}", PROJECT_KEYS.join(", ")))
            .hint("move the key to your own configuration: tinkerbell config path"));
    }
    let config = toml::from_str(&layer.text).map_err(|error| mistake(&layer, error.span(), error.message(), None))?;
    Ok(ProjectFile { config, part: None })
}

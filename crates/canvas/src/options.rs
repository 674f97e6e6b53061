//! What the roof tells the canvas when it builds it.
//!
//! Plain values; nothing here reads a file or the environment. Invariant: the defaults never copy
//! an ignored file anywhere.

use std::path::PathBuf;

/// What checkpoints do with ignored files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IgnoredFiles {
    /// Leave them out: undo does not touch them.
    #[default]
    Skip,
    /// Record them: undo brings them back, too. They are never committed.
    Keep,
}

/// The canvas' options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Holds `work/<task>/tree` and `checkpoints/<repository>.git`.
    pub data_dir: PathBuf,
    /// What checkpoints do with ignored files.
    pub ignored: IgnoredFiles,
    /// Ignored paths that are copied from the user's tree into a new worktree where they exist,
    /// by reference where the file system can.
    pub carry: Vec<String>,
    /// Whether the user's and the system's git configuration count (name, line ends, ignore file),
    /// beside the repository's own.
    pub home_config: bool,
    /// The ignore file used when `core.excludesFile` names none, e.g. `~/.config/git/ignore`.
    pub excludes: Option<PathBuf>,
}

impl Options {
    /// Defaults for a data directory.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), ignored: IgnoredFiles::Skip, carry: Vec::new(), home_config: true, excludes: None }
    }
}

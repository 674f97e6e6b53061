//! The words of the engine: edits, hunks, and the view that they apply to.
//!
//! Nothing here decides. Invariant: a path in an edit is relative, `/`-separated and clean, because
//! only [`super::relative`] makes one.

use std::collections::BTreeMap;

/// What stands at a path before the edits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Nothing.
    Missing,
    /// A regular file with these bytes.
    File(Vec<u8>),
    /// A directory.
    Directory,
    /// Something that is never edited; the text names it: `a symbolic link to ../x`.
    Other(String),
}

/// Everything that the edits may look at, by path. A path that is not in it counts as missing.
pub type View = BTreeMap<String, Entry>;

/// One edit of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Replaces the only place where `old` stands.
    Replace {
        /// The file.
        path: String,
        /// The text as it stands.
        old: String,
        /// The text to stand there.
        new: String,
        /// Picks the nearest place where several match; 1 is the first line.
        near_line: Option<usize>,
    },
    /// Writes a whole file.
    Write {
        /// The file.
        path: String,
        /// Its whole content.
        content: String,
        /// Whether a file may stand there; the caller has compared hashes.
        over: bool,
    },
    /// Adds a file that does not exist.
    Add {
        /// The file.
        path: String,
        /// Its whole content.
        content: String,
    },
    /// Deletes a file.
    Delete {
        /// The file.
        path: String,
    },
    /// Changes a file hunk by hunk, and moves it if asked.
    Update {
        /// The file.
        path: String,
        /// Where it goes.
        move_to: Option<String>,
        /// The hunks, from top to bottom.
        hunks: Vec<Hunk>,
    },
}

impl Edit {
    /// The paths that the edit reads or writes.
    #[must_use]
    pub fn paths(&self) -> Vec<&str> {
        match self {
            Self::Replace { path, .. } | Self::Write { path, .. } | Self::Add { path, .. } | Self::Delete { path } => vec![path],
            Self::Update { path, move_to, .. } => std::iter::once(path.as_str()).chain(move_to.as_deref()).collect(),
        }
    }

    /// Whether the edit changes text that stood there before, so that it must have been read.
    #[must_use]
    pub const fn needs_reading(&self) -> bool {
        match self {
            Self::Replace { .. } => true,
            Self::Update { hunks, .. } => !hunks.is_empty(),
            Self::Write { .. } | Self::Add { .. } | Self::Delete { .. } => false,
        }
    }

    /// The same edit with each path put through `f`.
    ///
    /// # Errors
    /// The first error that `f` gives.
    pub fn try_map_paths<E>(mut self, f: impl Fn(&str) -> Result<String, E>) -> Result<Self, E> {
        match &mut self {
            Self::Replace { path, .. } | Self::Write { path, .. } | Self::Add { path, .. } | Self::Delete { path } => *path = f(path)?,
            Self::Update { path, move_to, .. } => {
                *path = f(path)?;
                if let Some(to) = move_to {
                    *to = f(to)?;
                }
            }
        }
        Ok(self)
    }
}

/// One place of change in a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hunk {
    /// Lines that stand above the place, outermost first.
    pub anchors: Vec<String>,
    /// A line number that the model gave, 1 for the first line; a hint among equals only.
    pub near_line: Option<usize>,
    /// The lines.
    pub lines: Vec<HunkLine>,
    /// Whether the last line must be the file's last.
    pub at_end: bool,
}

impl Hunk {
    /// The lines that must stand in the file.
    pub fn before(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().filter(|l| l.sign != Sign::Add).map(|l| l.text.as_str())
    }
}

/// A line of a hunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HunkLine {
    /// What happens to it.
    pub sign: Sign,
    /// Its text, without line end.
    pub text: String,
}

/// What happens to a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Stays.
    Keep,
    /// Goes.
    Remove,
    /// Comes.
    Add,
}

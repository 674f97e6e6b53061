//! How large a tree may be: what is listed of it is held in memory, several times over.
//!
//! A few kilobytes of nested trees, or a command of three lines, make a list of paths that no machine holds.
//! Invariant: no list of a tree's paths grows beyond these numbers, wherever the tree comes from.

use crate::error::{Error, Result};
use crate::layer::printed;
use gix::bstr::BStr;
use std::path::PathBuf;

/// Deepest nesting that is followed; on disk each level holds a descriptor open.
pub const DEPTH: usize = 200;
/// Longest path from the root, in bytes: one that is longer no program can name.
pub const PATH_BYTES: usize = 4096;
/// Most paths of one tree: three times those of the largest that people work in with git alone.
pub const ENTRIES: usize = 1_000_000;
/// Most bytes of all paths of one tree.
const TOTAL_BYTES: usize = 64 << 20;

/// What is left for one list of paths.
#[derive(Debug, Clone)]
pub struct Budget {
    entries: usize,
    bytes: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { entries: ENTRIES, bytes: TOTAL_BYTES }
    }
}

impl Budget {
    /// Takes what one path costs.
    ///
    /// # Errors
    /// When it is too long or too deep itself, or nothing is left.
    pub fn take(&mut self, path: &BStr) -> Result<()> {
        if path.len() > PATH_BYTES {
            return Err(too_much(path, format!("its path is longer than {PATH_BYTES} bytes")));
        }
        if path.iter().filter(|byte| **byte == b'/').count() > DEPTH {
            return Err(too_deep(path));
        }
        match (self.entries.checked_sub(1), self.bytes.checked_sub(path.len())) {
            (Some(entries), Some(bytes)) => *self = Self { entries, bytes },
            (None, _) => return Err(too_much(path, format!("the tree has more than {ENTRIES} files and directories"))),
            (_, None) => return Err(too_much(path, format!("the paths of the tree are more than {} MiB", TOTAL_BYTES >> 20))),
        }
        Ok(())
    }
}

/// The fault of what is nested too deep.
pub fn too_deep(path: &BStr) -> Error {
    too_much(path, format!("nested deeper than {DEPTH} directories"))
}

/// A tree that passes a limit, with a path that a person can read.
pub fn too_much(path: &BStr, why: impl Into<String>) -> Error {
    Error::TooMuch(PathBuf::from(printed(path)), why.into())
}

#[cfg(test)]
#[test]
fn a_list_ends_at_each_limit() {
    let take = |budget: &mut Budget, path: &str| budget.take(BStr::new(path));
    let mut budget = Budget { entries: 3, bytes: 10_000 };
    assert!(take(&mut budget, &"a".repeat(PATH_BYTES)).is_ok());
    assert!(take(&mut budget, &"a".repeat(PATH_BYTES + 1)).is_err());
    assert!(take(&mut budget, &"a/".repeat(DEPTH)).is_ok());
    assert!(take(&mut budget, &"a/".repeat(DEPTH + 1)).is_err());
    assert!(take(&mut budget, "b").is_ok());
    assert!(take(&mut budget, "c").is_err());
    let mut budget = Budget { entries: 3, bytes: 5 };
    assert!(take(&mut budget, "abcd").is_ok());
    assert!(take(&mut budget, "ab").is_err());
    let text = take(&mut budget, &"x".repeat(60_000)).unwrap_err().to_string();
    assert!(text.len() < 1000, "{}", text.len());
}

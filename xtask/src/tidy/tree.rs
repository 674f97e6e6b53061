//! Reads the project's files: what git tracks, and what it would track if one said `git add`.
//!
//! The only part of tidy that touches the disk. Without git (an unpacked archive) it walks the
//! folders itself and leaves out build outputs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::File;
use crate::shell;

/// Files above this size are data, not text of ours; the laws do not look into them.
const TEXT_BYTES: u64 = 4 << 20;

/// Reads all files of the tree, ordered by path.
///
/// # Errors
/// A folder or file cannot be read.
pub fn read(root: &Path) -> Result<Vec<File>> {
    let mut paths = match shell::quiet("git", &["ls-files", "-z", "--cached", "--others", "--exclude-standard"]) {
        Some(list) if !list.is_empty() => list.split_terminator('\0').map(str::to_owned).collect(),
        _ => {
            let mut found = Vec::new();
            walk(root, "", &mut found)?;
            found
        }
    };
    paths.sort();
    paths.dedup();
    let mut files = Vec::new();
    for path in paths {
        files.extend(load(root, path)?);
    }
    Ok(files)
}

/// Reads one file; `None` for links, data, and files that git tracks but the developer has deleted.
fn load(root: &Path, path: String) -> Result<Option<File>> {
    let full = root.join(&path);
    let Ok(kind) = fs::symlink_metadata(&full) else { return Ok(None) };
    if !kind.is_file() || kind.len() > TEXT_BYTES {
        return Ok(None);
    }
    let bytes = fs::read(&full).with_context(|| format!("cannot read {}", full.display()))?;
    Ok(Some(File { path, text: String::from_utf8_lossy(&bytes).into_owned() }))
}

fn walk(root: &Path, below: &str, found: &mut Vec<String>) -> Result<()> {
    let folder = root.join(below);
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if matches!(name.as_str(), "target" | ".git") {
            continue;
        }
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        if entry.file_type()?.is_dir() {
            walk(root, &path, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{load, walk};

    #[test]
    fn the_walk_leaves_out_build_outputs_and_deleted_files_are_no_error() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a.rs", "target/x.rs", ".git/config", "b/c.md"] {
            let full = dir.path().join(path);
            std::fs::create_dir_all(full.parent().unwrap()).unwrap();
            std::fs::write(full, "text").unwrap();
        }
        let mut found = Vec::new();
        walk(dir.path(), "", &mut found).unwrap();
        found.sort();
        assert_eq!(found, ["a.rs", "b/c.md"]);
        assert!(load(dir.path(), "gone.rs".into()).unwrap().is_none());
        assert_eq!(load(dir.path(), "a.rs".into()).unwrap().unwrap().text, "text");
    }
}

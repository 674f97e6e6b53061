//! Ignored things that a task needs and a new worktree lacks: `node_modules`, `.venv`.
//!
//! Copied once, when the worktree is made, by reference where the file system can. Invariant: the
//! user's copy is only read, and a link is copied as a link.

use crate::error::{Error, Result};
use std::path::Path;

/// Most files that are copied for one name.
const FILES: usize = 200_000;

/// Copies each path that exists in the user's tree and not in the task's; tells what it did.
pub fn carry(paths: &[String], from: &Path, to: &Path) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for path in paths {
        let inside = Path::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_)));
        let (source, target) = (from.join(path), to.join(path));
        if !inside || source.symlink_metadata().is_err() || target.symlink_metadata().is_ok() {
            continue;
        }
        let mut left = FILES;
        copy(&source, &target, &mut left)?;
        notes.push(if left == 0 {
            format!("{path} was carried into the task's tree only in part: it has more than {FILES} files")
        } else {
            format!("{path} was carried into the task's tree")
        });
    }
    Ok(notes)
}

fn copy(from: &Path, to: &Path, left: &mut usize) -> Result<()> {
    if *left == 0 {
        return Ok(());
    }
    *left -= 1;
    let meta = from.symlink_metadata().map_err(Error::io("stat", from))?;
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent).map_err(Error::io("make directory", parent))?;
    }
    if meta.is_symlink() {
        let target = std::fs::read_link(from).map_err(Error::io("read link", from))?;
        return std::os::unix::fs::symlink(target, to).map_err(Error::io("write link", to));
    }
    if meta.is_dir() {
        std::fs::create_dir_all(to).map_err(Error::io("make directory", to))?;
        for entry in std::fs::read_dir(from).map_err(Error::io("list", from))? {
            let entry = entry.map_err(Error::io("list", from))?;
            copy(&entry.path(), &to.join(entry.file_name()), left)?;
        }
        return Ok(());
    }
    if !meta.is_file() {
        return Ok(());
    }
    // The system's copy shares the blocks where the file system can.
    std::fs::copy(from, to).map(drop).map_err(Error::io("copy", from))
}

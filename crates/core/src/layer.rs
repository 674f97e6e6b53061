//! Layers: where a command in an overlay workspace writes, until the canvas takes it over.
//!
//! Only names and places, shared by who makes a layer and who applies it; no I/O. A layer stands
//! beside the task's tree, on the same file system, so that what was written can be moved instead of
//! copied. Invariant: a layer without the mark [`ENDED`] may still be written to, and is only read.

use crate::words::{Seq, Workspace};
use std::path::PathBuf;

/// What the command wrote, as overlayfs keeps it: files, directories, whiteouts.
pub const UPPER: &str = "up";
/// Room that overlayfs asks for.
pub const WORK: &str = "work";
/// An empty file made just before the start: what changed in the tree later, somebody else changed.
pub const START: &str = "start";
/// An empty file: no process of the command is left.
pub const ENDED: &str = "ended";
/// An empty file: the command is the gate's check, and only ignored files of it count.
pub const CHECK: &str = "check";

/// The directory of a task's layers; `None` for a tree that has no directory above it.
#[must_use]
pub fn home(workspace: &Workspace) -> Option<PathBuf> {
    Some(workspace.tree.parent()?.join("layers"))
}

/// The layer of the command that an effect starts.
#[must_use]
pub fn place(workspace: &Workspace, run: Seq) -> Option<PathBuf> {
    Some(home(workspace)?.join(run.to_string()))
}

/// The list of bulky folders that the newest checkpoint saw: paths in the tree, each ended by NUL.
/// Where one still exists, commands write it directly.
#[must_use]
pub fn bulky_list(workspace: &Workspace) -> Option<PathBuf> {
    Some(workspace.tree.parent()?.join("bulky"))
}

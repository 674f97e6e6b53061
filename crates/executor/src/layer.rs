//! A command's layer as the executor handles it: made before the start, closed after the end.
//!
//! What is in it is the canvas' to judge. Invariant: a layer is closed only when no process of its
//! command is left, and forgotten only when it was applied.

use crate::error::Error;
use std::path::{Path, PathBuf};
use tinkerbell_core::layer::{CHECK, ENDED, START, UPPER, WORK, bulky_list, place};
use tinkerbell_core::port::{self, ExecSpec};

/// How the step is named at which a layer could not be laid over the worktree.
pub(crate) const STEP: &str = "lay a layer over";

/// Makes an empty layer for a command that has not begun, whatever an earlier try left there.
///
/// # Errors
/// When the directories can not be made.
pub fn make(spec: &ExecSpec) -> Result<PathBuf, Error> {
    let dir = at(spec)?;
    crate::host::remove_tree(&dir).map_err(Error::files(&dir))?;
    for part in [UPPER, WORK] {
        crate::host::make_dir(&dir.join(part))?;
    }
    let mark = |name: &str| std::fs::write(dir.join(name), "").map_err(Error::files(dir.join(name)));
    if is_check(spec) {
        mark(CHECK)?;
    }
    // The upper directory's mode becomes that of the tree as the command sees it.
    let mode = std::fs::metadata(&spec.workspace.tree).map_err(Error::files(&spec.workspace.tree))?.permissions();
    std::fs::set_permissions(dir.join(UPPER), mode).map_err(Error::files(&dir))?;
    mark(START)?;
    Ok(dir)
}

/// Where a command's layer stands or would stand, links resolved.
///
/// # Errors
/// When the workspace is not there.
pub fn at(spec: &ExecSpec) -> Result<PathBuf, Error> {
    let tree = spec.workspace.tree.canonicalize().map_err(Error::files(&spec.workspace.tree))?;
    let workspace = tinkerbell_core::words::Workspace { tree, ..spec.workspace.clone() };
    place(&workspace, spec.run.seq).ok_or_else(|| Error::Workdir(spec.workdir.clone()))
}

/// Removes what a try left there that could not lay its layer: a command that writes directly has none,
/// and nobody shall take it for one.
///
/// # Errors
/// When it can not be removed.
pub fn unmake(spec: &ExecSpec) -> Result<(), Error> {
    let dir = at(spec)?;
    crate::host::remove_tree(&dir).map_err(Error::files(&dir))
}

/// Whether the command is the gate's check.
#[must_use]
pub fn is_check(spec: &ExecSpec) -> bool {
    spec.env.iter().any(|(key, _)| key == port::CHECK)
}

/// Says that nobody writes to the layer any more.
///
/// # Errors
/// When the mark can not be made.
pub fn close(layer: &Path) -> Result<(), Error> {
    match std::fs::write(layer.join(ENDED), "") {
        // Forgotten, or removed with its task.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(Error::files(layer.join(ENDED))),
    }
}

/// Removes a layer that was applied; another one stays.
///
/// # Errors
/// When it can not be removed.
pub fn forget(layer: &Path) -> Result<(), Error> {
    if !layer.join(ENDED).exists() || layer.join(UPPER).exists() {
        return Ok(());
    }
    crate::host::remove_tree(layer).map_err(Error::files(layer))
}

/// The bulky folders of the newest checkpoint that are there now, by absolute path. None for a check:
/// they would be mount points, which nobody can remove, and a check that begins with `rm -rf target`
/// must not fail for that.
#[must_use]
pub fn bulky(spec: &ExecSpec, tree: &Path) -> Vec<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    // Mounts cost, and a tree with more than this many such folders has them all alike.
    const MOST: usize = 64;
    if is_check(spec) {
        return Vec::new();
    }
    let list = bulky_list(&spec.workspace).and_then(|list| std::fs::read(list).ok()).unwrap_or_default();
    let names = list.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(|name| Path::new(std::ffi::OsStr::from_bytes(name)));
    let inside = |path: &&Path| path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    let is_dir = |path: &PathBuf| path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
    names.filter(inside).map(|name| tree.join(name)).filter(is_dir).take(MOST).collect()
}

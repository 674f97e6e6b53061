//! Bringing a tree on disk to a checkpoint: compare two trees, write the difference.
//!
//! It writes only below the task's own tree. Invariant: what neither checkpoint records stays as it
//! is, ignored files first of all.

use crate::beneath::{FileMode, Root};
use crate::error::{Error, Result};
use crate::ignored::{Ignored, Standing, is_pattern_file};
use crate::store::{Content, Store};
use crate::trees::{self, Change, Leaf, Leaves, shown};
use gix::bstr::{BStr, BString, ByteSlice};
use gix::objs::tree::EntryKind;
use rustix::fs::FileType;
use std::collections::BTreeSet;

/// Most paths that a failed restore names.
const NAMED: usize = 10;

/// Writes what stands in `to` and not in `from`, and removes what stands in `from` only. `ignored` is
/// `None` where checkpoints record ignored files, too: then nothing is left alone.
///
/// # Errors
/// When something can not be read or written; the tree is then between the two, and running it
/// again from a new checkpoint finishes it.
pub fn bring(root: &Root, store: &Store, from: &Content, to: &Content, ignored: Option<&Ignored>) -> Result<()> {
    let changes = trees::diff(&store.repo, from.files, to.files)?;
    // Parents first: a directory that lets nobody in would refuse the writes below it. Its mode is
    // set again at the end.
    for (path, _) in from.dirs.iter().filter(|(_, bits)| **bits & 0o700 != 0o700) {
        root.chmod(path.as_bstr(), 0o700)?;
    }
    for change in &changes {
        if let Some(leaf) = change.new {
            put(root, store, change.path.as_bstr(), leaf, FileMode::Exactly(to.modes.of(change.path.as_bstr(), leaf.kind)))?;
        }
    }
    // With these gone the ignore files are those of the target, and what they name is left alone.
    let (files, others): (Vec<&Change>, Vec<&Change>) =
        changes.iter().filter(|change| change.new.is_none()).partition(|change| is_pattern_file(change.path.as_bstr()));
    for change in &files {
        root.remove(change.path.as_bstr())?;
    }
    let kept = if files.is_empty() { Leaves::new() } else { trees::flatten(&store.repo, to.files)? };
    let mut standing = ignored.map(|ignored| Standing::new(root, ignored));
    for change in files {
        let path = change.path.as_bstr();
        if is_new_dir(to, &kept, path) && !standing.as_mut().map_or(Ok(false), |standing| standing.holds(path))? {
            // Whatever it hid has come since, too, and without the file would be content from now on.
            root.remove_dir(crate::beneath::split(path).0.as_bstr())?;
        }
        prune(root, path, to)?;
    }
    for change in others {
        let left_alone = standing.as_mut().filter(|_| !from.ignored.contains(&change.path));
        if left_alone.map_or(Ok(false), |standing| standing.holds(change.path.as_bstr()))? {
            continue;
        }
        root.remove(change.path.as_bstr())?;
        prune(root, change.path.as_bstr(), to)?;
    }
    modes(root, store, from, to)?;
    dirs(root, from, to)
}

/// Whether a file's directory is nothing that the target knows.
fn is_new_dir(to: &Content, kept: &Leaves, path: &BStr) -> bool {
    let dir = crate::beneath::split(path).0;
    let below = BString::from([dir, b"/"].concat());
    let has = |path: Option<&BString>| path.is_some_and(|path| path.starts_with(&below));
    !dir.is_empty()
        && !to.dirs.contains_key(dir.as_bstr())
        && !has(to.dirs.range(below.clone()..).next().map(|(path, _)| path))
        && !has(kept.range(below.clone()..).next().map(|(path, _)| path))
}

/// Writes one leaf; a submodule's commit is nothing on disk.
pub fn put(root: &Root, store: &Store, path: &BStr, leaf: Leaf, mode: FileMode) -> Result<()> {
    match leaf.kind {
        EntryKind::Link => root.write_link(path, &store.read(leaf.id)?),
        EntryKind::Blob | EntryKind::BlobExecutable => {
            let bytes = store.read(leaf.id)?;
            root.write(path, &mut bytes.as_slice(), mode)
        }
        EntryKind::Tree | EntryKind::Commit => Ok(()),
    }
}

/// Removes the directories above a removed file that hold nothing, unless the target has them.
fn prune(root: &Root, path: &BStr, to: &Content) -> Result<()> {
    let mut at = crate::beneath::split(path).0.as_bstr();
    while !at.is_empty() && !to.dirs.contains_key(at) && root.remove_empty_dir(at)? {
        at = crate::beneath::split(at).0.as_bstr();
    }
    Ok(())
}

/// Sets the modes of files whose content is the same in both but whose bits are not.
fn modes(root: &Root, store: &Store, from: &Content, to: &Content) -> Result<()> {
    let same_usual = from.modes.plain == to.modes.plain && from.modes.executable == to.modes.executable;
    if same_usual && from.modes.odd == to.modes.odd {
        return Ok(());
    }
    let was = trees::flatten(&store.repo, from.files)?;
    for (path, leaf) in trees::flatten(&store.repo, to.files)? {
        let file = matches!(leaf.kind, EntryKind::Blob | EntryKind::BlobExecutable);
        let bits = to.modes.of(path.as_bstr(), leaf.kind);
        if file && was.get(&path) == Some(&leaf) && from.modes.of(path.as_bstr(), leaf.kind) != bits {
            root.chmod(path.as_bstr(), bits)?;
        }
    }
    Ok(())
}

/// Makes the target's bare directories, removes the others, and sets directory modes last, because
/// a read-only directory would refuse the writes before.
fn dirs(root: &Root, from: &Content, to: &Content) -> Result<()> {
    for path in from.dirs.keys().rev().filter(|path| !to.dirs.contains_key(*path)) {
        if root.remove_empty_dir(path.as_bstr())? {
            prune(root, path.as_bstr(), to)?;
        } else if root.stat(path.as_bstr())?.is_some_and(|stat| crate::beneath::kind_of(&stat) == FileType::Directory) {
            root.chmod(path.as_bstr(), to.modes.dir)?;
        }
    }
    for path in to.dirs.keys() {
        root.make_dir(path.as_bstr())?;
    }
    let made: BTreeSet<BString> = implied(to);
    for path in made.iter().rev() {
        root.chmod(path.as_bstr(), to.dirs.get(path).copied().unwrap_or(to.modes.dir))?;
    }
    Ok(())
}

/// The listed directories and those above them.
fn implied(to: &Content) -> BTreeSet<BString> {
    let mut all = BTreeSet::new();
    for path in to.dirs.keys() {
        let mut at: &BStr = path.as_bstr();
        while !at.is_empty() && all.insert(BString::from(at.to_vec())) {
            at = crate::beneath::split(at).0.as_bstr();
        }
    }
    all
}

/// Fails unless the tree now is what was asked for. What `from` did not record may be left over:
/// files that its ignore patterns named and the target's do not, and directories that hold such.
pub fn settled(store: &Store, from: &Content, want: &Content, have: &Content) -> Result<()> {
    if want == have {
        return Ok(());
    }
    let mut wrong: Vec<String> = Vec::new();
    let recorded = trees::flatten(&store.repo, from.files)?;
    for change in trees::diff(&store.repo, want.files, have.files)? {
        if change.old.is_none() && !recorded.contains_key(&change.path) {
            continue;
        }
        wrong.push(shown(change.path.as_bstr()));
    }
    for (path, leaf) in trees::flatten(&store.repo, want.files)? {
        let file = matches!(leaf.kind, EntryKind::Blob | EntryKind::BlobExecutable);
        if file && want.modes.of(path.as_bstr(), leaf.kind) != have.modes.of(path.as_bstr(), leaf.kind) {
            wrong.push(shown(path.as_bstr()));
        }
    }
    wrong.truncate(NAMED);
    if wrong.is_empty() { Ok(()) } else { Err(Error::Unsettled(wrong.join(", "))) }
}

//! Micro-commits: a checkpoint's change on top of the base, as git would store it.
//!
//! It writes the user's objects and the task's branch. Invariant: the same checkpoint always gives
//! the same tree, and the same request the same commit, so a redo after a crash changes nothing.

use crate::desk::Desk;
use crate::error::{Error, Result};
use crate::lineends::{CONVERT_BYTES, LineEnds};
use crate::store::{Content, Pin, git_id, object_id};
use crate::trees::{self, Leaf, Leaves};
use crate::user::{self, Move, NewCommit};
use crate::worktree;
use gix::ObjectId;
use gix::bstr::{BStr, BString, ByteSlice};
use gix::objs::tree::EntryKind;
use std::collections::BTreeSet;
use tinkerbell_core::port::MicroCommit;
use tinkerbell_core::words::GitId;

/// Commits a checkpoint on the task's branch.
///
/// # Errors
/// When the branch stands neither at the parent nor at the very commit.
pub fn commit(desk: &mut Desk<'_>, new: &MicroCommit) -> Result<GitId> {
    let tree = tree_of(desk, &new.tree)?;
    let parent = object_id(&new.parent)?;
    let id = user::write_commit(&desk.user, &NewCommit { tree, parents: vec![parent], message: &new.message, time_s: new.time_s })?;
    if user::tip(&desk.user, &desk.ws.branch)? != Some(id) {
        let why = format!("tinkerbell: {}", new.message.lines().next().unwrap_or_default());
        user::move_ref(&desk.user, &Move { name: &desk.ws.branch, from: Some(parent), to: Some(id), why: &why, time_s: new.time_s })?;
    }
    if desk.ws.git_dir.is_dir() {
        worktree::refresh_index(&desk.user, &desk.ws, tree)?;
    }
    git_id(id)
}

/// The tree that git would store for a checkpoint: the base's tree plus what changed since the
/// first checkpoint, with git's line ends. Ignored files and nested repositories are no part of it.
pub fn tree_of(desk: &mut Desk<'_>, checkpoint: &GitId) -> Result<ObjectId> {
    let anchor = desk.anchor()?;
    let lost = || Error::NoCheckpoint(checkpoint.to_string(), "the task has no first checkpoint".to_owned());
    let first = desk.store.get(&git_id(desk.store.pinned(desk.ws.task, Pin::First)?.ok_or_else(lost)?)?)?;
    let content = desk.store.get(checkpoint)?;
    let changes = trees::diff(&desk.store.repo, first.files, content.files)?;
    let files = trees::flatten(&desk.store.repo, content.files)?;
    let left_out = LeftOut::of(&anchor.leaves, &files, &content);
    let mut ends = LineEnds::new(&desk.user, &desk.store.repo, &files)?;
    let mut edits: Vec<(BString, Option<Leaf>)> = Vec::new();
    for change in changes {
        if left_out.has(change.path.as_bstr()) {
            continue;
        }
        let before = anchor.leaves.get(&change.path).copied();
        let leaf = match change.new {
            Some(leaf) => Some(stored(desk, &mut ends, (change.path.as_bstr(), leaf), before)?),
            None => None,
        };
        edits.push((change.path, leaf));
    }
    let base = user::tree_of(&desk.user, anchor.commit)?;
    trees::apply(&desk.user, base, &edits)
}

/// A raw leaf in the form that git stores, written to the user's objects.
fn stored(desk: &Desk<'_>, ends: &mut LineEnds<'_>, (path, leaf): (&BStr, Leaf), before: Option<Leaf>) -> Result<Leaf> {
    if leaf.kind == EntryKind::Commit {
        return Ok(leaf);
    }
    let mut bytes = desk.store.read(leaf.id)?;
    let text = matches!(leaf.kind, EntryKind::Blob | EntryKind::BlobExecutable) && bytes.len() as u64 <= CONVERT_BYTES;
    if text {
        bytes = ends.stored(path, &bytes, before.map(|leaf| leaf.id))?;
    }
    let id = desk.user.write_blob(&bytes).map_err(Error::git("write object"))?.detach();
    Ok(Leaf { kind: leaf.kind, id })
}

/// What a checkpoint records and git must not.
struct LeftOut<'a> {
    base: &'a Leaves,
    content: &'a Content,
    roots: BTreeSet<BString>,
}

impl<'a> LeftOut<'a> {
    fn of(base: &'a Leaves, files: &Leaves, content: &'a Content) -> Self {
        let mut roots: BTreeSet<BString> =
            base.iter().filter(|(_, leaf)| leaf.kind == EntryKind::Commit).map(|(path, _)| path.clone()).collect();
        for path in files.keys().chain(content.dirs.keys()) {
            let parts: Vec<&[u8]> = path.split(|b| *b == b'/').collect();
            if let Some(at) = parts.iter().position(|part| part.eq_ignore_ascii_case(b".git")) {
                roots.insert(parts.iter().take(at).copied().collect::<Vec<_>>().join(b"/".as_slice()).into());
            }
        }
        Self { base, content, roots }
    }

    fn has(&self, path: &BStr) -> bool {
        if path.split(|b| *b == b'/').any(|part| part.eq_ignore_ascii_case(b".git")) {
            return true;
        }
        let mut at = path;
        loop {
            if self.roots.contains(at) && !at.is_empty() {
                return true;
            }
            if at.is_empty() {
                break;
            }
            at = crate::beneath::split(at).0.as_bstr();
        }
        self.content.ignored.contains(path) && !self.base.contains_key(path)
    }
}

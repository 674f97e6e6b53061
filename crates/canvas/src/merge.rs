//! Three-way merge of whole trees, path by path, lines within files.
//!
//! No renames are guessed and no merge driver is run: what is not plainly mergeable is named as a
//! conflict. Invariant: a merge with a conflict writes no tree.

use crate::error::{Error, Result};
use crate::trees::{self, Leaf, Leaves};
use gix::ObjectId;
use gix::bstr::{BStr, BString, ByteSlice};
use gix::merge::blob::Resolution;
use gix::merge::blob::builtin_driver::text;
use gix::objs::tree::EntryKind;
use std::collections::BTreeSet;

/// Files beyond this size are not merged by line.
const MERGE_BYTES: usize = 16 << 20;

/// How a merge went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merged {
    /// The merged tree, written.
    Tree(ObjectId),
    /// Where both sides changed the same.
    Conflicts(Vec<BString>),
}

/// Merges what `theirs` changed since `base` into `ours`.
pub fn merge(repo: &gix::Repository, base: ObjectId, ours: ObjectId, theirs: ObjectId) -> Result<Merged> {
    let mut result = trees::flatten(repo, ours)?;
    let mut edits = Vec::new();
    let mut conflicts = BTreeSet::new();
    for change in trees::diff(repo, base, theirs)? {
        let our = result.get(&change.path).copied();
        match leaf(repo, change.old, our, change.new)? {
            Some(merged) if merged != our => edits.push((change.path, merged)),
            Some(_) => {}
            None => {
                conflicts.insert(change.path);
            }
        }
    }
    for (path, leaf) in &edits {
        match leaf {
            Some(leaf) => result.insert(path.clone(), *leaf),
            None => result.remove(path),
        };
    }
    conflicts.extend(edits.iter().filter(|edit| edit.1.is_some() && clashes(&result, edit.0.as_bstr())).map(|edit| edit.0.clone()));
    if !conflicts.is_empty() {
        return Ok(Merged::Conflicts(conflicts.into_iter().collect()));
    }
    Ok(Merged::Tree(trees::apply(repo, ours, &edits)?))
}

/// One path: the merged leaf, or `None` for a conflict.
#[allow(clippy::option_option, reason = "the inner option is a missing file, the outer one a conflict")]
fn leaf(repo: &gix::Repository, base: Option<Leaf>, ours: Option<Leaf>, theirs: Option<Leaf>) -> Result<Option<Option<Leaf>>> {
    if ours == base || ours == theirs {
        return Ok(Some(theirs));
    }
    if base == theirs {
        return Ok(Some(ours));
    }
    let (Some(base), Some(ours), Some(theirs)) = (base, ours, theirs) else { return Ok(None) };
    let file = |leaf: Leaf| matches!(leaf.kind, EntryKind::Blob | EntryKind::BlobExecutable);
    if !(file(base) && file(ours) && file(theirs)) {
        return Ok(None);
    }
    let kind = if ours.kind == base.kind { theirs.kind } else { ours.kind };
    let id = if ours.id == base.id || ours.id == theirs.id {
        Some(theirs.id)
    } else if theirs.id == base.id {
        Some(ours.id)
    } else {
        lines(repo, base.id, ours.id, theirs.id)?
    };
    Ok(id.map(|id| Some(Leaf { kind, id })))
}

/// Merges by line; `None` for a conflict or for binary files.
fn lines(repo: &gix::Repository, base: ObjectId, ours: ObjectId, theirs: ObjectId) -> Result<Option<ObjectId>> {
    let read = |id: ObjectId| Ok::<_, Error>(repo.find_blob(id).map_err(Error::git("read object"))?.take_data());
    let (base, ours, theirs) = (read(base)?, read(ours)?, read(theirs)?);
    let unfit = |bytes: &Vec<u8>| bytes.len() > MERGE_BYTES || bytes.contains(&0);
    if [&base, &ours, &theirs].into_iter().any(unfit) {
        return Ok(None);
    }
    let mut out = Vec::new();
    let mut input = gix::diff::blob::InternedInput::new(&[][..], &[][..]);
    let resolution = text(&mut out, &mut input, text::Labels::default(), &ours, &base, &theirs, text::Options::default());
    if resolution != Resolution::Complete {
        return Ok(None);
    }
    Ok(Some(repo.write_blob(&out).map_err(Error::git("write object"))?.detach()))
}

/// Whether a path would be a file and a directory at once.
fn clashes(leaves: &Leaves, path: &BStr) -> bool {
    let mut above = crate::beneath::split(path).0.as_bstr();
    while !above.is_empty() {
        if leaves.contains_key(above) {
            return true;
        }
        above = crate::beneath::split(above).0.as_bstr();
    }
    let below = crate::ignored::join(path, b"");
    leaves.range(below.clone()..).next().is_some_and(|(next, _)| next.starts_with(&below))
}

//! Trees of git as plain values: flatten, build, compare, change.
//!
//! No disk tree and no references. Invariant: `build` of what `flatten` gave is the same object.

use crate::beneath;
use crate::budget::Budget;
use crate::error::{Error, Result};
use gix::ObjectId;
use gix::bstr::{BStr, BString, ByteSlice};
use gix::objs::tree::EntryKind;
use std::collections::{BTreeMap, BTreeSet};

/// A leaf of a tree: a file, a link, or a submodule's commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaf {
    /// Its kind; never a tree.
    pub kind: EntryKind,
    /// Its object.
    pub id: ObjectId,
}

/// All leaves of a tree by path.
pub type Leaves = BTreeMap<BString, Leaf>;

/// A path at which two trees differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub path: BString,
    /// What stood in the first tree.
    pub old: Option<Leaf>,
    /// What stands in the second one.
    pub new: Option<Leaf>,
}

type Level = BTreeMap<BString, (EntryKind, ObjectId)>;

fn level(repo: &gix::Repository, tree: ObjectId) -> Result<Level> {
    let object = repo.find_tree(tree).map_err(Error::git("read tree"))?;
    let mut out = Level::new();
    for entry in object.iter() {
        let entry = entry.map_err(Error::git("read tree"))?;
        out.insert(entry.filename().into(), (entry.mode().kind(), entry.object_id()));
    }
    Ok(out)
}

/// All leaves of a tree.
///
/// # Errors
/// When it can not be read, or passes a limit of [`Budget`].
pub fn flatten(repo: &gix::Repository, tree: ObjectId) -> Result<Leaves> {
    let empty = ObjectId::empty_tree(repo.object_hash());
    let mut leaves = Leaves::new();
    for change in diff(repo, empty, tree)? {
        if let Some(leaf) = change.new {
            leaves.insert(change.path, leaf);
        }
    }
    Ok(leaves)
}

/// Where two trees differ, in order of path; equal subtrees are not read.
///
/// # Errors
/// When they can not be read, or the paths that differ pass a limit of [`Budget`].
pub fn diff(repo: &gix::Repository, old: ObjectId, new: ObjectId) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    compare(repo, BStr::new(""), (Some(old), Some(new)), &mut (Budget::default(), &mut changes))?;
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(changes)
}

/// What a comparison may still list, and what it has found.
type Found<'a> = (Budget, &'a mut Vec<Change>);

fn compare(repo: &gix::Repository, at: &BStr, (old, new): (Option<ObjectId>, Option<ObjectId>), out: &mut Found<'_>) -> Result<()> {
    if old == new {
        return Ok(());
    }
    let empty = ObjectId::empty_tree(repo.object_hash());
    let read = |id: Option<ObjectId>| id.filter(|id| *id != empty).map_or_else(|| Ok(Level::new()), |id| level(repo, id));
    let (old, new) = (read(old)?, read(new)?);
    let names: BTreeSet<&BString> = old.keys().chain(new.keys()).collect();
    for name in names {
        let (was, is) = (old.get(name), new.get(name));
        if was == is {
            continue;
        }
        let path = crate::ignored::join(at, name);
        // Trees that hold themselves ten times over, ten levels deep, are ten small objects.
        out.0.take(path.as_bstr())?;
        let tree = |side: Option<&(EntryKind, ObjectId)>| side.filter(|s| s.0 == EntryKind::Tree).map(|s| s.1);
        let leaf = |side: Option<&(EntryKind, ObjectId)>| side.filter(|s| s.0 != EntryKind::Tree).map(|s| Leaf { kind: s.0, id: s.1 });
        if leaf(was) != leaf(is) {
            out.1.push(Change { path: path.clone(), old: leaf(was), new: leaf(is) });
        }
        compare(repo, path.as_bstr(), (tree(was), tree(is)), out)?;
    }
    Ok(())
}

/// Writes a tree with these leaves and gives its id; `write` stores one tree object.
pub fn build(leaves: &Leaves, write: &mut dyn FnMut(gix::objs::Tree) -> Result<ObjectId>) -> Result<ObjectId> {
    let mut levels: BTreeMap<BString, gix::objs::Tree> = BTreeMap::new();
    levels.insert(BString::default(), gix::objs::Tree::empty());
    for (path, leaf) in leaves {
        let (dir, name) = beneath::split(path.as_bstr());
        add_level(&mut levels, dir.as_bstr());
        push(&mut levels, dir.as_bstr(), (name.as_bstr(), leaf.kind, leaf.id));
    }
    // Deepest first: a parent needs its children's ids. A child's path is longer than its parent's.
    let mut order: Vec<BString> = levels.keys().cloned().collect();
    order.sort_by_key(|path| std::cmp::Reverse(path.len()));
    let mut root = ObjectId::empty_tree(gix::hash::Kind::Sha1);
    for path in order {
        let Some(mut tree) = levels.remove(&path) else { continue };
        tree.entries.sort();
        let id = write(tree)?;
        if path.is_empty() {
            root = id;
            continue;
        }
        let (dir, name) = beneath::split(path.as_bstr());
        push(&mut levels, dir.as_bstr(), (name.as_bstr(), EntryKind::Tree, id));
    }
    Ok(root)
}

fn add_level(levels: &mut BTreeMap<BString, gix::objs::Tree>, dir: &BStr) {
    let mut at = dir;
    while !at.is_empty() && !levels.contains_key(at) {
        levels.insert(at.into(), gix::objs::Tree::empty());
        at = beneath::split(at).0.as_bstr();
    }
}

fn push(levels: &mut BTreeMap<BString, gix::objs::Tree>, dir: &BStr, (name, kind, oid): (&BStr, EntryKind, ObjectId)) {
    if let Some(tree) = levels.get_mut(dir) {
        tree.entries.push(gix::objs::tree::Entry { mode: kind.into(), filename: name.into(), oid });
    }
}

/// A tree with some paths set or removed, written to `repo`.
///
/// # Errors
/// When a path is not one that git accepts, or the tree can not be written.
pub fn apply(repo: &gix::Repository, tree: ObjectId, changes: &[(BString, Option<Leaf>)]) -> Result<ObjectId> {
    if changes.is_empty() {
        return Ok(tree);
    }
    let mut editor = repo.edit_tree(tree).map_err(Error::git("edit tree"))?;
    // Removals first: a file may have become a directory, or the other way round.
    for (path, _) in changes.iter().filter(|c| c.1.is_none()) {
        editor.remove_leaf(path).map_err(Error::git("edit tree"))?;
    }
    for (path, leaf) in changes {
        if let Some(leaf) = leaf {
            editor.upsert(path, leaf.kind, leaf.id).map_err(Error::git("edit tree"))?;
        }
    }
    Ok(editor.write().map_err(Error::git("write tree"))?.detach())
}

/// A path for people and records: lossy where it is not UTF-8.
pub fn shown(path: &BStr) -> String {
    path.to_str_lossy().into_owned()
}

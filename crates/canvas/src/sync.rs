//! The user's working tree and index after a landing: only the landed paths, only where safe.
//!
//! A plan is made first and names every path where the user's own edits are in the way; only a plan
//! without such paths is carried out. Invariant: a byte that the user wrote and nobody recorded is
//! never overwritten or removed.

use crate::base::index_stat;
use crate::beneath::{self, FileMode, Root};
use crate::error::{Error, Result};
use crate::lineends::LineEnds;
use crate::trees::{Change, Leaf, Leaves, shown};
use gix::ObjectId;
use gix::bstr::{BStr, BString, ByteSlice};
use gix::index::entry::{Flags, Mode, Stage, Stat as IndexStat};
use gix::objs::tree::EntryKind;
use rustix::fs::{FileType, Stat};
use std::collections::BTreeSet;

/// What stands on disk at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disk {
    /// Nothing.
    Nothing,
    /// This, in the form that git stores.
    Leaf(Leaf),
    /// A directory or something that git has no word for.
    Other,
}

/// What to do at one path. The outer option: leave it; the inner one: remove it.
#[derive(Debug)]
struct Step {
    path: BString,
    disk: Option<Option<Leaf>>,
    index: Option<Option<Leaf>>,
    seen: Option<Stat>,
}

/// The user's side of a landing.
pub struct Desk<'a> {
    /// The user's repository, opened at the user's own worktree.
    pub repo: &'a gix::Repository,
    /// The user's tree.
    pub root: Root,
    /// The user's index, read under its lock.
    pub index: gix::index::File,
    /// Line ends by the attributes of the new tree.
    pub ends: LineEnds<'a>,
    /// Whether the file system has executable bits.
    pub modes: bool,
}

/// The two pairs of states that a path may move between: the branch's, and the task's own, which
/// holds where the task started from edits that the user has not committed.
pub struct Moves<'a> {
    /// What the branch changes.
    pub changes: &'a [Change],
    /// What the task started from.
    pub from: &'a Leaves,
    /// What the task made of it.
    pub to: &'a Leaves,
}

/// A plan, or the paths that stand in its way.
pub struct Plan {
    steps: Vec<Step>,
    /// Paths where the user's own edits are in the way.
    pub conflicts: Vec<BString>,
}

impl Desk<'_> {
    /// Plans the moves without changing anything.
    pub fn plan(&mut self, moves: &Moves<'_>) -> Result<Plan> {
        let mut plan = Plan { steps: Vec::new(), conflicts: Vec::new() };
        for change in moves.changes {
            match self.step(change, moves)? {
                Some(step) => plan.steps.push(step),
                None => plan.conflicts.push(change.path.clone()),
            }
        }
        let going: BTreeSet<&BString> = plan.steps.iter().filter(|step| step.disk == Some(None)).map(|step| &step.path).collect();
        for step in plan.steps.iter().filter(|step| matches!(step.disk, Some(Some(_)))) {
            if self.blocked(step.path.as_bstr(), &going)? {
                plan.conflicts.push(step.path.clone());
            }
        }
        Ok(plan)
    }

    /// One path's step; `None` when the user's own edits are in the way.
    fn step(&mut self, change: &Change, moves: &Moves<'_>) -> Result<Option<Step>> {
        let path = change.path.as_bstr();
        let submodule = |leaf: Option<Leaf>| leaf.is_some_and(|leaf| leaf.kind == EntryKind::Commit);
        if submodule(change.old) || submodule(change.new) || self.unmerged(path) {
            return Ok(None);
        }
        let (from, to) = (moves.from.get(path).copied(), moves.to.get(path).copied());
        let choose = |is: Option<Leaf>| {
            if is == change.old {
                Some(Some(change.new))
            } else if is == change.new || is == to {
                Some(None)
            } else if is == from {
                Some(Some(to))
            } else {
                None
            }
        };
        let entry = self.index.entry_by_path(path).filter(|entry| !entry.flags.contains(Flags::INTENT_TO_ADD));
        let sparse = entry.is_some_and(|entry| entry.flags.contains(Flags::SKIP_WORKTREE));
        let listed = entry.and_then(|entry| Some(Leaf { kind: entry.mode.to_tree_entry_mode()?.kind(), id: entry.id }));
        let Some(index) = choose(listed) else { return Ok(None) };
        let seen = self.root.stat(path)?;
        let disk = match self.disk(path, seen.as_ref(), change.old)? {
            Disk::Nothing if sparse => None,
            Disk::Nothing => match choose(None) {
                Some(disk) => disk,
                None => return Ok(None),
            },
            Disk::Leaf(leaf) => match choose(Some(leaf)) {
                Some(disk) => disk,
                None => return Ok(None),
            },
            // A directory may go with its files, or be in the way; `blocked` knows.
            Disk::Other if change.old.is_none() && change.new.is_some() => Some(change.new),
            Disk::Other if change.new.is_none() => None,
            Disk::Other => return Ok(None),
        };
        Ok(Some(Step { path: change.path.clone(), disk, index, seen }))
    }

    fn unmerged(&self, path: &BStr) -> bool {
        [Stage::Base, Stage::Ours, Stage::Theirs].into_iter().any(|stage| self.index.entry_by_path_and_stage(path, stage).is_some())
    }

    fn disk(&mut self, path: &BStr, stat: Option<&Stat>, before: Option<Leaf>) -> Result<Disk> {
        let Some(stat) = stat else { return Ok(Disk::Nothing) };
        let hash =
            |bytes: &[u8]| gix::objs::compute_hash(self.repo.object_hash(), gix::objs::Kind::Blob, bytes).map_err(Error::git("hash"));
        match beneath::kind_of(stat) {
            FileType::Symlink => Ok(Disk::Leaf(Leaf { kind: EntryKind::Link, id: hash(&self.root.link(path)?)? })),
            FileType::RegularFile => {
                let bytes = self.root.read(path)?;
                let stored = self.ends.stored(path, &bytes, before.map(|leaf| leaf.id))?;
                let kind = match before.map(|leaf| leaf.kind) {
                    Some(kind @ (EntryKind::Blob | EntryKind::BlobExecutable)) if !self.modes => kind,
                    _ if self.modes && stat.st_mode & 0o100 != 0 => EntryKind::BlobExecutable,
                    _ => EntryKind::Blob,
                };
                Ok(Disk::Leaf(Leaf { kind, id: hash(&stored)? }))
            }
            _ => Ok(Disk::Other),
        }
    }

    /// Whether something that does not go away stands where the path, or a directory above it, must.
    fn blocked(&self, path: &BStr, going: &BTreeSet<&BString>) -> Result<bool> {
        let mut above = beneath::split(path).0.as_bstr();
        while !above.is_empty() {
            if let Some(stat) = self.root.stat(above)? {
                return Ok(beneath::kind_of(&stat) != FileType::Directory && !going.contains(&BString::from(above.to_vec())));
            }
            above = beneath::split(above).0.as_bstr();
        }
        let is_dir = self.root.stat(path)?.is_some_and(|stat| beneath::kind_of(&stat) == FileType::Directory);
        Ok(is_dir && !self.root.files_below(path)?.iter().all(|file| going.contains(file)))
    }

    /// Carries a plan out: removals, writes, index entries. Gives notes on what it left alone.
    pub fn carry_out(&mut self, plan: &Plan) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        let (gone, written): (Vec<&Step>, Vec<&Step>) =
            plan.steps.iter().filter(|step| step.disk.is_some()).partition(|step| step.disk == Some(None));
        for step in gone.into_iter().chain(written) {
            if self.moved_since(step)? {
                notes.push(format!("{} was edited while the change landed: it keeps your content", shown(step.path.as_bstr())));
                continue;
            }
            match step.disk.flatten() {
                Some(leaf) => self.write(step, leaf)?,
                None => {
                    self.root.remove(step.path.as_bstr())?;
                    self.root.prune_above(step.path.as_bstr())?;
                }
            }
        }
        for step in &plan.steps {
            if let Some(leaf) = step.index {
                self.list(step, leaf)?;
            }
        }
        self.index.sort_entries();
        // The cached trees would still name the old content.
        self.index.remove_tree();
        Ok(notes)
    }

    /// Whether the file is not the one that the plan saw.
    fn moved_since(&self, step: &Step) -> Result<bool> {
        let now = self.root.stat(step.path.as_bstr())?;
        let sign = |stat: &Stat| (stat.st_ino, stat.st_size, stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec);
        let dir = |stat: &Option<Stat>| stat.as_ref().is_some_and(|stat| beneath::kind_of(stat) == FileType::Directory);
        // Removals before may have changed or taken a directory; a rename over one fails by itself.
        Ok(!dir(&step.seen) && now.as_ref().map(sign) != step.seen.as_ref().map(sign))
    }

    fn write(&mut self, step: &Step, leaf: Leaf) -> Result<()> {
        let path = step.path.as_bstr();
        let bytes = self.repo.find_blob(leaf.id).map_err(Error::git("read object"))?.take_data();
        if leaf.kind == EntryKind::Link {
            return self.root.write_link(path, &bytes);
        }
        let executable = leaf.kind == EntryKind::BlobExecutable;
        let mode = match &step.seen {
            Some(stat) if beneath::kind_of(stat) == FileType::RegularFile => {
                let bits = stat.st_mode & 0o777;
                FileMode::Exactly(if executable { bits | (bits & 0o444) >> 2 } else { bits & !0o111 })
            }
            _ if executable => FileMode::Executable,
            _ => FileMode::Plain,
        };
        let bytes = self.ends.on_disk(path, &bytes)?;
        self.root.write(path, &mut bytes.as_slice(), mode)
    }

    /// Sets or removes an index entry. Its stat is the file's only where file and entry agree.
    fn list(&mut self, step: &Step, leaf: Option<Leaf>) -> Result<()> {
        let path = step.path.as_bstr();
        let skip = self.index.entry_by_path(path).is_some_and(|entry| entry.flags.contains(Flags::SKIP_WORKTREE));
        self.index.remove_entries(|_, at, _| at == path);
        let Some(leaf) = leaf else { return Ok(()) };
        let stat = match self.root.stat(path)? {
            Some(stat) if step.disk == Some(Some(leaf)) => index_stat(&stat),
            _ => IndexStat::default(),
        };
        let mode = match leaf.kind {
            EntryKind::BlobExecutable => Mode::FILE_EXECUTABLE,
            EntryKind::Link => Mode::SYMLINK,
            EntryKind::Commit => Mode::COMMIT,
            EntryKind::Blob | EntryKind::Tree => Mode::FILE,
        };
        let flags = if skip { Flags::SKIP_WORKTREE | Flags::EXTENDED } else { Flags::empty() };
        self.index.dangerously_push_entry(stat, leaf.id, flags, mode, path);
        Ok(())
    }
}

/// The empty tree or this one's leaves, for a side that may not exist.
pub fn tree_or_empty(repo: &gix::Repository, commit: Option<ObjectId>) -> Result<ObjectId> {
    commit.map_or_else(
        || Ok(repo.write_object(gix::objs::Tree::empty()).map_err(Error::git("write tree"))?.detach()),
        |commit| crate::user::tree_of(repo, commit),
    )
}

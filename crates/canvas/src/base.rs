//! The commit a task starts from: a revision, or the user's tree as it is.
//!
//! Reads the user's tree and index, writes objects and nothing else. Invariant: the snapshot holds
//! what `git add -A` would, without the index being touched or a filter being run.

use crate::beneath::{self, Obstacle, Root};
use crate::budget::Budget;
use crate::error::{Error, Result};
use crate::ignored::Ignored;
use crate::lineends::{CONVERT_BYTES, LineEnds};
use crate::snapshot::{FILE_BYTES, Moment, changed};
use crate::trees::{self, Leaf, Leaves, shown};
use crate::user::{self, NewCommit};
use crate::walk::{Seen, Tracked, Visitor, Walk};
use gix::ObjectId;
use gix::bstr::{BStr, BString, ByteSlice};
use gix::index::entry::{Flags, Mode, Stage, stat};
use gix::objs::tree::EntryKind;
use rustix::fs::{FileType, Stat};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use tinkerbell_core::words::TaskId;

/// Where a task starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// The commit.
    pub commit: ObjectId,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// Resolves a revision to a commit.
///
/// # Errors
/// When nothing, or no commit, is named so.
pub fn revision(repo: &gix::Repository, name: &str) -> Result<Base> {
    let missing = || Error::NoSuchRevision(name.to_owned());
    let id = repo.rev_parse_single(name.as_bytes().as_bstr()).map_err(|_| missing())?;
    let object = id.object().map_err(|_| missing())?;
    let commit = object.peel_to_kind(gix::object::Kind::Commit).map_err(|_| missing())?;
    Ok(Base { commit: commit.id, notes: Vec::new() })
}

/// What a snapshot of the user's tree leaves out.
pub struct Outside<'a> {
    /// The user's own ignore file, where configuration names none.
    pub excludes: Option<&'a Path>,
    /// The house's data, should it stand inside the user's tree.
    pub data_dir: &'a Path,
}

/// Records the user's tree as it is: HEAD itself when it is clean, else a commit on top of it.
pub fn snapshot(repo: &gix::Repository, task: TaskId, now: Moment, outside: &Outside<'_>) -> Result<Base> {
    let head = head(repo)?;
    let empty = ObjectId::empty_tree(repo.object_hash());
    let head_tree = head.map_or(Ok(empty), |commit| user::tree_of(repo, commit))?;
    let (leaves, mut notes) = read_tree(repo, outside)?;
    let before = trees::flatten(repo, head_tree)?;
    let changes = differences(&before, &leaves);
    if let (Some(commit), true) = (head, changes.is_empty()) {
        return Ok(Base { commit, notes });
    }
    let tree = trees::apply(repo, ensure_tree(repo, head_tree)?, &changes)?;
    let message = format!("tinkerbell: the tree as task {} found it\n\nTask: {task}", task.short(8));
    let time_s = u64::try_from(now.0).unwrap_or(0);
    let commit = user::write_commit(repo, &NewCommit { tree, parents: head.into_iter().collect(), message: &message, time_s })?;
    if !changes.is_empty() {
        notes.push(format!("the task starts from your {} uncommitted change(s); only its own change will land", changes.len()));
    }
    Ok(Base { commit, notes })
}

/// The empty tree exists in every repository by convention only; the editor wants an object.
fn ensure_tree(repo: &gix::Repository, tree: ObjectId) -> Result<ObjectId> {
    if tree == ObjectId::empty_tree(repo.object_hash()) {
        repo.write_object(gix::objs::Tree::empty()).map_err(Error::git("write tree"))?;
    }
    Ok(tree)
}

/// The commit that HEAD names; `None` before the first commit.
pub fn head(repo: &gix::Repository) -> Result<Option<ObjectId>> {
    let mut head = repo.head().map_err(Error::git("read HEAD"))?;
    if head.is_unborn() {
        return Ok(None);
    }
    Ok(Some(head.peel_to_commit().map_err(Error::git("read HEAD"))?.id))
}

fn differences(before: &Leaves, now: &Leaves) -> Vec<(BString, Option<Leaf>)> {
    let mut changes: Vec<_> = before.keys().filter(|path| !now.contains_key(*path)).map(|path| (path.clone(), None)).collect();
    changes.extend(now.iter().filter(|(path, leaf)| before.get(*path) != Some(*leaf)).map(|(path, leaf)| (path.clone(), Some(*leaf))));
    changes
}

/// All that `git add -A` would record of the user's working tree.
fn read_tree(repo: &gix::Repository, outside: &Outside<'_>) -> Result<(Leaves, Vec<String>)> {
    let index = crate::index::read(repo)?;
    let listed = Listed::of(repo, &index)?;
    let workdir = user::workdir(repo)?;
    let root = Root::open(&workdir, Obstacle::Refuse)?;
    let mut visitor = UserTree {
        repo,
        root: &root,
        index: &index,
        listed: &listed,
        ends: LineEnds::new(repo, repo, &listed.leaves)?,
        stat: repo.stat_options().map_err(Error::git("read configuration"))?,
        modes: repo.config_snapshot().boolean("core.fileMode").unwrap_or(true),
        leaves: Leaves::new(),
        notes: Vec::new(),
        house: house_dir(&workdir, outside.data_dir),
    };
    let ignored = Ignored::of(repo, outside.excludes)?;
    let none = Tracked::default();
    let mut walk =
        Walk { ignored, tracked: &listed.tracked, also: &none, keep_ignored: false, always: |_, _| false, budget: Budget::default() };
    walk.run(&root, &mut visitor)?;
    let UserTree { mut leaves, mut notes, .. } = visitor;
    for (path, leaf) in &listed.kept {
        leaves.entry(path.clone()).or_insert(*leaf);
    }
    if !listed.links.is_empty() {
        let names: Vec<String> = listed.links.iter().map(|path| shown(path.as_bstr())).collect();
        notes.push(format!("submodules are left empty in the task's tree: {}", names.join(", ")));
    }
    Ok((leaves, notes))
}

/// Where the house's data stands in the user's tree, if it does.
fn house_dir(workdir: &Path, data_dir: &Path) -> Option<BString> {
    use std::os::unix::ffi::OsStrExt;
    let data_dir = data_dir.canonicalize().ok()?;
    Some(data_dir.strip_prefix(workdir).ok()?.as_os_str().as_bytes().into())
}

/// What the user's index says.
struct Listed {
    leaves: Leaves,
    tracked: Tracked,
    /// Entries that stand although nothing is on disk: submodules, sparse paths.
    kept: Leaves,
    links: BTreeSet<BString>,
}

impl Listed {
    fn of(repo: &gix::Repository, index: &gix::index::State) -> Result<Self> {
        let mut listed = Self { leaves: Leaves::new(), tracked: Tracked::default(), kept: Leaves::new(), links: BTreeSet::new() };
        let mut budget = Budget::default();
        for entry in index.entries() {
            let path = entry.path(index);
            budget.take(path)?;
            if entry.mode == Mode::DIR {
                for (below, leaf) in trees::flatten(repo, entry.id)? {
                    let path = crate::ignored::join(path.trim_end_with(|c| c == '/').as_bstr(), &below);
                    budget.take(path.as_bstr())?;
                    listed.kept.insert(path, leaf);
                }
                continue;
            }
            listed.tracked.add(path);
            let Some(kind) = entry.mode.to_tree_entry_mode().map(|mode| mode.kind()) else { continue };
            let leaf = Leaf { kind, id: entry.id };
            if kind == EntryKind::Commit {
                listed.links.insert(path.into());
            }
            if kind == EntryKind::Commit || entry.flags.contains(Flags::SKIP_WORKTREE) {
                listed.kept.insert(path.into(), leaf);
            }
            if entry.stage() == Stage::Unconflicted && !entry.flags.contains(Flags::INTENT_TO_ADD) {
                listed.leaves.insert(path.into(), leaf);
            }
        }
        Ok(listed)
    }
}

struct UserTree<'a> {
    repo: &'a gix::Repository,
    root: &'a Root,
    index: &'a gix::index::State,
    listed: &'a Listed,
    ends: LineEnds<'a>,
    stat: stat::Options,
    modes: bool,
    leaves: Leaves,
    notes: Vec<String>,
    house: Option<BString>,
}

impl Visitor for UserTree<'_> {
    fn file(&mut self, seen: &Seen<'_>) -> Result<()> {
        let before = self.listed.leaves.get(seen.path).copied();
        let link = beneath::kind_of(&seen.stat) == FileType::Symlink;
        let leaf = match self.unchanged(seen) {
            Some(id) => Leaf { kind: self.kind(seen, before, link), id },
            None if link => Leaf {
                kind: EntryKind::Link,
                id: self.write(&beneath::read_link(seen.dir, seen.name).map_err(|e| self.fail(seen)(e.into()))?)?,
            },
            None => {
                let kind = self.kind(seen, before, link);
                match self.content(seen, before.map(|leaf| leaf.id))? {
                    Some(id) => Leaf { kind, id },
                    None => return Ok(()),
                }
            }
        };
        self.leaves.insert(seen.path.into(), leaf);
        Ok(())
    }

    fn dir(&mut self, _seen: &Seen<'_>) -> Result<()> {
        Ok(())
    }

    fn unreadable(&mut self, path: &BStr) {
        self.notes.push(format!("{} can not be read and was left out", shown(path)));
    }

    fn enters(&mut self, path: &BStr, nested: bool) -> bool {
        if self.listed.links.contains(path) || self.house.as_ref().is_some_and(|house| house == path) {
            return false;
        }
        if nested && !self.listed.tracked.has_below(path) {
            self.notes.push(format!("{} is a repository of its own and was left out", shown(path)));
            return false;
        }
        true
    }
}

impl UserTree<'_> {
    fn fail(&self, seen: &Seen<'_>) -> impl FnOnce(std::io::Error) -> Error + use<> {
        Error::io("read", &self.root.full(seen.path))
    }

    fn write(&self, bytes: &[u8]) -> Result<ObjectId> {
        Ok(self.repo.write_blob(bytes).map_err(Error::git("write object"))?.detach())
    }

    /// The index's id, where its stat proves that the file is as it was when it was added.
    fn unchanged(&self, seen: &Seen<'_>) -> Option<ObjectId> {
        let entry = self.index.entry_by_path(seen.path)?;
        let link = beneath::kind_of(&seen.stat) == FileType::Symlink;
        let same_type = link == (entry.mode == Mode::SYMLINK) && entry.mode != Mode::COMMIT;
        let settled = !entry.stat.is_racy(self.index.timestamp(), self.stat) && !entry.flags.contains(Flags::INTENT_TO_ADD);
        (same_type && settled && entry.stat.matches(&index_stat(&seen.stat), self.stat)).then_some(entry.id)
    }

    fn kind(&self, seen: &Seen<'_>, before: Option<Leaf>, link: bool) -> EntryKind {
        if link {
            return EntryKind::Link;
        }
        match before.map(|leaf| leaf.kind) {
            Some(kind @ (EntryKind::Blob | EntryKind::BlobExecutable)) if !self.modes => kind,
            _ if self.modes && seen.stat.st_mode & 0o100 != 0 => EntryKind::BlobExecutable,
            _ => EntryKind::Blob,
        }
    }

    fn content(&mut self, seen: &Seen<'_>, before: Option<ObjectId>) -> Result<Option<ObjectId>> {
        let size = u64::try_from(seen.stat.st_size).unwrap_or(0);
        if size > FILE_BYTES {
            let full = self.root.full(seen.path);
            return Err(Error::TooMuch(full, format!("a file of {size} bytes can not be recorded")));
        }
        let file = match beneath::open_file(seen.dir, seen.name, false) {
            Ok(file) => file,
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(why) if why.kind() == std::io::ErrorKind::PermissionDenied => {
                self.unreadable(seen.path);
                return Ok(before);
            }
            Err(why) => return Err(self.fail(seen)(why)),
        };
        let mut bytes = Vec::new();
        file.take(size).read_to_end(&mut bytes).map_err(self.fail(seen))?;
        if size <= CONVERT_BYTES {
            bytes = self.ends.stored(seen.path, &bytes, before)?;
        }
        self.write(&bytes).map(Some)
    }
}

/// A stat in the form that an index keeps: 32 bits of everything.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::unnecessary_cast,
    reason = "git cuts these fields to 32 bits, too"
)]
pub fn index_stat(stat: &Stat) -> gix::index::entry::Stat {
    let time = |(secs, nsecs): Moment| stat::Time { secs: secs as u32, nsecs: nsecs as u32 };
    gix::index::entry::Stat {
        mtime: time((stat.st_mtime as i64, stat.st_mtime_nsec as i64)),
        ctime: time(changed(stat)),
        dev: stat.st_dev as u32,
        ino: stat.st_ino as u32,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: stat.st_size as u32,
    }
}

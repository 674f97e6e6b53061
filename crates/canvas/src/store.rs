//! The checkpoint store: a bare repository of our own, with the user's objects as alternate.
//!
//! It holds raw trees; the user's repository never sees them. A checkpoint's id is the id of a tree
//! with four entries (`files`, `dirs`, `ignored`, `modes`), so equal trees have equal ids.
//! Invariant: what only the user's objects hold and no reference of the task pins is copied here,
//! because the user's `git gc` may drop it at any time.

use crate::error::{Error, Result};
use crate::trees::{self, Leaves};
use gix::ObjectId;
use gix::bstr::{BStr, BString, ByteSlice};
use gix::objs::Write as _;
use gix::objs::tree::EntryKind;
use gix::odb::loose;
use gix::refs::transaction::{Change, LogChange, PreviousValue, RefEdit, RefLog};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use tinkerbell_core::words::{GitId, TaskId};

/// More new objects than this are forced to the disk with one call for the whole file system.
const SYNCED_ONE_BY_ONE: usize = 256;

/// The store of one user repository.
pub struct Store {
    /// The bare repository, opened without any configuration but its own.
    pub repo: gix::Repository,
    own: loose::Store,
    path: PathBuf,
    /// Objects written and not yet forced to the disk.
    fresh: RefCell<Vec<PathBuf>>,
}

/// A checkpoint, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Tree of raw files.
    pub files: ObjectId,
    /// Directories that hold nothing that counts, or whose mode is not the usual one.
    pub dirs: BTreeMap<BString, u32>,
    /// Paths that are kept although ignored: restored, but never committed.
    pub ignored: BTreeSet<BString>,
    /// The usual modes and the paths that differ.
    pub modes: Modes,
}

/// Permission bits, told by what differs from the most common ones of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modes {
    /// Of plain files.
    pub plain: u32,
    /// Of executable files.
    pub executable: u32,
    /// Of directories.
    pub dir: u32,
    /// Files that differ.
    pub odd: BTreeMap<BString, u32>,
}

impl Modes {
    /// The bits of a file of this kind.
    #[must_use]
    pub fn of(&self, path: &BStr, kind: EntryKind) -> u32 {
        let usual = if kind == EntryKind::BlobExecutable { self.executable } else { self.plain };
        self.odd.get(path).copied().unwrap_or(usual)
    }
}

/// A named place in the store: `refs/checkpoints/<task>/<name>`.
#[derive(Debug, Clone, Copy)]
pub enum Pin<'a> {
    /// The commit on which the task's branch starts.
    Base,
    /// The first checkpoint.
    First,
    /// The newest checkpoint.
    Newest,
    /// One checkpoint, by its id.
    At(&'a str),
    /// The checkpoint that a landing, by its commit, started from.
    LandedFrom(&'a str),
    /// The checkpoint that a landing, by its commit, brought.
    LandedTo(&'a str),
}

impl Pin<'_> {
    fn name(self, task: TaskId) -> String {
        match self {
            Self::Base => format!("{}/base", prefix(task)),
            Self::First => format!("{}/first", prefix(task)),
            Self::Newest => format!("{}/newest", prefix(task)),
            Self::At(id) => format!("{}/at/{id}", prefix(task)),
            Self::LandedFrom(commit) => format!("{}/landed/{commit}/from", prefix(task)),
            Self::LandedTo(commit) => format!("{}/landed/{commit}/to", prefix(task)),
        }
    }
}

fn prefix(task: TaskId) -> String {
    format!("refs/checkpoints/{task}")
}

/// Where the store of a repository stands below the data directory.
pub fn location(data_dir: &Path, common_dir: &Path) -> Result<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let bytes = common_dir.as_os_str().as_bytes();
    let hash = gix::objs::compute_hash(gix::hash::Kind::Sha1, gix::objs::Kind::Blob, bytes).map_err(Error::git("hash path"))?;
    Ok(data_dir.join("checkpoints").join(format!("{}.git", hash.to_hex_with_len(16))))
}

impl Store {
    /// Opens the store of a repository, making it when it is not there.
    pub fn open(data_dir: &Path, common_dir: &Path) -> Result<Self> {
        let path = location(data_dir, common_dir)?;
        let alternates = path.join("objects/info/alternates");
        if !alternates.is_file() {
            Self::create(&path, common_dir)?;
        }
        let options = gix::open::Options::isolated().open_path_as_is(true).config_overrides([crate::user::OBJECT_LIMIT]);
        let repo = gix::open_opts(&path, options).map_err(Error::git("open the checkpoint store"))?;
        let own = loose::Store::at(path.join("objects"), repo.object_hash());
        Ok(Self { repo, own, path, fresh: RefCell::new(Vec::new()) })
    }

    /// Written by hand in an order that ends with the alternates, so a crash in between is seen
    /// and the rest made again.
    fn create(path: &Path, common_dir: &Path) -> Result<()> {
        use std::os::unix::ffi::OsStrExt;
        use std::os::unix::fs::DirBuilderExt;
        let make =
            |dir: &Path| std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Error::io("make directory", dir));
        for dir in ["objects/info", "objects/pack", "refs/heads", "refs/checkpoints"] {
            make(&path.join(dir))?;
        }
        let put = |name: &str, bytes: &[u8]| {
            let file = path.join(name);
            std::fs::write(&file, bytes).map_err(Error::io("write", &file))
        };
        put("HEAD", b"ref: refs/heads/none\n")?;
        put("config", b"[core]\n\trepositoryformatversion = 0\n\tbare = true\n\tlogAllRefUpdates = false\n[gc]\n\tauto = 0\n")?;
        let mut line = common_dir.join("objects").as_os_str().as_bytes().to_vec();
        line.push(b'\n');
        put("objects/info/alternates", &line)
    }

    /// Where the store stands.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Stores bytes as a blob unless they are here or `pinned`; gives the id.
    pub fn blob(&self, bytes: &[u8], pinned: &HashSet<ObjectId>) -> Result<ObjectId> {
        let id = gix::objs::compute_hash(self.repo.object_hash(), gix::objs::Kind::Blob, bytes).map_err(Error::git("hash"))?;
        if !pinned.contains(&id) && !self.own.contains(&id) {
            self.own.write_buf(gix::objs::Kind::Blob, bytes).map_err(Error::git("write checkpoint"))?;
            self.fresh.borrow_mut().push(self.own.object_path(&id));
        }
        Ok(id)
    }

    /// Stores a stream of known length as a blob.
    pub fn blob_stream(&self, size_bytes: u64, from: &mut dyn Read) -> Result<ObjectId> {
        let id = self.own.write_stream(gix::objs::Kind::Blob, size_bytes, from).map_err(Error::git("write checkpoint"))?;
        self.fresh.borrow_mut().push(self.own.object_path(&id));
        Ok(id)
    }

    /// Forces what was written since the last call to the disk: the journal will name it.
    fn settle(&self) -> Result<()> {
        let fresh = self.fresh.take();
        if fresh.len() > SYNCED_ONE_BY_ONE {
            let dir = std::fs::File::open(&self.path).map_err(Error::io("open", &self.path))?;
            return sync_all_of(&dir).map_err(Error::io("sync", &self.path));
        }
        let dirs: BTreeSet<&Path> = fresh.iter().filter_map(|path| path.parent()).collect();
        for path in fresh.iter().map(PathBuf::as_path).chain(dirs) {
            sync(path)?;
        }
        Ok(())
    }

    fn tree(&self, tree: &gix::objs::Tree) -> Result<ObjectId> {
        let mut bytes = Vec::new();
        gix::objs::WriteTo::write_to(tree, &mut bytes).map_err(Error::io("encode tree", &self.path))?;
        let id = gix::objs::compute_hash(self.repo.object_hash(), gix::objs::Kind::Tree, &bytes).map_err(Error::git("hash"))?;
        if !self.own.contains(&id) {
            self.own.write_buf(gix::objs::Kind::Tree, &bytes).map_err(Error::git("write checkpoint"))?;
            self.fresh.borrow_mut().push(self.own.object_path(&id));
        }
        Ok(id)
    }

    /// Stores a checkpoint and gives its id.
    pub fn put(&self, files: &Leaves, rest: &Content) -> Result<ObjectId> {
        let none = HashSet::new();
        let files = trees::build(files, &mut |tree| self.tree(&tree))?;
        let parts = [
            ("dirs", EntryKind::Blob, self.blob(&lines(&rest.dirs), &none)?),
            ("files", EntryKind::Tree, files),
            ("ignored", EntryKind::Blob, self.blob(&names(&rest.ignored), &none)?),
            ("modes", EntryKind::Blob, self.blob(&modes(&rest.modes), &none)?),
        ];
        let entries = parts.into_iter().map(|(name, kind, oid)| gix::objs::tree::Entry { mode: kind.into(), filename: name.into(), oid });
        let id = self.tree(&gix::objs::Tree { entries: entries.collect() })?;
        self.settle()?;
        Ok(id)
    }

    /// Reads a checkpoint.
    ///
    /// # Errors
    /// When it is not in this store or not a checkpoint.
    pub fn get(&self, id: &GitId) -> Result<Content> {
        let lost = |why: String| Error::NoCheckpoint(id.to_string(), why);
        let oid = object_id(id)?;
        if !self.own.contains(&oid) {
            return Err(lost("it is not in the store".to_owned()));
        }
        let tree = self.repo.find_tree(oid).map_err(|e| lost(crate::error::words(&e)))?;
        let part = |name: &str| {
            let entry = tree.iter().flatten().find(|entry| entry.filename() == name);
            entry.map(|entry| entry.object_id()).ok_or_else(|| lost(format!("it has no `{name}`")))
        };
        let blob = |name: &str| self.read(part(name)?);
        Ok(Content {
            files: part("files")?,
            dirs: parse_lines(&blob("dirs")?),
            ignored: blob("ignored")?.split(|b| *b == 0).filter(|p| !p.is_empty()).map(BString::from).collect(),
            modes: parse_modes(&blob("modes")?).ok_or_else(|| lost("its modes are damaged".to_owned()))?,
        })
    }

    /// How many bytes a blob has; nothing of them is read.
    pub fn size(&self, id: ObjectId) -> Result<u64> {
        Ok(self.repo.find_header(id).map_err(Error::git("read object"))?.size())
    }

    /// The bytes of a blob, here or with the user.
    pub fn read(&self, id: ObjectId) -> Result<Vec<u8>> {
        Ok(self.repo.find_blob(id).map_err(Error::git("read object"))?.take_data())
    }

    /// Sets a pin.
    pub fn pin(&self, task: TaskId, pin: Pin<'_>, id: ObjectId) -> Result<()> {
        let name = full_name(&pin.name(task))?;
        if self.pinned(task, pin)? == Some(id) {
            return Ok(());
        }
        let log = LogChange { mode: RefLog::AndReference, force_create_reflog: false, message: BString::default() };
        let edit = RefEdit::update_with_log(name, id, PreviousValue::Any, log);
        // The store is ours and it is the task's turn, so a lock is what a killed daemon left.
        crate::stale::clear(&self.path.join(pin.name(task)))?;
        self.repo.edit_references_as(Some(edit), None).map_err(Error::git("pin checkpoint"))?;
        let path = self.path.join(pin.name(task));
        // A sweep trusts the pins, so they must be as lasting as what they hold.
        for path in path.ancestors().take_while(|above| *above != self.path) {
            sync(path)?;
        }
        Ok(())
    }

    /// Where a pin stands.
    pub fn pinned(&self, task: TaskId, pin: Pin<'_>) -> Result<Option<ObjectId>> {
        let name = full_name(&pin.name(task))?;
        let found = match self.repo.try_find_reference(name.as_ref()) {
            // Only a convenience: the pins of the single checkpoints are what counts.
            Err(_) if matches!(pin, Pin::Newest) => None,
            found => found.map_err(Error::git("read pin"))?,
        };
        Ok(found.and_then(|reference| reference.try_id().map(gix::Id::detach)))
    }

    /// Removes a store with all it holds.
    pub fn destroy(path: &Path) -> Result<()> {
        match std::fs::remove_dir_all(path) {
            Err(why) if why.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(why)),
            _ => Ok(()),
        }
    }

    /// Removes all pins of a task, and then every object that no pin of another task needs; the
    /// last task takes the store with it.
    pub fn forget(self, task: TaskId) -> Result<()> {
        let mut edits = Vec::new();
        let platform = self.repo.references().map_err(Error::git("list pins"))?;
        let prefix = format!("{}/", prefix(task));
        let found = platform.prefixed(prefix.as_str()).map_err(Error::git("list pins"))?;
        crate::stale::clear(&self.path.join("packed-refs"))?;
        for reference in found.flatten() {
            crate::stale::clear(&self.path.join(reference.name().as_bstr().to_str_lossy().as_ref()))?;
            edits.push(RefEdit {
                name: reference.name().to_owned(),
                change: Change::Delete { expected: PreviousValue::Any, log: RefLog::AndReference },
                deref: false,
            });
        }
        self.repo.edit_references_as(edits, None).map_err(Error::git("remove pins"))?;
        let left = self.repo.references().map_err(Error::git("list pins"))?.all().map_err(Error::git("list pins"))?.count();
        if left == 0 { Self::destroy(&self.path) } else { self.sweep() }
    }

    /// Removes loose objects that no pin reaches.
    fn sweep(&self) -> Result<()> {
        let mut needed = HashSet::new();
        let platform = self.repo.references().map_err(Error::git("list pins"))?;
        for reference in platform.all().map_err(Error::git("list pins"))?.flatten() {
            if let Some(id) = reference.try_id() {
                self.mark(id.detach(), &mut needed)?;
            }
        }
        for id in self.own.iter().flatten().filter(|id| !needed.contains(id)) {
            let path = self.own.object_path(&id);
            match std::fs::remove_file(&path) {
                Err(why) if why.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("remove", &path)(why)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Marks a tree and all below it; what is not our own object is not ours to keep.
    fn mark(&self, id: ObjectId, needed: &mut HashSet<ObjectId>) -> Result<()> {
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            if !self.own.contains(&id) || !needed.insert(id) {
                continue;
            }
            let object = self.repo.find_object(id).map_err(Error::git("read object"))?;
            if let Ok(tree) = object.try_into_tree() {
                open.extend(tree.iter().flatten().map(|entry| entry.object_id()));
            }
        }
        Ok(())
    }
}

/// The library's form of an id.
pub fn object_id(id: &GitId) -> Result<ObjectId> {
    ObjectId::from_hex(id.as_str().as_bytes()).map_err(|e| Error::NoCheckpoint(id.to_string(), e.to_string()))
}

/// The house's form of an id.
pub fn git_id(id: ObjectId) -> Result<GitId> {
    let text = id.to_string();
    text.parse().map_err(|_| Error::Git { what: "name object", why: text })
}

/// A reference's full name, checked.
pub fn full_name(name: &str) -> Result<gix::refs::FullName> {
    gix::refs::FullName::try_from(name).map_err(|e| Error::BranchBlocked(name.to_owned(), e.to_string()))
}

fn sync(path: &Path) -> Result<()> {
    std::fs::File::open(path).and_then(|file| file.sync_all()).map_err(Error::io("sync", path))
}

#[cfg(target_os = "linux")]
fn sync_all_of(dir: &std::fs::File) -> std::io::Result<()> {
    Ok(rustix::fs::syncfs(dir)?)
}

#[cfg(not(target_os = "linux"))]
fn sync_all_of(_dir: &std::fs::File) -> std::io::Result<()> {
    rustix::fs::sync();
    Ok(())
}

fn lines(map: &BTreeMap<BString, u32>) -> Vec<u8> {
    let mut out = Vec::new();
    for (path, mode) in map {
        out.extend_from_slice(format!("{mode:o} ").as_bytes());
        out.extend_from_slice(path);
        out.push(0);
    }
    out
}

fn parse_lines(bytes: &[u8]) -> BTreeMap<BString, u32> {
    let line = |line: &[u8]| {
        let (mode, path) = line.split_once_str(" ")?;
        Some((BString::from(path), u32::from_str_radix(mode.to_str().ok()?, 8).ok()?))
    };
    bytes.split(|b| *b == 0).filter_map(line).collect()
}

fn names(set: &BTreeSet<BString>) -> Vec<u8> {
    set.iter().flat_map(|path| path.iter().copied().chain([0])).collect()
}

fn modes(modes: &Modes) -> Vec<u8> {
    let mut out = format!("{:o} {:o} {:o}\0", modes.plain, modes.executable, modes.dir).into_bytes();
    out.extend(lines(&modes.odd));
    out
}

fn parse_modes(bytes: &[u8]) -> Option<Modes> {
    let (head, rest) = bytes.split_once_str("\0")?;
    let mut numbers = head.to_str().ok()?.split(' ').map(|n| u32::from_str_radix(n, 8));
    let mut next = || numbers.next()?.ok();
    Some(Modes { plain: next()?, executable: next()?, dir: next()?, odd: parse_lines(rest) })
}

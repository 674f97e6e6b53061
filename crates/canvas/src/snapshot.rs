//! A checkpoint's making: the task's tree as raw bytes, modes, links and empty directories.
//!
//! It reads the disk and writes the store, and knows no references. Invariant: a file whose stat
//! is remembered is not read again only if its change time lies well before the walk that remembered it, so that
//! neither a write in the same tick of the clock is missed nor one to a page of memory that was changed already.

use crate::beneath::{self, Root};
use crate::budget::Budget;
use crate::error::{Error, Result};
use crate::ignored::{Ignored, is_pattern_file};
use crate::store::{Content, Modes, Store};
use crate::trees::{Leaf, Leaves};
use crate::walk::{Seen, Tracked, Visitor, Walk};
use gix::ObjectId;
use gix::bstr::{BStr, BString, ByteSlice};
use gix::objs::tree::EntryKind;
use rustix::fs::{FileType, SeekFrom, Stat};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::Read;

/// Files beyond this size are streamed instead of held in memory.
const STREAM_BYTES: u64 = 8 << 20;
/// Files beyond this size are not recorded: undo could not keep its promise in useful time.
pub const FILE_BYTES: u64 = 4 << 30;
/// Most bytes in holes of all files that one checkpoint reads: whoever makes them pays nothing, neither in time nor in
/// disk, and here all of them are hashed, and a file is held in memory when it is committed or brought back.
const HOLE_BYTES: u64 = 256 << 20;
/// Most holes of one file that are looked for one by one.
const HOLES: usize = 1 << 16;

/// How long after its last change a file is read each time. The first write to a page of a mapped file changes the
/// file's time, further ones do not until the kernel has written the page out: after 30 s, looked for every 5 s
/// (`vm.dirty_expire_centisecs`, `vm.dirty_writeback_centisecs`), and later on a busy disk. On a tmpfs it never
/// does: there only a thorough walk sees such writes.
const WRITTEN_OUT_S: i64 = 60;

/// What a walk may take from memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Care {
    /// No command has run yet: what is read now can be relied on.
    Settled,
    /// What has not changed for a while.
    Usual,
    /// Only what has not changed since the walk in which nothing had run.
    Thorough,
}

/// A file's stat, as far as it tells that its content is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sig {
    ino: u64,
    size: i64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

/// A change time: seconds and nanoseconds.
pub type Moment = (i64, i64);

#[allow(clippy::unnecessary_cast, reason = "the field types differ between systems")]
impl Sig {
    fn of(stat: &Stat) -> Self {
        Self {
            ino: stat.st_ino as u64,
            size: stat.st_size as i64,
            mtime: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            ctime: changed(stat),
        }
    }
}

/// When a file was changed last, by the file system's own clock.
#[allow(clippy::unnecessary_cast, reason = "the field types differ between systems")]
pub fn changed(stat: &Stat) -> Moment {
    (stat.st_ctime as i64, stat.st_ctime_nsec as i64)
}

/// What is remembered of a tree between two checkpoints.
#[derive(Debug, Default)]
pub struct Memory {
    known: HashMap<BString, (Sig, ObjectId)>,
    /// The file system's time of the walk in which nothing had run yet; `None` where that was long ago, in another
    /// daemon.
    settled: Option<Moment>,
}

/// What a checkpoint is made from, beside the tree.
pub struct Source<'a> {
    /// Where objects go.
    pub store: &'a Store,
    /// Objects that the task's branch pins in the user's repository.
    pub pinned: &'a HashSet<ObjectId>,
    /// Patterns outside the tree.
    pub ignored: Ignored,
    /// What counts although ignored.
    pub tracked: &'a Tracked,
    /// What counts this time, and stays marked as ignored.
    pub also: &'a Tracked,
    /// Whether all ignored files count.
    pub keep_ignored: bool,
    /// The file system's time before the walk.
    pub now: Moment,
    /// What may be taken from memory.
    pub care: Care,
}

/// A checkpoint that was taken.
pub struct Taken {
    /// Its id.
    pub id: ObjectId,
    /// Ignored folders that are too bulky for layers, each path ended by NUL.
    pub bulky: Vec<u8>,
    /// Files and directories whose owner had to be given permissions: a thorough look is followed by a check, and what
    /// that can not read, or not write, it might pass over. Nothing of such modes ever lands.
    pub opened: Vec<BString>,
    /// Files that are too large to be recorded, and are no part of it.
    pub large: Vec<Large>,
}

/// A file that is too large to be recorded.
pub struct Large {
    /// Where.
    pub path: BString,
    /// How large it is, and what may be.
    pub why: String,
}

/// Takes a checkpoint of the tree below `root`.
///
/// # Errors
/// When the tree can not be read or the store not written.
pub fn take(root: &Root, source: &Source<'_>, memory: &mut Memory) -> Result<Taken> {
    let (new, files, perms, dirs, ignored) = (HashMap::new(), Leaves::new(), BTreeMap::new(), Vec::new(), BTreeSet::new());
    let (bulky, opened, large) = (Vec::new(), Vec::new(), Vec::new());
    let mut raw = Raw { root, source, old: memory, new, files, perms, dirs, ignored, bulky, opened, large, holes: HOLE_BYTES };
    let mut walk = Walk {
        ignored: source.ignored.clone(),
        tracked: source.tracked,
        also: source.also,
        keep_ignored: source.keep_ignored,
        always: |path, is_dir| if is_dir { is_protected(path) } else { is_protected_file(path) || is_pattern_file(path) },
        budget: Budget::default(),
    };
    walk.run(root, &mut raw)?;
    let Raw { new, files, perms, dirs, ignored, bulky, opened, large, .. } = raw;
    let (modes, dirs) = usual(&files, perms, dirs);
    let id = source.store.put(&files, &Content { files: ObjectId::empty_tree(source.store.repo.object_hash()), dirs, ignored, modes })?;
    memory.known = new;
    if source.care == Care::Settled {
        memory.settled = Some(source.now);
    }
    Ok(Taken { id, bulky, opened, large })
}

/// Whether the protected set has the path; ignored or not, such a file counts.
pub fn is_protected(path: &BStr) -> bool {
    tinkerbell_core::protected::is_protected(&path.to_str_lossy())
}

/// Whether the protected set has it as the path of what is no directory.
pub fn is_protected_file(path: &BStr) -> bool {
    tinkerbell_core::protected::is_protected_file(&path.to_str_lossy())
}

struct Raw<'a> {
    root: &'a Root,
    source: &'a Source<'a>,
    old: &'a Memory,
    new: HashMap<BString, (Sig, ObjectId)>,
    files: Leaves,
    perms: BTreeMap<BString, u32>,
    dirs: Vec<(BString, u32, bool)>,
    ignored: BTreeSet<BString>,
    bulky: Vec<u8>,
    opened: Vec<BString>,
    large: Vec<Large>,
    /// What is left for holes.
    holes: u64,
}

impl Visitor for Raw<'_> {
    fn file(&mut self, seen: &Seen<'_>) -> Result<()> {
        let leaf = if beneath::kind_of(&seen.stat) == FileType::Symlink {
            let target = match beneath::read_link(seen.dir, seen.name) {
                Ok(target) => target,
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::INVAL) => return Ok(()),
                Err(errno) => return Err(Error::io("read link", &self.root.full(seen.path))(errno.into())),
            };
            Leaf { kind: EntryKind::Link, id: self.source.store.blob(&target, self.source.pinned)? }
        } else {
            let bits = self.open_up(seen, 0o600)?;
            let Some(id) = self.content(seen)? else { return Ok(()) };
            self.perms.insert(seen.path.into(), bits);
            Leaf { kind: if bits & 0o100 == 0 { EntryKind::Blob } else { EntryKind::BlobExecutable }, id }
        };
        if seen.ignored {
            self.ignored.insert(seen.path.into());
        }
        self.files.insert(seen.path.into(), leaf);
        Ok(())
    }

    fn dir(&mut self, seen: &Seen<'_>) -> Result<()> {
        let bits = self.open_up(seen, 0o700)?;
        self.dirs.push((seen.path.into(), bits, seen.bare));
        Ok(())
    }

    fn passed(&mut self, path: &BStr) {
        let name = beneath::split(path).1;
        if name.to_str().is_ok_and(crate::layer::is_bulky) {
            self.bulky.extend_from_slice(path);
            self.bulky.push(0);
        }
    }

    fn enters(&mut self, _path: &BStr, _nested: bool) -> bool {
        true
    }
}

impl Raw<'_> {
    /// The permission bits; in a thorough look with those that its owner needs.
    fn open_up(&mut self, seen: &Seen<'_>, needed: u32) -> Result<u32> {
        let bits = seen.stat.st_mode & 0o777;
        if self.source.care != Care::Thorough || bits & needed == needed {
            return Ok(bits);
        }
        match beneath::set_mode(seen.dir, seen.name, seen.stat.st_mode & 0o7777 | needed) {
            Ok(()) => self.opened.push(seen.path.into()),
            // A running command has put something else there.
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP) => return Ok(bits),
            Err(errno) => return Err(Error::io("set mode", &self.root.full(seen.path))(errno.into())),
        }
        Ok(bits | needed)
    }

    /// The id of a file's content; `None` when it is too large, or went away meanwhile.
    fn content(&mut self, seen: &Seen<'_>) -> Result<Option<ObjectId>> {
        let sig = Sig::of(&seen.stat);
        if let Some((_, id)) = self.old.known.get(seen.path).filter(|(old, _)| *old == sig && self.may_rely(seen.path, &sig)) {
            self.new.insert(seen.path.into(), (sig, *id));
            return Ok(Some(*id));
        }
        let size = u64::try_from(seen.stat.st_size).unwrap_or(0);
        if size > FILE_BYTES {
            self.large.push(Large { path: seen.path.into(), why: format!("a file of {size} bytes can not be kept for undo") });
            return Ok(None);
        }
        let file = match beneath::open_file(seen.dir, seen.name, true) {
            Ok(file) => file,
            // A running command has taken it away, or put a link in its place.
            Err(why) if is_gone(&why) => return Ok(None),
            Err(why) => return Err(Error::io("open", &self.root.full(seen.path))(why)),
        };
        let holes = holes(&file, &seen.stat);
        let Some(left) = self.holes.checked_sub(holes) else {
            let why = format!(
                "a file of {size} bytes, {holes} of them in holes, can not be kept for undo: the holes of all files may be {HOLE_BYTES} bytes"
            );
            self.large.push(Large { path: seen.path.into(), why });
            return Ok(None);
        };
        self.holes = left;
        let id = self.store(file, size).map_err(|e| match e {
            Error::Io { what, why, .. } => Error::Io { what, path: self.root.full(seen.path), why },
            other => other,
        })?;
        if self.is_old(&sig) {
            self.new.insert(seen.path.into(), (sig, id));
        }
        Ok(Some(id))
    }

    /// Whether a file that looks as it was remembered may be taken to be the same.
    fn may_rely(&self, path: &BStr, sig: &Sig) -> bool {
        let is_untouched = self.old.settled.is_some_and(|settled| sig.ctime < settled);
        // Those that steer tools are few and read each time.
        is_untouched || (self.source.care == Care::Usual && !is_protected(path))
    }

    /// Whether a file's change lies so far back that a new one would show.
    fn is_old(&self, sig: &Sig) -> bool {
        shows_changes(self.source.care, sig.ctime, self.source.now)
    }

    fn store(&self, file: std::fs::File, size: u64) -> Result<ObjectId> {
        if size > STREAM_BYTES {
            // The object's header names the size, so a file that shrinks meanwhile is filled up:
            // the object stays valid, and the next checkpoint has the settled content.
            let mut exact = file.take(size).chain(std::io::repeat(0)).take(size);
            return self.source.store.blob_stream(size, &mut exact);
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        file.take(size).read_to_end(&mut bytes).map_err(Error::io("read", self.source.store.path()))?;
        self.source.store.blob(&bytes, self.source.pinned)
    }
}

/// How many bytes of a file no disk holds. A file system may report fewer blocks than there are, because it packs them
/// or has not written them yet, so that what its blocks suggest is looked for.
#[allow(clippy::unnecessary_cast, reason = "the field types differ between systems")]
fn holes(file: &std::fs::File, stat: &Stat) -> u64 {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let missing = size.saturating_sub((stat.st_blocks as u64).saturating_mul(512));
    if missing == 0 {
        return 0;
    }
    let found = seek_holes(file, size).unwrap_or(missing);
    if rustix::fs::seek(file, SeekFrom::Start(0)).is_err() { missing } else { found }
}

/// The holes as the system tells them; `None` when they are too many to ask for each.
fn seek_holes(file: &std::fs::File, size: u64) -> Option<u64> {
    let (mut at, mut found) = (0, 0);
    for _ in 0..HOLES {
        let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => data.min(size),
            Err(rustix::io::Errno::NXIO) => size,
            // The file system knows of no holes.
            Err(_) => return Some(found),
        };
        found += data.saturating_sub(at);
        at = match rustix::fs::seek(file, SeekFrom::Hole(data)) {
            Ok(hole) if data < size && hole > data => hole,
            _ => return Some(found),
        };
        if at >= size {
            return Some(found);
        }
    }
    None
}

/// Whether a further change would show in the time of a file that changed at `changed`, seen `now`.
fn shows_changes(care: Care, changed: Moment, (seconds, nanos): Moment) -> bool {
    match care {
        Care::Settled => changed < (seconds, nanos),
        Care::Usual | Care::Thorough => changed < (seconds.saturating_sub(WRITTEN_OUT_S), nanos),
    }
}

fn is_gone(why: &std::io::Error) -> bool {
    matches!(rustix::io::Errno::from_io_error(why), Some(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP))
}

/// Splits modes into the usual ones and the rest, and keeps the directories worth a line.
fn usual(files: &Leaves, perms: BTreeMap<BString, u32>, dirs: Vec<(BString, u32, bool)>) -> (Modes, BTreeMap<BString, u32>) {
    let of_kind = |kind| files.iter().filter(move |(_, leaf)| leaf.kind == kind).filter_map(|(path, _)| perms.get(path).copied());
    let plain = most_common(of_kind(EntryKind::Blob)).unwrap_or(0o644);
    let executable = most_common(of_kind(EntryKind::BlobExecutable)).unwrap_or(0o755);
    // Only a mode that lets its owner in is usual: the others must be listed, to be opened first.
    let dir = most_common(dirs.iter().map(|d| d.1).filter(|bits| bits & 0o700 == 0o700)).unwrap_or(0o755);
    let is_odd = |path: &BString, bits: u32| match files.get(path).map(|leaf| leaf.kind) {
        Some(EntryKind::BlobExecutable) => bits != executable,
        _ => bits != plain,
    };
    let odd = perms.into_iter().filter(|(path, bits)| is_odd(path, *bits)).collect();
    let dirs = dirs.into_iter().filter(|d| d.2 || d.1 != dir).map(|d| (d.0, d.1)).collect();
    (Modes { plain, executable, dir, odd }, dirs)
}

fn most_common(bits: impl Iterator<Item = u32>) -> Option<u32> {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for bits in bits {
        *counts.entry(bits).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(bits, count)| (*count, std::cmp::Reverse(*bits))).map(|(bits, _)| bits)
}

#[cfg(test)]
#[test]
fn only_old_changes_are_relied_on_once_commands_have_run() {
    for (care, changed, relies) in [
        (Care::Settled, (1_000, 4), true),
        (Care::Settled, (1_000, 5), false),
        (Care::Usual, (1_000, 4), false),
        (Care::Usual, (940, 5), false),
        (Care::Usual, (940, 4), true),
        (Care::Thorough, (999, 0), false),
    ] {
        assert_eq!(shows_changes(care, changed, (1_000, 5)), relies, "{care:?} {changed:?}");
    }
}

//! One layer brought into the tree, directory by directory, both sides by descriptor.
//!
//! While the command runs its files are copied, because it may still write to them; once it has ended
//! they are moved. Whatever the tree holds that is newer than the command's start and was not put there
//! from this very layer is somebody else's work: it stays, and the layer's version is kept beside it.
//! Invariant: each step leaves a state from which doing everything again ends the same.

use super::format::{self, Lower, Record, Upper};
use super::judge::{self, Kind, Opened, View, is_copied, is_opaque, is_ours, leads_out, printed, raises, steers};
use super::notes::{self, Notes};
use super::{APPLIED, Around, KEPT, is_bulky};
use crate::beneath::{self, PARTIAL, Root, stat_at};
use crate::budget::{DEPTH, PATH_BYTES};
use crate::error::{Error, Result};
use crate::ignored::{Ignored, join};
use crate::snapshot::{Moment, changed};
use gix::bstr::{BStr, BString, ByteSlice};
use rustix::fs::{AtFlags, FileType, Mode, Stat};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use tinkerbell_core::words::Seq;

/// Larger files of a running command wait for its end, when they cost nothing.
const COPIED_BYTES: i64 = 16 << 20;
/// Larger files that are mostly holes wait, too.
const HOLLOW_BYTES: i64 = 64 << 10;
/// Files up to this size are compared to tell a change from a copy.
const COMPARED_BYTES: i64 = 64 << 20;

/// Which layer, and how it stands.
#[derive(Debug, Clone, Copy)]
pub struct Task {
    /// The effect that started the command.
    pub run: Seq,
    /// No process of it is left.
    pub ended: bool,
    /// It is the gate's check: only ignored files count.
    pub is_check: bool,
    /// When it began, by the file system's clock.
    pub start: Moment,
}

/// The work on one layer.
pub struct Apply<'a> {
    task: Task,
    root: &'a Root,
    upper: &'a Root,
    around: &'a Around<'a>,
    ignored: Ignored,
    known: BTreeMap<BString, Record>,
    journal: File,
    notes: &'a mut Notes,
}

/// A directory on both sides.
struct At<'a> {
    up: BorrowedFd<'a>,
    low: Option<BorrowedFd<'a>>,
    path: &'a BStr,
    ignored: bool,
    bulky: bool,
    depth: usize,
}

/// One name on both sides.
struct Entry<'a> {
    name: &'a [u8],
    path: &'a BStr,
    up: Stat,
    kind: Kind,
    low: Option<Stat>,
    ignored: bool,
    bulky: bool,
}

/// Whose work stands in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Nobody's, the base's, or this layer's own: it may be replaced.
    Free,
    /// It is the same as what the layer has.
    Same,
    /// Somebody else's.
    Other,
}

impl<'a> Apply<'a> {
    /// Prepares the work; nothing is changed yet.
    pub fn new(task: Task, around: &'a Around<'a>, (upper, dir): (&'a Root, &Path), notes: &'a mut Notes) -> Result<Self> {
        let path = dir.join(APPLIED);
        let journal = File::options().create(true).append(true).read(true).open(&path).map_err(Error::io("open", &path))?;
        let known = format::decode(&std::fs::read(&path).map_err(Error::io("read", &path))?);
        Ok(Self { task, root: around.root, upper, around, ignored: around.ignored.clone(), known, journal, notes })
    }

    /// Does the work.
    pub fn run(mut self) -> Result<()> {
        self.forget_removed()?;
        let (up, low) = (self.upper.fd(), self.root.fd());
        self.children(&At { up, low: Some(low), path: BStr::new(""), ignored: false, bulky: false, depth: 0 })
    }

    fn fail(&self, what: &'static str, path: &BStr) -> impl FnOnce(Errno) -> Error + use<> {
        let full = self.root.full(path);
        move |errno| Error::io(what, &full)(errno.into())
    }

    fn refuse(&mut self, path: &BStr, why: &str) -> Result<()> {
        self.notes.add(notes::Kind::Refused, format!("`{}`: {why}", printed(path)))
    }

    /// Takes back what this layer had brought and the command has removed again: where it made the
    /// directory itself, no whiteout tells of it. Deepest first.
    fn forget_removed(&mut self) -> Result<()> {
        let mine: Vec<(BString, Lower)> =
            self.known.iter().rev().filter_map(|(path, record)| Some((path.clone(), record.lower?))).collect();
        for (path, lower) in mine {
            let path = path.as_bstr();
            if self.upper.stat(path)?.is_some() {
                continue;
            }
            match self.root.stat(path)? {
                Some(stat) if Lower::of(&stat) == lower && beneath::kind_of(&stat) == FileType::Directory => {
                    self.root.remove_empty_dir(path)?;
                }
                Some(stat) if Lower::of(&stat) == lower => self.root.remove(path)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn children(&mut self, at: &At<'_>) -> Result<()> {
        if at.depth > DEPTH {
            return self.refuse(at.path, "nested too deeply; not taken over");
        }
        // The patterns of the tree as it was, not those that the command brings.
        let entered = match at.low {
            Some(low) => self.ignored.enter(low, at.path)?,
            None => false,
        };
        let names = beneath::names(at.up, self.upper, at.path)?;
        let done = names.iter().try_for_each(|name| self.child(at, name));
        if entered {
            self.ignored.leave();
        }
        done
    }

    fn child(&mut self, at: &At<'_>, name: &[u8]) -> Result<()> {
        let path = join(at.path, name);
        let path = path.as_bstr();
        if path.len() > PATH_BYTES {
            return self.refuse(path, "its path is too long; not taken over");
        }
        let Some(up) = stat_at(at.up, name).map_err(self.fail("stat", path))? else { return Ok(()) };
        let low = match at.low {
            Some(low) => stat_at(low, name).map_err(self.fail("stat", path))?,
            None => None,
        };
        let kind = Kind::of(&up);
        let is_dir = kind == Kind::Dir || (kind == Kind::Whiteout && low.as_ref().is_some_and(is_directory));
        let ignored = at.ignored || self.ignored.matches(path, is_dir)?;
        let ignored = ignored && (is_dir || !self.around.tracked.has(path));
        let bulky = at.bulky || (ignored && name.to_str().is_ok_and(is_bulky));
        let entry = Entry { name, path, up, kind, low, ignored, bulky };
        if is_ours(name) {
            return self.refuse(path, "names like this are the runtime's own");
        }
        if self.task.is_check && !ignored {
            return self.drop_of_check(at, &entry);
        }
        // A directory that held protected files is gone through when it is deleted; a link in its place is one thing.
        let was = entry.low.as_ref().map_or(Kind::Dir, Kind::of);
        let is = if entry.kind == Kind::Whiteout { was } else { entry.kind };
        if !bulky && (steers(path, is) || steers(path, was)) {
            return self.protected(at, &entry);
        }
        self.take(at, &entry)
    }

    /// Something that may be taken over by its name.
    fn take(&mut self, at: &At<'_>, entry: &Entry<'_>) -> Result<()> {
        match entry.kind {
            Kind::Dir => self.directory(at, entry),
            Kind::Whiteout => self.delete(at, entry),
            Kind::Other(what) => self.refuse(entry.path, &format!("{what} is not taken over")),
            Kind::Link if !entry.ignored && self.is_way_out(at, entry)? => {
                self.refuse(entry.path, "a link that leads out is not taken over")
            }
            Kind::File | Kind::Link => self.put(at, entry),
        }
    }

    fn is_way_out(&self, at: &At<'_>, entry: &Entry<'_>) -> Result<bool> {
        let target = beneath::read_link(at.up, entry.name).map_err(self.fail("read link", entry.path))?;
        Ok(leads_out(self.root.path(), entry.path, &target))
    }

    /// Names what differs from the tree in the protected set; takes nothing of it.
    fn protected(&mut self, at: &At<'_>, entry: &Entry<'_>) -> Result<()> {
        const WHY: &str = "protected files cannot be changed by commands";
        match (entry.kind, &entry.low) {
            (Kind::Dir, Some(low)) if is_directory(low) => {
                let Some(dir) = at.low else { return Ok(()) };
                if is_opaque(at.up, entry.name) {
                    self.refuse(entry.path, WHY)?;
                }
                let up = self.open_up(at.up, entry)?;
                let low = beneath::open_dir(dir, entry.name, true).map_err(self.fail("open directory", entry.path))?;
                let inner = At { up: up.fd(), low: Some(low.as_fd()), path: entry.path, ignored: false, bulky: false, depth: at.depth + 1 };
                if inner.depth > DEPTH {
                    return self.refuse(entry.path, WHY);
                }
                let names = beneath::names(inner.up, self.upper, entry.path)?;
                names.iter().try_for_each(|name| self.child(&inner, name))
            }
            (Kind::Whiteout, None) => Ok(()),
            _ if self.is_same(at, entry)? => Ok(()),
            _ => self.refuse(entry.path, WHY),
        }
    }

    /// What a check writes is not taken over; what it changed of the tree is named.
    fn drop_of_check(&mut self, at: &At<'_>, entry: &Entry<'_>) -> Result<()> {
        let Some(low) = &entry.low else { return Ok(()) };
        if entry.kind != Kind::Dir || !is_directory(low) {
            let is_same = entry.kind != Kind::Whiteout && self.is_same(at, entry)?;
            return if is_same { Ok(()) } else { self.notes.add(notes::Kind::Dropped, printed(entry.path)) };
        }
        if is_opaque(at.up, entry.name) {
            return self.notes.add(notes::Kind::Dropped, printed(entry.path));
        }
        self.into(at, entry)
    }

    /// Goes on in a directory that stands on both sides.
    fn into(&mut self, at: &At<'_>, entry: &Entry<'_>) -> Result<()> {
        let Some(dir) = at.low else { return Ok(()) };
        let up = self.open_up(at.up, entry)?;
        let low = beneath::open_dir(dir, entry.name, true).map_err(self.fail("open directory", entry.path))?;
        self.children(&At {
            up: up.fd(),
            low: Some(low.as_fd()),
            path: entry.path,
            ignored: entry.ignored,
            bulky: entry.bulky,
            depth: at.depth + 1,
        })
    }

    fn open_up(&self, up: BorrowedFd<'_>, entry: &Entry<'_>) -> Result<Opened> {
        Opened::dir(up, entry.name, &entry.up).map_err(self.fail("open directory", entry.path))
    }

    fn directory(&mut self, at: &At<'_>, entry: &Entry<'_>) -> Result<()> {
        let Some(dir) = at.low else { return Ok(()) };
        let is_there = entry.low.as_ref().is_some_and(is_directory);
        if !is_there {
            if let Some(low) = &entry.low {
                if self.whose(entry, Some(low)) == Whose::Other {
                    return self.refuse(entry.path, "it was changed meanwhile and stays a file");
                }
                beneath::unlink_if_there_at(dir, entry.name).map_err(self.fail("replace", entry.path))?;
            }
            if self.task.ended && self.move_whole(at, entry)? {
                return Ok(());
            }
            match rustix::fs::mkdirat(dir, entry.name, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(self.fail("make directory", entry.path)(errno)),
            }
            self.note_applied(entry, stat_at(dir, entry.name).map_err(self.fail("stat", entry.path))?.as_ref())?;
        } else if is_opaque(at.up, entry.name) {
            self.clear_hidden(at, entry)?;
            if self.task.ended {
                // What is moved out of it from now on must not look like something it hides.
                judge::strip(at.up, entry.name);
            }
        }
        self.into(at, entry)?;
        // Whatever it was on the way here: to be entered it may have been opened.
        match beneath::set_mode(dir, entry.name, entry.up.st_mode & 0o777) {
            // Somebody has put a link there meanwhile, or taken it away.
            Err(Errno::LOOP | Errno::NOENT) => Ok(()),
            other => other.map_err(self.fail("set mode", entry.path)),
        }
    }

    /// Moves a new directory as it is, if nothing in it is to be refused.
    fn move_whole(&mut self, at: &At<'_>, entry: &Entry<'_>) -> Result<bool> {
        let Some(dir) = at.low else { return Ok(false) };
        let view = View { tree: self.root.path(), ignored: entry.ignored, bulky: entry.bulky };
        // A directory of the tree that somebody deleted meanwhile is not brought back whole.
        if is_copied(at.up, entry.name) || raises(&entry.up) {
            return Ok(false);
        }
        // Held until it has moved: who may not write to a directory may not move it either.
        let up = self.open_up(at.up, entry)?;
        if !judge::is_clean(up.fd(), entry.path, at.depth + 1, view).map_err(self.fail("look at", entry.path))? {
            return Ok(false);
        }
        judge::strip(at.up, entry.name);
        rustix::fs::renameat(at.up, entry.name, dir, entry.name).map_err(self.fail("move", entry.path))?;
        Ok(true)
    }

    /// Removes what an opaque directory hides: the command has deleted it.
    fn clear_hidden(&mut self, at: &At<'_>, entry: &Entry<'_>) -> Result<()> {
        let Some(dir) = at.low else { return Ok(()) };
        let up = self.open_up(at.up, entry)?;
        let low = beneath::open_dir(dir, entry.name, true).map_err(self.fail("open directory", entry.path))?;
        for name in beneath::names(low.as_fd(), self.root, entry.path)? {
            let path = join(entry.path, &name);
            if matches!(stat_at(up.fd(), &name), Ok(None)) {
                self.clear_base(low.as_fd(), &name, (path.as_bstr(), entry.bulky, at.depth + 1))?;
            }
        }
        Ok(())
    }

    /// Removes what the base or this layer had put under a name; the rest stays and is named. What
    /// lies deeper than checkpoints look stays, too: in a tree that is looked at it ends the task, and
    /// where git ignores it, it is only named.
    fn clear_base(&mut self, dir: BorrowedFd<'_>, name: &[u8], (path, bulky, depth): (&BStr, bool, usize)) -> Result<()> {
        let Some(low) = stat_at(dir, name).map_err(self.fail("stat", path))? else { return Ok(()) };
        if !bulky && steers(path, Kind::of(&low)) {
            return self.refuse(path, "protected files cannot be deleted by commands");
        }
        if is_directory(&low) {
            if depth > DEPTH {
                return self.refuse(path, "nested too deeply; not deleted");
            }
            let inner = beneath::open_dir(dir, name, true).map_err(self.fail("open directory", path))?;
            for child in beneath::names(inner.as_fd(), self.root, path)? {
                self.clear_base(inner.as_fd(), &child, (join(path, &child).as_bstr(), bulky, depth + 1))?;
            }
            return match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => Ok(()),
                Err(errno) => Err(self.fail("remove directory", path)(errno)),
            };
        }
        let is_mine = self.known.get(path).is_some_and(|record| record.lower == Some(Lower::of(&low)));
        if !is_mine && changed(&low) > self.task.start {
            return self.refuse(path, "it was changed meanwhile and was not deleted");
        }
        rustix::fs::unlinkat(dir, name, AtFlags::empty()).map_err(self.fail("remove", path))
    }

    fn delete(&mut self, at: &At<'_>, entry: &Entry<'_>) -> Result<()> {
        let (Some(dir), Some(low)) = (at.low, &entry.low) else { return Ok(()) };
        if self.is_known(entry) {
            return Ok(());
        }
        if is_directory(low) {
            self.clear_base(dir, entry.name, (entry.path, entry.bulky, at.depth + 1))?;
            return self.note_applied(entry, None);
        }
        if self.whose(entry, Some(low)) == Whose::Other {
            return self.refuse(entry.path, "it was changed meanwhile and was not deleted");
        }
        self.note_applied(entry, None)?;
        beneath::unlink_if_there_at(dir, entry.name).map_err(self.fail("remove", entry.path))
    }

    /// A file or link.
    fn put(&mut self, at: &At<'_>, entry: &Entry<'_>) -> Result<()> {
        let Some(dir) = at.low else { return Ok(()) };
        if self.is_known(entry) {
            return Ok(());
        }
        let mut low = entry.low.as_ref();
        if low.is_some_and(is_directory) {
            self.clear_base(dir, entry.name, (entry.path, entry.bulky, at.depth + 1))?;
            if stat_at(dir, entry.name).map_err(self.fail("stat", entry.path))?.is_some() {
                return self.refuse(entry.path, "a directory of this name stays, and what the command put there is not taken over");
            }
            low = None;
        }
        let whose = match (self.whose_file(at, entry, low)?, low) {
            (Whose::Free, None) if entry.low.is_none() && self.was_there(at, entry) => Whose::Other,
            (whose, _) => whose,
        };
        match whose {
            Whose::Same => Ok(()),
            Whose::Other => self.keep_beside(at, entry),
            Whose::Free if self.task.ended => self.move_file(at, entry, entry.name),
            Whose::Free => self.copy(at, entry),
        }
    }

    /// Whether the tree had a file here, from its base or from this layer, that is missing now.
    fn was_there(&self, at: &At<'_>, entry: &Entry<'_>) -> bool {
        self.known.get(entry.path).map_or_else(|| is_copied(at.up, entry.name), |record| record.lower.is_some())
    }

    fn whose_file(&self, at: &At<'_>, entry: &Entry<'_>, low: Option<&Stat>) -> Result<Whose> {
        Ok(match self.whose(entry, low) {
            Whose::Other if self.is_same(at, entry)? => Whose::Same,
            whose => whose,
        })
    }

    fn whose(&self, entry: &Entry<'_>, low: Option<&Stat>) -> Whose {
        let Some(low) = low else { return Whose::Free };
        let is_mine = self.known.get(entry.path).is_some_and(|record| record.lower == Some(Lower::of(low)));
        if is_mine || changed(low) <= self.task.start { Whose::Free } else { Whose::Other }
    }

    /// Whether this very state of the layer's file was brought into the tree before.
    fn is_known(&self, entry: &Entry<'_>) -> bool {
        self.known.get(entry.path).is_some_and(|record| record.upper == Upper::of(&entry.up))
    }

    /// Whether both sides have the same type, permission bits and content.
    fn is_same(&self, at: &At<'_>, entry: &Entry<'_>) -> Result<bool> {
        let (Some(dir), Some(low)) = (at.low, &entry.low) else { return Ok(false) };
        match (entry.kind, Kind::of(low)) {
            (Kind::Link, Kind::Link) => {
                let text = |dir| beneath::read_link(dir, entry.name).map_err(self.fail("read link", entry.path));
                Ok(text(at.up)? == text(dir)?)
            }
            (Kind::File, Kind::File) => {
                let is_alike = entry.up.st_size == low.st_size && (entry.up.st_mode ^ low.st_mode) & 0o7777 == 0;
                if !is_alike || low.st_size > COMPARED_BYTES {
                    return Ok(false);
                }
                let bytes = |dir| -> Result<Vec<u8>> {
                    let mut bytes = Vec::new();
                    let file = beneath::open_file(dir, entry.name, true).map_err(Error::io("open", &self.root.full(entry.path)))?;
                    file.take(COMPARED_BYTES.unsigned_abs() + 1)
                        .read_to_end(&mut bytes)
                        .map_err(Error::io("read", &self.root.full(entry.path)))?;
                    Ok(bytes)
                };
                Ok(bytes(at.up)? == bytes(dir)?)
            }
            _ => Ok(false),
        }
    }

    fn move_file(&mut self, at: &At<'_>, entry: &Entry<'_>, to: &[u8]) -> Result<()> {
        let Some(dir) = at.low else { return Ok(()) };
        if entry.kind == Kind::File && raises(&entry.up) {
            self.refuse(entry.path, "the bits setuid and setgid are not taken over")?;
            beneath::set_mode(at.up, entry.name, entry.up.st_mode & 0o777).map_err(self.fail("set mode", entry.path))?;
        }
        judge::strip(at.up, entry.name);
        rustix::fs::renameat(at.up, entry.name, dir, to).map_err(self.fail("move", entry.path))
    }

    /// Keeps the layer's version under a name of ours, beside what somebody else has made of the file.
    fn keep_beside(&mut self, at: &At<'_>, entry: &Entry<'_>) -> Result<()> {
        let what = if entry.low.is_some() { "changed" } else { "deleted" };
        if !self.task.ended {
            return self.refuse(entry.path, &format!("it was {what} in the tree since the command began, and stays so"));
        }
        let mut name = format!("{KEPT}u{}-", self.task.run).into_bytes();
        name.extend_from_slice(entry.name);
        name.truncate(255);
        let kept = join(at.path, &name);
        let why = format!(
            "it was {what} in the tree since the command began, and stays so; the command's version is kept as `{}`",
            printed(kept.as_bstr())
        );
        self.refuse(entry.path, &why)?;
        let Some(dir) = at.low else { return Ok(()) };
        beneath::clear(dir, &name).map_err(self.fail("replace", kept.as_bstr()))?;
        self.move_file(at, entry, &name)
    }

    /// Copies what a running command may still write to.
    fn copy(&mut self, at: &At<'_>, entry: &Entry<'_>) -> Result<()> {
        let Some(dir) = at.low else { return Ok(()) };
        if entry.up.st_size > COPIED_BYTES || is_hollow(&entry.up) {
            return Ok(());
        }
        beneath::make_room(dir, PARTIAL, true).map_err(self.fail("write", entry.path))?;
        if entry.kind == Kind::Link {
            let target = beneath::read_link(at.up, entry.name).map_err(self.fail("read link", entry.path))?;
            rustix::fs::symlinkat(target, dir, PARTIAL).map_err(self.fail("write link", entry.path))?;
        } else if !self.copy_file(at.up, dir, entry)? {
            return Ok(());
        }
        let stat = stat_at(dir, PARTIAL).map_err(self.fail("stat", entry.path))?;
        self.note_applied(entry, stat.as_ref())?;
        rustix::fs::renameat(dir, PARTIAL, dir, entry.name).map_err(self.fail("write", entry.path))
    }

    /// Copies a file's bytes, bits and time; `false` when the command has taken it away meanwhile, or
    /// lets nobody read it: the end will tell.
    fn copy_file(&mut self, up: BorrowedFd<'_>, dir: BorrowedFd<'_>, entry: &Entry<'_>) -> Result<bool> {
        let from = match beneath::open_file(up, entry.name, false) {
            Ok(from) => from,
            Err(why) if matches!(why.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied) => return Ok(false),
            Err(why) => return Err(Error::io("open", &self.upper.full(entry.path))(why)),
        };
        if raises(&entry.up) {
            self.refuse(entry.path, "the bits setuid and setgid are not taken over")?;
        }
        let mut to = create(dir).map_err(self.fail("create", entry.path))?;
        let limit = entry.up.st_size.unsigned_abs();
        let write = |to: &mut File| std::io::copy(&mut from.take(limit), to).and_then(|_| to.flush());
        write(&mut to).map_err(Error::io("write", &self.root.full(entry.path)))?;
        rustix::fs::fchmod(&to, Mode::from_raw_mode(entry.up.st_mode & 0o777)).map_err(self.fail("set mode", entry.path))?;
        rustix::fs::futimens(&to, &times(&entry.up)).map_err(self.fail("set time", entry.path))?;
        Ok(true)
    }

    /// Writes down what is about to stand in the tree. Of a command that has ended nothing needs to be:
    /// what was moved is no longer in the layer.
    fn note_applied(&mut self, entry: &Entry<'_>, low: Option<&Stat>) -> Result<()> {
        if self.task.ended {
            return Ok(());
        }
        let record = Record { upper: Upper::of(&entry.up), lower: low.map(Lower::of) };
        self.journal.write_all(&format::encode(entry.path, &record)).map_err(Error::io("write", Path::new(APPLIED)))?;
        self.known.insert(entry.path.into(), record);
        Ok(())
    }
}

fn is_directory(stat: &Stat) -> bool {
    beneath::kind_of(stat) == FileType::Directory
}

/// Whether most of a file is holes, as far as its blocks tell: a copy of it would take disk that the command has not.
#[allow(clippy::unnecessary_cast, reason = "the field types differ between systems")]
fn is_hollow(stat: &Stat) -> bool {
    let held = (stat.st_blocks as i64).saturating_mul(512);
    beneath::kind_of(stat) == FileType::RegularFile && stat.st_size > HOLLOW_BYTES && held < stat.st_size / 2
}

fn create(dir: BorrowedFd<'_>) -> Result<File, Errno> {
    use rustix::fs::OFlags;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd: OwnedFd = rustix::fs::openat(dir, PARTIAL, flags, Mode::from_raw_mode(0o600))?;
    Ok(File::from(fd))
}

#[allow(clippy::unnecessary_cast, clippy::useless_conversion, reason = "the field types differ between systems")]
fn times(stat: &Stat) -> rustix::fs::Timestamps {
    let at = |tv_sec, tv_nsec| rustix::fs::Timespec { tv_sec, tv_nsec };
    rustix::fs::Timestamps {
        last_access: at(stat.st_atime as i64, stat.st_atime_nsec as i64),
        last_modification: at(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
    }
}

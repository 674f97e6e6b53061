//! Files below one directory, reached component by component without following links.
//!
//! Not a general file API: only what a tree of git needs (regular files, links, directories).
//! Invariant: no operation leaves the root, because a command may swap a directory for a link at
//! any moment and the daemon must not read or write through it.

use crate::budget::{Budget, ENTRIES, too_much};
use crate::error::{Error, Result};
use gix::bstr::{BStr, BString, ByteSlice};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Name of a half-written file; walks leave it out, and the next write replaces it.
pub const PARTIAL: &[u8] = b".tinkerbell~partial";
/// How often a write begins anew when somebody puts something under that name at the same moment.
const TRIES: usize = 100;

/// What to do when something of another type stands in the way of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// Remove it: the tree is the task's own.
    Clear,
    /// Fail: the tree is the user's.
    Refuse,
}

/// A directory and everything below it.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    path: PathBuf,
    obstacle: Obstacle,
}

const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Root {
    /// Opens the directory; one of our own lets its owner in from now on, whatever a command made of its mode.
    ///
    /// # Errors
    /// When it is not there or not a directory.
    pub fn open(path: &Path, obstacle: Obstacle) -> Result<Self> {
        if obstacle == Obstacle::Clear {
            admit(path).map_err(|errno| Error::io("open", path)(errno.into()))?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| Error::io("open", path)(e.into()))?;
        Ok(Self { fd, path: path.to_owned(), obstacle })
    }

    /// The directory's own descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the tree is ours to tidy.
    pub fn is_own(&self) -> bool {
        self.obstacle == Obstacle::Clear
    }

    /// The absolute path of something below, for messages.
    pub fn full(&self, path: &BStr) -> PathBuf {
        self.path.join(OsStr::from_bytes(path))
    }

    fn fail(&self, what: &'static str, path: &BStr) -> impl FnOnce(Errno) -> Error + use<> {
        let full = self.full(path);
        move |errno| Error::Io { what, path: full, why: errno.into() }
    }

    /// Opens the directory that holds `path`; `None` when a component is missing or no directory.
    fn parent(&self, path: &BStr) -> Result<Option<(OwnedFd, BString)>> {
        let (dirs, name) = split(path);
        let mut at = rustix::io::dup(&self.fd).map_err(self.fail("open", path))?;
        for part in dirs.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
            match open_dir(&at, part, self.is_own()) {
                Ok(next) => at = next,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                Err(errno) => return Err(self.fail("open directory", path)(errno)),
            }
        }
        Ok(Some((at, name.into())))
    }

    /// Opens the directory that holds `path`, making what is missing.
    fn parent_made(&self, path: &BStr) -> Result<(OwnedFd, BString)> {
        let (dirs, name) = split(path);
        let mut at = rustix::io::dup(&self.fd).map_err(self.fail("open", path))?;
        for part in dirs.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
            at = self.enter_made(&at, part).map_err(self.fail("make directory", path))?;
        }
        Ok((at, name.into()))
    }

    /// Lets names in a directory of our own be made and removed, whatever a command made of its mode.
    fn open_up(&self, dir: &OwnedFd) -> Result<(), Errno> {
        if !self.is_own() {
            return Ok(());
        }
        let bits = rustix::fs::fstat(dir)?.st_mode & 0o7777;
        if bits & 0o700 == 0o700 { Ok(()) } else { rustix::fs::fchmod(dir, Mode::from_raw_mode(bits | 0o700)) }
    }

    /// Makes what is half-written, in place of whatever stands under its name, and gives the name: in a tree of our
    /// own a command may have put a directory there, and in the user's a stranger, who then keeps it.
    fn begin<T>(&self, dir: &OwnedFd, make: impl Fn(&[u8]) -> Result<T, Errno>) -> Result<(T, BString), Errno> {
        self.open_up(dir)?;
        for n in 0..TRIES {
            let name = if self.is_own() || n == 0 { BString::from(PARTIAL) } else { format!("{}-{n}", PARTIAL.as_bstr()).into() };
            match make_room(dir.as_fd(), &name, self.is_own()) {
                Err(Errno::ISDIR | Errno::PERM) if !self.is_own() => continue,
                other => other?,
            }
            match make(&name) {
                Err(Errno::EXIST) => {}
                other => return Ok((other?, name)),
            }
        }
        Err(Errno::EXIST)
    }

    fn enter_made(&self, at: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
        match open_dir(at, name, self.is_own()) {
            Err(Errno::NOENT) => self.open_up(at)?,
            Err(Errno::NOTDIR | Errno::LOOP) if self.obstacle == Obstacle::Clear => {
                self.open_up(at)?;
                rustix::fs::unlinkat(at, name, AtFlags::empty())?;
            }
            other => return other,
        }
        match rustix::fs::mkdirat(at, name, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => open_dir(at, name, self.is_own()),
            Err(errno) => Err(errno),
        }
    }

    /// What stands at `path`, without following a link; `None` when nothing does.
    pub fn stat(&self, path: &BStr) -> Result<Option<Stat>> {
        let Some((dir, name)) = self.parent(path)? else { return Ok(None) };
        stat_at(dir.as_fd(), &name).map_err(self.fail("stat", path))
    }

    /// Opens a directory; `None` when there is none at this path.
    pub fn dir(&self, path: &BStr) -> Result<Option<OwnedFd>> {
        let Some((dir, name)) = self.parent(path)? else { return Ok(None) };
        if name.is_empty() {
            return Ok(Some(dir));
        }
        match open_dir(&dir, &name, self.is_own()) {
            Ok(dir) => Ok(Some(dir)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => Err(self.fail("open directory", path)(errno)),
        }
    }

    /// Opens a regular file for reading.
    pub fn file(&self, path: &BStr) -> Result<File> {
        let missing = || self.fail("open", path)(Errno::NOENT);
        let (dir, name) = self.parent(path)?.ok_or_else(missing)?;
        open_file(dir.as_fd(), &name, self.is_own()).map_err(Error::io("open", &self.full(path)))
    }

    /// All bytes of a regular file of the user's. Not for what a command may have written: it can be of any length.
    pub fn read(&self, path: &BStr) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.file(path)?.read_to_end(&mut bytes).map_err(Error::io("read", &self.full(path)))?;
        Ok(bytes)
    }

    /// Whether a regular file with exactly these bytes stands there. Of a longer one no more is read, whatever its
    /// size.
    pub fn says(&self, path: &BStr, wanted: &[u8]) -> Result<bool> {
        let regular = self.stat(path)?.is_some_and(|stat| kind_of(&stat) == FileType::RegularFile);
        if !regular {
            return Ok(false);
        }
        let mut bytes = Vec::with_capacity(wanted.len() + 1);
        let most = wanted.len() as u64 + 1;
        self.file(path)?.take(most).read_to_end(&mut bytes).map_err(Error::io("read", &self.full(path)))?;
        Ok(bytes == wanted)
    }

    /// Where a link points.
    pub fn link(&self, path: &BStr) -> Result<Vec<u8>> {
        let missing = || self.fail("read link", path)(Errno::NOENT);
        let (dir, name) = self.parent(path)?.ok_or_else(missing)?;
        read_link(dir.as_fd(), &name).map_err(self.fail("read link", path))
    }

    /// Writes a file whole: the old content or the new one is there, never a half. With `perm` the
    /// permission bits are exactly those; without, the process' mask decides on `0o666`.
    pub fn write(&self, path: &BStr, content: &mut dyn Read, mode: FileMode) -> Result<()> {
        let (dir, name) = self.parent_made(path)?;
        let full = self.full(path);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let start = if mode == FileMode::Executable { 0o777 } else { 0o666 };
        let make = |name: &[u8]| rustix::fs::openat(&dir, name, flags, Mode::from_raw_mode(start));
        let (fd, half) = self.begin(&dir, make).map_err(self.fail("create", path))?;
        let mut file = File::from(fd);
        std::io::copy(content, &mut file).and_then(|_| file.flush()).map_err(Error::io("write", &full))?;
        if let FileMode::Exactly(bits) = mode {
            rustix::fs::fchmod(&file, Mode::from_raw_mode(bits)).map_err(self.fail("set mode", path))?;
        }
        self.clear_for(&dir, &name).map_err(self.fail("replace", path))?;
        rustix::fs::renameat(&dir, half.as_slice(), &dir, name.as_slice()).map_err(self.fail("write", path))
    }

    /// Adds to the end of a regular file that stands there under this name alone; what is missing, a link, or
    /// anything else stays as it is.
    pub fn append(&self, path: &BStr, bytes: &[u8]) -> Result<()> {
        let Some((dir, name)) = self.parent(path)? else { return Ok(()) };
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&dir, name.as_slice(), flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::ISDIR) => return Ok(()),
            other => other.map_err(self.fail("open", path))?,
        };
        let stat = rustix::fs::fstat(&fd).map_err(self.fail("stat", path))?;
        if kind_of(&stat) != FileType::RegularFile || stat.st_nlink != 1 {
            return Ok(());
        }
        File::from(fd).write_all(bytes).map_err(Error::io("write", &self.full(path)))
    }

    /// Writes a link whole.
    pub fn write_link(&self, path: &BStr, target: &[u8]) -> Result<()> {
        let (dir, name) = self.parent_made(path)?;
        let make = |name: &[u8]| rustix::fs::symlinkat(target, &dir, name);
        let ((), half) = self.begin(&dir, make).map_err(self.fail("write link", path))?;
        self.clear_for(&dir, &name).map_err(self.fail("replace", path))?;
        rustix::fs::renameat(&dir, half.as_slice(), &dir, name.as_slice()).map_err(self.fail("write link", path))
    }

    /// A rename replaces files and links by itself; only a directory must go first.
    fn clear_for(&self, dir: &OwnedFd, name: &BString) -> Result<(), Errno> {
        let Some(stat) = stat_at(dir.as_fd(), name)? else { return Ok(()) };
        if kind_of(&stat) != FileType::Directory {
            return Ok(());
        }
        match self.obstacle {
            Obstacle::Clear => clear_dir(dir.as_fd(), name),
            Obstacle::Refuse => rustix::fs::unlinkat(dir, name.as_slice(), AtFlags::REMOVEDIR),
        }
    }

    /// Sets the permission bits of a file or directory.
    pub fn chmod(&self, path: &BStr, bits: u32) -> Result<()> {
        let Some((dir, name)) = self.parent(path)? else { return Ok(()) };
        match set_mode(dir.as_fd(), &name, bits) {
            Err(Errno::NOENT | Errno::LOOP) => Ok(()),
            other => other.map_err(self.fail("set mode", path)),
        }
    }

    /// Makes a directory with its parents.
    pub fn make_dir(&self, path: &BStr) -> Result<()> {
        let (dir, name) = self.parent_made(path)?;
        self.enter_made(&dir, &name).map(drop).map_err(self.fail("make directory", path))
    }

    /// Removes a file or link; what is missing, or a directory, stays as it is.
    pub fn remove(&self, path: &BStr) -> Result<()> {
        let Some((dir, name)) = self.parent(path)? else { return Ok(()) };
        match stat_at(dir.as_fd(), &name).map_err(self.fail("remove", path))? {
            Some(stat) if kind_of(&stat) != FileType::Directory => {
                self.open_up(&dir).and_then(|()| unlink_if_there(&dir, &name)).map_err(self.fail("remove", path))
            }
            _ => Ok(()),
        }
    }

    /// Removes a directory with all it holds; what is missing, or no directory, stays as it is.
    pub fn remove_dir(&self, path: &BStr) -> Result<()> {
        let Some((dir, name)) = self.parent(path)? else { return Ok(()) };
        match stat_at(dir.as_fd(), &name).map_err(self.fail("remove", path))? {
            Some(stat) if kind_of(&stat) == FileType::Directory => {
                self.open_up(&dir).and_then(|()| clear_dir(dir.as_fd(), &name)).map_err(self.fail("remove directory", path))
            }
            _ => Ok(()),
        }
    }

    /// Removes a directory if it is empty; tells whether it went.
    pub fn remove_empty_dir(&self, path: &BStr) -> Result<bool> {
        let Some((dir, name)) = self.parent(path)? else { return Ok(false) };
        if self.stat(path)?.is_none_or(|stat| kind_of(&stat) != FileType::Directory) {
            return Ok(false);
        }
        self.open_up(&dir).map_err(self.fail("remove directory", path))?;
        match rustix::fs::unlinkat(&dir, name.as_slice(), AtFlags::REMOVEDIR) {
            Ok(()) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(errno) => Err(self.fail("remove directory", path)(errno)),
        }
    }

    /// Removes the directories above `path` that have become empty, up to the root.
    pub fn prune_above(&self, path: &BStr) -> Result<()> {
        let mut at: &BStr = split(path).0.as_bstr();
        while !at.is_empty() && self.remove_empty_dir(at)? {
            at = split(at).0.as_bstr();
        }
        Ok(())
    }

    /// Every path below a directory that is no directory itself.
    pub fn files_below(&self, path: &BStr) -> Result<Vec<BString>> {
        let mut out = Vec::new();
        let (mut open, mut budget) = (vec![BString::from(path.to_vec())], Budget::default());
        while let Some(dir) = open.pop() {
            let Some((at, name)) = self.parent(dir.as_bstr())? else { continue };
            let fd = open_dir(&at, &name, self.is_own()).map_err(self.fail("open directory", dir.as_bstr()))?;
            for child in names(fd.as_fd(), self, dir.as_bstr())? {
                let full = crate::ignored::join(dir.as_bstr(), &child);
                budget.take(full.as_bstr())?;
                let stat = stat_at(fd.as_fd(), &child).map_err(self.fail("stat", full.as_bstr()))?;
                match stat {
                    Some(stat) if kind_of(&stat) == FileType::Directory => open.push(full),
                    Some(_) => out.push(full),
                    None => {}
                }
            }
        }
        Ok(out)
    }

    /// Empties the root itself.
    pub fn empty(&self) -> Result<()> {
        for _ in 0..ROUNDS {
            let names = some(self.fd.as_fd(), ROUND).map_err(Error::io("list", &self.path))?;
            if names.is_empty() {
                break;
            }
            for name in names {
                clear(self.fd.as_fd(), &name).map_err(self.fail("remove", name.as_bstr()))?;
            }
        }
        Ok(())
    }
}

/// The permission bits that a written file gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileMode {
    /// `0o666` less the process' mask.
    Plain,
    /// `0o777` less the process' mask.
    Executable,
    /// Exactly these.
    Exactly(u32),
}

/// Directory part and last component.
pub fn split(path: &BStr) -> (&[u8], &[u8]) {
    let cut = path.rfind_byte(b'/');
    match cut {
        Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
        None => (b"", path),
    }
}

/// The type in a stat.
pub fn kind_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Opens a directory below another, never through a link. In a tree of our own a mode that forbids
/// it is opened first: a command may take its own rights away, and the tree is still ours to read.
pub fn open_dir(at: impl AsFd, name: &[u8], own: bool) -> Result<OwnedFd, Errno> {
    match rustix::fs::openat(&at, name, DIR, Mode::empty()) {
        Err(Errno::ACCESS) if own => {
            let is_dir = stat_at(at.as_fd(), name)?.is_some_and(|stat| kind_of(&stat) == FileType::Directory);
            if !is_dir {
                return Err(Errno::ACCESS);
            }
            set_mode(at.as_fd(), name, 0o700)?;
            rustix::fs::openat(&at, name, DIR, Mode::empty())
        }
        other => other,
    }
}

/// Stats without following; `None` when missing.
pub fn stat_at(at: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Stat>, Errno> {
    match rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Opens a regular file, never a link, a pipe or a device; in a tree of our own one that its mode
/// hides is still read, and its mode put back.
pub fn open_file(at: BorrowedFd<'_>, name: &[u8], own: bool) -> std::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = match rustix::fs::openat(at, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) if own => {
            let before = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if kind_of(&before) != FileType::RegularFile {
                return Err(Errno::ACCESS.into());
            }
            set_mode(at, name, 0o600)?;
            let opened = rustix::fs::openat(at, name, flags, Mode::empty())?;
            rustix::fs::fchmod(&opened, Mode::from_raw_mode(before.st_mode & 0o7777))?;
            opened
        }
        other => other?,
    };
    if kind_of(&rustix::fs::fstat(&opened)?) != FileType::RegularFile {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(File::from(opened))
}

/// Sets the permission bits of what stands under a name, which need not be readable. A link is refused,
/// and none is followed: a command may swap the name for one at any moment, and with it the bits of a file
/// outside would be set.
pub fn set_mode(at: BorrowedFd<'_>, name: &[u8], bits: u32) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(bits);
    #[cfg(target_os = "linux")]
    {
        let held = rustix::fs::openat(at, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        if kind_of(&rustix::fs::fstat(&held)?) == FileType::Symlink {
            return Err(Errno::LOOP);
        }
        // Such a descriptor can not be asked to change anything, but its entry leads to that very inode.
        rustix::fs::chmod(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held)), mode)
    }
    #[cfg(not(target_os = "linux"))]
    {
        rustix::fs::chmodat(at, name, mode, AtFlags::SYMLINK_NOFOLLOW)
    }
}

/// Where a link points.
pub fn read_link(at: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<u8>, Errno> {
    rustix::fs::readlinkat(at, name, Vec::new()).map(std::ffi::CString::into_bytes)
}

/// Names in a directory of a tree, sorted.
///
/// # Errors
/// When it can not be read, or has more names than a tree may have paths.
pub fn names(at: BorrowedFd<'_>, root: &Root, path: &BStr) -> Result<Vec<BString>> {
    list(at).map_err(|why| match why.kind() {
        std::io::ErrorKind::FileTooLarge => too_much(path, format!("the directory has more than {ENTRIES} names")),
        _ => Error::io("list", &root.full(path))(why),
    })
}

/// Names in a directory, sorted.
///
/// # Errors
/// When it can not be read; `FileTooLarge` when it has more than a million names.
pub fn list(at: BorrowedFd<'_>) -> std::io::Result<Vec<BString>> {
    let mut names = some(at, ENTRIES + 1)?;
    if names.len() > ENTRIES {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    names.sort();
    Ok(names)
}

/// At most so many names of a directory.
fn some(at: BorrowedFd<'_>, most: usize) -> std::io::Result<Vec<BString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(at)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(BString::from(name));
        }
        if names.len() >= most {
            break;
        }
    }
    Ok(names)
}

/// Removes a file or link; a missing one is fine.
pub fn unlink_if_there_at(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    unlink_if_there(dir, name)
}

fn unlink_if_there(dir: impl AsFd, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Removes what stands under a name of half-written files; in a tree of our own also a directory.
pub fn make_room(dir: BorrowedFd<'_>, name: &[u8], own: bool) -> Result<(), Errno> {
    let made = if own { clear(dir, name) } else { unlink_if_there(dir, name) };
    match made {
        // A command changes it at the same moment: whoever makes the name finds out.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) if own => Ok(()),
        other => other,
    }
}

/// Gives a directory's owner back what a command took: to list it, to enter it, to change its names.
fn admit(path: &Path) -> Result<(), Errno> {
    let stat = match rustix::fs::lstat(path) {
        Ok(stat) if kind_of(&stat) == FileType::Directory && stat.st_mode & 0o700 != 0o700 => stat,
        _ => return Ok(()),
    };
    set_mode(rustix::fs::CWD, path.as_os_str().as_bytes(), stat.st_mode & 0o7777 | 0o700)
}

/// Removes whatever stands under a name.
pub fn clear(at: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match stat_at(at, name)? {
        None => Ok(()),
        Some(stat) if kind_of(&stat) == FileType::Directory => clear_dir(at, name),
        Some(_) => rustix::fs::unlinkat(at, name, AtFlags::empty()),
    }
}

/// Directories so deep below the removed one are moved up to it first: a command makes them deeper than
/// any stack, and than there are descriptors.
const DEEP: usize = 64;
/// Names of a directory that are removed at a time: a command makes more of them than memory holds.
const ROUND: usize = 4096;
/// Most such rounds in one directory.
const ROUNDS: usize = 100_000;

/// Removes a directory with all it holds, whatever its modes are and however deep it is.
pub fn clear_dir(at: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    let root = open_dir(at, name, true)?;
    rustix::fs::fchmod(&root, Mode::from_raw_mode(0o700))?;
    let mut moved = 0;
    for _ in 0..ROUNDS {
        let children = names_in(&root)?;
        if children.is_empty() {
            break;
        }
        for child in children {
            clear_below((root.as_fd(), root.as_fd()), &child, 1, &mut moved)?;
        }
    }
    rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR)
}

fn clear_below((root, at): (BorrowedFd<'_>, BorrowedFd<'_>), name: &[u8], depth: usize, moved: &mut u64) -> Result<(), Errno> {
    if !stat_at(at, name)?.is_some_and(|stat| kind_of(&stat) == FileType::Directory) {
        return unlink_if_there(at, name);
    }
    let dir = open_dir(at, name, true)?;
    rustix::fs::fchmod(&dir, Mode::from_raw_mode(0o700))?;
    if depth >= DEEP {
        loop {
            *moved += 1;
            let up = format!(".tinkerbell~deep-{moved}");
            match rustix::fs::renameat_with(at, name, root, up, rustix::fs::RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                other => return other,
            }
        }
    }
    for _ in 0..ROUNDS {
        let children = names_in(&dir)?;
        if children.is_empty() {
            break;
        }
        for child in children {
            clear_below((root, dir.as_fd()), &child, depth + 1, moved)?;
        }
    }
    rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR)
}

fn names_in(dir: &OwnedFd) -> Result<Vec<BString>, Errno> {
    some(dir.as_fd(), ROUND).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

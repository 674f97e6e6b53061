//! A task's tree, opened safely: everything is reached beneath its root.
//!
//! The kernel resolves the paths (`openat2`), so that a link swapped in by a running command can
//! not lead outside; where it can not, components are walked one by one without links.
//! Invariant: a descriptor that comes out of here is inside the tree and not inside `.git`.

use crate::edit::Entry;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Larger files are not edited or shown; commands can do that.
pub const MAX_FILE_BYTES: u64 = 16 << 20;

/// Whether links are followed on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// As long as they stay inside the tree: for reading.
    Inside,
    /// Not at all: for writing, because the guard judged the path as it is spelled.
    Never,
}

/// What stands at a path.
pub enum Found {
    /// A regular file.
    File(File, Box<Stat>),
    /// A directory.
    Directory(OwnedFd),
    /// Nothing.
    Missing,
    /// Something else; the text names it.
    Other(String),
}

/// The tree of one task.
pub struct Tree {
    root: OwnedFd,
    path: PathBuf,
}

const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Tree {
    /// Opens the tree's root.
    pub fn open(path: &Path) -> io::Result<Self> {
        let root = rustix::fs::open(path, DIR, Mode::empty())?;
        Ok(Self { root, path: path.to_owned() })
    }

    /// The root's path, as it was recorded.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks at a path relative to the root; empty for the root.
    pub fn find(&self, rel: &str, links: Links) -> io::Result<Found> {
        let target = if rel.is_empty() { "." } else { rel };
        let fd = match self.resolve(target, READ, links) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Found::Missing),
            Err(Errno::LOOP) => return Ok(Found::Other(self.name_link(target))),
            Err(Errno::XDEV) => return Ok(Found::Other("a link that leaves the workspace".to_owned())),
            Err(Errno::NXIO) => return Ok(Found::Other("a socket or device".to_owned())),
            Err(errno) => return Err(errno.into()),
        };
        if links == Links::Inside && !self.is_allowed(&fd) {
            return Ok(Found::Other("a link into `.git`".to_owned()));
        }
        let stat = rustix::fs::fstat(&fd)?;
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Found::File(File::from(fd), Box::new(stat)),
            FileType::Directory => Found::Directory(fd),
            _ => Found::Other("a pipe, socket or device".to_owned()),
        })
    }

    /// What stands at a path, for the edit engine.
    pub fn entry(&self, rel: &str) -> io::Result<Entry> {
        Ok(match self.find(rel, Links::Never)? {
            Found::Missing => Entry::Missing,
            Found::Directory(_) => Entry::Directory,
            Found::Other(what) => Entry::Other(what),
            Found::File(file, stat) => match read_capped(file, &stat)? {
                Some(bytes) => Entry::File(bytes),
                None => Entry::Other(format!("larger than {} MiB", MAX_FILE_BYTES >> 20)),
            },
        })
    }

    /// The directory that holds `rel`, and the name in it. With `make`, missing directories are
    /// made and the topmost new one's path is given.
    pub fn parent(&self, rel: &str, make: bool) -> io::Result<(OwnedFd, String, Option<String>)> {
        let (above, name) = rel.rsplit_once('/').unwrap_or(("", rel));
        let mut made = None;
        let mut upto = String::new();
        for part in above.split('/').filter(|p| make && !p.is_empty()) {
            let within = self.dir(&upto)?;
            upto = if upto.is_empty() { part.to_owned() } else { format!("{upto}/{part}") };
            match rustix::fs::mkdirat(&within, part, Mode::from_raw_mode(0o777)) {
                Ok(()) => made = made.or_else(|| Some(upto.clone())),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok((self.dir(above)?, name.to_owned(), made))
    }

    fn dir(&self, rel: &str) -> io::Result<OwnedFd> {
        let target = if rel.is_empty() { "." } else { rel };
        Ok(self.resolve(target, DIR, Links::Never)?)
    }

    fn resolve(&self, rel: &str, flags: OFlags, links: Links) -> Result<OwnedFd, Errno> {
        let mut how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        if links == Links::Never {
            how |= ResolveFlags::NO_SYMLINKS;
        }
        // EAGAIN: something was renamed meanwhile and the kernel could not be sure; try again.
        for _ in 0..16 {
            match rustix::fs::openat2(&self.root, rel, flags, Mode::empty(), how) {
                Err(Errno::AGAIN) => {}
                // Kernels before 5.6 and old container filters do not have the call.
                Err(Errno::NOSYS | Errno::PERM) => return self.walk(rel, flags),
                other => return other,
            }
        }
        self.walk(rel, flags)
    }

    /// Component by component, following no link at all.
    fn walk(&self, rel: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut at = rustix::io::dup(&self.root)?;
        let mut parts = rel.split('/').filter(|p| !p.is_empty() && *p != ".").peekable();
        while let Some(part) = parts.next() {
            let last = parts.peek().is_none();
            let how = if last { flags } else { DIR } | OFlags::NOFOLLOW;
            at = rustix::fs::openat(&at, part, how, Mode::empty()).map_err(|e| self.link_or(&at, part, e))?;
        }
        Ok(at)
    }

    /// A link opened as a directory gives ENOTDIR; say what it really is.
    fn link_or(&self, at: &OwnedFd, part: &str, errno: Errno) -> Errno {
        match rustix::fs::readlinkat(at, part, Vec::new()) {
            Ok(_) => Errno::LOOP,
            Err(_) => errno,
        }
    }

    fn name_link(&self, rel: &str) -> String {
        let (above, name) = rel.rsplit_once('/').unwrap_or(("", rel));
        let target = self.dir(above).ok().and_then(|d| rustix::fs::readlinkat(&d, name, Vec::new()).ok());
        match target {
            Some(to) => format!("a symbolic link to {}; use the path of its target", to.to_string_lossy()),
            None => "below a symbolic link; use the real path".to_owned(),
        }
    }

    /// Whether the opened file is not in `.git`, whatever links led there.
    fn is_allowed(&self, fd: &OwnedFd) -> bool {
        let real = |fd: &OwnedFd| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        // Without /proc the kernel's BENEATH still holds, and a worktree's `.git` is a mere pointer.
        let (Ok(root), Ok(file)) = (real(&self.root), real(fd)) else { return true };
        let inner = file.strip_prefix(&root).unwrap_or(&file);
        !inner.components().any(|c| c.as_os_str().eq_ignore_ascii_case(".git"))
    }
}

/// A file's bytes; `None` when it is too large.
pub fn read_capped(file: File, stat: &Stat) -> io::Result<Option<Vec<u8>>> {
    if u64::try_from(stat.st_size).unwrap_or(0) > MAX_FILE_BYTES {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= MAX_FILE_BYTES).then_some(bytes))
}

/// A regular file's bytes by its name in an open directory; `None` when it is none.
pub fn read_at(dir: &OwnedFd, name: &str) -> Option<Vec<u8>> {
    let fd = rustix::fs::openat(dir, name, READ | OFlags::NOFOLLOW, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&fd).ok()?;
    let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if regular { read_capped(File::from(fd), &stat).ok().flatten() } else { None }
}

/// Names in an open directory, sorted, directories with a `/`.
pub fn names(dir: &OwnedFd) -> io::Result<Vec<String>> {
    let mut all = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir.as_fd())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if matches!(name.as_str(), "." | ".." | ".git") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                rustix::fs::statat(dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW).map(|s| FileType::from_raw_mode(s.st_mode))?
            }
            known => known,
        };
        all.push(if kind == FileType::Directory { format!("{name}/") } else { name });
    }
    all.sort();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The way for kernels without `openat2` must refuse what the kernel would.
    #[test]
    fn walking_by_hand_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("tree/sub")).unwrap();
        std::fs::write(dir.path().join("tree/sub/f"), "x").unwrap();
        std::fs::write(dir.path().join("outside"), "x").unwrap();
        std::os::unix::fs::symlink("sub", dir.path().join("tree/link")).unwrap();
        std::os::unix::fs::symlink("../../outside", dir.path().join("tree/sub/out")).unwrap();
        let tree = Tree::open(&dir.path().join("tree")).unwrap();
        let check = |rel: &str, want: Option<Errno>| assert_eq!(tree.walk(rel, READ).err(), want, "{rel}");
        check("sub/f", None);
        check("./sub", None);
        check("link/f", Some(Errno::LOOP));
        check("link", Some(Errno::LOOP));
        check("sub/out", Some(Errno::LOOP));
        check("sub/none", Some(Errno::NOENT));
        check("sub/f/x", Some(Errno::NOTDIR));
    }
}

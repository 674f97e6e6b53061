//! Ignored things that a task needs and a new worktree lacks: `node_modules`, `.venv`.
//!
//! Copied once, when the worktree is made, by reference where the file system can. Invariant: the user's copy is only
//! read, a link is copied as a link, and none is followed on either side: both trees may hold links of a stranger.

use crate::beneath::{self, Obstacle, Root};
use crate::error::{Error, Result};
use gix::bstr::{BStr, BString, ByteSlice};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

/// Most files that are copied for one name.
const FILES: usize = 200_000;
/// Deepest directories that are copied: each takes two descriptors.
const DEEPEST: usize = 100;

/// Copies each path that exists in the user's tree and not in the task's; tells what it did.
pub fn carry(paths: &[String], from: &Path, to: &Path) -> Result<Vec<String>> {
    // Nothing of the new tree gives way: what stands there came from a commit.
    let (source, target) = (Root::open(from, Obstacle::Refuse)?, Root::open(to, Obstacle::Refuse)?);
    let mut notes = Vec::new();
    for path in paths {
        let parts = Path::new(path).components().map(|part| match part {
            Component::Normal(name) => Some(name.as_bytes()),
            _ => None,
        });
        let Some(parts) = parts.collect::<Option<Vec<&[u8]>>>().filter(|parts| !parts.is_empty()) else { continue };
        let inner = BString::from(parts.join(&b'/'));
        let is_wanted = from.join(path).symlink_metadata().is_ok() && target.stat(inner.as_bstr())?.is_none();
        if !is_wanted {
            continue;
        }
        if source.stat(inner.as_bstr())?.is_none() || is_blocked(&target, inner.as_bstr())? {
            notes.push(format!("{path} was not carried into the task's tree: a link or a file stands in its way"));
            continue;
        }
        let mut left = Left { files: FILES, is_whole: true };
        one(&source, &target, inner.as_bstr(), &mut left)?;
        notes.push(if left.is_whole {
            format!("{path} was carried into the task's tree")
        } else {
            format!(
                "{path} was carried into the task's tree only in part: it has more than {FILES} files, or is nested deeper than {DEEPEST}"
            )
        });
    }
    Ok(notes)
}

/// Whether something above a path is no directory.
fn is_blocked(root: &Root, path: &BStr) -> Result<bool> {
    let mut above = beneath::split(path).0.as_bstr();
    while !above.is_empty() {
        // What stands behind a link is not seen, so the outermost of them decides.
        if root.stat(above)?.is_some_and(|stat| beneath::kind_of(&stat) != FileType::Directory) {
            return Ok(true);
        }
        above = beneath::split(above).0.as_bstr();
    }
    Ok(false)
}

/// What may still be copied, and whether anything was left out.
struct Left {
    files: usize,
    is_whole: bool,
}

fn one(source: &Root, target: &Root, path: &BStr, left: &mut Left) -> Result<()> {
    let (above, name) = beneath::split(path);
    let fail = |errno: Errno| Error::io("open", &source.full(path))(errno.into());
    let (mut from, mut to) = (dup(source.fd(), source)?, dup(target.fd(), target)?);
    for part in above.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        from = beneath::open_dir(&from, part, false).map_err(fail)?;
        to = made(to.as_fd(), part).map_err(Error::io("make directory", &target.full(path)))?;
    }
    let full = source.full(path);
    copy((from.as_fd(), to.as_fd()), name, &full, (DEEPEST, left))
}

fn dup(fd: BorrowedFd<'_>, root: &Root) -> Result<std::os::fd::OwnedFd> {
    rustix::io::dup(fd).map_err(|errno| Error::io("open", root.path())(errno.into()))
}

/// A directory below another, made where it is missing.
fn made(at: BorrowedFd<'_>, name: &[u8]) -> std::io::Result<std::os::fd::OwnedFd> {
    match rustix::fs::mkdirat(at, name, Mode::from_raw_mode(0o777)) {
        Ok(()) | Err(Errno::EXIST) => Ok(beneath::open_dir(at, name, false)?),
        Err(errno) => Err(errno.into()),
    }
}

fn copy((from, to): (BorrowedFd<'_>, BorrowedFd<'_>), name: &[u8], full: &Path, (depth, left): (usize, &mut Left)) -> Result<()> {
    if left.files == 0 || depth == 0 {
        left.is_whole = false;
        return Ok(());
    }
    left.files -= 1;
    let fail = |errno: Errno| Error::io("copy", full)(errno.into());
    let Some(stat) = beneath::stat_at(from, name).map_err(fail)? else { return Ok(()) };
    match beneath::kind_of(&stat) {
        FileType::Symlink => {
            let leads = beneath::read_link(from, name).map_err(fail)?;
            rustix::fs::symlinkat(leads, to, name).map_err(fail)
        }
        FileType::Directory => {
            let dir = beneath::open_dir(from, name, false).map_err(fail)?;
            let copied = made(to, name).map_err(Error::io("make directory", full))?;
            for child in beneath::list(dir.as_fd()).map_err(Error::io("list", full))? {
                let full = full.join(std::ffi::OsStr::from_bytes(&child));
                copy((dir.as_fd(), copied.as_fd()), &child, &full, (depth - 1, left))?;
            }
            Ok(())
        }
        FileType::RegularFile => file((from, to), name).map_err(Error::io("copy", full)),
        _ => Ok(()),
    }
}

/// The system's copy shares the blocks where the file system can.
fn file((from, to): (BorrowedFd<'_>, BorrowedFd<'_>), name: &[u8]) -> std::io::Result<()> {
    let mut source = beneath::open_file(from, name, false)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut copied = std::fs::File::from(rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600))?);
    std::io::copy(&mut source, &mut copied)?;
    let bits = rustix::fs::fstat(&source)?.st_mode & 0o777;
    Ok(rustix::fs::fchmod(&copied, Mode::from_raw_mode(bits))?)
}

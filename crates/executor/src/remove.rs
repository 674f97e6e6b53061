//! Removing directories that commands have filled.
//!
//! They may be deeper than a stack and than there are descriptors, and their modes may forbid it. Links
//! are removed, never followed. Invariant: neither stack nor descriptors grow with the depth.

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Directories so deep below the removed one are moved up to it first.
const DEEP: usize = 64;

/// Removes a directory with all it holds.
///
/// # Errors
/// When there is none, or something in it can not be removed.
pub fn tree(path: &Path) -> std::io::Result<()> {
    let root = open(CWD, path)?;
    let mut moved = 0_u64;
    loop {
        let names = names(&root)?;
        if names.is_empty() {
            return rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR).map_err(Into::into);
        }
        for name in names {
            below((root.as_fd(), root.as_fd()), &name, 1, &mut moved)?;
        }
    }
}

fn below((root, at): (BorrowedFd<'_>, BorrowedFd<'_>), name: &CString, depth: usize, moved: &mut u64) -> Result<(), Errno> {
    let kind = match rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        other => FileType::from_raw_mode(other?.st_mode),
    };
    if kind != FileType::Directory {
        return rustix::fs::unlinkat(at, name, AtFlags::empty());
    }
    let dir = open(at, name)?;
    if depth >= DEEP {
        loop {
            *moved += 1;
            match rustix::fs::renameat_with(at, name, root, format!(".tinkerbell~deep-{moved}"), RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                other => return other,
            }
        }
    }
    for child in names(&dir)? {
        below((root, dir.as_fd()), &child, depth + 1, moved)?;
    }
    rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR)
}

/// Opens a directory and lets us write to it.
fn open(at: impl AsFd, path: impl rustix::path::Arg + Copy) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = match rustix::fs::openat(at.as_fd(), path, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            enter(at.as_fd(), path)?;
            rustix::fs::openat(at.as_fd(), path, flags, Mode::empty())?
        }
        other => other?,
    };
    rustix::fs::fchmod(&dir, Mode::RWXU)?;
    Ok(dir)
}

/// Lets us into a directory that its mode closes; never through a link that was put in its place.
fn enter(at: BorrowedFd<'_>, path: impl rustix::path::Arg + Copy) -> Result<(), Errno> {
    #[cfg(target_os = "linux")]
    {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let held = rustix::fs::openat(at, path, flags, Mode::empty())?;
        rustix::fs::chmod(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held)), Mode::RWXU)
    }
    #[cfg(not(target_os = "linux"))]
    {
        rustix::fs::chmodat(at, path, Mode::RWXU, AtFlags::SYMLINK_NOFOLLOW)
    }
}

fn names(dir: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
#[test]
fn a_tree_deeper_than_any_stack_is_removed_with_what_forbids_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().join("top");
    std::fs::create_dir_all(top.join("closed/inner")).unwrap();
    std::fs::write(top.join("closed/file"), "x").unwrap();
    std::fs::write(dir.path().join("outside"), "stays").unwrap();
    std::os::unix::fs::symlink(dir.path(), top.join("link")).unwrap();
    std::fs::set_permissions(top.join("closed"), std::fs::Permissions::from_mode(0o000)).unwrap();
    let mut at = open(CWD, &top).unwrap();
    for _ in 0..3_000 {
        rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
        at = open(&at, "d").unwrap();
    }
    drop(at);
    tree(&top).unwrap();
    assert!(!top.exists() && dir.path().join("outside").exists());
}

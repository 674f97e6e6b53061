//! How much disk a task's directories take, whatever a hostile command does to them.
//!
//! Directories are opened one beneath the other and links are never followed, so a walk stays where
//! it began. Each name counts for at least a kibibyte: many empty files take room too. Invariant: a
//! walk ends, and one that could not see everything says so.

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What each name counts at least: its inode and its place in a directory.
const NAME_BYTES: u64 = 1_024;
/// Deepest nesting that is walked; each level holds a descriptor.
const DEPTH: usize = 256;
/// Most names of one walk.
const NAMES: u64 = 4_000_000;
/// Most hard-linked files that are told apart.
const LINKS: usize = 200_000;

/// What a walk found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Taken {
    /// Bytes.
    pub bytes: u64,
    /// Whether something could not be looked into.
    pub is_partial: bool,
}

/// Walks these directories.
#[must_use]
pub fn walk(roots: &[PathBuf]) -> Taken {
    let mut walk = Walk::default();
    for root in roots {
        match open(CWD, root) {
            Ok(dir) => walk.directory(&dir, 0),
            Err(rustix::io::Errno::NOENT) => {}
            Err(_) => walk.taken.is_partial = true,
        }
    }
    walk.taken
}

fn open(at: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

#[derive(Default)]
struct Walk {
    taken: Taken,
    names: u64,
    linked: HashSet<(u64, u64)>,
}

impl Walk {
    fn directory(&mut self, dir: &OwnedFd, depth: usize) {
        let Ok(entries) = Dir::read_from(dir) else {
            self.taken.is_partial = true;
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            self.names += 1;
            if self.names > NAMES {
                self.taken.is_partial = true;
                return;
            }
            // What went away meanwhile takes nothing any more.
            let Ok(stat) = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            self.count(&stat);
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                continue;
            }
            match open(dir, name) {
                Ok(inner) if depth < DEPTH => self.directory(&inner, depth + 1),
                Err(rustix::io::Errno::NOENT) => {}
                _ => self.taken.is_partial = true,
            }
        }
    }

    #[allow(clippy::unnecessary_cast, reason = "the fields' types differ between architectures")]
    fn count(&mut self, stat: &rustix::fs::Stat) {
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if is_file && stat.st_nlink as u64 > 1 && self.linked.len() < LINKS && !self.linked.insert((stat.st_dev as u64, stat.st_ino as u64))
        {
            self.taken.bytes = self.taken.bytes.saturating_add(NAME_BYTES);
            return;
        }
        let blocks = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
        self.taken.bytes = self.taken.bytes.saturating_add(blocks.max(NAME_BYTES));
    }
}

/// What the file system below a path has in use: bytes, names counted as in a walk. It moves with
/// everybody's files, so it only tells when to look closer.
#[must_use]
pub fn in_use(path: &Path) -> u64 {
    let Ok(seen) = rustix::fs::statfs(path) else { return 0 };
    let part = |all: u64, free: u64| all.saturating_sub(free);
    let unit = u64::try_from(seen.f_bsize).unwrap_or(4_096);
    let names = part(seen.f_files, seen.f_ffree).saturating_mul(NAME_BYTES);
    part(seen.f_blocks, seen.f_bfree).saturating_mul(unit).saturating_add(names)
}

/// Bytes of files on the device of `place` that these processes hold open and nobody can find by name
/// any more.
#[must_use]
pub fn unnamed(pids: &[i32], place: &Path) -> Taken {
    use std::os::linux::fs::MetadataExt;
    let mut taken = Taken::default();
    let Ok(device) = std::fs::metadata(place).map(|meta| meta.st_dev()) else { return taken };
    let mut seen = HashSet::new();
    for pid in pids {
        let Ok(entries) = std::fs::read_dir(crate::process::place(*pid).join("fd")) else {
            taken.is_partial |= Path::new(&format!("/proc/{pid}")).exists();
            continue;
        };
        for entry in entries.flatten() {
            let Ok(meta) = std::fs::metadata(entry.path()) else { continue };
            let is_hidden = meta.is_file() && meta.st_nlink() == 0 && meta.st_dev() == device;
            if is_hidden && seen.insert(meta.st_ino()) {
                taken.bytes = taken.bytes.saturating_add(meta.st_blocks().saturating_mul(512));
            }
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_walk_counts_names_blocks_and_links_once_and_stays_inside() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("big"), vec![1; 3 << 20]).unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        let empty = walk(&[root.clone(), dir.path().join("missing")]);
        assert!(!empty.is_partial && empty.bytes >= 2 * NAME_BYTES && empty.bytes <= 32_768, "{empty:?}");
        std::os::unix::fs::symlink(outside.path(), root.join("link")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("big"), root.join("a/link")).unwrap();
        std::fs::write(root.join("a/b/one"), vec![1; 1 << 20]).unwrap();
        std::fs::hard_link(root.join("a/b/one"), root.join("two")).unwrap();
        let sparse = std::fs::File::create(root.join("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        for n in 0..50 {
            std::fs::write(root.join(format!("small{n}")), "").unwrap();
        }
        let full = walk(std::slice::from_ref(&root));
        let grown = full.bytes - empty.bytes;
        let expected = (1 << 20) + 50 * NAME_BYTES..(1 << 20) + (1 << 18);
        assert!(!full.is_partial && expected.contains(&grown), "{grown}");
    }

    #[test]
    fn what_can_not_be_seen_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let mut deep = dir.path().to_owned();
        for _ in 0..DEPTH + 2 {
            deep.push("d");
        }
        std::fs::create_dir_all(&deep).unwrap();
        assert!(walk(&[dir.path().to_owned()]).is_partial);
        let shut = tempfile::tempdir().unwrap();
        std::fs::create_dir(shut.path().join("shut")).unwrap();
        std::fs::set_permissions(shut.path().join("shut"), std::fs::Permissions::from_mode(0o000)).unwrap();
        // Root reads it all the same.
        assert_eq!(walk(&[shut.path().to_owned()]).is_partial, !rustix::process::geteuid().is_root());
        std::fs::set_permissions(shut.path().join("shut"), std::fs::Permissions::from_mode(0o700)).unwrap();
    }

    #[test]
    fn open_files_without_a_name_are_counted() {
        use std::io::Write as _;
        let dir = tempfile::tempdir().unwrap();
        let mut file = std::fs::File::create(dir.path().join("gone")).unwrap();
        file.write_all(&vec![7; 2 << 20]).unwrap();
        file.sync_all().unwrap();
        std::fs::remove_file(dir.path().join("gone")).unwrap();
        let own = rustix::process::getpid().as_raw_pid();
        let taken = unnamed(&[own], dir.path());
        assert!(taken.bytes >= 2 << 20 && !taken.is_partial, "{taken:?}");
    }
}

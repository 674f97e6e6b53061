//! Who could have written a file: its owner, its mode, and those of the directories above it.
//!
//! For files that steer what is allowed. Invariant: a file passes only if nobody but its owners could
//! have put other bytes under its name.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Write bits of group and others.
const SHARED: u32 = 0o022;
/// The write bit of others.
const OTHERS: u32 = 0o002;
/// In a sticky directory names belong to those who made them.
const STICKY: u32 = 0o1000;
/// Users of other user namespaces, of whom nothing is known. A container's own root directories can
/// belong to it.
const UNMAPPED: u32 = 65_534;

/// Why a file or directory could have been written by others than `owners`; `None` when it could not.
#[must_use]
pub fn shared(meta: &Metadata, owners: &[u32]) -> Option<String> {
    if !owners.contains(&meta.uid()) {
        let who = owners.iter().map(u32::to_string).collect::<Vec<_>>().join(" or ");
        return Some(format!("it belongs to user {}, not to {who}", meta.uid()));
    }
    (meta.mode() & SHARED != 0).then(|| format!("its mode {:o} lets others write it", meta.mode() & 0o7777))
}

/// As [`shared`], but a group that only its user is in may write: where each user has a group of the
/// same number, that is how files are made.
#[must_use]
pub fn shared_beyond_own_group(meta: &Metadata, owners: &[u32]) -> Option<String> {
    let is_own_group = meta.gid() == meta.uid() && meta.uid() != 0;
    if is_own_group && owners.contains(&meta.uid()) && meta.mode() & OTHERS == 0 {
        return None;
    }
    shared(meta, owners)
}

/// The same for the directories above the one in which a file stands, up to the root: there others
/// could put another directory in its place. Groups are not looked at, for `/usr/local` may have one.
#[must_use]
pub fn shared_above(dir: &Path, owners: &[u32]) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    dir.ancestors().skip(1).find_map(|above| {
        let meta = above.metadata().ok()?;
        let is_sticky = meta.mode() & STICKY != 0;
        if meta.mode() & OTHERS != 0 && !is_sticky {
            return Some(format!("{} above it can be written by anybody", above.display()));
        }
        let known = meta.uid() == 0 || meta.uid() == UNMAPPED || owners.contains(&meta.uid());
        (!known).then(|| format!("{} above it belongs to user {}", above.display(), meta.uid()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_and_the_directories_above_are_judged_by_owner_and_mode() {
        let root = tempfile::tempdir().unwrap();
        let uid = rustix::process::getuid().as_raw();
        let dir = root.path().join("a/b");
        std::fs::create_dir_all(&dir).unwrap();
        let mode = |path: &Path, mode: u32| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        let judged = |path: &Path, owners: &[u32]| shared(&path.metadata().unwrap(), owners);
        mode(&dir, 0o700);
        assert_eq!(judged(&dir, &[uid]), None);
        assert!(judged(&dir, &[uid + 1]).unwrap().contains("belongs to user"));
        for bad in [0o720, 0o702, 0o777] {
            mode(&dir, bad);
            assert!(judged(&dir, &[uid]).unwrap().contains("lets others write it"), "{bad:o}");
        }
        let above = root.path().join("a");
        mode(&above, 0o755);
        assert_eq!(shared_above(&dir, &[uid]), None);
        mode(&above, 0o1777);
        assert_eq!(shared_above(&dir, &[uid]), None, "sticky: nobody can rename what is not theirs");
        mode(&above, 0o777);
        assert!(shared_above(&dir, &[uid]).unwrap().ends_with("/a above it can be written by anybody"));
    }
}

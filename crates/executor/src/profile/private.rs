//! What of the system's configuration is for user 0 alone.
//!
//! A daemon of user 0 would show it to every command, because user 0 owns it. What others than the owner can
//! not read is credentials more often than not, and no list knows them all. Invariant: links are not
//! followed; nothing is hidden that every user of the host can read.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// How long in milliseconds what was found counts. A walk costs a millisecond or two, and a command should
/// start in fifteen.
const FRESH_MS: u64 = 30_000;
/// The system's configuration. Packages keep their credentials here; a walk through `/usr` or `/opt` would
/// cost seconds.
const ROOT: &str = "/etc";
/// Others may read.
const READ: u32 = 0o004;
/// Others may pass.
const PASS: u32 = 0o001;

/// What was found, and when.
#[derive(Debug, Default)]
pub struct Private {
    found: Mutex<Option<(u64, Vec<PathBuf>)>>,
}

impl Private {
    /// Files and directories of `/etc` that only their owner or a group may read; none where we are not user
    /// 0, because then they can not be read anyway. `now_ms` is monotonic time in milliseconds; what appeared
    /// in the last 30 s may be missing.
    pub fn of_system(&self, now_ms: u64) -> Vec<PathBuf> {
        if !rustix::process::geteuid().is_root() {
            return Vec::new();
        }
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        match &*found {
            Some((when, list)) if now_ms.saturating_sub(*when) < FRESH_MS => list.clone(),
            _ => {
                let list = below(Path::new(ROOT));
                *found = Some((now_ms, list.clone()));
                list
            }
        }
    }
}

/// What is private below a directory. A directory that others can not pass is one entry, and not walked.
fn below(dir: &Path) -> Vec<PathBuf> {
    let (mut found, mut rest) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = rest.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if is_private(&meta) {
                found.push(entry.path());
            } else if meta.is_dir() {
                rest.push(entry.path());
            }
        }
    }
    found
}

fn is_private(meta: &Metadata) -> bool {
    let wanted = if meta.is_dir() { PASS } else { READ };
    !meta.is_symlink() && meta.mode() & wanted == 0
}

#[cfg(test)]
mod tests {
    use super::below;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::PathBuf;

    #[test]
    fn what_others_can_not_read_is_found_and_nothing_else() {
        let etc = tempfile::tempdir().unwrap();
        let at = |name: &str| etc.path().join(name);
        for dir in ["open/deep", "listed", "closed/within", "passed"] {
            fs::create_dir_all(at(dir)).unwrap();
        }
        let files = [
            ("hosts", 0o644),
            ("key", 0o600),
            ("open/deep/group", 0o640),
            ("open/all", 0o444),
            ("closed/within/any", 0o644),
            ("passed/known", 0o644),
            ("passed/secret", 0o600),
        ];
        for (name, mode) in files {
            fs::write(at(name), name).unwrap();
            fs::set_permissions(at(name), Permissions::from_mode(mode)).unwrap();
        }
        for (dir, mode) in [("open", 0o755), ("listed", 0o744), ("closed", 0o750), ("passed", 0o711)] {
            fs::set_permissions(at(dir), Permissions::from_mode(mode)).unwrap();
        }
        symlink("key", at("link")).unwrap();
        let mut found = below(etc.path());
        found.sort();
        let wanted: Vec<PathBuf> = ["closed", "key", "listed", "open/deep/group", "passed/secret"].map(at).to_vec();
        assert_eq!(found, wanted);
    }
}

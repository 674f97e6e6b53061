//! Lock files that a killed process left behind.
//!
//! The git library locks a reference by a file beside it, and SIGKILL leaves that file for ever.
//! Invariant: a lock is removed only where nobody else can hold it, or after it has stood so long
//! that no living git holds it.

use crate::error::{Error, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A living git holds the lock of one reference for milliseconds.
const LIVES: Duration = Duration::from_secs(2);
/// How often a lock that may be alive is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The lock of a file.
fn lock_of(path: &Path) -> PathBuf {
    let mut name = OsString::from(path.as_os_str());
    name.push(".lock");
    name.into()
}

/// Removes the lock of a file that only this process writes, and only in the caller's turn.
///
/// # Errors
/// When it is there and can not be removed.
pub fn clear(path: &Path) -> Result<()> {
    let lock = lock_of(path);
    match std::fs::remove_file(&lock) {
        Err(error) if !matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            Err(Error::io("remove", &lock)(error))
        }
        _ => Ok(()),
    }
}

/// Removes the lock of a file that others may write too, once it has stood so long that nobody lives
/// who holds it; says whether the file is free now. Blocks for at most two seconds.
///
/// # Errors
/// When it can not be removed.
pub fn outlive(path: &Path) -> Result<bool> {
    let lock = lock_of(path);
    let rounds = LIVES.as_millis() / LOOK.as_millis() + 1;
    for _ in 0..rounds {
        let Ok(meta) = std::fs::symlink_metadata(&lock) else { return Ok(true) };
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        let age_s = now.tv_sec.saturating_sub(std::os::unix::fs::MetadataExt::mtime(&meta));
        // Whole seconds, so one more than what is wanted.
        if age_s > i64::try_from(LIVES.as_secs()).unwrap_or(i64::MAX) {
            break;
        }
        std::thread::sleep(LOOK);
    }
    clear(path).map(|()| true)
}

#[cfg(test)]
#[test]
fn a_lock_that_stands_is_outlived_and_a_free_file_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (file, lock) = (dir.path().join("main"), dir.path().join("main.lock"));
    assert!(outlive(&file).unwrap());
    std::fs::write(&lock, "").unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    std::fs::File::open(&lock).unwrap().set_modified(old).unwrap();
    assert!(outlive(&file).unwrap() && !lock.exists());
    std::fs::write(&lock, "").unwrap();
    clear(&file).unwrap();
    assert!(!lock.exists());
    clear(&file).unwrap();
}
